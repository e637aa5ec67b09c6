//! Connections that wait for the next request of their subscription.
//!
//! Last in, first out, so that under little load few connections stay in use and
//! the others age out. Subscriptions never share one: what a receiver left in its
//! connection can mislead nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

use crate::domain::id::SubscriptionKey;

use super::IDLE_PER_SUBSCRIPTION_MAX;
use super::connect::Connection;
use super::target::Target;

/// Time between two sweeps; a connection may outstay its idle time by this.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    state: Mutex<State>,
    idle_max: Duration,
    life_max: Duration,
}

#[derive(Default)]
struct State {
    idle: HashMap<SubscriptionKey, Vec<Idle>>,
    /// Whether the sweep's task lives; it ends when there is nothing to sweep.
    swept: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_max: Duration, life_max: Duration) -> Arc<Pool> {
        Arc::new(Pool { state: Mutex::default(), idle_max, life_max })
    }

    /// The connection that was last used, if one to this target is fit for use.
    pub(super) fn take(
        &self,
        subscription: SubscriptionKey,
        target: &Target,
    ) -> Option<Connection> {
        let now = Instant::now();
        let mut state = self.lock();
        let waiting = state.idle.get_mut(&subscription)?;
        while let Some(idle) = waiting.pop() {
            // One to another target: the subscription's URL has changed.
            let fits = self.fresh(&idle, now)
                && idle.connection.sender.is_ready()
                && idle.connection.target.same_origin(target);
            if fits {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer has ended.
    pub(super) fn put(self: &Arc<Self>, subscription: SubscriptionKey, connection: Connection) {
        let idle = Idle { connection, since: Instant::now() };
        let mut state = self.lock();
        let waiting = state.idle.entry(subscription).or_default();
        if waiting.len() < IDLE_PER_SUBSCRIPTION_MAX {
            waiting.push(idle);
        }
        if !std::mem::replace(&mut state.swept, true) {
            let every = self.idle_max.min(SWEEP_EVERY);
            tokio::spawn(sweep_until_empty(Arc::downgrade(self), every));
        }
    }

    /// Closes the connections of one subscription.
    pub(super) fn forget(&self, subscription: SubscriptionKey) {
        self.lock().idle.remove(&subscription);
    }

    /// Closes what has waited or lived too long; `false` when nothing waits any more.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        state.idle.retain(|_, waiting| {
            waiting.retain(|idle| self.fresh(idle, now) && !idle.connection.sender.is_closed());
            !waiting.is_empty()
        });
        state.swept = !state.idle.is_empty();
        state.swept
    }

    fn fresh(&self, idle: &Idle, now: Instant) -> bool {
        now.duration_since(idle.since) < self.idle_max
            && now.duration_since(idle.connection.born) < self.life_max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves at worst a connection less.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One timer for all connections, and none while there are none.
async fn sweep_until_empty(pool: Weak<Pool>, every: Duration) {
    loop {
        sleep(every).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}
