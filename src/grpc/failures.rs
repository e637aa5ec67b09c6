//! Calls with no or bad credentials: how many one address may make in a second before it is
//! told to come back later.
//!
//! Only failures are counted, and only they are answered differently: credentials are looked
//! at in every case, and good ones are served. Callers behind one address, such as a proxy's,
//! must not be locked out by the one among them that is wrong. Nor would that stop anybody
//! who guesses: nobody finds 256 random bits or a signature, at whatever rate. What is limited
//! is what failures cost besides that look: a line of the log each, calls that wait for an
//! issuer's keys, and clients that would try again at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::complaint::Complaint;

/// Failures from one address in a window.
const FROM_ADDRESS_MAX: u32 = 10;
/// Then all start anew: whoever goes on trying is not shut out for ever.
const WINDOW: Duration = Duration::from_secs(1);
/// Addresses that are told apart in a window: half a megabyte. More are counted together, so
/// that memory is bounded whatever number of addresses somebody has.
const ADDRESSES_MAX: usize = 8192;

/// Who has failed how often. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    window: Arc<Mutex<Window>>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    from_address: HashMap<IpAddr, u32>,
    /// From all addresses together that are not told apart.
    from_others: u32,
    complaint: Complaint,
}

impl Failures {
    /// Counts one more from `address`, which stands for its network.
    ///
    /// # Errors
    ///
    /// When there are too many: how long until the next window.
    pub(super) fn count(&self, address: IpAddr) -> Result<(), Duration> {
        self.count_at(address, Instant::now())
    }

    fn count_at(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        // A panic under the lock leaves at worst a count that is one short.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let left = window.turn(now);
        let count = window.of(address);
        *count = count.saturating_add(1);
        if *count <= FROM_ADDRESS_MAX {
            return Ok(());
        }
        window.complain(address, now);
        Err(left)
    }
}

impl Window {
    /// How much of it is left; when it is over, the next one begins.
    fn turn(&mut self, now: Instant) -> Duration {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        let left = age.and_then(|age| WINDOW.checked_sub(age));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return left;
        }
        self.began = Some(now);
        self.from_address.clear();
        self.from_others = 0;
        WINDOW
    }

    fn of(&mut self, address: IpAddr) -> &mut u32 {
        let room = self.from_address.len() < ADDRESSES_MAX;
        if room || self.from_address.contains_key(&address) {
            return self.from_address.entry(address).or_default();
        }
        &mut self.from_others
    }

    fn complain(&mut self, address: IpAddr, now: Instant) {
        if self.complaint.is_due(now) {
            tracing::warn!(
                %address,
                "calls from an address fail to authenticate more than ten times in a second"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::strangers::network;

    const SHORT: Duration = Duration::from_millis(300);

    fn address(text: &str) -> IpAddr {
        network(text.parse().expect("an address"))
    }

    /// How many of so many failures in one moment are answered as usual.
    fn usual(failures: &Failures, address: IpAddr, now: Instant, count: usize) -> usize {
        (0..count).filter(|_| failures.count_at(address, now).is_ok()).count()
    }

    #[test]
    fn each_address_may_fail_ten_times_in_each_second() {
        let (failures, now) = (Failures::default(), Instant::now());
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(usual(&failures, one, now, 100), 10);
        assert_eq!(failures.count_at(one, now + SHORT), Err(WINDOW.saturating_sub(SHORT)));
        assert_eq!(failures.clone().count_at(one, now), Err(WINDOW), "clones share it");
        assert_eq!(failures.count_at(address("::ffff:192.0.2.1"), now), Err(WINDOW), "the same");
        assert_eq!(usual(&failures, other, now, 100), 10);
        assert_eq!(usual(&failures, one, now + WINDOW, 100), 10, "whatever was before");
    }

    #[test]
    fn a_network_that_one_machine_may_have_whole_counts_as_one_address() {
        let (failures, now) = (Failures::default(), Instant::now());
        let from = |number: usize| address(&format!("2001:db8:0:1:{number:x}::1"));
        let counted = (0..50).filter(|n| failures.count_at(from(*n), now).is_ok()).count();
        assert_eq!(counted, 10);
        assert_eq!(failures.count_at(address("2001:db8:0:2::1"), now), Ok(()));
    }

    #[test]
    fn however_many_addresses_fail_memory_is_bounded_and_known_ones_keep_their_count() {
        let (failures, now) = (Failures::default(), Instant::now());
        let from = |number: u32| IpAddr::from(number.to_be_bytes());
        let many = u32::try_from(ADDRESSES_MAX).expect("it is small");
        let beyond = (0..2 * many).filter(|n| failures.count_at(from(*n), now).is_err()).count();
        assert_eq!(beyond, ADDRESSES_MAX - 10, "those beyond share ten");
        assert_eq!(usual(&failures, from(7), now, 100), 9);
        {
            let window = failures.window.lock().expect("nobody panics");
            assert_eq!(window.from_address.len(), ADDRESSES_MAX);
        }
        assert_eq!(usual(&failures, from(2 * many), now + WINDOW, 100), 10, "told apart again");
    }

    #[test]
    fn failures_at_once_are_counted_once_each() {
        let (failures, now) = (Failures::default(), Instant::now());
        let one = address("192.0.2.1");
        let counted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| usual(&failures, one, now, 100))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(counted, 10);
    }
}
