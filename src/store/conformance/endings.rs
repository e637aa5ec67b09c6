//! What people do to deliveries: try ended ones again, cancel open ones.

use std::time::Duration;

use super::on_both_engines;
use super::world::{Draft, World, acme, attempt, entry, request};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::{DeadReason, Delivery, DeliveryState};
use crate::domain::id::{DeliveryKey, SubscriptionKey};
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::store::{Answer, Change, EndpointNote, Next, Settlement, Store, StoreError};

on_both_engines! {
    a_dead_letter_gets_one_more_attempt,
    one_that_is_put_off_untried_keeps_its_one_attempt,
    a_delivered_one_can_be_delivered_again,
    only_ended_ones_can_be_retried,
    a_retry_needs_a_payload_and_a_subscription_that_takes_events,
    a_retry_is_made_once_a_request,
    a_pending_one_is_cancelled,
    a_cancelled_one_stays_so_when_its_attempt_fails,
    a_cancellation_wins_over_a_failure_at_the_same_time,
    ended_ones_cannot_be_cancelled,
    a_late_end_is_not_the_end_of_the_retry,
    every_attempt_has_a_number_of_its_own_however_often_it_is_cancelled,
    a_claim_of_one_retry_settles_nothing_of_the_next,
}

const DEAD: Next = Next::Dead(DeadReason::AttemptsExhausted);

async fn a_dead_letter_gets_one_more_attempt(store: Store) {
    let world = World::new(store).await;
    let key = dead(&world).await;
    let again = retry(&world, key).await.expect("retries");
    assert_eq!(again.state, DeliveryState::Pending);
    assert_eq!((again.dead_reason, again.end_time, again.attempt_count), (None, None, 1));
    let claims =
        world.store.claim(world.fence, &[(key.subscription, 5)], u64::MAX).await.expect("claims");
    let [claim] = claims.as_slice() else { panic!("one claim: {claims:?}") };
    assert!(claim.last_chance);
    assert_eq!((claim.delivery(), claim.attempts), (key, 1));
}

async fn one_that_is_put_off_untried_keeps_its_one_attempt(store: Store) {
    let world = World::new(store).await;
    let key = dead(&world).await;
    retry(&world, key).await.expect("retries");
    for wait in [Duration::ZERO, Duration::from_hours(1)] {
        let claims = world.store.claim(world.fence, &[(key.subscription, 5)], u64::MAX).await;
        let claims = claims.expect("claims");
        let [claim] = claims.as_slice() else { panic!("one claim: {claims:?}") };
        assert!(claim.last_chance);
        assert_eq!(claim.attempts, 1, "nothing was tried meanwhile");
        let put_off = Settlement {
            delivery: key,
            organization: acme(),
            claim: claim.number,
            in_due: true,
            attempts: claim.attempts,
            attempt: None,
            next: Next::RetryIn(wait),
            note: EndpointNote::default(),
        };
        world.store.settle(world.fence, &[put_off]).await.expect("settles");
        let delivery = world.store.delivery(&acme(), key).await.expect("is there");
        assert_eq!((delivery.state, delivery.attempt_count), (DeliveryState::Pending, 1));
    }
    let claims = world.store.claim(world.fence, &[(key.subscription, 5)], u64::MAX).await;
    assert!(claims.expect("claims").is_empty(), "it waits");
}

async fn a_delivered_one_can_be_delivered_again(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    world.settle(key, attempt(1, AttemptResult::Succeeded), Next::Succeeded).await;
    assert_eq!(retry(&world, key).await.expect("retries").state, DeliveryState::Pending);
    world.settle_due(key.subscription, AttemptResult::HttpStatus, DEAD).await;
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!(delivery.state, DeliveryState::Dead, "what came last counts");
}

