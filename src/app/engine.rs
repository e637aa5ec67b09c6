//! Everything between the two doors: intake, routing, dispatcher, lease, janitor,
//! wired together and taken down in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::canary::{Canary, Receiver};
use crate::dispatcher::{self, Dispatcher};
use crate::domain::failure_streak::Rule;
use crate::domain::profile::Profiles;
use crate::egress::Egress;
use crate::intake::{self, Batcher, HandOver, Intake};
use crate::janitor::{self, Janitor, Purge};
use crate::lease::{self, Lease};
use crate::metrics::Metrics;
use crate::permits::{Circuits, InFlightLimits, QueueSlots, QueueSlotsLimits};
use crate::routing::Routing;
use crate::store::{Store, StoreError};

/// Deliveries that may wait in memory: for one endpoint, and for all. Enough to keep a
/// fast receiver busy between two claims, few enough to be sent within a second or two.
const SLOTS: QueueSlotsLimits = QueueSlotsLimits {
    endpoint_rows: 8192,
    endpoint_bytes: 16 * 1024 * 1024,
    replica_rows: 65_536,
    replica_bytes: 128 * 1024 * 1024,
};
/// Nothing is claimed by a commit of a replica that does not send.
const NO_SLOTS: QueueSlotsLimits =
    QueueSlotsLimits { endpoint_rows: 0, endpoint_bytes: 0, replica_rows: 0, replica_bytes: 0 };

/// How long outcomes may take to be written after the grace period of the requests, and
/// the lease to be given up after that: what is not written then is sent again by another
/// replica.
const SETTLE_GRACE: Duration = Duration::from_secs(5);

/// The service met a fault of its own (`EX_SOFTWARE`).
const EXIT_SOFTWARE: i32 = 70;

/// What the engine is made from.
pub(super) struct Settings {
    pub(super) intake: intake::Settings,
    pub(super) in_flight: InFlightLimits,
    /// When a receiver that keeps failing is switched off; `None`: never.
    pub(super) auto_disable: Option<Rule>,
    /// Whether this process sends.
    pub(super) dispatches: bool,
    /// From one probe of the canary to the next; `None`: this process makes none.
    pub(super) canary_interval: Option<Duration>,
    /// Where the canary's deliveries are taken in, if they are here.
    pub(super) canary_listener: Option<TcpListener>,
}

/// The running engine.
pub(super) struct Engine {
    pub(super) store: Store,
    pub(super) lease: Lease,
    pub(super) routing: Routing,
    pub(super) intake: Intake,
    /// How this process gets on with receivers; `None` where it does not send.
    pub(super) circuits: Option<Circuits>,
    dispatcher: Option<Dispatcher>,
    /// Each ends one stage of the shutdown.
    stop_taking: CancellationToken,
    stop_settling: CancellationToken,
    stop_keeping: CancellationToken,
    taking: Vec<JoinHandle<()>>,
    settling: Vec<JoinHandle<()>>,
    keeping: Vec<JoinHandle<()>>,
}

/// What must be so before the first event is taken.
async fn make_ready(store: &Store) -> Result<(), StoreError> {
    if !store.is_shared() {
        // The file's lock says that whoever is registered is gone.
        for replica in store.replicas().await? {
            store.take_over(&replica).await?;
        }
    }
    // Of the day: what lies in the default partition stays there.
    if let Err(error) = store.make_partitions().await {
        tracing::warn!(%error, "cannot make partitions; trying again");
    }
    Ok(())
}

impl Engine {
    pub(super) async fn start(
        store: Store,
        profiles: Arc<Profiles>,
        egress: Egress,
        metrics: Metrics,
        settings: Settings,
    ) -> Result<Engine, StoreError> {
        make_ready(&store).await?;
        let lease = Lease::take(&store).await?;
        let routing = match Routing::load(store.clone(), profiles, metrics.clone()).await {
            Ok(routing) => routing,
            Err(error) => {
                // What comes of it is told by the error that led here.
                let _ = store.leave(lease.fence()).await;
                return Err(error);
            }
        };
        let slots = QueueSlots::new(if settings.dispatches { SLOTS } else { NO_SLOTS });
        let circuits = Circuits::default();
        let (intake, jobs) = Intake::new(settings.intake, slots.clone(), metrics.clone());
        let (claims, committed) = mpsc::unbounded_channel();
        let due = Arc::new(Notify::new());
        let batcher = Batcher {
            store: store.clone(),
            lease: lease.clone(),
            routing: routing.clone(),
            slots: slots.clone(),
            circuits: circuits.clone(),
            hand_over: HandOver { claims, due: Arc::clone(&due) },
            metrics: metrics.clone(),
        };
        let mut engine = Engine {
            store: store.clone(),
            lease: lease.clone(),
            routing: routing.clone(),
            intake,
            circuits: settings.dispatches.then(|| circuits.clone()),
            dispatcher: None,
            stop_taking: CancellationToken::new(),
            stop_settling: CancellationToken::new(),
            stop_keeping: CancellationToken::new(),
            taking: Vec::new(),
            settling: Vec::new(),
            keeping: Vec::new(),
        };
        let stop = engine.stop_taking.clone();
        engine.taking.push(vital(batcher.run(jobs, stop)));
        engine.keep(&metrics);
        engine.probe(settings.canary_interval, settings.canary_listener, &metrics);
        if settings.dispatches {
            let parts = dispatcher::Parts {
                store,
                lease,
                routing,
                egress,
                slots,
                circuits,
                holds: dispatcher::Holds::default(),
                gone: dispatcher::Gone::default(),
                failure_streaks: dispatcher::FailureStreaks::default(),
                auto_disable: Arc::new(ArcSwap::from_pointee(settings.auto_disable)),
                metrics,
                due,
            };
            engine.dispatch(parts, settings.in_flight, committed);
        } else {
            let stop = engine.stop_taking.clone();
            engine.taking.push(vital(intake::announce(store, due, stop)));
        }
        Ok(engine)
    }

