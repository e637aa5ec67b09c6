//! Rate limits: how much may be asked of this process for one organization.
//!
//! In memory, each process for itself: nothing is asked of the database, and a restart
//! forgets. Kept are organizations that owe something only, so that names which callers make
//! up take room for as long as their calls are being paid for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::domain::id::OrganizationId;
use crate::domain::rate::Rate;

/// Fewer are not worth a sweep.
const SWEEP_MIN: usize = 1024;

/// Counts what organizations take, each for itself. Cloning shares the counts.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    /// `None`: everybody takes as much as there is.
    limit: Arc<ArcSwapOption<Limit>>,
}

#[derive(Debug)]
struct Limit {
    rate: Rate,
    debts: Mutex<Debts>,
}

#[derive(Debug, Default)]
struct Debts {
    /// When what each has taken is paid off.
    paid: HashMap<OrganizationId, Instant>,
    /// How many the last sweep left.
    swept: usize,
}

impl RateLimiter {
    /// Each organization may take so much; `None`: any number.
    #[must_use]
    pub fn new(rate: Option<Rate>) -> Self {
        let limiter = RateLimiter { limit: Arc::default() };
        limiter.set(rate);
        limiter
    }

    /// From now on each may take so much, whatever it has taken before.
    pub fn set(&self, rate: Option<Rate>) {
        let limit = |rate| Arc::new(Limit { rate, debts: Mutex::default() });
        self.limit.store(rate.map(limit));
    }

    /// Takes `count` for `organization`.
    ///
    /// # Errors
    ///
    /// How long to wait: nothing was taken.
    pub fn take(&self, organization: &OrganizationId, count: u32) -> Result<(), Duration> {
        self.take_at(organization, count, Instant::now())
    }

    fn take_at(
        &self,
        organization: &OrganizationId,
        count: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let limit = self.limit.load();
        let Some(limit) = limit.as_deref() else { return Ok(()) };
        // A panic under the lock leaves at worst a debt that is not noted.
        let mut debts = limit.debts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(paid) = debts.paid.get_mut(organization) {
            *paid = limit.rate.take(*paid, count, now)?;
        } else {
            let paid = limit.rate.take(now, count, now)?;
            debts.paid.insert(organization.clone(), paid);
            debts.sweep(now);
        }
        Ok(())
    }
}

impl Debts {
    /// Forgets who owes nothing, once there are twice as many as the last time: a constant
    /// cost for each that came.
    fn sweep(&mut self, now: Instant) {
        if self.paid.len() < (2 * self.swept).max(SWEEP_MIN) {
            return;
        }
        self.paid.retain(|_, paid| now < *paid);
        self.swept = self.paid.len();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn limiter(per_second: u32) -> RateLimiter {
        RateLimiter::new(Some(rate(per_second)))
    }

    fn rate(per_second: u32) -> Rate {
        Rate::per_second(NonZeroU32::new(per_second).expect("not zero"))
    }

    #[test]
    fn organizations_do_not_share_a_rate() {
        let (limiter, now) = (limiter(10), Instant::now());
        let [one, other] = ["one", "other"].map(OrganizationId::stored);
        assert_eq!(limiter.take_at(&one, 50, now), Ok(()));
        assert_eq!(limiter.take_at(&one, 1, now), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take_at(&other, 50, now), Ok(()));
        let later = now + Duration::from_millis(100);
        assert_eq!(limiter.clone().take_at(&one, 1, later), Ok(()), "clones share it");
        assert_eq!(limiter.take_at(&one, 1, later), Err(Duration::from_millis(100)));
    }

    #[test]
    fn names_that_callers_make_up_are_forgotten() {
        let (limiter, mut now) = (limiter(100), Instant::now());
        for number in 0..20_000 {
            now += Duration::from_millis(1);
            let name = OrganizationId::stored(&format!("made-up-{number}"));
            assert_eq!(limiter.take_at(&name, 1, now), Ok(()));
        }
        // Ten of them owe something at a time.
        let limit = limiter.limit.load_full().expect("there is one");
        assert!(limit.debts.lock().expect("no panic").paid.len() <= SWEEP_MIN);
    }

    #[test]
    fn another_rate_counts_at_once_and_without_one_everything_is_granted() {
        let (limiter, now) = (limiter(1), Instant::now());
        let (clone, one) = (limiter.clone(), OrganizationId::stored("one"));
        assert_eq!(clone.take_at(&one, 5, now), Ok(()));
        assert!(clone.take_at(&one, 1, now).is_err());
        limiter.set(Some(rate(2)));
        assert_eq!(clone.take_at(&one, 10, now), Ok(()));
        assert!(clone.take_at(&one, 1, now).is_err());
        limiter.set(None);
        assert_eq!(clone.take_at(&one, 1_000_000, now), Ok(()));
    }

    #[test]
    fn callers_at_once_get_what_the_rate_allows_and_not_one_more() {
        let (limiter, now) = (limiter(100), Instant::now());
        let granted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let one = OrganizationId::stored("one");
                        if limiter.take_at(&one, 1, now).is_ok() {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), 500);
    }
}
