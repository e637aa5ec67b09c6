//! Connections that wait for the next request of their subscription.
//!
//! Last in, first out, so that under little load few connections stay in use and
//! the others age out. Subscriptions never share one: what a receiver left in its
//! connection can mislead nobody else.

use std::collections::HashMap;
use std::collections::VecDeque;
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
    /// Most connections that wait for all subscriptions together.
    in_all_max: usize,
}

#[derive(Default)]
struct State {
    /// Of each subscription, the one that has waited longest first.
    idle: HashMap<SubscriptionKey, VecDeque<Idle>>,
    /// How many wait.
    count: usize,
    /// Whether the sweep's task lives; it ends when there is nothing to sweep.
    swept: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_max: Duration, life_max: Duration, in_all_max: usize) -> Arc<Pool> {
        Arc::new(Pool { state: Mutex::default(), idle_max, life_max, in_all_max })
    }

    /// The connection that was last used, if one to this target is fit for use.
    pub(super) fn take(
        &self,
        subscription: SubscriptionKey,
        target: &Target,
    ) -> Option<Connection> {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let waiting = state.idle.get_mut(&subscription)?;
        while let Some(idle) = waiting.pop_back() {
            state.count -= 1;
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

    /// Keeps a connection whose last answer has ended. Where too many wait, another is
    /// closed for it: of all, this one was used last.
    pub(super) fn put(self: &Arc<Self>, subscription: SubscriptionKey, connection: Connection) {
        let idle = Idle { connection, since: Instant::now() };
        let mut state = self.lock();
        let waiting = state.idle.entry(subscription).or_default();
        if IDLE_PER_SUBSCRIPTION_MAX <= waiting.len() {
            return;
        }
        waiting.push_back(idle);
        state.count += 1;
        if self.in_all_max < state.count {
            state.close_one(subscription);
        }
        if !std::mem::replace(&mut state.swept, true) {
            let every = self.idle_max.min(SWEEP_EVERY);
            tokio::spawn(sweep_until_empty(Arc::downgrade(self), every));
        }
    }

    /// Closes what has waited or lived too long; `false` when nothing waits any more.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        state.idle.retain(|_, waiting| {
            waiting.retain(|idle| self.fresh(idle, now) && !idle.connection.sender.is_closed());
            !waiting.is_empty()
        });
        state.count = state.idle.values().map(VecDeque::len).sum();
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

impl State {
    /// Closes a connection of another subscription, or of this one where no other has any:
    /// the one that has waited longest there.
    fn close_one(&mut self, subscription: SubscriptionKey) {
        let other =
            self.idle.iter().find(|(key, waiting)| **key != subscription && !waiting.is_empty());
        let from = other.map_or(subscription, |(key, _)| *key);
        let closed = self.idle.get_mut(&from).and_then(VecDeque::pop_front);
        self.count -= usize::from(closed.is_some());
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
