//! What the service itself has to tell: noted with what it follows from, once, and there
//! until it is published.

use std::time::Duration;

use super::on_both_engines;
use super::world::{Draft, World, acme, attempt, entry};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::DeadReason;
use crate::domain::failure_streak::{Mark, Stage};
use crate::domain::id::{AccountId, DeliveryKey};
use crate::domain::operational_event::Audience;
use crate::domain::subscription::Subscription;
use crate::store::{DisableCause, EndpointNote, Next, Settlement, Store, UnpublishedEvent};

on_both_engines! {
    a_dead_delivery_is_told_of_once_and_only_where_somebody_asks,
    a_recovery_is_told_of_where_a_warning_was,
    a_disabled_subscription_is_told_of_with_its_disabling,
    what_one_replica_has_taken_is_nobody_elses_until_its_lease_ends,
    what_nobody_is_left_to_be_told_of_is_dropped,
}

const DEAD: Next = Next::Dead(DeadReason::AttemptsExhausted);
const LEASE: Duration = Duration::from_mins(1);

fn audience() -> Audience {
    Audience { account: Some(AccountId::stored("account-1")) }
}

async fn settlement(
    world: &World,
    of: &Subscription,
    (mark, next): (Mark, Next),
    audience: Option<Audience>,
) -> Settlement {
    let event = world.publish(&Draft::to(&[of.key])).await;
    Settlement {
        delivery: DeliveryKey { event, subscription: of.key },
        organization: acme(),
        claim: 0,
        in_due: false,
        attempt: Some(attempt(1, AttemptResult::HttpStatus)),
        attempts: 1,
        next,
        note: EndpointNote { mark, version: of.version, audience },
    }
}

/// What is there to publish, which then is published.
async fn told(world: &World) -> Vec<UnpublishedEvent> {
    let taken = world.store.take_operational_events(100, LEASE).await.expect("takes");
    let keys: Vec<i64> = taken.iter().map(|one| one.key).collect();
    world.store.operational_events_published(&keys).await.expect("forgets");
    taken
}

async fn a_dead_delivery_is_told_of_once_and_only_where_somebody_asks(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    let exhausted = (Mark::Exhausted, DEAD);
    let told_of = settlement(&world, &of, exhausted, Some(audience())).await;
    let silent = settlement(&world, &of, exhausted, None).await;
    let delivery = told_of.delivery;
    let batch = [told_of, silent];
    for _ in 0..2 {
        world.store.settle(world.fence, &batch).await.expect("settles");
    }
    let [one]: [UnpublishedEvent; 1] = told(&world).await.try_into().expect("one event");
    assert_eq!((one.organization, one.account), (acme(), audience().account));
    assert_eq!(one.event_type, "hookward.delivery.dead");
    let ids = world.store.ids();
    let expected = format!(
        concat!(
            r#"{{"subscription_id":"{}","delivery_id":"{}","#,
            r#""dead_reason":"DEAD_REASON_ATTEMPTS_EXHAUSTED","attempt_count":1}}"#
        ),
        ids.subscription(of.key),
        ids.delivery(delivery),
    );
    assert_eq!(one.payload, expected);

    let cancelled = settlement(&world, &of, exhausted, Some(audience())).await;
    world.store.cancel_delivery(&acme(), cancelled.delivery, &entry()).await.expect("cancels");
    world.store.settle(world.fence, &[cancelled]).await.expect("settles");
    assert!(told(&world).await.is_empty(), "it did not die");
}

async fn a_recovery_is_told_of_where_a_warning_was(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    for warned in [false, true] {
        let fails = settlement(&world, &of, (Mark::Exhausted, DEAD), None).await;
        world.store.settle(world.fence, &[fails]).await.expect("settles");
        let failing = world.store.failing_endpoints().await.expect("tells").remove(0);
        if warned {
            let audience = audience();
            let warn = world.store.warn(&acme(), &failing, Stage::Half, Some(&audience)).await;
            assert!(warn.expect("warns"));
        }
        let success = (Mark::Success, Next::Succeeded);
        let recovers = settlement(&world, &of, success, Some(audience())).await;
        for _ in 0..2 {
            let again = std::slice::from_ref(&recovers);
            world.store.settle(world.fence, again).await.expect("settles");
        }
        let types = told(&world).await.into_iter().map(|one| one.event_type);
        let types: Vec<String> = types.collect();
        if warned {
            let expected = ["hookward.subscription.failing", "hookward.subscription.recovered"];
            assert_eq!(types, expected);
        } else {
            assert!(types.is_empty(), "nobody was worried: {types:?}");
        }
    }
}

async fn a_disabled_subscription_is_told_of_with_its_disabling(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    for expected in [true, false] {
        let (cause, audience) = (DisableCause::Gone, audience());
        let disabled =
            world.store.disable(&acme(), of.key, of.version, cause, Some(&audience)).await;
        assert_eq!(disabled.expect("answers"), expected);
    }
    let [one]: [UnpublishedEvent; 1] = told(&world).await.try_into().expect("one event");
    assert_eq!(one.event_type, "hookward.subscription.disabled");
    let id = world.store.ids().subscription(of.key);
    assert_eq!(one.payload, format!(r#"{{"subscription_id":"{id}","reason":"GONE"}}"#));
}

async fn what_one_replica_has_taken_is_nobody_elses_until_its_lease_ends(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    for _ in 0..3 {
        let dies = settlement(&world, &of, (Mark::Nothing, DEAD), Some(audience())).await;
        world.store.settle(world.fence, &[dies]).await.expect("settles");
    }
    let take = async |limit, lease| {
        let taken = world.store.take_operational_events(limit, lease).await.expect("takes");
        taken.into_iter().map(|one| one.key).collect::<Vec<i64>>()
    };
    let first = take(2, LEASE).await;
    assert_eq!(first.len(), 2);
    let last = take(9, Duration::ZERO).await;
    assert_eq!(last.len(), 1, "the others are taken");
    assert!(first.iter().all(|key| 0 < *key && *key < last[0]), "oldest first");
    assert_eq!(take(9, LEASE).await, last, "its lease has ended");
    assert!(take(9, LEASE).await.is_empty());
    world.store.operational_events_published(&first).await.expect("forgets");
    world.execute("UPDATE operational_event SET taken_until = 0", vec![]).await;
    assert_eq!(take(9, LEASE).await, last, "what is published is gone");
}

async fn what_nobody_is_left_to_be_told_of_is_dropped(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    let dies = settlement(&world, &of, (Mark::Nothing, DEAD), Some(audience())).await;
    world.store.settle(world.fence, &[dies]).await.expect("settles");
    world.store.delete_subscription(&acme(), of.key, None, &entry()).await.expect("deletes");
    assert!(told(&world).await.is_empty());
    world.subscribe(&acme()).await;
    assert!(told(&world).await.is_empty(), "it is not kept for others");
}
