//! How much an organization may have open. One that has more publishes nothing until its
//! receivers have taken some: its backlog would fill the disk of all.
//!
//! What is open is counted now and then, by every replica that takes events in, and never
//! when something is published: what comes in between two counts is let in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::domain::id::OrganizationId;
use crate::metrics::Metrics;
use crate::store::{OpenDeliveries, Store, StoreError};

/// How often is counted, ...
const COUNT: Duration = Duration::from_secs(5);
/// ... or so much more seldom that it takes the n-th part of the time ...
const SHARE: u32 = 50;
/// ... but not more seldom than this.
const COUNT_MAX: Duration = Duration::from_mins(1);
/// A count that failed so often in a row is told of, and what was known before is forgotten:
/// nobody is refused for what may be over.
const FAILURES_MAX: u32 = 5;
/// Who was full may publish again with this part of what may be open, so that nobody goes
/// in and out with each delivery: nine tenths.
const FREE_AGAIN: (u64, u64) = (9, 10);

/// Who has as much open as may be. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Backlogs {
    /// Deliveries of one organization.
    most: u64,
    full: Arc<ArcSwap<HashSet<OrganizationId>>>,
}

impl Backlogs {
    /// Each organization may have so many deliveries open.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Backlogs { most: most.into(), full: Arc::default() }
    }

    /// Whether the last count found as much as may be.
    pub(super) fn is_full(&self, organization: &OrganizationId) -> bool {
        self.full.load().contains(organization)
    }

    /// Counts until `stop`. Never fails: what could not be counted is counted again.
    pub async fn count(self, store: Store, metrics: Metrics, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let counted = tokio::select! {
                () = stop.cancelled() => return,
                counted = store.open_deliveries(self.least()) => counted,
            };
            match counted {
                Ok(open) => {
                    failures = 0;
                    self.found(&open, &metrics);
                }
                Err(error) => {
                    failures += 1;
                    self.failed(failures, &error, &metrics);
                }
            }
            let pause = (SHARE * began.elapsed()).clamp(COUNT, COUNT_MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Who has fewer is not full, whatever was before.
    fn least(&self) -> u64 {
        let (part, whole) = FREE_AGAIN;
        (self.most * part).div_ceil(whole)
    }

    fn found(&self, open: &[OpenDeliveries], metrics: &Metrics) {
        let before = self.full.load_full();
        let is_full =
            |one: &&OpenDeliveries| self.most <= one.count || before.contains(&one.organization);
        let full = open.iter().filter(is_full).map(|one| one.organization.clone()).collect();
        self.become_full(full, metrics);
    }

    fn failed(&self, failures: u32, error: &StoreError, metrics: &Metrics) {
        if failures == FAILURES_MAX {
            tracing::warn!(%error, "cannot count open deliveries; nobody is refused for them");
            self.become_full(HashSet::new(), metrics);
        } else {
            tracing::debug!(%error, "cannot count open deliveries; trying again");
        }
    }

    fn become_full(&self, full: HashSet<OrganizationId>, metrics: &Metrics) {
        metrics.backlogs_full(full.len());
        let full = Arc::new(full);
        let before = self.full.swap(Arc::clone(&full));
        for organization in full.difference(&before) {
            tracing::warn!(
                organization = organization.as_str(),
                most = self.most,
                "an organization has as many open deliveries as it may; it publishes no more"
            );
        }
        for organization in before.difference(&full) {
            let organization = organization.as_str();
            tracing::info!(organization, "an organization may publish again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(counts: &[(&str, u64)]) -> Vec<OpenDeliveries> {
        let one = |(name, count): &(&str, u64)| OpenDeliveries {
            organization: OrganizationId::stored(name),
            count: *count,
        };
        counts.iter().map(one).collect()
    }

    #[test]
    fn who_is_full_stays_so_until_there_is_some_room() {
        let (backlogs, metrics) = (Backlogs::new(100), Metrics::new());
        let [one, other] = ["one", "other"].map(OrganizationId::stored);
        assert_eq!(backlogs.least(), 90);
        assert!(!backlogs.is_full(&one), "nobody has counted yet");
        for (counts, full) in [
            (&[("one", 99), ("other", 100)][..], [false, true]),
            (&[("one", 100), ("other", 90)], [true, true]),
            (&[("one", 120)], [true, false]),
            (&[("other", 99)], [false, false]),
        ] {
            backlogs.found(&open(counts), &metrics);
            assert_eq!([&one, &other].map(|name| backlogs.is_full(name)), full, "{counts:?}");
            let gauge = full.iter().filter(|full| **full).count();
            let line = format!("\nhookward_organizations_backlog_full {gauge}\n");
            assert!(metrics.render().contains(&line), "{counts:?}");
        }
    }

    #[test]
    fn nobody_is_refused_for_what_cannot_be_counted_any_more() {
        let (backlogs, metrics) = (Backlogs::new(100), Metrics::new());
        let one = OrganizationId::stored("one");
        backlogs.found(&open(&[("one", 100)]), &metrics);
        for failures in 1..FAILURES_MAX {
            backlogs.failed(failures, &StoreError::Unavailable("away".into()), &metrics);
            assert!(backlogs.clone().is_full(&one), "after {failures}");
        }
        backlogs.failed(FAILURES_MAX, &StoreError::Unavailable("away".into()), &metrics);
        assert!(!backlogs.is_full(&one));
    }
}
