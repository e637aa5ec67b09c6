//! Connections whose callers are not known yet: how many there may be.
//!
//! Until a caller has shown credentials, a connection costs memory and a file of a server
//! that owes it nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::complaint::Complaint;

/// Connections from one address, or from one /64 of IPv6, which one machine may have whole.
const FROM_ADDRESS_MAX: usize = 100;
/// Connections from all addresses.
const IN_ALL_MAX: usize = 4096;

/// Who is not known yet. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    crowd: Arc<Mutex<Crowd>>,
}

#[derive(Debug, Default)]
struct Crowd {
    from_address: HashMap<IpAddr, usize>,
    in_all: usize,
    complaint: Complaint,
}

impl Strangers {
    /// Lets one more connection in; `None` when there are too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let address = network(address);
        let mut crowd = self.crowd();
        let from_address = crowd.from_address.get(&address).copied().unwrap_or(0);
        if FROM_ADDRESS_MAX <= from_address || IN_ALL_MAX <= crowd.in_all {
            if crowd.complaint.is_due(Instant::now()) {
                tracing::warn!(
                    %address,
                    from_address,
                    in_all = crowd.in_all,
                    "turned a connection away: too many show no credentials"
                );
            }
            return None;
        }
        crowd.from_address.insert(address, from_address + 1);
        crowd.in_all += 1;
        Some(Stranger { strangers: self.clone(), address, counted: AtomicBool::new(true) })
    }

    fn release(&self, address: IpAddr) {
        let mut crowd = self.crowd();
        crowd.in_all -= 1;
        match crowd.from_address.get_mut(&address) {
            Some(count) if 1 < *count => *count -= 1,
            Some(_) | None => {
                crowd.from_address.remove(&address);
            }
        }
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until it is known or gone.
#[derive(Debug)]
pub(super) struct Stranger {
    strangers: Strangers,
    address: IpAddr,
    counted: AtomicBool,
}

impl Stranger {
    /// Whether it has shown who it is.
    pub(super) fn is_known(&self) -> bool {
        !self.counted.load(Ordering::Relaxed)
    }

    /// It has shown who it is.
    pub(super) fn acknowledge(&self) {
        // A look first: a call on a known connection writes nothing that others read.
        if !self.is_known() && self.counted.swap(false, Ordering::Relaxed) {
            self.strangers.release(self.address);
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.acknowledge();
    }
}

/// What counts as one address: of IPv6 a /64, which one machine may have whole.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_address_has_its_own_room_and_known_or_gone_ones_leave_it() {
        let strangers = Strangers::default();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut let_in: Vec<Stranger> =
            (0..FROM_ADDRESS_MAX).map(|_| strangers.admit(one).expect("there is room")).collect();
        assert!(strangers.admit(one).is_none());
        assert!(strangers.admit(address("::ffff:192.0.2.1")).is_none(), "the same address");
        assert!(strangers.admit(other).is_some());

        let_in.pop();
        let last = strangers.admit(one).expect("one is gone");
        assert!(strangers.admit(one).is_none() && !last.is_known());
        last.acknowledge();
        last.acknowledge();
        assert!(last.is_known());
        let_in.push(strangers.admit(one).expect("one is known"));
        assert!(strangers.admit(one).is_none());
        drop(last);
        assert!(strangers.admit(one).is_none(), "nobody leaves twice");

        drop(let_in);
        let crowd = strangers.crowd();
        assert_eq!((crowd.in_all, crowd.from_address.len()), (0, 0));
    }

    #[test]
    fn a_network_that_one_machine_may_have_whole_counts_as_one_address() {
        let strangers = Strangers::default();
        let from = |number: usize| address(&format!("2001:db8:0:1:{number:x}::1"));
        let let_in: Vec<_> = (0..FROM_ADDRESS_MAX).map(|n| strangers.admit(from(n))).collect();
        assert!(let_in.iter().all(Option::is_some));
        assert!(strangers.admit(from(FROM_ADDRESS_MAX)).is_none());
        assert!(strangers.admit(address("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn all_together_are_bounded_too() {
        let strangers = Strangers::default();
        let from = |number: usize| {
            let [high, low] = u16::try_from(number).expect("it is small").to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        let let_in: Vec<_> = (0..IN_ALL_MAX).map(|n| strangers.admit(from(n))).collect();
        assert!(let_in.iter().all(Option::is_some));
        assert!(strangers.admit(from(IN_ALL_MAX)).is_none());
    }
}
