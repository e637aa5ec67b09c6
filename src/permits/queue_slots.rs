//! Places in the queues in this process's memory.
//!
//! A place is taken before a delivery is committed as claimed by this process, so
//! that handing it to the dispatcher afterwards can never wait or fail.
//!
//! What finds none waits in the database, and costs it three writes and a read more:
//! `pressure` says when publishers do better to come a moment later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pressure::{Delays, Watch};
use crate::domain::id::{OrganizationId, SubscriptionKey};

/// One endpoint may have the n-th part of what is left for its organization, and an
/// organization all but the n-th part of everything.
const SHARE: usize = 4;
/// A line is long from the n-th part of the places that there are for it.
const LONG: usize = 8;

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
    organizations: HashMap<OrganizationId, Use>,
    endpoints: HashMap<SubscriptionKey, Line>,
    delays: Delays,
}

/// What waits for one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    waits: Use,
    watch: Watch,
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
    pub fn take(
        &self,
        organization: &OrganizationId,
        endpoint: SubscriptionKey,
        bytes: usize,
    ) -> bool {
        let mut taken = self.taken();
        let (one, left) = (taken.by(endpoint), self.left(&taken, organization));
        let most = self.most(left);
        // An empty queue takes any one payload that its organization has room for.
        let fits = one.rows < most.rows
            && bytes <= left.bytes
            && (one.rows == 0 || one.bytes + bytes <= most.bytes);
        if fits {
            taken.add(organization, endpoint, bytes);
        }
        taken.want(organization, endpoint, most);
        fits
    }

    /// How much later what is published for `organization` should come, because its
    /// publishers outrun a receiver that keeps up. At most a second.
    #[must_use]
    pub fn delay(&self, organization: &OrganizationId) -> Option<Duration> {
        self.taken().delays.of(organization, Instant::now())
    }

    /// Takes a place that [`QueueSlots::free`] has shown, whatever its bytes.
    pub fn put(&self, organization: &OrganizationId, endpoint: SubscriptionKey, bytes: usize) {
        self.taken().add(organization, endpoint, bytes);
    }

    /// Gives a place back.
    pub fn give_back(
        &self,
        organization: &OrganizationId,
        endpoint: SubscriptionKey,
        bytes: usize,
    ) {
        self.taken().remove(organization, endpoint, bytes);
    }

    /// Places that are free for `endpoint` now.
    #[must_use]
    pub fn free(&self, organization: &OrganizationId, endpoint: SubscriptionKey) -> usize {
        let taken = self.taken();
        let (one, most) = (taken.by(endpoint), self.most(self.left(&taken, organization)));
        if most.bytes <= one.bytes {
            return 0;
        }
        most.rows.saturating_sub(one.rows)
    }

    /// As [`QueueSlots::free`], but none while less than a quarter of what `endpoint` may
    /// have is free: what is taken in from a backlog comes in few large parts, since each
    /// costs a write of its own.
    #[must_use]
    pub fn worthwhile(&self, organization: &OrganizationId, endpoint: SubscriptionKey) -> usize {
        let free = self.free(organization, endpoint);
        let most = self.most(self.left(&self.taken(), organization)).rows;
        if free < most.div_ceil(SHARE) { 0 } else { free }
    }

    /// Places that are free for all endpoints of `organization` together.
    #[must_use]
    pub fn free_of(&self, organization: &OrganizationId) -> usize {
        self.left(&self.taken(), organization).rows
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

    /// What `organization` may have more: what is left of its three quarters, if there is
    /// as much. A quarter of everything is out of its reach, however many endpoints it has;
    /// what others take of the rest costs it no more than that.
    fn left(&self, taken: &Taken, organization: &OrganizationId) -> Use {
        let own = taken.organizations.get(organization).copied().unwrap_or_default();
        let left = |limit: usize, all: usize, own: usize| {
            let reach = limit / SHARE * (SHARE - 1);
            reach.saturating_sub(own).min(limit.saturating_sub(all))
        };
        let limits = self.limits;
        Use {
            rows: left(limits.replica_rows, taken.all.rows, own.rows),
            bytes: left(limits.replica_bytes, taken.all.bytes, own.bytes),
        }
    }

    /// What one endpoint may have now: its own limit, and no more than a quarter of what is
    /// left for its organization, so that however many endpoints hang, the next one finds
    /// room.
    fn most(&self, left: Use) -> Use {
        let limits = self.limits;
        Use {
            rows: limits.endpoint_rows.min(left.rows.div_ceil(SHARE)),
            bytes: limits.endpoint_bytes.min(left.bytes.div_ceil(SHARE)),
        }
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

impl Taken {
    fn by(&self, endpoint: SubscriptionKey) -> Use {
        self.endpoints.get(&endpoint).map(|line| line.waits).unwrap_or_default()
    }

    /// Publishers wanted a place for `endpoint`, which may have `most`.
    fn want(&mut self, organization: &OrganizationId, endpoint: SubscriptionKey, most: Use) {
        let Some(line) = self.endpoints.get_mut(&endpoint) else { return };
        line.watch.want();
        let waits = line.waits;
        if waits.rows * LONG < most.rows && waits.bytes * LONG < most.bytes {
            return;
        }
        // Of large payloads, fewer are too many.
        let share = most.bytes / LONG * waits.rows / waits.bytes.max(1);
        let excess = waits.rows.saturating_sub((most.rows / LONG).min(share));
        let now = Instant::now();
        if let Some(length) = line.watch.outrun_for(excess, now) {
            self.delays.extend(organization, length, now);
        }
    }

    fn add(&mut self, organization: &OrganizationId, endpoint: SubscriptionKey, bytes: usize) {
        self.all.add(bytes);
        self.endpoints.entry(endpoint).or_default().waits.add(bytes);
        match self.organizations.get_mut(organization) {
            Some(own) => own.add(bytes),
            None => {
                self.organizations.insert(organization.clone(), Use { rows: 1, bytes });
            }
        }
    }

    fn remove(&mut self, organization: &OrganizationId, endpoint: SubscriptionKey, bytes: usize) {
        self.all.remove(bytes);
        if let Some(line) = self.endpoints.get_mut(&endpoint) {
            line.watch.leave();
            if line.waits.remove(bytes) {
                self.endpoints.remove(&endpoint);
            }
        }
        if self.organizations.get_mut(organization).is_some_and(|own| own.remove(bytes)) {
            self.organizations.remove(organization);
        }
    }
}

impl Use {
    fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Whether nothing is left.
    fn remove(&mut self, bytes: usize) -> bool {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.rows == 0
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

    fn clinic() -> OrganizationId {
        OrganizationId::stored("clinic")
    }

    #[test]
    fn a_full_endpoint_leaves_room_for_others() {
        let slots = QueueSlots::new(LIMITS);
        let [one, other] = [SubscriptionKey(1), SubscriptionKey(2)];
        assert!(slots.take(&clinic(), one, 500), "an empty queue takes a payload over its limit");
        assert!(!slots.take(&clinic(), one, 1), "no bytes left");
        assert_eq!((slots.holds(one), slots.holds(other)), (true, false));
        assert_eq!(slots.free(&clinic(), one), 0);
        assert!(slots.take(&clinic(), other, 50));
        assert!(slots.take(&clinic(), other, 50));
        assert!(!slots.take(&clinic(), other, 0), "no rows left");
        slots.give_back(&clinic(), other, 50);
        assert_eq!(slots.free(&clinic(), other), 1);
        slots.give_back(&clinic(), other, 50);
        slots.give_back(&clinic(), one, 500);
        assert_eq!((slots.waiting(), slots.free(&clinic(), one)), (0, 2));
        assert!(slots.taken().endpoints.is_empty(), "nothing is kept for idle endpoints");
        assert!(slots.taken().organizations.is_empty(), "nor for their organizations");
    }

    #[test]
    fn a_backlog_comes_in_large_parts() {
        let limits = QueueSlotsLimits { endpoint_rows: 8, endpoint_bytes: 1000, ..LIMITS };
        let slots = QueueSlots::new(limits);
        let endpoint = SubscriptionKey(1);
        for _ in 0..7 {
            assert!(slots.take(&clinic(), endpoint, 1));
        }
        assert_eq!(
            (slots.free(&clinic(), endpoint), slots.worthwhile(&clinic(), endpoint)),
            (1, 0)
        );
        slots.give_back(&clinic(), endpoint, 1);
        assert_eq!(
            (slots.free(&clinic(), endpoint), slots.worthwhile(&clinic(), endpoint)),
            (2, 2)
        );
    }

    #[test]
    fn however_many_endpoints_hang_the_next_one_finds_room() {
        let limits = QueueSlotsLimits { endpoint_rows: 8, replica_rows: 32, ..LIMITS };
        let slots = QueueSlots::new(limits);
        for endpoint in 0..7 {
            let taken = (0..100)
                .take_while(|_| slots.take(&clinic(), SubscriptionKey(endpoint), 1))
                .count();
            assert!(0 < taken, "endpoint {endpoint} finds room");
        }
        assert!(0 < slots.free(&clinic(), SubscriptionKey(7)));
    }

    #[test]
    fn an_organization_leaves_room_for_others_however_many_endpoints_it_has() {
        let limits = QueueSlotsLimits {
            endpoint_rows: 1000,
            endpoint_bytes: 100_000,
            replica_rows: 4000,
            replica_bytes: 1_000_000,
        };
        let slots = QueueSlots::new(limits);
        for endpoint in 0..1000 {
            while slots.take(&clinic(), SubscriptionKey(endpoint), 1) {}
        }
        assert_eq!(slots.waiting(), 3000, "its three quarters, and no more");
        let lab = OrganizationId::stored("lab");
        assert_eq!(slots.free(&lab, SubscriptionKey(1000)), 250, "a quarter of what is left");
    }

    #[test]
    fn what_others_take_leaves_an_organization_its_own() {
        let limits = QueueSlotsLimits { endpoint_rows: 1000, replica_rows: 4000, ..LIMITS };
        let limits =
            QueueSlotsLimits { endpoint_bytes: 100_000, replica_bytes: 1_000_000, ..limits };
        let slots = QueueSlots::new(limits);
        for endpoint in 0..12 {
            while slots.take(&clinic(), SubscriptionKey(endpoint), 1) {}
        }
        let lab = OrganizationId::stored("lab");
        while slots.take(&lab, SubscriptionKey(100), 1) {}
        assert!(0 < slots.free(&clinic(), SubscriptionKey(200)), "the next endpoint finds room");
    }

    #[test]
    fn one_large_payload_for_each_of_many_endpoints_leaves_room_for_others() {
        let limits = QueueSlotsLimits { replica_bytes: 4000, ..LIMITS };
        let slots = QueueSlots::new(limits);
        let taken =
            (0..50).filter(|endpoint| slots.take(&clinic(), SubscriptionKey(*endpoint), 100));
        assert_eq!(taken.count(), 30, "three quarters of 4,000 bytes");
        assert!(slots.take(&OrganizationId::stored("lab"), SubscriptionKey(100), 100));
    }
}
