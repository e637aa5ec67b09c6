//! Subscriptions: created, listed, changed and deleted under the routing clock.

use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{World, acme, entry, other, spec};
use crate::domain::id::{AccountId, SubscriptionKey};
use crate::domain::payload_mode::{PayloadMode, PayloadModeKind};
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::store::{Answer, Change, ChangeError, Store, StoreError, SubscriptionFilter};

on_both_engines! {
    what_is_created_reads_back,
    other_organizations_see_nothing,
    lists_are_newest_first_and_filtered,
    a_change_gets_a_new_version,
    a_stale_etag_changes_nothing,
    what_is_kept_or_refused_stays_as_it_was,
    what_is_deleted_is_gone_for_readers_and_told_to_routers,
    a_thousand_is_enough,
    what_was_trusted_to_a_deleted_subscription_goes_with_it,
    what_those_deleted_before_have_left_goes_by_a_migration,
}

async fn what_is_created_reads_back(store: Store) {
    let world = World::new(store).await;
    let new = world.new_subscription(&acme());
    let version = world.store.routing_version().await.expect("version");
    let made = world.store.create_subscription(new, None, &entry(), |_| Vec::new()).await;
    let Ok(Answer::Now(made)) = made else { panic!("not created: {made:?}") };
    assert_eq!(made.secret.expect("has one").secret.as_deref(), Some("whsec_first"));
    let read = world.store.subscription(&acme(), made.subscription.key).await.expect("is there");
    assert_eq!(read.spec, spec());
    assert_eq!(read.state, SubscriptionState::Active);
    assert_eq!(read.version, version + 1);
    assert_eq!(read.version, made.subscription.version);
    assert_eq!(read.create_time, made.subscription.create_time);
    assert_eq!(world.store.routing_version().await.expect("version"), version + 1);
}

async fn other_organizations_see_nothing(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let store = &world.store;
    let keep = |_| -> Result<Change, ()> { Ok(Change::Keep) };
    assert!(matches!(store.subscription(&other(), key).await, Err(StoreError::NotFound)));
    let changed = store.change_subscription(&other(), key, None, &entry(), keep).await;
    assert!(matches!(changed, Err(ChangeError::Store(StoreError::NotFound))));
    let deleted = store.delete_subscription(&other(), key, None, &entry()).await;
    assert!(matches!(deleted, Err(StoreError::NotFound)));
    assert!(matches!(store.secrets(&other(), key).await, Err(StoreError::NotFound)));
    let listed = store.subscriptions(&other(), &SubscriptionFilter::default(), None, 10).await;
    assert!(listed.expect("lists").is_empty());
}

async fn lists_are_newest_first_and_filtered(store: Store) {
    let world = World::new(store).await;
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(world.subscribe(&acme()).await.key);
    }
    set_state(&world, keys[1], SubscriptionState::Paused).await;
    let mut bare = world.new_subscription(&acme());
    bare.spec.account = None;
    bare.spec.profile = "hapihub".into();
    keys.push(bare.key);
    world.store.create_subscription(bare, None, &entry(), |_| Vec::new()).await.expect("creates");
    let list = async |filter: SubscriptionFilter, before, limit| -> Vec<SubscriptionKey> {
        let found = world.store.subscriptions(&acme(), &filter, before, limit).await;
        found.expect("lists").into_iter().map(|one| one.key).collect()
    };
    let all = SubscriptionFilter::default;
    assert_eq!(list(all(), None, 2).await, [keys[4], keys[3]]);
    assert_eq!(list(all(), Some(keys[3]), 10).await, [keys[2], keys[1], keys[0]]);
    let paused = SubscriptionFilter { states: vec![SubscriptionState::Paused], ..all() };
    assert_eq!(list(paused, None, 10).await, [keys[1]]);
    let account = Some(AccountId::stored("account-1"));
    let bound = SubscriptionFilter { account, ..all() };
    assert_eq!(list(bound, None, 10).await, [keys[3], keys[2], keys[1], keys[0]]);
    let hapihub = SubscriptionFilter { profile: Some("hapihub".into()), ..all() };
    assert_eq!(list(hapihub, None, 10).await, [keys[4]]);
}

async fn a_change_gets_a_new_version(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let change = |mut one: Subscription| -> Result<Change, ()> {
        one.spec.name = "renamed".into();
        one.spec.account = None;
        one.spec.omit_trace_context = false;
        one.state_reason = "why".into();
        Ok(Change::Write(Box::new(one)))
    };
    let etag = Some(made.version);
    let changed = world.store.change_subscription(&acme(), made.key, etag, &entry(), change).await;
    let changed = changed.expect("changes");
    let read = world.store.subscription(&acme(), made.key).await.expect("is there");
    for one in [changed, read] {
        assert_eq!((one.spec.name.as_str(), one.state_reason.as_str()), ("renamed", "why"));
        assert_eq!(one.spec.account, made.spec.account, "the account is immutable");
        assert!(made.spec.omit_trace_context && !one.spec.omit_trace_context);
        assert_eq!(one.version, made.version + 1);
        assert_eq!(one.create_time, made.create_time);
        assert!(made.update_time <= one.update_time);
    }
}

async fn a_stale_etag_changes_nothing(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    set_state(&world, made.key, SubscriptionState::Paused).await;
    let etag = Some(made.version);
    let change = |one| -> Result<Change, ()> { Ok(Change::Write(Box::new(one))) };
    let changed = world.store.change_subscription(&acme(), made.key, etag, &entry(), change).await;
    assert!(matches!(changed, Err(ChangeError::Store(StoreError::Stale))));
    let deleted = world.store.delete_subscription(&acme(), made.key, etag, &entry()).await;
    assert!(matches!(deleted, Err(StoreError::Stale)));
    let read = world.store.subscription(&acme(), made.key).await.expect("is there");
    assert_eq!(read.version, made.version + 1);
    assert_eq!(world.store.routing_version().await.expect("version"), made.version + 1);
}

