//! The deliveries that this process has claimed and not yet settled, and the events
//! that it is about to commit.
//!
//! The database knows the same, but for what was claimed by its commit and is not
//! settled yet: for that it has only the watermark, the smallest key in here that
//! has no `due` row.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};

/// What this process holds.
#[derive(Debug, Default)]
pub struct Ledger {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Events whose commit is under way.
    committing: BTreeSet<EventKey>,
    /// Claimed by their commit; no due row.
    fresh: BTreeSet<DeliveryKey>,
    /// Claimed with a due row, and the claim's number.
    in_due: HashMap<DeliveryKey, i32>,
}

impl Ledger {
    /// Makes keys for events to commit. Making and noting are one step, so that the
    /// watermark cannot slip past a key that was just made.
    pub(super) fn begin(&self, count: usize, make: impl Fn() -> EventKey) -> Vec<EventKey> {
        let mut held = self.held();
        let keys: Vec<EventKey> = (0..count).map(|_| make()).collect();
        held.committing.extend(&keys);
        keys
    }

    /// The events are committed, or will never be: `claimed` are those deliveries
    /// that this process now holds.
    pub fn committed(&self, events: &[EventKey], claimed: impl Iterator<Item = DeliveryKey>) {
        let mut held = self.held();
        held.fresh.extend(claimed);
        for event in events {
            held.committing.remove(event);
        }
    }

    /// Deliveries that were claimed from `due`.
    pub fn claimed(&self, claims: impl Iterator<Item = (DeliveryKey, i32)>) {
        self.held().in_due.extend(claims);
    }

    /// Whether a delivery that is held has a due row.
    #[must_use]
    pub fn is_in_due(&self, delivery: DeliveryKey) -> bool {
        self.held().in_due.contains_key(&delivery)
    }

    /// Whether a delivery is held.
    #[must_use]
    pub fn holds(&self, delivery: DeliveryKey) -> bool {
        let held = self.held();
        held.fresh.contains(&delivery) || held.in_due.contains_key(&delivery)
    }

    /// The deliveries got due rows.
    pub fn spilled(&self, deliveries: &[DeliveryKey]) {
        let mut held = self.held();
        for delivery in deliveries {
            if held.fresh.remove(delivery) {
                held.in_due.insert(*delivery, 0);
            }
        }
    }

    /// The deliveries are settled, or another replica's.
    pub fn settled(&self, deliveries: impl Iterator<Item = DeliveryKey>) {
        let mut held = self.held();
        for delivery in deliveries {
            if !held.fresh.remove(&delivery) {
                held.in_due.remove(&delivery);
            }
        }
    }

    /// Deliveries without a due row whose events have smaller keys than `before`.
    #[must_use]
    pub fn fresh_before(&self, before: EventKey, limit: usize) -> Vec<DeliveryKey> {
        let end = DeliveryKey { event: before, subscription: SubscriptionKey(i64::MIN) };
        self.held().fresh.range(..end).take(limit).copied().collect()
    }

    /// Number of deliveries held.
    #[must_use]
    pub fn len(&self) -> usize {
        let held = self.held();
        held.fresh.len() + held.in_due.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The watermark; `next` makes one where nothing is held.
    pub(super) fn low_key(&self, next: impl Fn() -> EventKey) -> EventKey {
        let held = self.held();
        let fresh = held.fresh.first().map(|delivery| delivery.event);
        let committing = held.committing.first().copied();
        match (fresh, committing) {
            (Some(fresh), Some(committing)) => fresh.min(committing),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => next(),
        }
    }

    pub(super) fn forget_all(&self) {
        let mut held = self.held();
        held.fresh.clear();
        held.in_due.clear();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Sets of keys have no half-written state that a panic could leave behind.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(event: i64) -> DeliveryKey {
        DeliveryKey { event: EventKey(event), subscription: SubscriptionKey(7) }
    }

    #[test]
    fn the_watermark_is_the_oldest_event_without_a_due_row() {
        let ledger = Ledger::default();
        let low = || ledger.low_key(|| EventKey(100)).0;
        assert_eq!(low(), 100, "nothing is held");

        let next = std::cell::Cell::new(5);
        let make = || EventKey(next.replace(next.get() + 1));
        let keys = ledger.begin(3, make);
        assert_eq!(low(), 5, "a commit is under way");

        ledger.committed(&keys, [delivery(5), delivery(6)].into_iter());
        assert_eq!(low(), 5);
        ledger.spilled(&[delivery(5)]);
        assert_eq!(low(), 6, "the first has a due row now");
        ledger.settled([delivery(6), delivery(5)].into_iter());
        assert_eq!(low(), 100);
        assert!(ledger.is_empty());
    }
}
