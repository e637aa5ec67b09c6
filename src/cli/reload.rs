//! Settings that are changed while the service runs: read anew on SIGHUP, and when they or the
//! files that they name are others than they were.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::config::{Marks, Reading, Settings, Source, TAKEN_UP};
use crate::metrics::Metrics;
use crate::telemetry::Telemetry;

/// How often the settings are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the settings of a service up.
pub(super) struct Reloader {
    source: Arc<Source>,
    metrics: Metrics,
    /// Of the settings in use.
    in_use: Marks,
    /// Of those that were judged last.
    judged: Marks,
    /// Why they were refused; empty where they were not.
    refused: String,
    /// Settings that wait for the next start.
    waiting: Vec<String>,
}

impl Reloader {
    /// For a service that has just started with the settings of these marks.
    pub(super) fn new(source: Source, in_use: Marks, metrics: Metrics) -> Reloader {
        let judged = in_use.clone();
        let (source, refused, waiting) = (Arc::new(source), String::new(), Vec::new());
        Reloader { source, metrics, in_use, judged, refused, waiting }
    }

    /// Looks at the settings, every five seconds and at each SIGHUP; never ends.
    pub(super) async fn keep(
        mut self,
        app: &mut App,
        telemetry: &Telemetry,
        hangups: &mut Signal,
    ) -> std::convert::Infallible {
        let mut rhythm = tokio::time::interval(LOOK);
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = hangups.recv() => true,
                _ = rhythm.tick() => false,
            };
            let source = Arc::clone(&self.source);
            // What was refused may be good by now, for what it names besides files.
            let again = is_asked || !self.refused.is_empty();
            let known = Some(self.judged.clone()).filter(|_| !again);
            let read = tokio::task::spawn_blocking(move || source.read(known.as_ref())).await;
            // The runtime is ending where it fails, and so is this.
            if let Ok(Some(reading)) = read {
                self.judge(reading, is_asked, app, telemetry).await;
            }
        }
    }

    async fn judge(
        &mut self,
        reading: Reading,
        is_asked: bool,
        app: &mut App,
        telemetry: &Telemetry,
    ) {
        let Reading { marks, settings } = reading;
        let changed = marks.changed_since(&self.in_use);
        let taken_up = |flag: &String| TAKEN_UP.contains(&flag.as_str());
        let (changed, waiting): (Vec<String>, Vec<String>) =
            changed.into_iter().partition(taken_up);
        let taken_up = match settings {
            Ok(settings) => take_up(settings, &changed, app, telemetry).await,
            Err(faults) => Err(faults.to_string()),
        };
        let is_news = is_asked || marks != self.judged;
        match taken_up {
            Ok(()) => {
                self.metrics.configuration_reload(true);
                self.in_use.catch_up(&changed, &marks);
                tell_changed(&changed, is_asked || !self.refused.is_empty());
                tell_waiting(&waiting, &self.waiting);
                self.waiting = waiting;
                self.refused = String::new();
            }
            Err(why) => {
                if is_news || why != self.refused {
                    self.metrics.configuration_reload(false);
                    tell_refused(&why);
                }
                self.refused = why;
            }
        }
        self.judged = marks;
        let current = self.refused.is_empty() && self.waiting.is_empty();
        self.metrics.configuration_current(current);
    }
}

/// Takes up what was changed, or tells why not, in a line for each reason.
async fn take_up(
    settings: Settings,
    changed: &[String],
    app: &mut App,
    telemetry: &Telemetry,
) -> Result<(), String> {
    let filter = settings.telemetry.filter.clone();
    app.reload(settings, changed).await.map_err(|error| error.to_string())?;
    if changed.iter().any(|flag| flag == "log") {
        // Checked with the other settings: it fails only where nothing is logged any more.
        telemetry.set_filter(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn tell_refused(why: &str) {
    for why in why.lines() {
        tracing::error!(why, "the settings are refused; those from before stay");
    }
}

fn tell_changed(changed: &[String], even_nothing: bool) {
    if !changed.is_empty() {
        tracing::info!(changed = changed.join(" "), "changed settings are in use");
    } else if even_nothing {
        tracing::info!("the settings are those in use");
    }
}

fn tell_waiting(waiting: &[String], before: &[String]) {
    if !waiting.is_empty() && waiting != before {
        tracing::warn!(changed = waiting.join(" "), "changed settings wait for the next start");
    }
}
