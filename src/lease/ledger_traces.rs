//! The ledger against a naive list of what is held, under random traces.

use std::cell::Cell;

use proptest::prelude::*;

use super::Ledger;
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::store::Fence;

/// Traces, unless `PROPTEST_CASES` says otherwise.
const TRACES: u32 = 3000;
/// Larger than every key of a trace.
const NEXT: EventKey = EventKey(1_000_000);

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(usize),
    /// Of the oldest events whose commit is under way: which of two targets fit.
    Commit {
        fits: [bool; 2],
        late: bool,
    },
    /// A delivery that was seen before, or another replica's, is claimed from `due`.
    Claim {
        event: i64,
        subscription: i64,
        late: bool,
    },
    /// What is old gets due rows; more may have been settled since it was looked up.
    Spill {
        before: i64,
    },
    Settle {
        which: usize,
        late: bool,
    },
    StartOver,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let late = prop::bool::weighted(0.1);
    let step = prop_oneof![
        4 => (1_usize..4).prop_map(Step::Begin),
        4 => (any::<[bool; 2]>(), late).prop_map(|(fits, late)| Step::Commit { fits, late }),
        4 => (0_i64..30, 0_i64..2, late).prop_map(|(event, subscription, late)| Step::Claim {
            event,
            subscription,
            late,
        }),
        2 => (0_i64..60).prop_map(|before| Step::Spill { before }),
        6 => (any::<usize>(), late).prop_map(|(which, late)| Step::Settle { which, late }),
        1 => Just(Step::StartOver),
    ];
    prop::collection::vec(step, 1..80)
}

/// What is held: delivery, claim, and whether it has a due row.
struct Naive {
    fence: Fence,
    committing: Vec<EventKey>,
    held: Vec<(DeliveryKey, i32, bool)>,
    claims: i32,
}

impl Naive {
    fn fence(&self, late: bool) -> Fence {
        let incarnation = self.fence.incarnation - i64::from(late);
        Fence { incarnation, ..self.fence }
    }

    fn low_key(&self) -> EventKey {
        let fresh = self.held.iter().filter(|(_, _, in_due)| !in_due);
        let fresh = fresh.map(|(delivery, _, _)| delivery.event);
        fresh.chain(self.committing.iter().copied()).min().unwrap_or(NEXT)
    }
}

fn step(ledger: &Ledger, naive: &mut Naive, keys: &Cell<i64>, step: Step) {
    match step {
        Step::Begin(count) => {
            let made = ledger.begin(count, || EventKey(keys.replace(keys.get() + 1)));
            naive.committing.extend(made);
        }
        Step::Commit { fits, late } => {
            let count = naive.committing.len().min(2);
            let events: Vec<EventKey> = naive.committing.drain(..count).collect();
            let of = |event: &EventKey| {
                let targets = (0..).zip(fits).filter(|(_, fits)| *fits);
                let event = *event;
                targets
                    .map(move |(key, _)| DeliveryKey { event, subscription: SubscriptionKey(key) })
            };
            let claimed: Vec<DeliveryKey> = events.iter().flat_map(of).collect();
            ledger.committed(naive.fence(late), &events, claimed.iter().copied());
            if !late {
                naive.held.extend(claimed.into_iter().map(|delivery| (delivery, 0, false)));
            }
        }
        Step::Claim { event, subscription, late } => {
            naive.claims += 1;
            let subscription = SubscriptionKey(subscription);
            let delivery = DeliveryKey { event: EventKey(event), subscription };
            ledger.claimed(naive.fence(late), std::iter::once((delivery, naive.claims)));
            naive.held.extend((!late).then_some((delivery, naive.claims, true)));
        }
        Step::Spill { before } => {
            let (fence, old) = ledger.fresh_before(EventKey(before), 3);
            ledger.spilled(fence, &old);
            for held in &mut naive.held {
                held.2 |= held.1 == 0 && old.contains(&held.0);
            }
        }
        Step::Settle { which, late } if !naive.held.is_empty() => {
            let which = which % naive.held.len();
            let (delivery, claim, _) = naive.held[which];
            ledger.settled(naive.fence(late), std::iter::once((delivery, claim)));
            if !late {
                naive.held.swap_remove(which);
            }
        }
        Step::Settle { .. } => {}
        Step::StartOver => {
            naive.fence.incarnation += 1;
            ledger.start_over(naive.fence);
            naive.held.clear();
        }
    }
}

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let asked = usual.cases != 256;
    ProptestConfig { cases: if asked { usual.cases } else { TRACES }, ..usual }
}

proptest! {
    #![proptest_config(config())]

    /// Nothing held is forgotten, nothing settled or late is kept, and the watermark is
    /// never above an event that still needs this process.
    #[test]
    fn every_trace_is_noted_as_a_list_would_be(steps in steps()) {
        let fence = Fence { replica: 0, incarnation: 1 };
        let ledger = Ledger::new(fence);
        let mut naive = Naive { fence, committing: Vec::new(), held: Vec::new(), claims: 0 };
        let keys = Cell::new(0);
        for one in steps {
            step(&ledger, &mut naive, &keys, one);
            prop_assert_eq!(ledger.len(), naive.held.len() + naive.committing.len());
            prop_assert_eq!(ledger.low_key(|| NEXT), naive.low_key());
            for (delivery, claim, in_due) in &naive.held {
                prop_assert!(ledger.holds(*delivery, *claim));
                prop_assert_eq!(ledger.is_in_due(*delivery, *claim), *in_due);
            }
            let (held_under, fresh) = ledger.fresh_before(NEXT, usize::MAX);
            prop_assert_eq!(held_under, naive.fence);
            prop_assert_eq!(fresh.len(), naive.held.iter().filter(|held| !held.2).count());
        }
    }
}
