//! Random traces of everything that happens to deliveries, on the real store, against
//! the reference: no event is lost, each has exactly its deliveries, each delivery has
//! the state and the attempts that it must have, and what is late changes nothing.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use super::reference::{Fate, Hold, Reference};
use super::world::{Draft, World, acme, attempt, entry, other};
use super::{on_postgres, on_sqlite};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::{DeadReason, DeliveryState};
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::store::{
    Answer, Change, Claim, Commit, EndpointNote, Fence, LeaseSession, Next, Settlement, Stale,
    Store, StoreError,
};

/// Traces, unless `PROPTEST_CASES` says otherwise.
const TRACES_SQLITE: u32 = 300;
const TRACES_POSTGRES: u32 = 20;
const SUBSCRIPTIONS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// By subscription: 0 not a target, 1 held, 2 parked.
    Publish([u8; SUBSCRIPTIONS]),
    Claim {
        subscription: usize,
        rows: u32,
    },
    Settle(Vec<(usize, Way)>),
    /// A settlement that was sent before, as after a lost answer.
    SettleAgain(usize),
    Spill,
    /// A claim that the process forgot is found in the database and given back.
    Forget(usize),
    Retry(usize),
    Cancel(usize),
    Set {
        subscription: usize,
        state: SubscriptionState,
    },
    EndWaiting(usize),
    /// `beats`: the watermark was told before.
    Crash {
        beats: bool,
    },
    /// The dead process goes on after all.
    Late(usize, Way),
}

/// How an attempt ends, or that none was made.
#[derive(Clone, Copy, Debug)]
enum Way {
    Succeeds,
    FailsForNow,
    FailsForLong,
    Dies,
    Released,
    Expired,
    Cancelled,
}

impl Way {
    const ALL: [Way; 7] = [
        Way::Succeeds,
        Way::FailsForNow,
        Way::FailsForLong,
        Way::Dies,
        Way::Released,
        Way::Expired,
        Way::Cancelled,
    ];

    /// What is recorded of the attempt, and what follows.
    fn record(self) -> (Option<AttemptResult>, Next) {
        let failed = Some(AttemptResult::HttpStatus);
        match self {
            Way::Succeeds => (Some(AttemptResult::Succeeded), Next::Succeeded),
            Way::FailsForNow => (failed, Next::RetryIn(Duration::ZERO)),
            Way::FailsForLong => (failed, Next::RetryIn(Duration::from_hours(1))),
            Way::Dies => (failed, Next::Dead(DeadReason::AttemptsExhausted)),
            Way::Released => (None, Next::Release),
            Way::Expired => (None, Next::Dead(DeadReason::Expired)),
            Way::Cancelled => (None, Next::Cancelled),
        }
    }
}

fn traces() -> impl Strategy<Value = Vec<Step>> {
    let subscription = 0..SUBSCRIPTIONS;
    let way = || prop::sample::select(&Way::ALL[..]);
    let settled = prop::collection::vec((any::<usize>(), way()), 1..4);
    let states =
        [SubscriptionState::Active, SubscriptionState::Paused, SubscriptionState::Inactive];
    let state = prop::sample::select(states.to_vec());
    let step = prop_oneof![
        6 => prop::array::uniform3(0_u8..3).prop_map(Step::Publish),
        6 => (subscription.clone(), 1_u32..4)
            .prop_map(|(subscription, rows)| Step::Claim { subscription, rows }),
        8 => settled.prop_map(Step::Settle),
        2 => any::<usize>().prop_map(Step::SettleAgain),
        2 => Just(Step::Spill),
        1 => any::<usize>().prop_map(Step::Forget),
        4 => any::<usize>().prop_map(Step::Retry),
        4 => any::<usize>().prop_map(Step::Cancel),
        1 => (subscription.clone(), state)
            .prop_map(|(subscription, state)| Step::Set { subscription, state }),
        1 => subscription.prop_map(Step::EndWaiting),
        1 => any::<bool>().prop_map(|beats| Step::Crash { beats }),
        2 => (any::<usize>(), way()).prop_map(|(which, way)| Step::Late(which, way)),
    ];
    prop::collection::vec(step, 1..60)
}

/// A process with its memory, and what must be true of the store.
struct Trace {
    world: World,
    subscriptions: Vec<(SubscriptionKey, SubscriptionState)>,
    reference: Reference,
    events: Vec<EventKey>,
    memory: Vec<Hold>,
    /// Settlements that the store took under this fence.
    sent: Vec<Settlement>,
    /// What dead processes held.
    late: Vec<(Fence, Hold)>,
    holds: usize,
}

