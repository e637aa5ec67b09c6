//! Sends what is claimed and records what came of it.
//!
//! Endpoints that must consent first are asked (`ownership`), and get nothing before.
//! Deliveries come from the intake, claimed by their commit, and from `due`, claimed
//! here. They wait in fair queues (`queue`), are attempted (`attempt`) and settled
//! in groups (`settler`). Everything that waits or is under way is bounded: by the
//! places of the queues, the permits of the attempts and the settlements' channel.

mod attempt;
mod circuit;
mod claimer;
mod failure_streaks;
mod gone;
mod holds;
mod ownership;
mod queue;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod queue_traces;
mod settler;
mod switch_off;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::failure_streaks::FailureStreaks;
pub use self::gone::Gone;
pub use self::holds::Holds;
use self::queue::{Queue, Turn};
use self::settler::Settled;
use crate::domain::failure_streak::Rule;
use crate::egress::Egress;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::permits::{Circuits, InFlightLimits, QueueSlots};
use crate::routing::Routing;
use crate::store::{Claim, Next, Store};

/// Settlements that may wait to be written, a group or two. When the database is away this
/// fills up and no request starts any more: what cannot be recorded is not sent. A crash
/// loses these outcomes, and so sends as many deliveries once more.
const SETTLEMENTS_MAX: usize = 1024;

/// What the dispatcher works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where deliveries are claimed and settled.
    pub store: Store,
    /// Whose claims they are.
    pub lease: Lease,
    /// What is known of each subscription.
    pub routing: Routing,
    /// How receivers are called.
    pub egress: Egress,
    /// Places in the queues.
    pub slots: QueueSlots,
    /// Which endpoints are left alone for a while.
    pub circuits: Circuits,
    /// Until when endpoints were held by their own or their owner's doing.
    pub holds: Holds,
    /// Subscriptions that are being switched off.
    pub gone: Gone,
    /// Which endpoints have failed since their last success.
    pub failure_streaks: FailureStreaks,
    /// When such an endpoint is switched off; `None`: never.
    pub auto_disable: Arc<ArcSwap<Option<Rule>>>,
    /// Counts.
    pub metrics: Metrics,
    /// Told when due rows were added.
    pub due: Arc<Notify>,
}

/// The running dispatcher. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    queue: Mutex<Queue>,
    settled: mpsc::Sender<Settled>,
    /// Attempts under way.
    workers: TaskTracker,
    /// No request starts any more.
    stopping: AtomicBool,
    /// Where the next claim begins among the endpoints that have something due.
    turn: AtomicUsize,
}

/// What [`Dispatcher::new`] leaves to be run.
#[derive(Debug)]
pub struct Settlements(mpsc::Receiver<Settled>);

impl Dispatcher {
    /// A dispatcher with empty queues. It works while [`Dispatcher::receive`],
    /// [`Dispatcher::claim`], [`Dispatcher::ask`] and [`Dispatcher::settle`] run.
    #[must_use]
    pub fn new(parts: Parts, limits: InFlightLimits) -> (Dispatcher, Settlements) {
        let (settled, settlements) = mpsc::channel(SETTLEMENTS_MAX);
        let inner = Inner {
            parts,
            queue: Mutex::new(Queue::new(limits)),
            settled,
            workers: TaskTracker::new(),
            stopping: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
        };
        (Dispatcher { inner: Arc::new(inner) }, Settlements(settlements))
    }

    /// From now on as many requests may be under way; those that are go on.
    pub fn set_limits(&self, limits: InFlightLimits) {
        self.queue().set_limits(limits);
        self.start_workers();
    }

    /// From now on endpoints that keep failing are switched off by this rule; `None`: never.
    pub fn set_auto_disable(&self, rule: Option<Rule>) {
        self.inner.parts.auto_disable.store(Arc::new(rule));
    }

    /// Takes over what the intake has committed, until the intake is gone.
    pub async fn receive(self, mut committed: mpsc::UnboundedReceiver<Vec<Claim>>) {
        while let Some(claims) = committed.recv().await {
            self.enqueue(claims);
        }
    }

    /// Claims what is due, until `stop`.
    pub async fn claim(self, stop: CancellationToken) {
        claimer::run(self, stop).await;
    }

    /// Asks endpoints that must consent before they get anything, until `stop`.
    pub async fn ask(self, stop: CancellationToken) {
        ownership::run(&self.inner.parts, stop).await;
    }

    /// Records settlements until the last holder of this dispatcher is gone or
    /// `stop`, then what is left.
    pub async fn settle(self, settlements: Settlements, stop: CancellationToken) {
        settler::run(&self.inner.parts, settlements.0, stop).await;
    }

    /// Looks after the endpoints that keep failing, until `stop`.
    pub async fn watch_failing(self, stop: CancellationToken) {
        failure_streaks::watch(&self.inner.parts, stop).await;
    }

    /// Starts no request any more, waits at most `grace` for those under way, and
    /// puts back in line what was never started.
    pub async fn stop(&self, grace: Duration) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        let waiting = self.queue().drain();
        self.inner.workers.close();
        let stopped = async {
            for claim in waiting {
                self.leave_queue(&claim);
                let settled = Settled::untried(&claim, Next::Release);
                if self.inner.settled.send(settled).await.is_err() {
                    return;
                }
            }
            self.inner.workers.wait().await;
        };
        if tokio::time::timeout(grace, stopped).await.is_err() {
            tracing::warn!(
                "requests still under way after the grace period; they will be sent again"
            );
        }
    }

    fn enqueue(&self, claims: Vec<Claim>) {
        {
            let table = self.inner.parts.routing.table();
            let mut queue = self.queue();
            for claim in claims {
                let in_flight_max = table
                    .route(claim.subscription)
                    .map_or(1, |route| route.subscription.spec.max_in_flight);
                queue.push(claim, in_flight_max);
            }
        }
        self.start_workers();
    }

    /// Starts as many attempts as there are permits for.
    fn start_workers(&self) {
        while let Some(turn) = self.next() {
            self.inner.workers.spawn(self.clone().work(turn));
        }
        // Not only when a request ends: those that hang are the ones to see.
        self.report();
    }

    fn next(&self) -> Option<Turn> {
        if self.inner.stopping.load(Ordering::SeqCst) {
            return None;
        }
        let turn = self.queue().next()?;
        self.leave_queue(&turn.claim);
        Some(turn)
    }

    /// Attempts one delivery after the other, for as long as there are any.
    async fn work(self, first: Turn) {
        let mut next = Some(first);
        while let Some(turn) = next {
            let endpoint = turn.claim.subscription;
            if let Some(settled) =
                attempt::attempt(&self.inner.parts, turn, &self.inner.stopping).await
            {
                // The settler outlives the workers: this cannot fail while they run.
                let _ = self.inner.settled.send(settled).await;
            }
            let route = self.inner.parts.routing.route(endpoint);
            let in_flight_max = route.map(|route| route.subscription.spec.max_in_flight);
            let raised = self.queue().finished(endpoint, in_flight_max);
            next = self.next();
            if raised {
                self.start_workers();
            }
        }
        self.report();
    }

    fn leave_queue(&self, claim: &Claim) {
        let organization = &claim.event.summary.organization;
        self.inner.parts.slots.give_back(organization, claim.subscription, claim.event.weight());
    }

    fn report(&self) {
        let queue = self.queue();
        let metrics = &self.inner.parts.metrics;
        metrics.queued(queue.waiting());
        metrics.in_flight(queue.in_flight());
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each operation leaves the queue whole; none runs foreign code.
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