async fn what_was_trusted_to_a_deleted_subscription_goes_with_it(store: Store) {
    let world = World::new(store).await;
    let (kept, made) = (world.subscribe(&acme()).await, masked(&world).await);
    world.store.delete_subscription(&acme(), made.key, None, &entry()).await.expect("deletes");
    assert_left(&world, made.key, 0).await;
    assert_left(&world, kept.key, 1).await;
    let told = world.store.routing_changes(made.version).await.expect("it can still be read");
    assert!(told.changed[0].deleted);
}

async fn what_those_deleted_before_have_left_goes_by_a_migration(store: Store) {
    let world = World::new(store).await;
    let (kept, made) = (world.subscribe(&acme()).await, masked(&world).await);
    let sql = "UPDATE subscription SET deleted = $1 WHERE key = $2";
    world.execute(sql, vec![true.into(), made.key.0.into()]).await;
    let migration = include_str!("../migrations/both_0012.sql");
    world.store.write().execute_unprepared(migration).await.expect("it is in SQL");
    assert_left(&world, made.key, 0).await;
    assert_left(&world, kept.key, 1).await;
    let told = world.store.routing_changes(kept.version).await.expect("it can still be read");
    assert!(told.changed[0].deleted);
}

/// A subscription that needs more to be read than others.
async fn masked(world: &World) -> Subscription {
    let mut new = world.new_subscription(&acme());
    let pointers = ["/name".to_owned()];
    new.spec.payload_mode = PayloadMode::check(PayloadModeKind::Masked, &pointers).expect("valid");
    let made = world.store.create_subscription(new, None, &entry(), |_| Vec::new()).await;
    let Ok(Answer::Now(made)) = made else { panic!("not created: {made:?}") };
    made.subscription
}

/// How many secrets a subscription has, and whether it has a URL or headers.
async fn assert_left(world: &World, key: SubscriptionKey, left: i64) {
    for sql in [
        "SELECT count(*) FROM signing_secret WHERE subscription_key = $1",
        "SELECT count(*) FROM subscription WHERE key = $1 AND (url <> '' OR headers <> '')",
    ] {
        let statement = world.store.statement(sql, vec![key.0.into()]);
        let row = world.store.write().query_one_raw(statement).await.expect("reads");
        let count: i64 = row.expect("a row").try_get_by_index(0).expect("a number");
        assert_eq!(count, left, "{sql}");
    }
}

async fn what_is_kept_or_refused_stays_as_it_was(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let keep = |_| -> Result<Change, ()> { Ok(Change::Keep) };
    let kept = world.store.change_subscription(&acme(), made.key, None, &entry(), keep).await;
    assert_eq!(kept.expect("keeps").version, made.version);
    let refuse = |_| Err("no");
    let refused = world.store.change_subscription(&acme(), made.key, None, &entry(), refuse).await;
    assert!(matches!(refused, Err(ChangeError::Refused("no"))));
    assert_eq!(world.store.routing_version().await.expect("version"), made.version);
}

async fn what_is_deleted_is_gone_for_readers_and_told_to_routers(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let etag = Some(made.version);
    world.store.delete_subscription(&acme(), made.key, etag, &entry()).await.expect("deletes");
    let store = &world.store;
    assert!(matches!(store.subscription(&acme(), made.key).await, Err(StoreError::NotFound)));
    let again = store.delete_subscription(&acme(), made.key, None, &entry()).await;
    assert!(matches!(again, Err(StoreError::NotFound)));
    let listed = store.subscriptions(&acme(), &SubscriptionFilter::default(), None, 10).await;
    assert!(listed.expect("lists").is_empty());
    let told = store.routing_changes(made.version).await.expect("tells");
    assert_eq!(told.version, made.version + 1);
    let [one] = told.changed.as_slice() else { panic!("one change: {told:?}") };
    assert!(one.deleted && one.subscription.key == made.key);
    let told = store.routing_changes(0).await.expect("tells");
    assert!(told.changed.is_empty(), "who begins has nothing to forget");
}

async fn a_thousand_is_enough(store: Store) {
    let world = World::new(store).await;
    world.subscribe(&acme()).await;
    let fill = "
        INSERT INTO subscription (key, organization_id, account_id, name, url, event_patterns,
            profile, signing_enabled, headers, attributes, send_organization_code, retry_waits,
            attempt_timeout_ms, max_in_flight, state, state_reason, routing_version,
            create_time, update_time, deleted)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 998)
        SELECT -i, organization_id, account_id, name, url, event_patterns, profile,
            signing_enabled, headers, attributes, send_organization_code, retry_waits,
            attempt_timeout_ms, max_in_flight, state, state_reason, routing_version,
            create_time, update_time, deleted
        FROM subscription, n";
    world.execute(fill, vec![]).await;
    let last = world.subscribe(&acme()).await;
    let more = world.new_subscription(&acme());
    let made = world.store.create_subscription(more, None, &entry(), |_| Vec::new()).await;
    assert!(matches!(made, Err(StoreError::TooMany)), "{made:?}");
    world.subscribe(&other()).await;
    world.store.delete_subscription(&acme(), last.key, None, &entry()).await.expect("deletes");
    world.subscribe(&acme()).await;
}

async fn set_state(world: &World, key: SubscriptionKey, state: SubscriptionState) {
    let change = |mut one: Subscription| -> Result<Change, ()> {
        one.state = state;
        Ok(Change::Write(Box::new(one)))
    };
    world.store.change_subscription(&acme(), key, None, &entry(), change).await.expect("changes");
}