impl Trace {
    async fn new(store: Store) -> Trace {
        let world = World::new(store).await;
        let mut subscriptions = Vec::new();
        for _ in 0..SUBSCRIPTIONS {
            let subscription = world.subscribe(&acme()).await;
            subscriptions.push((subscription.key, SubscriptionState::Active));
        }
        Trace {
            world,
            subscriptions,
            reference: Reference::default(),
            events: Vec::new(),
            memory: Vec::new(),
            sent: Vec::new(),
            late: Vec::new(),
            holds: 0,
        }
    }

    fn hold(&mut self, delivery: DeliveryKey, claim: Option<&Claim>) -> Hold {
        self.holds += 1;
        let (number, attempts) = claim.map_or((0, 0), |claim| (claim.number, claim.attempts));
        let in_due = claim.is_some();
        let hold = Hold { id: self.holds, delivery, claim: number, attempts, in_due };
        self.memory.push(hold.clone());
        hold
    }

    fn any_delivery(&self, which: usize) -> Option<DeliveryKey> {
        let count = self.reference.fates.len();
        self.reference.fates.keys().nth(which.checked_rem(count)?).copied()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish(places) => self.publish(places).await,
            Step::Claim { subscription, rows } => self.claim(subscription, rows).await,
            Step::Settle(ways) => self.settle(ways).await,
            Step::SettleAgain(which) => {
                if let Some(which) = which.checked_rem(self.sent.len()) {
                    let again = &self.sent[which..=which];
                    self.world.store.settle(self.world.fence, again).await.expect("settles");
                }
            }
            Step::Spill => self.spill().await,
            Step::Forget(which) => self.forget(which).await,
            Step::Retry(which) => self.retry(which).await,
            Step::Cancel(which) => self.cancel(which).await,
            Step::Set { subscription, state } => self.set(subscription, state).await,
            Step::EndWaiting(subscription) => {
                let (key, state) = self.subscriptions[subscription];
                let ended = self.world.store.end_waiting(key, 1000).await.expect("ends");
                let expected = if state.takes_events() { 0 } else { self.reference.ended(key) };
                assert_eq!(ended, expected);
            }
            Step::Crash { beats } => self.crash(beats).await,
            Step::Late(which, way) => self.late(which, way).await,
        }
    }

    async fn publish(&mut self, places: [u8; SUBSCRIPTIONS]) {
        let (mut targets, mut parked) = (Vec::new(), Vec::new());
        for ((key, state), place) in self.subscriptions.iter().zip(places) {
            if place != 0 && state.takes_events() {
                targets.push(*key);
                parked.extend((place == 2 || *state == SubscriptionState::Paused).then_some(*key));
            }
        }
        let draft = Draft { parked: parked.clone(), ..Draft::to(&targets) };
        let event = self.world.publish(&draft).await;
        self.events.push(event);
        for subscription in targets {
            let delivery = DeliveryKey { event, subscription };
            let held = !parked.contains(&subscription);
            let holder = held.then(|| self.hold(delivery, None).id);
            self.reference.published(delivery, holder);
        }
    }

    async fn claim(&mut self, subscription: usize, rows: u32) {
        let key = self.subscriptions[subscription].0;
        let due = self.reference.due_of(key);
        let claims = self.world.store.claim(self.world.fence, &[(key, rows)], u64::MAX).await;
        let claims = claims.expect("claims");
        assert_eq!(claims.len(), due.min(usize::try_from(rows).expect("few")));
        for claim in &claims {
            let hold = self.hold(claim.delivery(), Some(claim));
            self.reference.claimed(&hold);
            let fate = self.reference.of(hold.delivery);
            assert_eq!(claim.attempts, fate.given_out, "attempts of {fate:?}");
            assert_eq!(claim.takeovers, fate.takeovers, "take-overs of {fate:?}");
            assert_eq!(claim.last_chance, fate.last_chance, "last chance of {fate:?}");
        }
    }

    async fn settle(&mut self, ways: Vec<(usize, Way)>) {
        let mut batch = Vec::new();
        for (which, way) in ways {
            let Some(which) = which.checked_rem(self.memory.len()) else { break };
            let hold = self.memory.swap_remove(which);
            let twice = self.memory.iter().any(|other| other.delivery == hold.delivery);
            // An end without an attempt does not say which numbers were given out; while
            // an older request is under way, a retry would give its number again.
            let way = match way {
                Way::Expired if twice => Way::Dies,
                way => way,
            };
            let (result, next) = way.record();
            self.reference.settled(&hold, result.is_some(), next);
            batch.push(settlement(&hold, way));
        }
        self.world.store.settle(self.world.fence, &batch).await.expect("settles");
        self.sent.extend(batch);
    }

    async fn spill(&mut self) {
        let fresh = self.memory.iter_mut().filter(|hold| !hold.in_due);
        let mut spilled = Vec::new();
        for hold in fresh {
            hold.in_due = true;
            spilled.push(hold.delivery);
        }
        self.world.store.spill(self.world.fence, &spilled).await.expect("spills");
    }

    async fn forget(&mut self, which: usize) {
        let Some(which) = which.checked_rem(self.memory.len()) else { return };
        if self.memory[which].in_due {
            let hold = self.memory.swap_remove(which);
            let lost = [(hold.delivery, hold.claim)];
            self.world.store.disown(self.world.fence, &lost).await.expect("gives back");
            self.reference.disowned(&hold);
        }
    }

    async fn retry(&mut self, which: usize) {
        let Some(delivery) = self.any_delivery(which) else { return };
        let of = |(key, _): &&(SubscriptionKey, _)| *key == delivery.subscription;
        let state = self.subscriptions.iter().find(of).expect("one of them").1;
        let retried = self
            .world
            .store
            .retry_delivery(&acme(), delivery, None, &entry(), |_| Vec::new())
            .await;
        if self.reference.retried(delivery, state.takes_events()) {
            assert!(matches!(retried, Ok(Answer::Now(_))), "{retried:?}");
        } else {
            assert!(matches!(retried, Err(StoreError::WrongState(_))), "{retried:?}");
        }
    }

    async fn cancel(&mut self, which: usize) {
        let Some(delivery) = self.any_delivery(which) else { return };
        let cancelled = self.world.store.cancel_delivery(&acme(), delivery, &entry()).await;
        if self.reference.cancelled(delivery) {
            assert_eq!(cancelled.expect("cancels").state, DeliveryState::Cancelled);
        } else {
            assert!(matches!(cancelled, Err(StoreError::WrongState(_))), "{cancelled:?}");
        }
    }

    async fn set(&mut self, subscription: usize, state: SubscriptionState) {
        let key = self.subscriptions[subscription].0;
        let change = |mut one: Subscription| -> Result<Change, ()> {
            one.state = state;
            Ok(Change::Write(Box::new(one)))
        };
        self.world
            .store
            .change_subscription(&acme(), key, None, &entry(), change)
            .await
            .expect("changes");
        self.subscriptions[subscription].1 = state;
    }

    /// The memory is gone; another process registers and takes over.
    async fn crash(&mut self, beats: bool) {
        let store = self.world.store.clone();
        if beats {
            let fresh = self.memory.iter().filter(|hold| !hold.in_due);
            let fresh = fresh.map(|hold| hold.delivery.event).min();
            let low_key = fresh.unwrap_or_else(|| EventKey(self.world.key()));
            store
                .heartbeat(&mut LeaseSession::default(), self.world.fence, low_key)
                .await
                .expect("beats");
        }
        let replicas = store.replicas().await.expect("tells");
        let dead = replicas.iter().find(|one| one.fence == self.world.fence).expect("is there");
        let heir = store.register().await.expect("registers").fence;
        store.heartbeat(&mut LeaseSession::default(), heir, EventKey(0)).await.expect("beats");
        let held = u64::try_from(self.reference.taken_over()).expect("few");
        assert_eq!(store.take_over(dead).await.expect("takes over"), Some(held));
        let fence = std::mem::replace(&mut self.world.fence, heir);
        self.late.extend(self.memory.drain(..).map(|hold| (fence, hold)));
        self.sent.clear();
    }

    /// Everything that a dead process tries fails or changes nothing.
    async fn late(&mut self, which: usize, way: Way) {
        let Some(which) = which.checked_rem(self.late.len()) else { return };
        let (fence, hold) = &self.late[which];
        let (fence, store) = (*fence, &self.world.store);
        let settled = store.settle(fence, &[settlement(hold, way)]).await;
        assert!(matches!(settled, Err(StoreError::Fenced)), "{settled:?}");
        let spilled = store.spill(fence, &[hold.delivery]).await;
        assert!(matches!(spilled, Err(StoreError::Fenced)), "{spilled:?}");
        let claimed = store.claim(fence, &[(hold.delivery.subscription, 9)], u64::MAX).await;
        assert!(
            matches!(claimed, Err(StoreError::Fenced)) || claimed.as_ref().is_ok_and(Vec::is_empty),
            "{claimed:?}"
        );
        store.disown(fence, &[(hold.delivery, hold.claim)]).await.expect("changes nothing");
        let rows = [self.world.row(&Draft::to(&[]))];
        let routing_version = store.routing_version().await.expect("version");
        let committed = store
            .commit(&Commit { fence, routing_version, stale: Stale::ByAnyChange, events: &rows })
            .await;
        assert!(matches!(committed, Err(StoreError::Fenced)), "{committed:?}");
    }

    /// Everything that must be there is, and nothing else.
    async fn check(&self) {
        let store = &self.world.store;
        let found = store.events_by_keys(&self.events).await.expect("looks up").events;
        assert_eq!(found.len(), self.events.len(), "every event that was acknowledged");
        for event in &self.events {
            for (subscription, _) in &self.subscriptions {
                let key = DeliveryKey { event: *event, subscription: *subscription };
                let stranger = store.delivery(&other(), key).await;
                assert!(matches!(stranger, Err(StoreError::NotFound)), "{stranger:?}");
                let found = store.delivery(&acme(), key).await;
                let Some(fate) = self.reference.fates.get(&key) else {
                    assert!(matches!(found, Err(StoreError::NotFound)), "no target: {found:?}");
                    continue;
                };
                let found = found.expect("it was published");
                assert_eq!(found.state, fate.state, "{key:?}: {fate:?}");
                assert_eq!(found.dead_reason, fate.dead_reason, "{fate:?}");
                let pending = fate.state == DeliveryState::Pending;
                assert_eq!(found.next_attempt_time.is_some(), pending);
                let attempts = store.attempts(&acme(), key, 0, 1000, false).await.expect("lists");
                let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
                assert!(numbers.iter().eq(&fate.recorded), "{numbers:?}: {fate:?}");
                assert_eq!(usize::try_from(found.attempt_count), Ok(numbers.len()));
                check_numbers(fate);
            }
        }
        let mut owned = store.owned(self.world.fence).await.expect("tells");
        let decides = |hold: &&Hold| {
            hold.in_due && self.reference.fates[&hold.delivery].holder == Some(hold.id)
        };
        let mut held: Vec<(DeliveryKey, i32)> =
            self.memory.iter().filter(decides).map(|hold| (hold.delivery, hold.claim)).collect();
        owned.sort_unstable();
        held.sort_unstable();
        assert_eq!(owned, held, "claims in the database and in memory");
    }
}

