//! Cleans up: takes over what dead replicas held, ends what waits for subscriptions
//! that take nothing any more, forgets old answers, makes partitions and drops empty ones,
//! and tells the log how far the audit chains have come; publishes what the service itself
//! has to tell (`operational_event`); purges what is over (`purge`).

mod operational_event;
mod purge;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use self::operational_event::publish_operational_events;
pub use self::purge::Purge;

use crate::domain::timestamp::Timestamp;
use crate::lease::{LEASE, Lease};
use crate::metrics::Metrics;
use crate::routing::{Routing, Standing};
use crate::store::{Fence, Replica, Store, StoreError};

/// How often replicas are looked at.
const WATCH: Duration = Duration::from_millis(250);
/// A replica that has missed two heartbeats and whose session has been gone for
/// [`SESSION_GONE`] is dead.
const SILENCE: Duration = Duration::from_millis(1200);
const SESSION_GONE: Duration = Duration::from_secs(1);
/// After an outage of the database no session is there, and replicas take a moment to come
/// back: for so long a lost session says nothing.
const RETURN: Duration = Duration::from_secs(3);
/// How often the rest is looked after.
const SWEEP: Duration = Duration::from_secs(1);
const HOURLY: Duration = Duration::from_hours(1);
const MINUTELY: Duration = Duration::from_mins(1);
/// How often the log is told the heads of the audit chains, and how many of them at once.
const EXPORT: Duration = Duration::from_mins(5);
const HEADS_AT_ONCE: u32 = 1000;
/// Longer than a transaction lasts: what it wrote shows at its end, with an earlier time.
const TRANSACTION_MAX: Duration = Duration::from_secs(20);
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

/// A replica under observation.
struct Suspect {
    heartbeat_at: Timestamp,
    /// Since when it has shown that heartbeat.
    silent: Instant,
    /// When its session was last seen, or the observation began.
    unheld: Instant,
}

impl Suspect {
    fn new(replica: Replica) -> Self {
        let now = Instant::now();
        Suspect { heartbeat_at: replica.heartbeat_at, silent: now, unheld: now }
    }

    /// `back`: when the database was back after it had been away.
    fn is_dead(&self, back: Option<Instant>) -> bool {
        let silent = self.silent.elapsed();
        let gone = SILENCE <= silent && SESSION_GONE <= self.unheld.elapsed();
        let returned = back.is_none_or(|back| RETURN <= back.elapsed());
        (gone && returned) || LEASE <= silent
    }
}

/// What is known of the others.
#[derive(Default)]
struct Watch {
    suspects: HashMap<Fence, Suspect>,
    /// The database did not answer the last time.
    away: bool,
    /// When it was back after it had been away.
    back: Option<Instant>,
}

