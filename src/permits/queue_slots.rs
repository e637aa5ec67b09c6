//! Places in the queues in this process's memory.
//!
//! A place is taken before a delivery is committed as claimed by this process, so
//! that handing it to the dispatcher afterwards can never wait or fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::id::SubscriptionKey;

/// One endpoint may have the n-th part of what is left.
const SHARE: usize = 4;

/// How much may wait in memory.
#[derive(Clone, Copy, Debug)]
pub struct QueueSlotsLimits {
    /// Deliveries to one endpoint.
    pub endpoint_rows: usize,
    /// Payload bytes of the deliveries to one endpoint.
    pub endpoint_bytes: usize,
    /// Deliveries to all endpoints.
    pub replica_rows: usize,
    /// Payload bytes of the deliveries to all endpoints. A payload that goes to
    /// several endpoints is counted for each.
    pub replica_bytes: usize,
}

/// Counts places. Cloning shares them.
#[derive(Clone, Debug)]
pub struct QueueSlots {
    limits: QueueSlotsLimits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: Use,
    endpoints: HashMap<SubscriptionKey, Use>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    rows: usize,
    bytes: usize,
}

impl QueueSlots {
    /// As many places as `limits` say.
    #[must_use]
    pub fn new(limits: QueueSlotsLimits) -> Self {
        QueueSlots { limits, taken: Arc::default() }
    }

    /// Takes a place for a delivery of `bytes` to `endpoint`. `false`: it is full.
    #[must_use]
    pub fn take(&self, endpoint: SubscriptionKey, bytes: usize) -> bool {
        let mut taken = self.taken();
        let all = taken.all;
        let one = taken.endpoints.get(&endpoint).copied().unwrap_or_default();
        let limits = self.limits;
        let most = self.most(all);
        // An empty queue takes any one payload, however large.
        let fits = (one.rows == 0 || one.bytes + bytes <= most.bytes)
            && one.rows < most.rows
            && all.bytes + bytes <= limits.replica_bytes;
        if fits {
            taken.all = Use { rows: all.rows + 1, bytes: all.bytes + bytes };
            taken.endpoints.insert(endpoint, Use { rows: one.rows + 1, bytes: one.bytes + bytes });
        }
        fits
    }

    /// Takes a place that [`QueueSlots::free`] has shown, whatever its bytes.
    pub fn put(&self, endpoint: SubscriptionKey, bytes: usize) {
        let mut taken = self.taken();
        taken.all.rows += 1;
        taken.all.bytes += bytes;
        let one = taken.endpoints.entry(endpoint).or_default();
        one.rows += 1;
        one.bytes += bytes;
    }

    /// Gives a place back.
    pub fn give_back(&self, endpoint: SubscriptionKey, bytes: usize) {
        let mut taken = self.taken();
        taken.all.rows = taken.all.rows.saturating_sub(1);
        taken.all.bytes = taken.all.bytes.saturating_sub(bytes);
        let Some(one) = taken.endpoints.get_mut(&endpoint) else { return };
        one.rows = one.rows.saturating_sub(1);
        one.bytes = one.bytes.saturating_sub(bytes);
        if one.rows == 0 {
            taken.endpoints.remove(&endpoint);
        }
    }

    /// Places that are free for `endpoint` now.
    #[must_use]
    pub fn free(&self, endpoint: SubscriptionKey) -> usize {
        let taken = self.taken();
        let one = taken.endpoints.get(&endpoint).copied().unwrap_or_default();
        let most = self.most(taken.all);
        if most.bytes <= one.bytes {
            return 0;
        }
        most.rows.saturating_sub(one.rows)
    }

    /// As [`QueueSlots::free`], but none while less than a quarter of what `endpoint` may
    /// have is free: what is taken in from a backlog comes in few large parts, since each
    /// costs a write of its own.
    #[must_use]
    pub fn worthwhile(&self, endpoint: SubscriptionKey) -> usize {
        let free = self.free(endpoint);
        let most = self.most(self.taken().all).rows;
        if free < most.div_ceil(SHARE) { 0 } else { free }
    }

    /// Whether anything waits for `endpoint` in memory.
    #[must_use]
    pub fn holds(&self, endpoint: SubscriptionKey) -> bool {
        self.taken().endpoints.contains_key(&endpoint)
    }

    /// Rows and bytes that are free for all endpoints together.
    #[must_use]
    pub fn free_in_all(&self) -> (usize, usize) {
        let all = self.taken().all;
        let rows = self.limits.replica_rows.saturating_sub(all.rows);
        (rows, self.limits.replica_bytes.saturating_sub(all.bytes))
    }

    /// What one endpoint may have when so much is taken by all: its own limit, and no
    /// more than a quarter of what is left, so that however many endpoints hang, the
    /// next one finds room.
    fn most(&self, all: Use) -> Use {
        let limits = self.limits;
        let rows = limits.replica_rows.saturating_sub(all.rows).div_ceil(SHARE);
        let bytes = limits.replica_bytes.saturating_sub(all.bytes).div_ceil(SHARE);
        Use { rows: limits.endpoint_rows.min(rows), bytes: limits.endpoint_bytes.min(bytes) }
    }

    /// Deliveries that wait in memory.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.taken().all.rows
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Counters have no half-written state that a panic could leave behind.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueSlotsLimits = QueueSlotsLimits {
        endpoint_rows: 2,
        endpoint_bytes: 100,
        replica_rows: 100,
        replica_bytes: 10_000,
    };

    #[test]
    fn a_full_endpoint_leaves_room_for_others() {
        let slots = QueueSlots::new(LIMITS);
        let [one, other] = [SubscriptionKey(1), SubscriptionKey(2)];
        assert!(slots.take(one, 500), "an empty queue takes a payload over its limit");
        assert!(!slots.take(one, 1), "no bytes left");
        assert_eq!((slots.holds(one), slots.holds(other)), (true, false));
        assert_eq!(slots.free(one), 0);
        assert!(slots.take(other, 50));
        assert!(slots.take(other, 50));
        assert!(!slots.take(other, 0), "no rows left");
        slots.give_back(other, 50);
        assert_eq!(slots.free(other), 1);
        slots.give_back(other, 50);
        slots.give_back(one, 500);
        assert_eq!((slots.waiting(), slots.free(one)), (0, 2));
        assert!(slots.taken().endpoints.is_empty(), "nothing is kept for idle endpoints");
    }

    #[test]
    fn a_backlog_comes_in_large_parts() {
        let limits = QueueSlotsLimits { endpoint_rows: 8, endpoint_bytes: 1000, ..LIMITS };
        let slots = QueueSlots::new(limits);
        let endpoint = SubscriptionKey(1);
        for _ in 0..7 {
            assert!(slots.take(endpoint, 1));
        }
        assert_eq!((slots.free(endpoint), slots.worthwhile(endpoint)), (1, 0));
        slots.give_back(endpoint, 1);
        assert_eq!((slots.free(endpoint), slots.worthwhile(endpoint)), (2, 2));
    }

    #[test]
    fn however_many_endpoints_hang_the_next_one_finds_room() {
        let limits = QueueSlotsLimits { endpoint_rows: 8, replica_rows: 32, ..LIMITS };
        let slots = QueueSlots::new(limits);
        for endpoint in 0..7 {
            let taken = (0..100).take_while(|_| slots.take(SubscriptionKey(endpoint), 1)).count();
            assert!(0 < taken, "endpoint {endpoint} finds room");
        }
        assert!(0 < slots.free(SubscriptionKey(7)));
    }
}
