//! Rates: how much somebody may take in a second, and how much at once.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): of each somebody one instant is
//! kept, that at which everything taken so far is paid off. Pure: the time is passed in.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// One in so much time, on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What one costs.
    one: Duration,
    /// How far ahead of its payment something may be taken.
    burst: Duration,
}

impl Rate {
    /// So many a second, and what comes together in five seconds at once.
    #[must_use]
    pub fn per_second(count: NonZeroU32) -> Rate {
        Rate { one: Duration::from_secs(1) / count.get(), burst: Duration::from_secs(5) }
    }

    /// So many a minute, and as many at once.
    #[must_use]
    pub fn per_minute(count: NonZeroU32) -> Rate {
        Rate { one: Duration::from_mins(1) / count.get(), burst: Duration::from_mins(1) }
    }

    /// Takes `count` at `now`, of somebody whose debt is paid off at `paid`; tells when it is
    /// then. Who owes nothing may take any count: a rate below the largest request lets it
    /// through, and makes up for it afterwards.
    ///
    /// # Errors
    ///
    /// How long it takes until `count` may be taken, if nothing else is meanwhile.
    pub fn take(self, paid: Instant, count: u32, now: Instant) -> Result<Instant, Duration> {
        let begin = paid.max(now);
        let after = begin + self.one.saturating_mul(count);
        let owed = begin.saturating_duration_since(now);
        let beyond = after.saturating_duration_since(now + self.burst);
        let wait = owed.min(beyond);
        if wait.is_zero() { Ok(after) } else { Err(wait) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(per_second: u32) -> Rate {
        Rate::per_second(NonZeroU32::new(per_second).expect("not zero"))
    }

    #[test]
    fn five_seconds_worth_may_be_taken_at_once_and_the_rest_as_it_is_paid_for() {
        let (rate, now) = (rate(10), Instant::now());
        let paid = rate.take(now, 50, now).expect("a burst");
        assert_eq!(paid, now + 5 * SECOND);
        assert_eq!(rate.take(paid, 1, now), Err(SECOND / 10));
        assert_eq!(rate.take(paid, 10, now + SECOND / 2), Err(SECOND / 2));
        assert_eq!(rate.take(paid, 10, now + SECOND), Ok(now + 6 * SECOND));
        let later = now + 60 * SECOND;
        assert_eq!(rate.take(paid, 50, later), Ok(later + 5 * SECOND), "no more than a burst");
    }

    #[test]
    fn a_minutes_worth_is_the_burst_of_a_rate_by_the_minute() {
        let rate = Rate::per_minute(NonZeroU32::new(10).expect("not zero"));
        let now = Instant::now();
        let paid = (0..10).try_fold(now, |paid, _| rate.take(paid, 1, now)).expect("ten");
        assert_eq!(rate.take(paid, 1, now), Err(6 * SECOND));
    }

    #[test]
    fn who_owes_nothing_may_take_more_than_a_burst_and_waits_longer_for_the_next() {
        let (rate, now) = (rate(1), Instant::now());
        let paid = rate.take(now, 1000, now).expect("nothing is owed");
        assert_eq!(rate.take(paid, 1, now), Err(996 * SECOND));
        assert_eq!(rate.take(paid, 1000, now), Err(1000 * SECOND));
        assert!(rate.take(paid, 1000, now + 1000 * SECOND).is_ok());
    }

    proptest! {
        /// However it is asked for: the rate on average, a burst or one request more.
        #[test]
        fn no_window_holds_more_than_the_rate_and_a_burst(
            per_second in 1_u32..5000,
            asked in prop::collection::vec((0_u32..1001, 0_u64..2_000_000), 1..200),
        ) {
            let (rate, start) = (rate(per_second), Instant::now());
            let (mut paid, mut now, mut taken, mut largest) = (start, start, 0_u64, 0_u64);
            for (count, micros) in asked {
                now += Duration::from_micros(micros);
                if let Ok(after) = rate.take(paid, count, now) {
                    paid = after;
                    taken += u64::from(count);
                    largest = largest.max(u64::from(count));
                }
                let by_rate = (now - start).as_secs_f64() * f64::from(per_second);
                let burst = (5 * u64::from(per_second)).max(largest);
                // One more for what is lost to whole nanoseconds.
                let most = by_rate + f64::from(u32::try_from(burst).expect("small")) + 1.0;
                prop_assert!(f64::from(u32::try_from(taken).expect("small")) <= most);
            }
        }

        #[test]
        fn the_wait_that_is_told_is_enough_and_no_longer_than_needed(
            per_second in 1_u32..5000, owed in 0_u64..100_000_000, count in 1_u32..1001,
        ) {
            let (rate, now) = (rate(per_second), Instant::now());
            let paid = now + Duration::from_micros(owed);
            if let Err(wait) = rate.take(paid, count, now) {
                prop_assert!(rate.take(paid, count, now + wait).is_ok());
                let early = now + wait.saturating_sub(Duration::from_nanos(1));
                prop_assert!(rate.take(paid, count, early).is_err());
            }
        }
    }
}
