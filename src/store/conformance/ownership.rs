//! Checks of endpoints: one replica at a time, by a claim that lapses; what is settled is
//! told to routers and is no change of the subscription.

use std::time::Duration;

use super::on_both_engines;
use super::world::{World, acme, entry};
use crate::domain::id::SubscriptionKey;
use crate::domain::ownership::{
    CheckEnd, Fingerprint, GAP, OwnershipRecord, OwnershipRule, OwnershipState,
};
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::domain::timestamp::micros;
use crate::store::{Change, Fence, OwnershipClaim, Store};

on_both_engines! {
    a_check_is_claimed_once_until_it_lapses,
    of_many_that_claim_at_once_one_gets_it,
    what_is_settled_is_told_to_routers_and_leaves_the_etag,
    a_claim_that_lapsed_or_was_taken_settles_nothing,
    a_failed_check_waits_for_its_time_and_an_end_for_ever,
    another_question_starts_anew_after_the_gap,
    asking_anew_voids_a_check_that_is_under_way,
    a_switch_on_asks_anew_together_with_the_change,
    a_claim_that_is_given_back_counts_as_no_failure,
    a_deleted_subscription_is_forgotten,
}

const MINUTE: Duration = Duration::from_mins(1);

fn asked(url: &str) -> Fingerprint {
    OwnershipRule::Challenge.fingerprint(url)
}

fn here() -> Fingerprint {
    asked("https://example.com/hook")
}

fn failed(failures: u32, state: OwnershipState, wait: Duration) -> CheckEnd {
    CheckEnd { state, failures, reason: "The endpoint answered with status 405.".into(), wait }
}

fn proven() -> CheckEnd {
    let (state, wait) = (OwnershipState::Proven, Duration::ZERO);
    CheckEnd { state, failures: 0, reason: String::new(), wait }
}

async fn claim(world: &World, key: SubscriptionKey, asked: Fingerprint) -> Option<OwnershipClaim> {
    claim_by(world, world.fence, key, asked).await
}

async fn claim_by(
    world: &World,
    fence: Fence,
    key: SubscriptionKey,
    asked: Fingerprint,
) -> Option<OwnershipClaim> {
    world.store.claim_ownership(fence, key, asked, MINUTE).await.expect("claims")
}

async fn settle(world: &World, claim: OwnershipClaim, end: &CheckEnd) -> bool {
    world.store.settle_ownership(claim, end).await.expect("settles")
}

/// As if so much time had passed since the last check began, and since its end.
async fn later(world: &World, span: Duration) {
    let sql = "UPDATE ownership SET start_time = start_time - $1, lapse_time = lapse_time - $1,
        due_time = due_time - $1";
    world.execute(sql, vec![micros(span).into()]).await;
}

/// As if the last check began in a while, so that no slow machine gets past the gap.
async fn not_yet_begun(world: &World) {
    let sql = "UPDATE ownership SET start_time = start_time + $1";
    world.execute(sql, vec![micros(MINUTE).into()]).await;
}

/// What routers are told of the one subscription since `version`.
async fn told(world: &World, version: i64) -> (i64, Option<OwnershipRecord>) {
    let told = world.store.routing_changes(version).await.expect("tells");
    let [one] = told.changed.as_slice() else { panic!("one change: {told:?}") };
    (told.version, one.ownership.clone())
}

async fn a_check_is_claimed_once_until_it_lapses(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let other = Fence { incarnation: world.fence.incarnation + 1, ..world.fence };
    let first = claim(&world, key, here()).await.expect("nobody has asked");
    assert_eq!((first.number, first.failures), (1, 0));
    assert_eq!(claim_by(&world, other, key, here()).await, None);
    assert_eq!(claim(&world, key, here()).await, None, "nor twice by the same one");
    assert_eq!(claim(&world, key, asked("https://example.com/new")).await, None);
    later(&world, MINUTE).await;
    let second = claim_by(&world, other, key, here()).await.expect("the first has lapsed");
    assert_eq!((second.fence, second.number), (other, 2));
}

