//! Endpoints that keep failing: known in memory as the database knew them a moment ago, so
//! that a success which ends a streak is recognised, and all others cost nothing.
//!
//! One task brings that up to date, has their owners warned, and switches those off that
//! have failed for too long. Every replica that sends has such a task; what they do is done
//! once, in the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Parts;
use super::switch_off::switch_off;
use crate::domain::failure_streak::{Judgement, Mark, Stage};
use crate::domain::id::SubscriptionKey;
use crate::domain::operational_event::OperationalType;
use crate::routing::Route;
use crate::store::{DisableCause, FailingEndpoint, HEAD_START, Settlement, StoreError};

/// How often the database is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For so long what was seen is believed. Without it every success is taken for the end of
/// a streak, which costs a statement.
const FRESH: Duration = Duration::from_secs(3);
/// How often the sending clock is set.
const CLOCK: Duration = Duration::from_secs(10);

// Else a success that this process takes for none of a streak's could lie in its time.
const _: () = assert!(FRESH.as_millis() < HEAD_START.as_millis());

/// The endpoints that fail. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct FailureStreaks {
    view: Arc<Mutex<View>>,
}

/// What was seen, and written since.
#[derive(Debug, Default)]
pub(super) struct View {
    /// When the last look that succeeded began.
    looked: Option<Instant>,
    /// The version of each subscription that fails.
    versions: HashMap<SubscriptionKey, i64>,
}

impl View {
    /// What of a mark is worth writing down: the end of a streak that there may be, the
    /// beginning of one, and what is to be counted.
    pub(super) fn worth_writing(&self, key: SubscriptionKey, version: i64, mark: Mark) -> Mark {
        let known = self.versions.get(&key);
        match mark {
            Mark::Success if known.is_none() && self.is_fresh() => Mark::Nothing,
            Mark::Failure if known == Some(&version) && self.is_fresh() => Mark::Nothing,
            Mark::Nothing | Mark::Success | Mark::Failure | Mark::Exhausted => mark,
        }
    }

    fn is_fresh(&self) -> bool {
        self.looked.is_some_and(|looked| looked.elapsed() < FRESH)
    }

    fn written(&mut self, one: &Settlement) {
        let key = one.delivery.subscription;
        match one.note.mark {
            Mark::Nothing => {}
            // A late one of an earlier version has ended nothing.
            Mark::Success => {
                if self.versions.get(&key).is_some_and(|version| *version <= one.note.version) {
                    self.versions.remove(&key);
                }
            }
            Mark::Failure | Mark::Exhausted => {
                let version = self.versions.entry(key).or_insert(one.note.version);
                *version = one.note.version.max(*version);
            }
        }
    }
}

impl FailureStreaks {
    /// What is known. Keep the guard for a moment only.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // A map of numbers has no half-written state that a panic could leave behind.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch is in the database.
    pub(super) fn written(&self, batch: &[Settlement]) {
        let mut view = self.view();
        for one in batch {
            view.written(one);
        }
    }

    fn seen(&self, began: Instant, failing: &[FailingEndpoint]) {
        let versions = failing.iter().map(|one| (one.subscription, one.version)).collect();
        *self.view() = View { looked: Some(began), versions };
    }
}

/// Looks after the endpoints that fail until `stop`. Never fails: what could not be done is
/// tried again.
pub(super) async fn watch(parts: &Parts, stop: CancellationToken) {
    let mut rhythm = tokio::time::interval(LOOK);
    rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut clock_set = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rhythm.tick() => {}
        }
        if clock_set.is_none_or(|set: Instant| CLOCK <= set.elapsed()) {
            match parts.store.keep_sending_clock().await {
                Ok(()) => clock_set = Some(Instant::now()),
                Err(error) => tracing::debug!(%error, "the sending clock stands still for now"),
            }
        }
        if let Err(error) = look(parts).await {
            tracing::debug!(%error, "cannot look at failing endpoints; trying again");
        }
    }
}

async fn look(parts: &Parts) -> Result<(), StoreError> {
    let began = Instant::now();
    let failing = parts.store.failing_endpoints().await?;
    parts.failure_streaks.seen(began, &failing);
    parts.metrics.subscriptions_failing(failing.len());
    let mut over = Vec::new();
    for one in &failing {
        match parts.routing.route(one.subscription) {
            Some(route) if route.subscription.version == one.version => {
                if let Err(error) = judge(parts, &route, one).await {
                    tracing::debug!(%error, "cannot judge a failing endpoint; trying again");
                }
            }
            // Failed after a change that this replica has not heard of yet.
            Some(route) if route.subscription.version < one.version => {}
            Some(_) | None => over.push((one.subscription, one.version)),
        }
    }
    parts.store.forget_streaks(&over).await
}

