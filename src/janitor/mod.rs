//! Cleans up: takes over what dead replicas held, ends what waits for subscriptions
//! that take nothing any more, forgets old answers, makes partitions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::domain::delivery::DeadReason;
use crate::lease::{LEASE, Lease};
use crate::metrics::Metrics;
use crate::routing::{Routing, Standing};
use crate::store::{Fence, Replica, Store, StoreError};

/// How often replicas are looked at.
const WATCH: Duration = Duration::from_millis(500);
/// A replica whose session is gone and that has been silent this long is dead.
const SILENCE: Duration = Duration::from_secs(1);
/// How often the rest is looked after.
const SWEEP: Duration = Duration::from_secs(1);
const HOURLY: Duration = Duration::from_hours(1);
/// Waiting deliveries ended in one transaction.
const END_BATCH: u32 = 1000;

/// What the janitor works with.
#[derive(Clone, Debug)]
pub struct Janitor {
    /// What it cleans.
    pub store: Store,
    /// Who it is, so as not to take itself over.
    pub lease: Lease,
    /// What is known of each subscription.
    pub routing: Routing,
    /// Counts.
    pub metrics: Metrics,
}

impl Janitor {
    /// Works until `stop`. Never fails: what could not be done is tried again.
    pub async fn run(self, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(WATCH);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut suspects = HashMap::new();
        let mut swept = Instant::now();
        let mut hourly = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            log(self.watch(&mut suspects).await, "replicas");
            if SWEEP <= swept.elapsed() {
                swept = Instant::now();
                log(self.end_waiting().await, "deliveries of ended subscriptions");
            }
            if hourly.is_none_or(|last: Instant| HOURLY <= last.elapsed()) {
                hourly = Some(Instant::now());
                log(self.store.make_partitions().await, "partitions");
                log(self.store.purge_request_log().await.map(drop), "old answers");
            }
        }
    }

    /// Takes over replicas that are dead: at once after [`SILENCE`] where the session
    /// is gone, else when the lease has ended. `suspects`: since when a replica's
    /// session has been gone and at which heartbeat.
    async fn watch(
        &self,
        suspects: &mut HashMap<Fence, (Instant, Replica)>,
    ) -> Result<(), StoreError> {
        let replicas = self.store.replicas().await?;
        suspects.retain(|fence, _| replicas.iter().any(|replica| replica.fence == *fence));
        for replica in replicas {
            if replica.fence == self.lease.fence() {
                continue;
            }
            let silent_for = replica.now.since(replica.heartbeat_at);
            let (since, first) = suspects.entry(replica.fence).or_insert((Instant::now(), replica));
            if replica.session_held || replica.heartbeat_at != first.heartbeat_at {
                (*since, *first) = (Instant::now(), replica);
            }
            let gone = !replica.session_held && SILENCE <= since.elapsed() && SILENCE <= silent_for;
            if !gone && silent_for < LEASE {
                continue;
            }
            if let Some(deliveries) = self.store.take_over(&replica).await? {
                let number = replica.fence.replica;
                tracing::warn!(number, deliveries, "took over what a dead replica held");
                self.metrics.taken_over(deliveries);
            }
        }
        Ok(())
    }

    /// Ends the waiting deliveries of subscriptions that are deleted, inactive or
    /// disabled.
    async fn end_waiting(&self) -> Result<(), StoreError> {
        for waiting in self.store.waiting().await? {
            let key = waiting.subscription;
            let (organization, dead) = match self.routing.route(key) {
                Some(route) => match route.standing() {
                    Standing::Sendable | Standing::Held => continue,
                    Standing::Over(dead) => (route.subscription.organization.clone(), dead),
                },
                None => match self.store.deleted_organization(key).await? {
                    Some(organization) => (organization, None::<DeadReason>),
                    None => continue,
                },
            };
            while self.store.end_waiting(&organization, key, dead, END_BATCH).await?
                == END_BATCH as usize
            {}
        }
        Ok(())
    }
}

fn log(result: Result<(), StoreError>, what: &str) {
    if let Err(error) = result {
        tracing::debug!(%error, what, "cannot clean up; trying again");
    }
}