async fn of_many_that_claim_at_once_one_gets_it(store: Store) {
    let world = World::new(store).await;
    for _ in 0..5 {
        let key = world.subscribe(&acme()).await.key;
        let claims = (0..8).map(|number| {
            let fence = Fence { incarnation: world.fence.incarnation + number, ..world.fence };
            claim_by(&world, fence, key, here())
        });
        let claims = futures_util::future::join_all(claims).await;
        assert_eq!(claims.iter().flatten().count(), 1, "{claims:?}");
    }
}

async fn what_is_settled_is_told_to_routers_and_leaves_the_etag(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    world.subscribe(&acme()).await;
    let before = world.store.routing_version().await.expect("version");
    let claimed = claim(&world, made.key, here()).await.expect("nobody has asked");
    let untold = world.store.routing_changes(before).await.expect("tells");
    assert!(untold.changed.is_empty(), "a claim is nobody's business: {untold:?}");

    let end = failed(1, OwnershipState::Pending, MINUTE);
    assert!(settle(&world, claimed, &end).await);
    let (version, record) = told(&world, before).await;
    assert_eq!(version, before + 1);
    let record = record.expect("it was asked");
    assert_eq!((record.asked, record.state), (here(), OwnershipState::Pending));
    assert_eq!((record.failures, record.reason), (1, end.reason));
    let check_time = record.check_time.expect("it has ended");
    assert!(MINUTE <= record.due_time.since(check_time));

    later(&world, 2 * MINUTE).await;
    let claimed = claim(&world, made.key, here()).await.expect("it is due");
    assert_eq!((claimed.number, claimed.failures), (2, 1));
    assert!(settle(&world, claimed, &proven()).await);
    let (version, record) = told(&world, version).await;
    assert_eq!(version, before + 2);
    let record = record.expect("it was asked");
    assert_eq!((record.state, record.failures), (OwnershipState::Proven, 0));
    assert_eq!(record.reason, "");
    let read = world.store.subscription(&acme(), made.key).await.expect("is there");
    assert_eq!((read.version, read.update_time), (made.version, made.update_time));
    // Who begins is told of all, with its secrets.
    let all = world.store.routing_changes(0).await.expect("tells").changed;
    let one = all.iter().find(|one| one.subscription.key == made.key).expect("it is there");
    assert_eq!((one.ownership.as_ref(), one.secrets.len()), (Some(&record), 1));
}

async fn a_claim_that_lapsed_or_was_taken_settles_nothing(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let slow = claim(&world, key, here()).await.expect("nobody has asked");
    later(&world, MINUTE).await;
    let before = world.store.routing_version().await.expect("version");
    assert!(!settle(&world, slow, &proven()).await, "too late");
    let second = claim(&world, key, here()).await.expect("it has lapsed");
    assert!(!settle(&world, slow, &proven()).await, "another's by now");
    assert_eq!(world.store.routing_version().await.expect("version"), before);
    assert!(settle(&world, second, &proven()).await);
    assert!(!settle(&world, second, &failed(1, OwnershipState::Failed, MINUTE)).await, "once");
}

async fn a_failed_check_waits_for_its_time_and_an_end_for_ever(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let first = claim(&world, key, here()).await.expect("nobody has asked");
    assert!(settle(&world, first, &failed(1, OwnershipState::Pending, 2 * MINUTE)).await);
    later(&world, MINUTE).await;
    assert_eq!(claim(&world, key, here()).await, None, "not yet");
    later(&world, MINUTE).await;
    let second = claim(&world, key, here()).await.expect("it is due");
    assert!(settle(&world, second, &failed(2, OwnershipState::Failed, Duration::ZERO)).await);
    later(&world, Duration::from_hours(1000)).await;
    assert_eq!(claim(&world, key, here()).await, None, "not any more");
}

