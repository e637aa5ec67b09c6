//! Metrics sent to a collector at intervals, and once more at the end.
//!
//! Each time it is read what the page would say, so that counting costs what it costs without.

use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::Metrics;

/// A task that pushes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Push {
    stop: CancellationToken,
    task: AbortOnDropHandle<bool>,
}

impl Push {
    /// The first one is one interval from now.
    pub(super) fn start(exporter: MetricExporter, metrics: Metrics, interval: Duration) -> Push {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = repeat(&exporter, &metrics, ticks) => {}
                // Also one that is under way is given up: it holds older values.
                () = stopped.cancelled() => {}
            }
            exporter.export(&metrics.collect()).await.is_ok()
        });
        Push { stop, task: AbortOnDropHandle::new(task) }
    }

    /// Pushes for the last time. Whether that arrived.
    pub(super) async fn finish(self) -> bool {
        self.stop.cancel();
        self.task.await.unwrap_or(false)
    }
}

/// Only the first of several failures is told: a collector may be away for long.
async fn repeat(exporter: &MetricExporter, metrics: &Metrics, mut ticks: Interval) {
    let mut failing = false;
    loop {
        ticks.tick().await;
        let pushed = exporter.export(&metrics.collect()).await;
        match &pushed {
            Ok(()) if failing => tracing::info!("metrics reach the collector again"),
            Err(error) if !failing => tracing::warn!(%error, "metrics do not reach the collector"),
            Ok(()) | Err(_) => {}
        }
        failing = pushed.is_err();
    }
}