impl Janitor {
    /// Works until `stop`. Never fails: what could not be done is tried again.
    pub async fn run(self, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(WATCH);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watch = Watch::default();
        let mut swept = Instant::now();
        let mut hourly = None;
        // Those that moved on before the start may not have been told by anybody.
        let mut told = self.lease.now().minus(2 * EXPORT);
        let mut exported: Option<Instant> = None;
        // The engine has made them at its start.
        let mut partitions = Instant::now() + HOURLY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            log(self.watch(&mut watch).await, "replicas");
            if SWEEP <= swept.elapsed() {
                swept = Instant::now();
                log(self.end_waiting().await, "deliveries of ended subscriptions");
            }
            if partitions <= Instant::now() {
                let made = self.store.make_partitions().await;
                partitions = Instant::now() + if made.is_ok() { HOURLY } else { MINUTELY };
                if let Err(error) = made {
                    tracing::warn!(%error, "cannot make partitions; trying again");
                }
            }
            if exported.is_none_or(|last| EXPORT <= last.elapsed()) {
                exported = Some(Instant::now());
                log(self.export_heads(&mut told).await, "heads of audit chains");
            }
            if hourly.is_none_or(|last: Instant| HOURLY <= last.elapsed()) {
                hourly = Some(Instant::now());
                log(self.store.purge_request_log().await.map(drop), "old answers");
                log(self.store.drop_partitions().await, "empty partitions");
            }
        }
    }

    /// Takes over replicas that are dead: soon where the session is gone too, else when
    /// the lease has ended. Silence is measured by this process's own clock, from one
    /// look to the next: an outage of the database or a step of its clock is nobody's
    /// death.
    async fn watch(&self, watch: &mut Watch) -> Result<(), StoreError> {
        let replicas = match self.store.replicas().await {
            Ok(replicas) => replicas,
            Err(error) => {
                watch.suspects.clear();
                watch.away = true;
                return Err(error);
            }
        };
        if std::mem::take(&mut watch.away) {
            watch.back = Some(Instant::now());
        }
        watch.suspects.retain(|fence, _| replicas.iter().any(|replica| replica.fence == *fence));
        for replica in replicas {
            if replica.fence == self.lease.fence() {
                continue;
            }
            let suspect =
                watch.suspects.entry(replica.fence).or_insert_with(|| Suspect::new(replica));
            if replica.heartbeat_at != suspect.heartbeat_at {
                *suspect = Suspect { unheld: suspect.unheld, ..Suspect::new(replica) };
            }
            if replica.session_held {
                suspect.unheld = Instant::now();
            }
            if !suspect.is_dead(watch.back) {
                continue;
            }
            let number = replica.fence.replica;
            match self.store.take_over(&replica).await {
                Ok(Some(deliveries)) => {
                    tracing::warn!(number, deliveries, "took over what a dead replica held");
                    self.metrics.taken_over(deliveries);
                }
                Ok(None) => {}
                // Whatever is wrong with this one, the others' turn comes.
                Err(error) => tracing::debug!(%error, number, "cannot take over; trying again"),
            }
        }
        Ok(())
    }

    /// Ends waiting deliveries of subscriptions that are deleted, inactive or disabled:
    /// for a moment, so that replicas are watched meanwhile. The next sweep goes on, in
    /// another order: one that fails slowly each time must not keep the others waiting.
    async fn end_waiting(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        let mut all = self.store.waiting().await?;
        fastrand::shuffle(&mut all);
        for waiting in all {
            let key = waiting.subscription;
            let takes = |standing| matches!(standing, Standing::Sendable | Standing::Held);
            if self.routing.route(key).is_some_and(|route| takes(route.standing())) {
                continue;
            }
            loop {
                let ended = self.store.end_waiting(key, END_BATCH).await;
                if WATCH <= began.elapsed() {
                    return ended.map(drop);
                }
                match ended {
                    Ok(count) if count == END_BATCH as usize => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(%error, "cannot end what waits; trying again");
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Janitor {
    /// Tells the log how far the audit chains have come that have moved on since `told`.
    /// Whoever keeps the log can hold the chains against it, also where somebody has made a
    /// chain anew from its start to its head.
    async fn export_heads(&self, told: &mut Timestamp) -> Result<(), StoreError> {
        let now = self.lease.now();
        let (mut time, mut chain) = (*told, String::new());
        loop {
            let heads = self.store.audit_heads((time, &chain), HEADS_AT_ONCE).await?;
            for head in &heads {
                tracing::info!(head = %format_args!("{}:{}", head.chain, head.point), "audit head");
            }
            match heads.last() {
                Some(last) if heads.len() == HEADS_AT_ONCE as usize => {
                    (time, chain) = (last.update_time, last.chain.key().to_owned());
                }
                Some(_) | None => {
                    *told = now.minus(TRANSACTION_MAX);
                    return Ok(());
                }
            }
        }
    }
}

fn log(result: Result<(), StoreError>, what: &str) {
    if let Err(error) = result {
        tracing::debug!(%error, what, "cannot clean up; trying again");
    }
}