async fn only_ended_ones_can_be_retried(store: Store) {
    let world = World::new(store).await;
    for draft in [Draft::to, Draft::parked] {
        let key = published(&world, draft).await;
        let refused = retry(&world, key).await;
        assert!(matches!(refused, Err(StoreError::WrongState(_))), "{refused:?}");
    }
    let key = published(&world, Draft::to).await;
    world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
    assert_eq!(retry(&world, key).await.expect("retries").state, DeliveryState::Pending);
}

async fn a_retry_needs_a_payload_and_a_subscription_that_takes_events(store: Store) {
    let world = World::new(store).await;
    let refused = async |key| {
        let refused = retry(&world, key).await;
        assert!(matches!(refused, Err(StoreError::WrongState(_))), "{refused:?}");
        let delivery = world.store.delivery(&acme(), key).await.expect("is there");
        assert_eq!(delivery.state, DeliveryState::Dead);
    };
    let key = dead(&world).await;
    set_state(&world, key.subscription, SubscriptionState::Inactive).await;
    refused(key).await;
    set_state(&world, key.subscription, SubscriptionState::Paused).await;
    retry(&world, key).await.expect("waits until it is resumed");
    let key = dead(&world).await;
    world
        .store
        .delete_subscription(&acme(), key.subscription, None, &entry())
        .await
        .expect("deletes");
    refused(key).await;
    let key = dead(&world).await;
    world.execute("UPDATE event SET payload = NULL", vec![]).await;
    assert!(matches!(retry(&world, key).await, Err(StoreError::Purged)));
}

async fn a_retry_is_made_once_a_request(store: Store) {
    let world = World::new(store).await;
    let key = dead(&world).await;
    let retry = async |hash| {
        let respond = |delivery: &Delivery| format!("{:?}", delivery.state).into_bytes();
        world.store.retry_delivery(&acme(), key, Some(request("r", hash)), &entry(), respond).await
    };
    assert!(matches!(retry(1).await, Ok(Answer::Now(_))));
    world.settle_due(key.subscription, AttemptResult::HttpStatus, DEAD).await;
    let again = retry(1).await;
    let Ok(Answer::Before { response, secret }) = again else { panic!("made twice: {again:?}") };
    assert_eq!((response.as_slice(), secret), (b"Pending".as_slice(), None));
    assert!(matches!(retry(2).await, Err(StoreError::RequestIdReused)));
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!(delivery.state, DeliveryState::Dead);
}

async fn a_pending_one_is_cancelled(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::parked).await;
    let cancelled = world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
    assert_eq!(cancelled.state, DeliveryState::Cancelled);
    assert!(cancelled.end_time.is_some() && cancelled.dead_reason.is_none());
    let claims = world.store.claim(world.fence, &[(key.subscription, 5)], u64::MAX).await;
    assert!(claims.expect("claims").is_empty());
    let again = world.store.cancel_delivery(&acme(), key, &entry()).await.expect("is cancelled");
    assert_eq!(again.end_time, cancelled.end_time);
}

async fn a_cancelled_one_stays_so_when_its_attempt_fails(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
    world.settle(key, attempt(1, AttemptResult::HttpStatus), Next::RetryIn(Duration::ZERO)).await;
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!(delivery.state, DeliveryState::Cancelled);
    assert_eq!(delivery.attempt_count, 1, "what was sent is on record");
}

/// Whichever comes first, the delivery is not in line afterwards.
async fn a_cancellation_wins_over_a_failure_at_the_same_time(store: Store) {
    let world = World::new(store).await;
    for _ in 0..20 {
        let key = published(&world, Draft::to).await;
        let failed = attempt(1, AttemptResult::HttpStatus);
        let settled = world.settle(key, failed, Next::RetryIn(Duration::ZERO));
        let (acme, entry) = (acme(), entry());
        let (cancelled, ()) =
            tokio::join!(world.store.cancel_delivery(&acme, key, &entry), settled);
        assert_eq!(cancelled.expect("cancels").state, DeliveryState::Cancelled);
        let delivery = world.store.delivery(&acme, key).await.expect("is there");
        assert_eq!(delivery.state, DeliveryState::Cancelled);
    }
}