async fn judge(parts: &Parts, route: &Route, failing: &FailingEndpoint) -> Result<(), StoreError> {
    let Some(rule) = **parts.auto_disable.load() else { return Ok(()) };
    match rule.judge(&failing.streak) {
        Judgement::Wait => Ok(()),
        Judgement::Warn(stage) => warn(parts, route, failing, stage).await,
        Judgement::Disable => {
            switch_off(parts, &route.subscription, DisableCause::Failing(rule)).await
        }
    }
}

async fn warn(
    parts: &Parts,
    route: &Route,
    failing: &FailingEndpoint,
    stage: Stage,
) -> Result<(), StoreError> {
    let organization = &route.subscription.organization;
    let audience = parts.routing.audience(route.key(), OperationalType::SubscriptionFailing);
    if parts.store.warn(organization, failing, stage, audience.as_ref()).await? {
        tracing::info!(
            subscription = parts.store.ids().subscription(route.key()),
            percent = stage.percent(),
            "a receiver has had no success for long; its subscription will be disabled"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure_streak::FailureStreak;
    use crate::domain::id::{DeliveryKey, EventKey, OrganizationId};
    use crate::domain::timestamp::Timestamp;
    use crate::store::{EndpointNote, Next};

    const KEY: SubscriptionKey = SubscriptionKey(1);

    fn failing(version: i64) -> FailingEndpoint {
        let streak = FailureStreak {
            begin_time: Timestamp(0),
            failing: Duration::ZERO,
            exhausted: 0,
            told: 0,
        };
        FailingEndpoint { subscription: KEY, version, streak }
    }

    fn settled(version: i64, mark: Mark) -> Settlement {
        Settlement {
            delivery: DeliveryKey { event: EventKey(1), subscription: KEY },
            organization: OrganizationId::stored("clinic"),
            claim: 0,
            in_due: false,
            attempt: None,
            attempts: 1,
            next: Next::Release,
            note: EndpointNote { mark, version, audience: None },
        }
    }

    #[test]
    fn what_was_written_is_known_before_the_next_look() {
        let streaks = FailureStreaks::default();
        streaks.seen(Instant::now(), &[]);
        let worth = |version, mark| streaks.view().worth_writing(KEY, version, mark);
        streaks.written(&[settled(7, Mark::Failure)]);
        assert_eq!(worth(7, Mark::Failure), Mark::Nothing);
        assert_eq!(worth(7, Mark::Success), Mark::Success);
        streaks.written(&[settled(6, Mark::Success), settled(6, Mark::Exhausted)]);
        assert_eq!(worth(7, Mark::Success), Mark::Success, "what is late has ended nothing");
        streaks.written(&[settled(7, Mark::Success)]);
        assert_eq!(worth(7, Mark::Success), Mark::Nothing);
    }

    #[test]
    fn a_success_is_written_where_a_streak_may_be_and_a_failure_where_none_is() {
        let streaks = FailureStreaks::default();
        let worth = |version, mark| streaks.view().worth_writing(KEY, version, mark);
        assert_eq!(worth(7, Mark::Success), Mark::Success, "nobody has looked yet");
        streaks.seen(Instant::now(), &[]);
        assert_eq!(worth(7, Mark::Success), Mark::Nothing, "all is well");
        assert_eq!(worth(7, Mark::Failure), Mark::Failure, "it begins");
        streaks.seen(Instant::now(), &[failing(7)]);
        assert_eq!(worth(7, Mark::Failure), Mark::Nothing, "it has begun");
        assert_eq!(worth(8, Mark::Failure), Mark::Failure, "another one begins");
        assert_eq!(worth(7, Mark::Exhausted), Mark::Exhausted, "each counts");
        assert_eq!(worth(7, Mark::Success), Mark::Success, "it ends");
        assert_eq!(worth(7, Mark::Nothing), Mark::Nothing);
        let old = Instant::now().checked_sub(FRESH).expect("the machine runs for longer");
        streaks.seen(old, &[]);
        assert_eq!(worth(7, Mark::Success), Mark::Success, "nobody has looked lately");
    }
}
