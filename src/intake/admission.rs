//! How much may wait to be committed, by what the store gets done: so that whoever is
//! let in is answered soon, however many knock.
//!
//! The limit is a number of events, and what moves it is the time that the oldest
//! request of a batch took from the door to its answer. It shrinks in proportion when
//! that is longer than [`LONGEST`], and grows while requests are refused although there
//! is time left. Two batches always fit, as many as are committed at once: with
//! fewer the store would idle, and no caller wait less.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest that a request should take, if the store can help it.
const LONGEST: Duration = Duration::from_millis(150);
/// Where the limit begins, before anything is known.
const FIRST: usize = 1024;
/// The n-th part of the limit that it grows by.
const GROWTH: u32 = 4;

/// Decides who may wait.
#[derive(Debug)]
pub(super) struct Admission {
    /// No limit is larger.
    most: usize,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    limit: usize,
    /// Whether somebody was refused since the last batch.
    refused: bool,
}

/// A batch that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// Events that fit into one such batch.
    pub(super) room: usize,
    /// How long its oldest request took.
    pub(super) oldest: Duration,
}

impl Admission {
    /// Lets at most `most` events wait.
    pub(super) fn new(most: usize) -> Admission {
        let state = State { limit: FIRST.min(most), refused: false };
        Admission { most, state: Mutex::new(state) }
    }

    /// Whether a request of `events` may wait behind `waiting`. One that finds nobody
    /// waiting may, however large it is.
    pub(super) fn admits(&self, waiting: usize, events: usize) -> bool {
        let mut state = self.state();
        let admitted = waiting == 0 || waiting + events <= state.limit;
        state.refused |= !admitted;
        admitted
    }

    /// Learns from a batch.
    pub(super) fn learn(&self, batch: Answered) {
        let mut state = self.state();
        let State { limit, refused } = *state;
        // What the same would take behind a queue that has grown.
        let grown = batch.oldest + batch.oldest / GROWTH;
        let wanted = if LONGEST < batch.oldest {
            let (longest, oldest) = (LONGEST.as_millis(), batch.oldest.as_millis());
            let share = limit as u128 * longest / oldest.max(1);
            // One stall is no reason to turn nearly everybody away.
            usize::try_from(share).unwrap_or(limit).max(limit / 2)
        } else if refused && grown <= LONGEST {
            limit + limit.div_ceil(GROWTH as usize)
        } else {
            limit
        };
        let least = (2 * batch.room).max(1).min(self.most);
        *state = State { limit: wanted.clamp(least, self.most), refused: false };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Two plain words cannot be left half-written by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes `fixed` for a commit and `each` more for every event, and
    /// publishers who fill whatever is free. What the oldest request of a batch took in
    /// the end, and how many events were stored a second.
    fn settle(most: usize, room: usize, fixed: Duration, each: Duration) -> (Duration, f64) {
        let admission = Admission::new(most);
        let mut waiting = 0;
        let (mut stored, mut time, mut oldest) = (0, Duration::ZERO, Duration::ZERO);
        for round in 0..200 {
            while admission.admits(waiting, 1) {
                waiting += 1;
            }
            let events = room.min(waiting);
            let commit = fixed + each * u32::try_from(events).expect("small");
            // The last one of those that wait is in the last of so many batches.
            oldest = commit * u32::try_from(waiting.div_ceil(events)).expect("small");
            waiting -= events;
            admission.learn(Answered { room, oldest });
            if 100 <= round {
                (stored, time) = (stored + events, time + commit);
            }
        }
        (oldest, f64::from(u32::try_from(stored).expect("small")) / time.as_secs_f64())
    }

    #[test]
    fn whoever_is_let_in_is_answered_soon_and_the_store_stays_busy() {
        let [ms, us] = [Duration::from_millis, Duration::from_micros];
        // A fast store, one with a slow disk, one where every event is dear.
        for (fixed, each) in [(ms(2), us(50)), (ms(60), us(20)), (ms(5), us(400))] {
            let (oldest, rate) = settle(4096, 512, fixed, each);
            let batch = fixed + each * 512;
            let longest = LONGEST.max(batch * 2);
            assert!(oldest <= longest, "{oldest:?} where a batch takes {batch:?}");
            let best = 512.0 / batch.as_secs_f64();
            assert!(0.9 * best <= rate, "{rate} of {best} events a second");
        }
    }

    #[test]
    fn the_operators_limit_holds_whatever_the_store_gets_done() {
        let admission = Admission::new(100);
        assert!(admission.admits(0, 5000), "one that is alone is let in");
        assert!(admission.admits(60, 40) && !admission.admits(60, 41));
        for _ in 0..10 {
            let _ = admission.admits(100, 1);
            admission.learn(Answered { room: 512, oldest: Duration::ZERO });
        }
        assert!(!admission.admits(60, 41));
    }

    #[test]
    fn one_stall_halves_the_limit_and_calm_brings_it_back() {
        let admission = Admission::new(100_000);
        let learn = |millis| {
            let oldest = Duration::from_millis(millis);
            admission.learn(Answered { room: 10, oldest });
        };
        learn(60_000);
        assert!(admission.admits(1, 511) && !admission.admits(1, 512));
        for _ in 0..4 {
            assert!(!admission.admits(1, 5000));
            learn(10);
        }
        assert!(admission.admits(1, 1023), "grown by a quarter four times");
    }
}
