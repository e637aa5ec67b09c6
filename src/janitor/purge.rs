//! Takes away what is over, once a minute: what events carry, then all that is known of them,
//! and what the audit log tells of longer ago than anybody asks.
//!
//! A task of its own: replicas are watched meanwhile. It goes in small portions, each in one
//! transaction, and rests after each for as long as it took, so that commits and
//! settlements have at least half of the database.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::domain::id::OrganizationId;
use crate::domain::retention::Stage;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::store::{Purged, Store, StoreError};

/// How often it is looked what is over.
const EVERY: Duration = Duration::from_mins(1);
/// Events of one portion, or audit entries.
const PORTION: u32 = 1000;
/// The same on SQLite, where everybody who writes waits for it.
const PORTION_SQLITE: u32 = 100;
/// How long audit entries are kept: six years (45 CFR 164.316(b)(2)(i)).
const AUDIT_KEPT: Duration = Duration::from_hours(24 * 2192);

/// What the purge works with.
#[derive(Clone, Debug)]
pub struct Purge {
    /// What it purges; not over the connections of commits and settlements.
    pub store: Store,
    /// Tells the time.
    pub lease: Lease,
    /// Counts.
    pub metrics: Metrics,
}

/// Which events a portion is taken from.
enum Place {
    /// Those that nobody has looked at; of all organizations without times of their own, or
    /// of one.
    Cursor(Option<OrganizationId>),
    /// Those of one organization that were passed.
    Passed(OrganizationId),
}

impl Purge {
    /// Works until `stop`. Never fails: what could not be done is tried again.
    pub async fn run(self, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(EVERY);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // When the last one began that came to its end.
        let mut whole = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            let began = Instant::now();
            match self.round(&stop).await {
                Ok(()) => whole = began,
                Err(error) => {
                    // What has been over since then may still be there.
                    self.metrics.purge_late_at_least(whole.elapsed());
                    tracing::warn!(%error, "cannot purge what is over; trying again in a minute");
                }
            }
        }
    }

    async fn round(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut late = Duration::ZERO;
        for stage in Stage::ALL {
            let own = self.store.retention_settings().await?.own;
            let mut places: Vec<Place> =
                own.into_keys().map(|one| Place::Cursor(Some(one))).collect();
            places.push(Place::Cursor(None));
            places.extend(self.store.purge_waiting(stage).await?.into_iter().map(Place::Passed));
            for place in &places {
                let purged = self.drain(stage, place, stop).await?;
                late = late.max(purged.late);
            }
        }
        self.metrics.purge_late(late);
        self.forget_audit(stop).await?;
        // Whether anything was purged or not: a round before may have failed right here.
        self.store.truncate_log().await
    }

    fn portion(&self) -> u32 {
        if self.store.is_shared() { PORTION } else { PORTION_SQLITE }
    }

    async fn forget_audit(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let before = self.lease.now().minus(AUDIT_KEPT);
        loop {
            let began = Instant::now();
            let purged = self.store.purge_audit(before, self.portion() as usize).await?;
            if purged == 0 || stop.is_cancelled() {
                return Ok(());
            }
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// Takes portions until nothing is left there, or until `stop`. Tells what they were
    /// together.
    async fn drain(
        &self,
        stage: Stage,
        place: &Place,
        stop: &CancellationToken,
    ) -> Result<Purged, StoreError> {
        let limit = self.portion();
        let mut all = Purged::default();
        loop {
            let began = Instant::now();
            let portion = match place {
                Place::Cursor(organization) => {
                    self.store.purge_passing(organization.as_ref(), stage, limit).await?
                }
                Place::Passed(organization) => {
                    self.store.purge_again(organization, stage, limit).await?
                }
            };
            self.metrics.purged(stage, portion.events);
            all.events += portion.events;
            all.late = all.late.max(portion.late);
            // Now, since a purge that does not keep up never ends.
            self.metrics.purge_late_at_least(all.late);
            if !portion.more || stop.is_cancelled() {
                return Ok(all);
            }
            tokio::time::sleep(began.elapsed()).await;
        }
    }
}