/// Without gaps, but for attempts that were under way when their delivery was cancelled.
fn check_numbers(fate: &Fate) {
    if !fate.may_have_gaps {
        let count = u32::try_from(fate.recorded.len()).expect("few");
        assert!(fate.recorded.iter().copied().eq(1..=count), "{fate:?}");
    }
}

fn settlement(hold: &Hold, way: Way) -> Settlement {
    let (result, next) = way.record();
    let attempts = hold.attempts + u32::from(result.is_some());
    Settlement {
        delivery: hold.delivery,
        organization: acme(),
        claim: hold.claim,
        in_due: hold.in_due,
        attempt: result.map(|result| attempt(attempts, result)),
        attempts,
        next,
        note: EndpointNote::default(),
    }
}

async fn run(store: Store, steps: Vec<Step>) {
    let mut trace = Trace::new(store).await;
    for step in steps {
        trace.step(step).await;
    }
    trace.check().await;
}

/// Runs traces, each on a store of its own. A panic in one is its failure.
fn many(count: u32, on: impl Fn(Vec<Step>) -> TestCaseResult) {
    let usual = ProptestConfig::default();
    let asked = usual.cases != 256;
    let cases = if asked { usual.cases } else { count };
    let config = ProptestConfig { cases, source_file: Some(file!()), ..usual };
    if let Err(failure) = TestRunner::new(config).run(&traces(), on) {
        panic!("{failure}");
    }
}

#[test]
fn every_trace_ends_as_the_reference_says_on_sqlite() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    many(TRACES_SQLITE, |steps| {
        runtime.block_on(on_sqlite(|store| run(store, steps)));
        Ok(())
    });
}

#[test]
fn every_trace_ends_as_the_reference_says_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    many(TRACES_POSTGRES, |steps| {
        runtime.block_on(on_postgres("traces", |store| run(store, steps)));
        Ok(())
    });
}
