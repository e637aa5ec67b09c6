//! Commits: everything or nothing, and never behind the routing table's back.

use super::on_both_engines;
use super::world::{Draft, World, acme, entry, other};
use crate::domain::delivery::DeliveryState;
use crate::domain::id::{DeliveryKey, EventKey};
use crate::store::{Committed, Stale, Store, StoreError};

on_both_engines! {
    a_batch_is_stored_whole,
    nothing_is_stored_when_the_routing_table_moved,
    changes_of_others_are_passed_over,
    an_organization_without_a_name_may_be_any,
    nothing_is_stored_when_an_id_is_taken,
    a_replica_that_left_stores_nothing,
    after_a_lost_answer_every_stored_delivery_waits,
    a_registration_tells_the_newest_key,
    a_recovery_that_comes_last_lowers_no_floor,
}

async fn a_batch_is_stored_whole(store: Store) {
    let world = World::new(store).await;
    let fits = world.subscribe(&acme()).await.key;
    let waits = world.subscribe(&acme()).await.key;
    let chosen = world.row(&Draft { id: Some("order-1"), ..Draft::to(&[fits]) });
    let both = Draft { parked: vec![waits], ..Draft::to(&[fits, waits]) };
    let rows = [chosen, world.row(&both), world.row(&Draft::to(&[]))];
    assert_eq!(world.commit(&rows).await.expect("commits"), Committed::Stored);
    let event = rows[1].event.summary.key;
    for (subscription, state) in [(fits, DeliveryState::InFlight), (waits, DeliveryState::Pending)]
    {
        let key = DeliveryKey { event, subscription };
        let delivery = world.store.delivery(&acme(), key).await.expect("is there");
        assert_eq!(delivery.state, state);
    }
    let asked = [(acme(), "order-1".to_owned()), (acme(), "order-2".to_owned())];
    let published = world.store.published(&asked).await.expect("looks up");
    let [one] = published.as_slice() else { panic!("one of the two: {published:?}") };
    assert_eq!((one.key, one.delivery_count), (rows[0].event.summary.key, 1));
    assert!(one.content.is_of(&[7; 32]) && !one.content.is_of(&[8; 32]));
}

async fn nothing_is_stored_when_the_routing_table_moved(store: Store) {
    let world = World::new(store).await;
    let routing_version = world.store.routing_version().await.expect("version");
    world.subscribe(&acme()).await;
    let rows = [world.row(&Draft { id: Some("a"), ..Draft::to(&[]) })];
    let alone = [world.row(&Draft::to(&[]))];
    for stale in [Stale::ByAnyChange, Stale::ByOwnChange] {
        let committed = world.commit_at(routing_version, stale, &rows).await.expect("answers");
        assert_eq!(committed, Committed::RoutingMoved, "{stale:?}");
        assert!(is_missing(&world, rows[0].event.summary.key).await);
        let committed = world.commit_at(routing_version, stale, &alone).await.expect("answers");
        assert_eq!(committed, Committed::RoutingMoved, "{stale:?}, alone");
    }
    let published = world.store.published(&[(acme(), "a".into())]).await.expect("looks up");
    assert!(published.is_empty());
    assert_eq!(world.commit(&rows).await.expect("commits"), Committed::Stored);
}

async fn changes_of_others_are_passed_over(store: Store) {
    let world = World::new(store).await;
    let at = world.store.routing_version().await.expect("version");
    world.subscribe(&other()).await;
    let rows = [world.row(&Draft { id: Some("a"), ..Draft::to(&[]) })];
    let committed = world.commit_at(at, Stale::ByAnyChange, &rows).await.expect("answers");
    assert_eq!(committed, Committed::RoutingMoved);
    let committed = world.commit_at(at, Stale::ByOwnChange, &rows).await.expect("answers");
    assert_eq!(committed, Committed::Stored);
    let alone = [world.row(&Draft::to(&[]))];
    let committed = world.commit_at(at, Stale::ByOwnChange, &alone).await.expect("answers");
    assert_eq!(committed, Committed::Stored);
}

