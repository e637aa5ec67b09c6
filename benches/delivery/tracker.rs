//! Counts what was sent and how long the answers took.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::histogram::Histogram;
use crate::payload;
use crate::protocol::Sent;

/// What many tasks have sent.
#[derive(Default)]
pub(crate) struct Tracker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: Sent,
    latency: Histogram,
}

impl Tracker {
    /// `count` events, sent together at `begun_us`, have just been answered.
    pub(crate) fn accept(&self, count: u64, begun_us: u64) {
        let now = payload::now_us();
        let mut state = self.lock();
        state.latency.record(now.saturating_sub(begun_us));
        let sent = &mut state.sent;
        sent.accepted += count;
        sent.last_us = now;
        if sent.first_us == 0 || begun_us < sent.first_us {
            sent.first_us = begun_us;
        }
    }

    /// A call was turned away and will be made again.
    pub(crate) fn refuse(&self) {
        self.lock().sent.refused += 1;
    }

    /// `count` events are in doubt.
    pub(crate) fn fail(&self, count: u64, why: &str) {
        let sent = &mut self.lock().sent;
        sent.failed += count;
        if sent.trouble.is_empty() {
            why.clone_into(&mut sent.trouble);
        }
    }

    /// All of it.
    pub(crate) fn sent(&self) -> Sent {
        let state = self.lock();
        Sent { latency: state.latency.quantiles(), ..state.sent.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
