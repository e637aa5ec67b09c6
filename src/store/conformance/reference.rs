//! What becomes of deliveries, by the book: the small reference that random traces on
//! the real store are compared with.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::delivery::{DeadReason, DeliveryState};
use crate::domain::id::{DeliveryKey, SubscriptionKey};
use crate::store::Next;

/// A claim in a process's memory.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// Tells holds of one delivery apart.
    pub(super) id: usize,
    pub(super) delivery: DeliveryKey,
    pub(super) claim: i32,
    pub(super) attempts: u32,
    /// As the ledger knows it: claimed from `due`, or spilled.
    pub(super) in_due: bool,
}

/// How one delivery stands.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    pub(super) state: DeliveryState,
    pub(super) dead_reason: Option<DeadReason>,
    /// Pending, and not due before the end of the trace.
    pub(super) later: bool,
    /// The hold that decides, while in flight. Older ones may only record.
    pub(super) holder: Option<usize>,
    /// The highest number of an attempt that may have been made.
    pub(super) given_out: u32,
    /// Whether a request was under way when the delivery was cancelled: if the process
    /// dies, that attempt's number stays without a record.
    pub(super) may_have_gaps: bool,
    pub(super) recorded: BTreeSet<u32>,
    pub(super) takeovers: u32,
    pub(super) last_chance: bool,
}

impl Fate {
    fn pending(&mut self, later: bool) {
        self.state = DeliveryState::Pending;
        self.later = later;
        self.holder = None;
    }

    fn end(&mut self, state: DeliveryState, dead_reason: Option<DeadReason>) {
        self.state = state;
        self.dead_reason = dead_reason;
        self.holder = None;
    }

    pub(super) fn is_due(&self) -> bool {
        self.state == DeliveryState::Pending && !self.later
    }
}

/// Every delivery there is.
#[derive(Debug, Default)]
pub(super) struct Reference {
    pub(super) fates: BTreeMap<DeliveryKey, Fate>,
}

impl Reference {
    /// `holder`: the hold that its commit made; without one it is parked.
    pub(super) fn published(&mut self, delivery: DeliveryKey, holder: Option<usize>) {
        let state = if holder.is_some() { DeliveryState::InFlight } else { DeliveryState::Pending };
        let fate = Fate {
            state,
            dead_reason: None,
            later: false,
            holder,
            given_out: 0,
            may_have_gaps: false,
            recorded: BTreeSet::new(),
            takeovers: 0,
            last_chance: false,
        };
        assert!(self.fates.insert(delivery, fate).is_none(), "one delivery a target");
    }

    pub(super) fn of(&mut self, delivery: DeliveryKey) -> &mut Fate {
        self.fates.get_mut(&delivery).expect("it was published")
    }

    pub(super) fn due_of(&self, subscription: SubscriptionKey) -> usize {
        let due =
            |(key, fate): &(&DeliveryKey, &Fate)| key.subscription == subscription && fate.is_due();
        self.fates.iter().filter(due).count()
    }

    pub(super) fn claimed(&mut self, hold: &Hold) {
        let fate = self.of(hold.delivery);
        assert!(fate.is_due(), "claimed although it is not due: {fate:?}");
        fate.state = DeliveryState::InFlight;
        fate.holder = Some(hold.id);
    }

    /// `tried`: an attempt is recorded with it.
    pub(super) fn settled(&mut self, hold: &Hold, tried: bool, next: Next) {
        let fate = self.of(hold.delivery);
        if tried {
            assert!(fate.recorded.insert(hold.attempts + 1), "its number is another's");
        }
        if fate.holder != Some(hold.id) {
            return;
        }
        if tried {
            fate.given_out = fate.given_out.max(hold.attempts + 1);
        }
        match next {
            Next::Succeeded => fate.end(DeliveryState::Succeeded, None),
            Next::RetryIn(wait) => {
                fate.pending(!wait.is_zero());
                fate.takeovers = 0;
            }
            Next::Release => fate.pending(false),
            Next::Dead(reason) => fate.end(DeliveryState::Dead, Some(reason)),
            Next::Cancelled => fate.end(DeliveryState::Cancelled, None),
        }
    }

    /// Whether a person may have another attempt of it.
    pub(super) fn retried(&mut self, delivery: DeliveryKey, takes_events: bool) -> bool {
        let fate = self.of(delivery);
        let ended = match fate.state {
            DeliveryState::Pending | DeliveryState::InFlight => false,
            DeliveryState::Succeeded | DeliveryState::Dead | DeliveryState::Cancelled => true,
        };
        if ended && takes_events {
            fate.pending(false);
            fate.dead_reason = None;
            fate.given_out = fate.given_out.max(fate.recorded.last().copied().unwrap_or_default());
            (fate.takeovers, fate.last_chance) = (0, true);
        }
        ended && takes_events
    }

    /// Whether a person may give it up.
    pub(super) fn cancelled(&mut self, delivery: DeliveryKey) -> bool {
        let fate = self.of(delivery);
        match fate.state {
            DeliveryState::Succeeded | DeliveryState::Dead => return false,
            DeliveryState::Cancelled => {}
            DeliveryState::Pending => fate.end(DeliveryState::Cancelled, None),
            DeliveryState::InFlight => {
                fate.given_out += 1;
                fate.may_have_gaps = true;
                fate.end(DeliveryState::Cancelled, None);
            }
        }
        true
    }

    /// The subscription takes nothing any more: what waits ends. Tells how many.
    pub(super) fn ended(&mut self, subscription: SubscriptionKey) -> usize {
        let mut count = 0;
        for (key, fate) in &mut self.fates {
            if key.subscription == subscription && fate.state == DeliveryState::Pending {
                fate.end(DeliveryState::Cancelled, None);
                count += 1;
            }
        }
        count
    }

    /// The process that held everything is dead. Tells how many it held.
    pub(super) fn taken_over(&mut self) -> usize {
        let held = self.fates.values_mut().filter(|fate| fate.holder.is_some());
        held.map(|fate| {
            fate.pending(false);
            fate.takeovers += 1;
        })
        .count()
    }

    /// A claim whose answer was lost is given back.
    pub(super) fn disowned(&mut self, hold: &Hold) {
        let fate = self.of(hold.delivery);
        if fate.holder == Some(hold.id) {
            fate.pending(false);
        }
    }
}