async fn ended_ones_cannot_be_cancelled(store: Store) {
    let world = World::new(store).await;
    let succeeded = published(&world, Draft::to).await;
    world.settle(succeeded, attempt(1, AttemptResult::Succeeded), Next::Succeeded).await;
    for key in [succeeded, dead(&world).await] {
        let refused = world.store.cancel_delivery(&acme(), key, &entry()).await;
        assert!(matches!(refused, Err(StoreError::WrongState(_))), "{refused:?}");
    }
}

async fn a_late_end_is_not_the_end_of_the_retry(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
    retry(&world, key).await.expect("retries");
    // The request of before the cancellation ends while the retry waits, and is said again
    // after it: as after a lost answer.
    let late = async || world.settle(key, attempt(1, AttemptResult::HttpStatus), DEAD).await;
    late().await;
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!((delivery.state, delivery.attempt_count), (DeliveryState::Pending, 1));
    world.settle_due(key.subscription, AttemptResult::Succeeded, Next::Succeeded).await;
    late().await;
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!((delivery.state, delivery.attempt_count), (DeliveryState::Succeeded, 2));
}

async fn every_attempt_has_a_number_of_its_own_however_often_it_is_cancelled(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    let wanted = [(key.subscription, 1)];
    // Attempt 1 is under way; attempt 2 is too, then not even claimed, then under way.
    for (attempts, is_claimed) in [(1, true), (2, false), (2, true)] {
        world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
        retry(&world, key).await.expect("retries");
        if is_claimed {
            let claims = world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims");
            assert_eq!(claims[0].attempts, attempts);
        }
    }
    world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
    retry(&world, key).await.expect("retries");
    world.settle_due(key.subscription, AttemptResult::Succeeded, Next::Succeeded).await;
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!(delivery.last_attempt.expect("is there").number, 4);
    assert_eq!(delivery.attempt_count, 1, "those on record");
}

/// Also when both come in the same second.
async fn a_claim_of_one_retry_settles_nothing_of_the_next(store: Store) {
    let world = World::new(store).await;
    let key = published(&world, Draft::to).await;
    let mut claims = Vec::new();
    for _ in 0..2 {
        world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
        retry(&world, key).await.expect("retries");
        let wanted = [(key.subscription, 1)];
        claims.extend(world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims"));
    }
    let late = Settlement {
        delivery: key,
        organization: acme(),
        claim: claims[0].number,
        in_due: true,
        attempt: None,
        attempts: claims[0].attempts,
        next: DEAD,
        note: EndpointNote::default(),
    };
    world.store.settle(world.fence, &[late]).await.expect("settles");
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!(delivery.state, DeliveryState::InFlight, "{claims:?}");
}

async fn dead(world: &World) -> DeliveryKey {
    let key = published(world, Draft::to).await;
    world.settle(key, attempt(1, AttemptResult::HttpStatus), DEAD).await;
    key
}

async fn published(world: &World, draft: fn(&[SubscriptionKey]) -> Draft) -> DeliveryKey {
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&draft(&[subscription])).await;
    DeliveryKey { event, subscription }
}

async fn retry(world: &World, key: DeliveryKey) -> Result<Delivery, StoreError> {
    match world.store.retry_delivery(&acme(), key, None, &entry(), |_| Vec::new()).await? {
        Answer::Now(delivery) => Ok(delivery),
        Answer::Before { .. } => unreachable!("there was no request id"),
    }
}

async fn set_state(world: &World, key: SubscriptionKey, state: SubscriptionState) {
    let change = |mut one: Subscription| -> Result<Change, ()> {
        one.state = state;
        Ok(Change::Write(Box::new(one)))
    };
    world.store.change_subscription(&acme(), key, None, &entry(), change).await.expect("changes");
}
