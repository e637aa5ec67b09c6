//! Deliveries: every state follows from the rows that are there.

use std::time::Duration;

use super::on_both_engines;
use super::world::{Draft, NOON, World, acme, attempt, entry, other};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::{DeadReason, Delivery, DeliveryState};
use crate::domain::id::{DeliveryKey, SubscriptionKey};
use crate::store::{Next, Store, StoreError};

on_both_engines! {
    without_a_row_of_its_own_it_is_in_flight,
    parked_it_is_pending_and_claimed_it_is_in_flight,
    after_a_failure_it_is_pending_again,
    with_a_success_it_has_succeeded,
    given_up_it_is_dead_for_a_reason,
    only_targets_of_the_organizations_events_are_deliveries,
    attempts_are_listed_oldest_first,
}

async fn without_a_row_of_its_own_it_is_in_flight(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    let delivery = read(&world, key).await;
    assert_eq!(delivery.state, DeliveryState::InFlight);
    assert_eq!((delivery.attempt_count, delivery.last_attempt), (0, None));
    assert_eq!(delivery.update_time, NOON);
    assert_eq!((delivery.next_attempt_time, delivery.end_time), (None, None));
}

async fn parked_it_is_pending_and_claimed_it_is_in_flight(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::parked).await;
    let delivery = read(&world, key).await;
    assert_eq!(delivery.state, DeliveryState::Pending);
    assert!(delivery.next_attempt_time.is_some());
    let claims = world.store.claim(world.fence, &[(key.subscription, 1)], u64::MAX).await;
    assert_eq!(claims.expect("claims").len(), 1);
    let delivery = read(&world, key).await;
    assert_eq!(delivery.state, DeliveryState::InFlight);
    assert_eq!(delivery.next_attempt_time, None);
}

async fn after_a_failure_it_is_pending_again(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    let failed = attempt(1, AttemptResult::HttpStatus);
    let end = failed.start_time.plus(failed.duration);
    let before = world.store.replicas().await.expect("lists")[0].now;
    world.settle(key, failed.clone(), Next::RetryIn(Duration::from_hours(1))).await;
    let delivery = read(&world, key).await;
    assert_eq!(delivery.state, DeliveryState::Pending);
    assert_eq!(delivery.attempt_count, 1);
    let next = delivery.next_attempt_time.expect("is set");
    assert!(before.plus(Duration::from_mins(59)) < next);
    let last = delivery.last_attempt.expect("is there");
    assert_eq!((last.http_status, last.error), (failed.http_status, failed.error));
    assert!(last.response_body.is_empty(), "left out");
    assert_eq!(delivery.update_time, end);
}

async fn with_a_success_it_has_succeeded(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    world.settle(key, attempt(1, AttemptResult::HttpStatus), Next::RetryIn(Duration::ZERO)).await;
    world.settle_due(key.subscription, AttemptResult::Succeeded, Next::Succeeded).await;
    let delivery = read(&world, key).await;
    assert_eq!(delivery.state, DeliveryState::Succeeded);
    assert_eq!(delivery.attempt_count, 2);
    let end = NOON.plus(Duration::from_mins(2)).plus(Duration::from_millis(20));
    assert_eq!((delivery.end_time, delivery.update_time), (Some(end), end));
    assert_eq!(delivery.last_attempt.expect("is there").result, AttemptResult::Succeeded);
}

async fn given_up_it_is_dead_for_a_reason(store: Store) {
    let world = World::new(store).await;
    for reason in DeadReason::ALL {
        let key = published(&world, Draft::to).await;
        world.settle(key, attempt(1, AttemptResult::HttpStatus), Next::Dead(reason)).await;
        let delivery = read(&world, key).await;
        assert_eq!(delivery.state, DeliveryState::Dead);
        assert_eq!(delivery.dead_reason, Some(reason));
        assert!(delivery.end_time.is_some());
    }
}

async fn only_targets_of_the_organizations_events_are_deliveries(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    let bystander = world.subscribe(&acme()).await.key;
    let not_sent = DeliveryKey { subscription: bystander, ..key };
    let no_event = DeliveryKey { event: crate::domain::id::EventKey(1), ..key };
    for (organization, key) in [(other(), key), (acme(), not_sent), (acme(), no_event)] {
        let store = &world.store;
        let found = store.delivery(&organization, key).await;
        assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
        let found = store.attempts(&organization, key, 0, 10, false).await;
        assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
        let found = store.cancel_delivery(&organization, key, &entry()).await;
        assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
        let found = store.retry_delivery(&organization, key, None, &entry(), |_| Vec::new()).await;
        assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
    }
}

async fn attempts_are_listed_oldest_first(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    world.settle(key, attempt(1, AttemptResult::HttpStatus), Next::RetryIn(Duration::ZERO)).await;
    for _ in 0..2 {
        let again = Next::RetryIn(Duration::ZERO);
        world.settle_due(key.subscription, AttemptResult::HttpStatus, again).await;
    }
    let list = async |after, limit, with_body| {
        world.store.attempts(&acme(), key, after, limit, with_body).await.expect("lists")
    };
    let all = list(0, 10, true).await;
    let expected: Vec<_> = (1..=3).map(|n| attempt(n, AttemptResult::HttpStatus)).collect();
    assert_eq!(all, expected);
    let one = list(1, 1, false).await;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].number, 2);
    assert!(one[0].response_body.is_empty());
}

/// A delivery of a new event to a new subscription.
async fn published(world: &World, draft: fn(&[SubscriptionKey]) -> Draft) -> DeliveryKey {
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&draft(&[subscription])).await;
    DeliveryKey { event, subscription }
}

async fn read(world: &World, key: DeliveryKey) -> Delivery {
    world.store.delivery(&acme(), key).await.expect("is there")
}
