//! What is purged, on demand and by age, and what is not.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{Draft, NOON, World, acme, attempt, entry, other};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::{DeadReason, DeliveryState};
use crate::domain::event::{Event, Payload};
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::retention::{Kept, Stage};
use crate::domain::timestamp::{Timestamp, micros};
use crate::store::engine::column;
use crate::store::{Committed, Next, Purged, Store, StoreError, SubjectPurge};

on_both_engines! {
    a_purged_event_carries_nothing_and_what_is_open_of_it_is_cancelled,
    what_a_request_under_way_brings_later_goes_too,
    a_purge_by_subject_finds_those_of_one_organization,
    payloads_go_once_all_deliveries_are_over_for_long_enough,
    everything_goes_with_the_metadata,
    each_event_is_looked_at_once_in_portions,
    events_that_are_anothers_to_purge_are_passed_in_portions_too,
    an_organization_may_be_kept_longer_or_shorter,
    settings_change_one_by_one_and_are_taken_back,
    a_log_that_somebody_reads_is_not_called_empty,
}

const DAY: Duration = Duration::from_hours(24);
const DEAD: Next = Next::Dead(DeadReason::AttemptsExhausted);

/// Of SQLite; PostgreSQL's is the operator's.
async fn a_log_that_somebody_reads_is_not_called_empty(store: Store) {
    let world = World::new(store).await;
    let reader = world.store.snapshot(&acme()).await.expect("begins");
    let look = || world.store.statement("SELECT count(*) AS counted FROM event", vec![]);
    reader.query_one_raw(look()).await.expect("reads");
    world.publish(&Draft::to(&[])).await;
    assert_eq!(world.store.truncate_log().await.is_ok(), world.store.is_shared());
    reader.query_one_raw(look()).await.expect("still reads");
    drop(reader);
    world.store.truncate_log().await.expect("nobody reads it");
}

async fn a_purged_event_carries_nothing_and_what_is_open_of_it_is_cancelled(store: Store) {
    let world = World::new(store).await;
    let [waits, flies, has] = subscriptions(&world).await;
    let draft = Draft { parked: vec![waits], ..Draft::to(&[waits, flies, has]) };
    let event = world.publish(&draft).await;
    let of = |subscription| DeliveryKey { event, subscription };
    world.settle(of(has), attempt(1, AttemptResult::Succeeded), Next::Succeeded).await;
    let id = world.store.ids().event(event);

    for _ in 0..2 {
        let purged = world.store.purge_event(&acme(), &id, &entry()).await.expect("it is there");
        assert!(purged.summary.purge_time.is_some() && purged.summary.payload_bytes == 7);
        assert!(purged.summary.attributes.is_empty() && purged.summary.subject.is_empty());
        assert_eq!(read(&world, event).await.payload, Payload::None);
    }

    assert_eq!(state(&world, of(waits)).await, DeliveryState::Cancelled);
    assert_eq!(state(&world, of(flies)).await, DeliveryState::Cancelled);
    assert_eq!(state(&world, of(has)).await, DeliveryState::Succeeded);
    let claims = world.store.claim(world.fence, &[(waits, 9), (flies, 9)], u64::MAX).await;
    assert!(claims.expect("claims").is_empty());
    for subscription in [waits, has] {
        let refused = world
            .store
            .retry_delivery(&acme(), of(subscription), None, &entry(), |_| Vec::new())
            .await;
        assert!(matches!(refused, Err(StoreError::Purged)), "{refused:?}");
    }
    let foreign = world.store.purge_event(&other(), &id, &entry()).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
}