async fn another_question_starts_anew_after_the_gap(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let first = claim(&world, key, here()).await.expect("nobody has asked");
    assert!(settle(&world, first, &failed(1, OwnershipState::Failed, Duration::ZERO)).await);
    let new = asked("https://example.com/new");
    not_yet_begun(&world).await;
    assert_eq!(claim(&world, key, new).await, None, "a change asks nobody more often");
    later(&world, MINUTE + GAP).await;
    let second = claim(&world, key, new).await.expect("it has not been asked that");
    assert_eq!(second.failures, 0);
    let before = world.store.routing_version().await.expect("version");
    assert!(settle(&world, second, &proven()).await);
    let (_, record) = told(&world, before).await;
    assert_eq!(record.expect("it was asked").asked, new);
    later(&world, GAP).await;
    assert!(claim(&world, key, here()).await.is_some(), "and back");
}

async fn asking_anew_voids_a_check_that_is_under_way(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let first = claim(&world, made.key, here()).await.expect("nobody has asked");
    assert!(settle(&world, first, &failed(7, OwnershipState::Pending, MINUTE)).await);
    later(&world, MINUTE).await;
    let second = claim(&world, made.key, here()).await.expect("it is due");
    let before = world.store.routing_version().await.expect("version");
    let ask = |_| -> Result<Change, ()> { Ok(Change::Ask) };
    let kept = world.store.change_subscription(&acme(), made.key, None, &entry(), ask).await;
    assert_eq!(kept.expect("asks").version, made.version, "no change of the subscription");
    let (version, record) = told(&world, before).await;
    assert_eq!(version, before + 1);
    let record = record.expect("it was asked");
    assert_eq!((record.state, record.failures), (OwnershipState::Pending, 0));
    assert!(!record.reason.is_empty(), "the last word until there is another");

    assert!(!settle(&world, second, &failed(8, OwnershipState::Failed, MINUTE)).await);
    not_yet_begun(&world).await;
    assert_eq!(claim(&world, made.key, here()).await, None, "the gap holds");
    later(&world, MINUTE + GAP).await;
    assert_eq!(claim(&world, made.key, here()).await.expect("it is due").failures, 0);
}

async fn a_switch_on_asks_anew_together_with_the_change(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let first = claim(&world, made.key, here()).await.expect("nobody has asked");
    assert!(settle(&world, first, &proven()).await);
    let before = world.store.routing_version().await.expect("version");
    let change = |mut one: Subscription| -> Result<Change, ()> {
        one.state = SubscriptionState::Paused;
        Ok(Change::WriteAndAsk(Box::new(one)))
    };
    let changed = world.store.change_subscription(&acme(), made.key, None, &entry(), change).await;
    assert_eq!(changed.expect("changes").version, before + 1);
    let (version, record) = told(&world, before).await;
    assert_eq!(version, before + 1, "one change");
    assert_eq!(record.expect("it was asked").state, OwnershipState::Pending);
}

async fn a_claim_that_is_given_back_counts_as_no_failure(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let first = claim(&world, key, here()).await.expect("nobody has asked");
    world.store.give_back_ownership(first).await.expect("gives back");
    assert!(!settle(&world, first, &proven()).await);
    later(&world, GAP).await;
    let second = claim(&world, key, here()).await.expect("it is free");
    assert_eq!(second.failures, 0);
    world.store.give_back_ownership(first).await.expect("gives nothing back");
    assert!(settle(&world, second, &proven()).await, "it is another's");
}

async fn a_deleted_subscription_is_forgotten(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let claimed = claim(&world, made.key, here()).await.expect("nobody has asked");
    world.store.delete_subscription(&acme(), made.key, None, &entry()).await.expect("deletes");
    assert!(!settle(&world, claimed, &proven()).await);
    let (_, record) = told(&world, made.version).await;
    assert_eq!(record, None);
}