    fn keep(&mut self, metrics: &Metrics) {
        let stop = || self.stop_keeping.clone();
        if let Some(pools) = self.store.pools() {
            metrics.pools_by(pools);
        }
        if let Some(backlogs) = self.intake.backlogs() {
            let count = backlogs.count(self.store.for_upkeep(), metrics.clone(), stop());
            self.keeping.push(vital(count));
        }
        let janitor = Janitor {
            store: self.store.clone(),
            lease: self.lease.clone(),
            routing: self.routing.clone(),
            metrics: metrics.clone(),
        };
        let purge = Purge {
            store: self.store.for_upkeep(),
            lease: self.lease.clone(),
            metrics: metrics.clone(),
        };
        let telling = janitor::publish_operational_events(
            self.store.clone(),
            self.intake.clone(),
            metrics.clone(),
            stop(),
        );
        let (lease, store) = (self.lease.clone(), self.store.clone());
        let keeping = [
            vital(telling),
            vital(lease::keep(lease, store, metrics.clone(), stop())),
            vital(self.routing.clone().keep(stop())),
            vital(janitor.run(stop())),
            vital(purge.run(stop())),
        ];
        self.keeping.extend(keeping);
    }

    /// Watches whether events are delivered. The receiver goes on until the last request has
    /// ended.
    fn probe(
        &mut self,
        interval: Option<Duration>,
        listener: Option<TcpListener>,
        metrics: &Metrics,
    ) {
        let (routing, lease) = (self.routing.clone(), self.lease.clone());
        if let Some(listener) = listener {
            let receiver = Receiver { routing: routing.clone(), lease: lease.clone() };
            self.keeping.push(vital(receiver.run(listener, self.stop_keeping.clone())));
        }
        if let Some(interval) = interval {
            let (store, intake) = (self.store.for_upkeep(), self.intake.clone());
            let canary =
                Canary { store, intake, routing, lease, metrics: metrics.clone(), interval };
            self.taking.push(vital(canary.run(self.stop_taking.clone())));
        }
    }

    fn dispatch(
        &mut self,
        parts: dispatcher::Parts,
        limits: InFlightLimits,
        committed: mpsc::UnboundedReceiver<Vec<crate::store::Claim>>,
    ) {
        let (dispatcher, settlements) = Dispatcher::new(parts, limits);
        let stop = self.stop_taking.clone();
        self.taking.extend([
            vital(dispatcher.clone().receive(committed)),
            vital(dispatcher.clone().claim(stop.clone())),
            vital(dispatcher.clone().ask(stop)),
        ]);
        let settle = dispatcher.clone().settle(settlements, self.stop_settling.clone());
        self.settling.push(vital(settle));
        // As long as anything is settled: what it sees is what that goes by.
        let watch = dispatcher.clone().watch_failing(self.stop_keeping.clone());
        self.keeping.push(vital(watch));
        self.dispatcher = Some(dispatcher);
    }

    /// From now on sends within these limits, if it sends.
    pub(super) fn set_limits(&self, in_flight: InFlightLimits, auto_disable: Option<Rule>) {
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.set_limits(in_flight);
            dispatcher.set_auto_disable(auto_disable);
        }
    }

    /// Stops taking, finishes what is under way within `grace`, gives the rest back,
    /// and leaves. What is still under way then is another replica's after a while.
    pub(super) async fn stop(self, grace: Duration) {
        let end = Instant::now() + grace;
        self.stop_taking.cancel();
        // A database that is away must not hold up the end: what was not answered is
        // the publishers' to repeat, and what is claimed is found by others.
        let taken = tokio::time::timeout_at(end.into(), join(self.taking)).await;
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.stop(end.saturating_duration_since(Instant::now())).await;
        }
        drop(self.dispatcher);
        self.stop_settling.cancel();
        // What the requests have left of their time is the outcomes' too: a database that
        // is away may be back by then.
        let settle_end = Instant::now().max(end) + SETTLE_GRACE;
        let settled = tokio::time::timeout_at(settle_end.into(), join(self.settling)).await;
        self.stop_keeping.cancel();
        let _ = tokio::time::timeout(SETTLE_GRACE, join(self.keeping)).await;
        if taken.is_ok()
            && settled.is_ok()
            && self.lease.ledger().is_empty()
            && let Err(error) = self.store.leave(self.lease.fence()).await
        {
            tracing::warn!(%error, "could not sign off; others will notice");
        }
        self.store.close().await;
    }
}

/// Runs a task without which the service only seems to work. When it panics, the
/// process ends: an orchestrator starts another, and others take over what it held.
pub(super) fn vital(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let task = tokio::spawn(task);
    tokio::spawn(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("a vital task panicked; ending the process");
            std::process::exit(EXIT_SOFTWARE);
        }
    })
}

async fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if task.await.is_err() {
            tracing::error!("a background task panicked");
        }
    }
}