async fn what_a_request_under_way_brings_later_goes_too(store: Store) {
    let world = World::new(store).await;
    let [subscription, ..] = subscriptions(&world).await;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let delivery = DeliveryKey { event, subscription };
    let id = world.store.ids().event(event);
    world.store.purge_event(&acme(), &id, &entry()).await.expect("it is there");

    let failed = attempt(1, AttemptResult::HttpStatus);
    world.settle(delivery, failed.clone(), Next::RetryIn(Duration::ZERO)).await;

    assert_eq!(state(&world, delivery).await, DeliveryState::Cancelled);
    assert_eq!(count(&world, "due").await, 0);
    assert_eq!(bodies(&world, delivery).await, [failed.response_body.to_vec()]);
    assert_eq!(waiting(&world, Stage::Payload).await, []);
    pass(&world, Duration::from_mins(3)).await;
    assert_eq!(waiting(&world, Stage::Payload).await, [acme()]);
    let again = world.store.purge_again(&acme(), Stage::Payload, 100).await.expect("purges");
    assert_eq!(again.events, 0, "it was purged before");
    assert_eq!(bodies(&world, delivery).await, [Vec::<u8>::new()]);
    assert_eq!(count(&world, "retention_visit").await, 0);
}

async fn a_purge_by_subject_finds_those_of_one_organization(store: Store) {
    let world = World::new(store).await;
    let [subscription, ..] = subscriptions(&world).await;
    let parked = world.publish(&Draft::parked(&[subscription])).await;
    let without = world.publish(&Draft::to(&[])).await;
    let foreign = world.publish(&Draft { organization: other(), ..Draft::to(&[]) }).await;

    let purge = async |subject: &str| {
        world.store.purge_subject(&acme(), subject, None, &entry()).await.expect("purges")
    };
    assert_eq!(purge("patient-2").await, SubjectPurge { purged: 0, next: None });
    assert_eq!(purge("patient-1").await, SubjectPurge { purged: 2, next: None });
    assert_eq!(purge("patient-1").await, SubjectPurge { purged: 0, next: None });

    for (event, there) in [(parked, false), (without, false), (foreign, true)] {
        assert_eq!(read(&world, event).await.payload != Payload::None, there);
    }
    let delivery = DeliveryKey { event: parked, subscription };
    assert_eq!(state(&world, delivery).await, DeliveryState::Cancelled);
}

async fn payloads_go_once_all_deliveries_are_over_for_long_enough(store: Store) {
    let world = World::new(store).await;
    let [one, two, _] = subscriptions(&world).await;
    let over = world.publish(&Draft::to(&[one])).await;
    let failed = attempt(1, AttemptResult::HttpStatus);
    let of_over = DeliveryKey { event: over, subscription: one };
    world.settle(of_over, failed, Next::RetryIn(Duration::ZERO)).await;
    world.settle_due(one, AttemptResult::Succeeded, Next::Succeeded).await;
    let nobodys = world.publish(&Draft::to(&[])).await;
    let half = world.publish(&Draft::parked(&[one, two])).await;
    world.settle_due(one, AttemptResult::Succeeded, Next::Succeeded).await;
    let dead = world.publish(&Draft::to(&[one])).await;
    let failed = attempt(1, AttemptResult::HttpStatus);
    world.settle(DeliveryKey { event: dead, subscription: one }, failed, DEAD).await;
    let young = world.publish(&Draft { at: now(&world).await, ..Draft::to(&[]) }).await;
    let carry = async || {
        let mut carry = Vec::new();
        for event in [over, nobodys, half, dead, young] {
            carry.push(read(&world, event).await.payload != Payload::None);
        }
        carry
    };

    let first = passing(&world, None, Stage::Payload, 100).await;
    assert_eq!((first.events, first.more), (2, false));
    assert!(30 * DAY < first.late, "they were over since {NOON:?}: {first:?}");
    assert_eq!(carry().await, [false, false, true, true, true]);
    assert_eq!(bodies(&world, of_over).await, [Vec::<u8>::new(), Vec::new()]);
    assert_eq!(passing(&world, None, Stage::Payload, 100).await.events, 0);
    // One ended just now; one has not, so that it cannot be over before a week.
    assert_eq!(waiting(&world, Stage::Payload).await, []);

    pass(&world, 8 * DAY).await;
    assert_eq!(waiting(&world, Stage::Payload).await, [acme()]);
    let again = world.store.purge_again(&acme(), Stage::Payload, 100).await.expect("purges");
    assert_eq!((again.events, again.more), (1, false));
    assert!(again.late < 2 * DAY, "{again:?}");
    assert_eq!(carry().await, [false, false, true, false, true]);
    assert_eq!(waiting(&world, Stage::Payload).await, []);

    world.settle_due(two, AttemptResult::Succeeded, Next::Succeeded).await;
    pass(&world, 8 * DAY).await;
    let again = world.store.purge_again(&acme(), Stage::Payload, 100).await.expect("purges");
    assert_eq!(again.events, 1);
    assert_eq!(carry().await, [false, false, false, false, true]);
    assert_eq!(count(&world, "retention_visit").await, 0);
}

