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
/// Where too many wait, those that have waited for this part of the longest time make room.
const WHILE: u32 = 16;

pub(super) struct Pool {
    state: Mutex<State>,
    idle_max: Duration,
    life_max: Duration,
    /// Most connections that wait for all subscriptions together.
    in_all_max: usize,
}

#[derive(Default)]
struct State {
    idle: HashMap<SubscriptionKey, Vec<Idle>>,
    /// How many wait.
    count: usize,
    /// When room was made for others.
    made_room: Option<Instant>,
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
        while let Some(idle) = waiting.pop() {
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

    /// Keeps a connection whose last answer has ended. Where too many wait, those that
    /// have waited for a while are closed for it; if none has, this one is.
    pub(super) fn put(self: &Arc<Self>, subscription: SubscriptionKey, connection: Connection) {
        let now = Instant::now();
        let mut state = self.lock();
        if self.in_all_max <= state.count {
            self.make_room(&mut state, now);
        }
        if self.in_all_max <= state.count {
            return;
        }
        let waiting = state.idle.entry(subscription).or_default();
        if IDLE_PER_SUBSCRIPTION_MAX <= waiting.len() {
            return;
        }
        waiting.push(Idle { connection, since: now });
        state.count += 1;
        if !std::mem::replace(&mut state.swept, true) {
            let every = self.idle_max.min(SWEEP_EVERY);
            tokio::spawn(sweep_until_empty(Arc::downgrade(self), every));
        }
    }

    /// Closes what has waited or lived too long; `false` when nothing waits any more.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        state.retain(|idle| self.fresh(idle, now) && !idle.connection.sender.is_closed());
        state.swept = !state.idle.is_empty();
        state.swept
    }

    /// Closes what has waited for the [`WHILE`]-th part of the longest time. Not more often
    /// than that, since it looks at all.
    fn make_room(&self, state: &mut State, now: Instant) {
        let a_while = self.idle_max / WHILE;
        if state.made_room.is_some_and(|last| now.duration_since(last) < a_while) {
            return;
        }
        state.made_room = Some(now);
        state.retain(|idle| now.duration_since(idle.since) < a_while);
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
    fn retain(&mut self, keep: impl Fn(&Idle) -> bool) {
        self.idle.retain(|_, waiting| {
            waiting.retain(&keep);
            !waiting.is_empty()
        });
        self.count = self.idle.values().map(Vec::len).sum();
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