async fn an_organization_without_a_name_may_be_any(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let at = world.store.routing_version().await.expect("version");
    world.store.begin_deletion(&acme(), &entry()).await.expect("begins");
    world.store.end_deletion(&acme()).await.expect("ends");
    let rows = [world.row(&Draft::to(&[key]))];
    let committed = world.commit_at(at, Stale::ByOwnChange, &rows).await.expect("answers");
    assert_eq!(committed, Committed::RoutingMoved);
}

async fn nothing_is_stored_when_an_id_is_taken(store: Store) {
    let world = World::new(store).await;
    let taken = Draft { id: Some("a"), ..Draft::to(&[]) };
    world.publish(&taken).await;
    let rows = [world.row(&Draft { id: Some("b"), ..Draft::to(&[]) }), world.row(&taken)];
    assert_eq!(world.commit(&rows).await.expect("answers"), Committed::IdTaken);
    assert!(is_missing(&world, rows[0].event.summary.key).await);
    // Ids are an organization's own.
    let elsewhere = Draft { organization: super::world::other(), ..taken };
    world.publish(&elsewhere).await;
}

async fn a_replica_that_left_stores_nothing(store: Store) {
    let world = World::new(store).await;
    world.store.leave(world.fence).await.expect("leaves");
    let rows = [world.row(&Draft::to(&[]))];
    assert!(matches!(world.commit(&rows).await, Err(StoreError::Fenced)));
    assert!(is_missing(&world, rows[0].event.summary.key).await);
}

async fn after_a_lost_answer_every_stored_delivery_waits(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let (stored, lost) =
        (world.row(&Draft::to(&[subscription])), world.row(&Draft::to(&[subscription])));
    world.commit(std::slice::from_ref(&stored)).await.expect("commits");
    let event = stored.event.summary.key;
    let (floor, rows) = (EventKey(world.key()), [stored, lost]);
    let found = world.store.recover_commit(world.fence, &rows, floor).await.expect("answers");
    assert_eq!(found, [event]);
    let key = DeliveryKey { event, subscription };
    let delivery = world.store.delivery(&acme(), key).await.expect("is there");
    assert_eq!(delivery.state, DeliveryState::Pending);

    // The other one was only late: it arrives after all.
    let [_, late] = rows;
    let committed = world.commit(std::slice::from_ref(&late)).await.expect("answers");
    assert_eq!(committed, Committed::RoutingMoved);
    assert!(is_missing(&world, late.event.summary.key).await, "nobody would deliver it");
    let next = world.row(&Draft::to(&[subscription]));
    assert_eq!(world.commit(&[next]).await.expect("commits"), Committed::Stored);
}

async fn a_registration_tells_the_newest_key(store: Store) {
    let none = store.register().await.expect("registers").newest;
    assert_eq!(none, 0);
    let world = World::new(store).await;
    let event = world.publish(&Draft::to(&[])).await;
    assert_eq!(world.store.register().await.expect("registers").newest, event.0);
    let subscription = world.subscribe(&acme()).await.key;
    assert_eq!(world.store.register().await.expect("registers").newest, subscription.0);
}

async fn a_recovery_that_comes_last_lowers_no_floor(store: Store) {
    let world = World::new(store).await;
    let low = EventKey(world.key());
    let late = [world.row(&Draft::to(&[]))];
    let high = EventKey(world.key());
    for (rows, floor) in [(late.as_slice(), high), (&[], low)] {
        let stored = world.store.recover_commit(world.fence, rows, floor).await;
        assert_eq!(stored.expect("answers"), []);
    }
    assert_eq!(world.commit(&late).await.expect("answers"), Committed::RoutingMoved);
    assert!(is_missing(&world, late[0].event.summary.key).await, "nobody would deliver it");
}

async fn is_missing(world: &World, key: EventKey) -> bool {
    world.store.events_by_keys(&[key]).await.expect("looks up").events.is_empty()
}