async fn everything_goes_with_the_metadata(store: Store) {
    let world = World::new(store).await;
    let [one, two, _] = subscriptions(&world).await;
    let named = Draft { id: Some("order-1"), ..Draft::to(&[one, two]) };
    let event = world.publish(&named).await;
    let of = |subscription| DeliveryKey { event, subscription };
    world.settle(of(one), attempt(1, AttemptResult::Succeeded), Next::Succeeded).await;
    world.settle(of(two), attempt(1, AttemptResult::HttpStatus), DEAD).await;
    let open = world.publish(&Draft::parked(&[one])).await;
    passing(&world, None, Stage::Payload, 100).await;

    assert_eq!(passing(&world, None, Stage::Metadata, 100).await.events, 0, "it ended just now");
    pass(&world, 91 * DAY).await;
    let again = world.store.purge_again(&acme(), Stage::Metadata, 100).await.expect("purges");
    assert_eq!(again.events, 1);

    assert!(matches!(world.store.delivery(&acme(), of(one)).await, Err(StoreError::NotFound)));
    assert!(matches!(
        world.store.event_by_id(&acme(), "order-1", false).await,
        Err(StoreError::NotFound)
    ));
    for (table, rows) in [("event", 1), ("event_key", 0), ("attempt", 0), ("undelivered", 0)] {
        assert_eq!(count(&world, table).await, rows, "{table}");
    }
    let delivery = DeliveryKey { event: open, subscription: one };
    assert_eq!(state(&world, delivery).await, DeliveryState::Pending, "it waits all the same");
    let row = world.row(&named);
    assert_eq!(world.commit(&[row]).await.expect("commits"), Committed::Stored);
    world.store.drop_partitions().await.expect("there are none that are empty");
}

async fn each_event_is_looked_at_once_in_portions(store: Store) {
    let world = World::new(store).await;
    let [one, ..] = subscriptions(&world).await;
    for number in 0..5 {
        let draft = if number == 2 { Draft::parked(&[one]) } else { Draft::to(&[]) };
        world.publish(&draft).await;
    }
    let mut portions = Vec::new();
    loop {
        let portion = passing(&world, None, Stage::Payload, 2).await;
        portions.push((portion.events, portion.more));
        if !portion.more {
            break;
        }
    }
    assert_eq!(portions, [(2, true), (1, true), (1, false)]);
    assert_eq!(count(&world, "retention_visit").await, 1);
    // What comes with an older key is not seen again: there is none that the cursor missed.
    assert_eq!(passing(&world, None, Stage::Payload, 2).await, Purged::default());
}

async fn events_that_are_anothers_to_purge_are_passed_in_portions_too(store: Store) {
    let world = World::new(store).await;
    let month = Kept { payload: Some(31 * DAY), metadata: None };
    world.store.set_retention(Some(&other()), month, &entry()).await.expect("sets");
    for _ in 0..50 {
        world.publish(&Draft { organization: other(), ..Draft::to(&[]) }).await;
    }
    world.publish(&Draft::to(&[])).await;
    let mut portions = Vec::new();
    for _ in 0..3 {
        let portion = passing(&world, None, Stage::Payload, 1).await;
        portions.push((portion.events, portion.more));
    }
    assert_eq!(portions, [(0, true), (0, true), (1, true)]);
    assert_eq!(passing(&world, None, Stage::Payload, 1).await, Purged::default());
}

