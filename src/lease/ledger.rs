//! The deliveries that this process has claimed and not yet settled, and the events
//! that it is about to commit.
//!
//! The database knows the same, but for what was claimed by its commit and is not
//! settled yet: for that it has only the watermark, the smallest key in here that
//! has no `due` row.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::store::Fence;

/// What this process holds, all under one fence: what comes late from an earlier one
/// is another replica's by now, and is not noted.
#[derive(Debug)]
pub struct Ledger {
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    fence: Fence,
    /// Events whose commit is under way.
    committing: BTreeSet<EventKey>,
    /// Claimed by their commit; no due row.
    fresh: BTreeSet<DeliveryKey>,
    /// Claimed with a due row, each with the claim's number: one that was cancelled and
    /// tried again while a request was under way is held twice.
    in_due: HashSet<(DeliveryKey, i32)>,
}

impl Ledger {
    pub(super) fn new(fence: Fence) -> Self {
        let held = Held {
            fence,
            committing: BTreeSet::new(),
            fresh: BTreeSet::new(),
            in_due: HashSet::new(),
        };
        Ledger { held: Mutex::new(held) }
    }

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
    pub fn committed(
        &self,
        fence: Fence,
        events: &[EventKey],
        claimed: impl Iterator<Item = DeliveryKey>,
    ) {
        let mut held = self.held();
        if held.fence == fence {
            held.fresh.extend(claimed);
        }
        for event in events {
            held.committing.remove(event);
        }
    }

    /// Deliveries that were claimed from `due`.
    pub fn claimed(&self, fence: Fence, claims: impl Iterator<Item = (DeliveryKey, i32)>) {
        let mut held = self.held();
        if held.fence == fence {
            held.in_due.extend(claims);
        }
    }

    /// Whether a delivery that is held under this claim has a due row.
    #[must_use]
    pub fn is_in_due(&self, delivery: DeliveryKey, claim: i32) -> bool {
        self.held().in_due.contains(&(delivery, claim))
    }

    /// Whether a delivery is held under this claim.
    #[must_use]
    pub fn holds(&self, delivery: DeliveryKey, claim: i32) -> bool {
        let held = self.held();
        let is_fresh = claim == 0 && held.fresh.contains(&delivery);
        is_fresh || held.in_due.contains(&(delivery, claim))
    }

    /// The deliveries got due rows.
    pub fn spilled(&self, fence: Fence, deliveries: &[DeliveryKey]) {
        let mut held = self.held();
        if held.fence != fence {
            return;
        }
        for delivery in deliveries {
            if held.fresh.remove(delivery) {
                held.in_due.insert((*delivery, 0));
            }
        }
    }

    /// The deliveries are settled, each under the claim with this number.
    pub fn settled(&self, fence: Fence, claims: impl Iterator<Item = (DeliveryKey, i32)>) {
        let mut held = self.held();
        if held.fence != fence {
            return;
        }
        for (delivery, claim) in claims {
            let was_fresh = claim == 0 && held.fresh.remove(&delivery);
            if !was_fresh {
                held.in_due.remove(&(delivery, claim));
            }
        }
    }

    /// The fence that everything is held under, and the deliveries without a due row
    /// whose events have smaller keys than `before`.
    #[must_use]
    pub fn fresh_before(&self, before: EventKey, limit: usize) -> (Fence, Vec<DeliveryKey>) {
        let end = DeliveryKey { event: before, subscription: SubscriptionKey(i64::MIN) };
        let held = self.held();
        (held.fence, held.fresh.range(..end).take(limit).copied().collect())
    }

    /// Number of deliveries held and of events whose commit is under way.
    #[must_use]
    pub fn len(&self) -> usize {
        let held = self.held();
        held.fresh.len() + held.in_due.len() + held.committing.len()
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

    /// Everything held is another replica's now. Tells how many deliveries that were.
    pub(super) fn start_over(&self, fence: Fence) -> usize {
        let mut held = self.held();
        let lost = held.fresh.len() + held.in_due.len();
        held.fence = fence;
        held.fresh.clear();
        held.in_due.clear();
        lost
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
        let fence = Fence { replica: 0, incarnation: 1 };
        let ledger = Ledger::new(fence);
        let low = || ledger.low_key(|| EventKey(100)).0;
        assert_eq!(low(), 100, "nothing is held");

        let next = std::cell::Cell::new(5);
        let make = || EventKey(next.replace(next.get() + 1));
        let keys = ledger.begin(3, make);
        assert_eq!(low(), 5, "a commit is under way");

        ledger.committed(fence, &keys, [delivery(5), delivery(6)].into_iter());
        assert_eq!(low(), 5);
        ledger.spilled(fence, &[delivery(5)]);
        assert_eq!(low(), 6, "the first has a due row now");
        ledger.settled(fence, [(delivery(6), 0), (delivery(5), 0)].into_iter());
        assert_eq!(low(), 100);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_delivery_that_was_cancelled_and_tried_again_is_held_twice() {
        let fence = Fence { replica: 0, incarnation: 1 };
        let ledger = Ledger::new(fence);
        let keys = ledger.begin(1, || EventKey(5));
        ledger.committed(fence, &keys, [delivery(5)].into_iter());
        ledger.claimed(fence, [(delivery(5), 7)].into_iter());
        ledger.spilled(fence, &[delivery(5)]);
        ledger.claimed(fence, [(delivery(5), 9)].into_iter());
        for claim in [0, 7, 9] {
            assert!(ledger.is_in_due(delivery(5), claim), "claim {claim}");
        }
        assert!(!ledger.holds(delivery(5), 8), "a claim whose answer was lost");
        ledger.settled(fence, [(delivery(5), 0), (delivery(5), 9)].into_iter());
        assert!(ledger.holds(delivery(5), 7) && ledger.len() == 1);
    }

    #[test]
    fn what_comes_late_from_an_earlier_fence_is_not_held() {
        let [first, second] = [1, 2].map(|incarnation| Fence { replica: 0, incarnation });
        let ledger = Ledger::new(first);
        let keys = ledger.begin(1, || EventKey(5));
        ledger.start_over(second);
        ledger.committed(first, &keys, [delivery(5)].into_iter());
        ledger.claimed(first, [(delivery(6), 1)].into_iter());
        assert!(ledger.is_empty());
        ledger.claimed(second, [(delivery(6), 2)].into_iter());
        ledger.settled(second, [(delivery(6), 1)].into_iter());
        assert!(ledger.holds(delivery(6), 2), "an older claim of the same delivery");
    }
}