async fn an_organization_may_be_kept_longer_or_shorter(store: Store) {
    let world = World::new(store).await;
    let at = now(&world).await.minus(10 * DAY);
    let month = Kept { payload: Some(31 * DAY), metadata: None };
    world.store.set_retention(Some(&other()), month, &entry()).await.expect("sets");
    let everybodys = world.publish(&Draft { at, ..Draft::to(&[]) }).await;
    let others = world.publish(&Draft { at, organization: other(), ..Draft::to(&[]) }).await;
    let carries = async |event| read(&world, event).await.payload != Payload::None;

    assert_eq!(passing(&world, None, Stage::Payload, 100).await.events, 1);
    assert_eq!(passing(&world, Some(&other()), Stage::Payload, 100).await.events, 0);
    assert!(!carries(everybodys).await && carries(others).await);

    world.store.clear_retention(&other(), &entry()).await.expect("clears");
    assert_eq!(passing(&world, None, Stage::Payload, 100).await.events, 0);
    assert_eq!(passing(&world, Some(&other()), Stage::Payload, 100).await.events, 1);
    assert!(!carries(others).await);
}

async fn settings_change_one_by_one_and_are_taken_back(store: Store) {
    let settings = async || store.retention_settings().await.expect("reads");
    let first = settings().await;
    assert_eq!((first.payload, first.metadata, first.own.len()), (7 * DAY, 90 * DAY, 0));
    let payload = Kept { payload: Some(DAY), metadata: None };
    let metadata = Kept { payload: None, metadata: Some(30 * DAY) };
    store.set_retention(None, metadata, &entry()).await.expect("sets");
    store.set_retention(Some(&acme()), payload, &entry()).await.expect("sets");
    store.set_retention(Some(&acme()), metadata, &entry()).await.expect("sets");
    let after = settings().await;
    assert_eq!((after.payload, after.metadata), (7 * DAY, 30 * DAY));
    assert_eq!(after.own[&acme()], Kept { payload: Some(DAY), metadata: Some(30 * DAY) });
    store.clear_retention(&acme(), &entry()).await.expect("clears");
    assert_eq!(settings().await.own[&acme()], Kept::default());
}

async fn subscriptions(world: &World) -> [SubscriptionKey; 3] {
    let mut keys = [SubscriptionKey(0); 3];
    for key in &mut keys {
        *key = world.subscribe(&acme()).await.key;
    }
    keys
}

/// Everything that is stored is older by so much.
async fn pass(world: &World, span: Duration) {
    for change in [
        "UPDATE retention_visit SET since = since - $1",
        "UPDATE undelivered SET end_time = end_time - $1",
        "UPDATE attempt SET start_time = start_time - $1",
    ] {
        world.execute(change, vec![micros(span).into()]).await;
    }
}

async fn passing(
    world: &World,
    organization: Option<&OrganizationId>,
    stage: Stage,
    limit: u32,
) -> Purged {
    world.store.purge_passing(organization, stage, limit).await.expect("purges")
}

async fn waiting(world: &World, stage: Stage) -> Vec<OrganizationId> {
    world.store.purge_waiting(stage).await.expect("lists")
}

async fn now(world: &World) -> Timestamp {
    world.store.replicas().await.expect("lists")[0].now
}

async fn read(world: &World, event: EventKey) -> Event {
    let mut found = world.store.events_by_keys(&[event]).await.expect("reads").events;
    assert_eq!(found.len(), 1, "it is there");
    found.remove(0)
}

async fn state(world: &World, delivery: DeliveryKey) -> DeliveryState {
    world.store.delivery(&acme(), delivery).await.expect("it is there").state
}

async fn bodies(world: &World, delivery: DeliveryKey) -> Vec<Vec<u8>> {
    let attempts = world.store.attempts(&acme(), delivery, 0, 100, true).await.expect("lists");
    attempts.into_iter().map(|attempt| attempt.response_body.to_vec()).collect()
}

async fn count(world: &World, table: &str) -> i64 {
    let sql = format!("SELECT count(*) AS counted FROM {table}");
    let statement = world.store.statement(&sql, vec![]);
    let found = world.store.read().query_one_raw(statement).await.expect("counts");
    column(&found.expect("one row"), "counted").expect("a number")
}
