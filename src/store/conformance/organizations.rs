//! Deleting an organization leaves nothing of it, and everything of the others.

use std::collections::BTreeSet;
use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{Draft, World, acme, attempt, entry, entry_of, other, request};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::DeadReason;
use crate::domain::failure_streak::Mark;
use crate::domain::id::{ApiKeyId, DeliveryKey, OrganizationId, SubscriptionKey};
use crate::domain::operational_event::Audience;
use crate::domain::ownership::OwnershipRule;
use crate::domain::principal::Organizations;
use crate::domain::retention::Kept;
use crate::domain::scope::Scopes;
use crate::store::engine::column;
use crate::store::{Answer, EndpointNote, NewApiKey, Next, Store, StoreError};

on_both_engines! {
    nothing_of_a_deleted_organization_is_left,
    what_requests_under_way_leave_behind_goes_too,
    a_key_that_has_changed_meanwhile_is_not_given_back_what_it_lost,
}

async fn nothing_of_a_deleted_organization_is_left(store: Store) {
    let world = World::new(store).await;
    let subscription = furnish(&world, &acme()).await;
    furnish(&world, &other()).await;
    key(&world, 1, &[acme()]).await;
    key(&world, 2, &[acme(), other()]).await;
    let before = rows(&world, "other").await;
    assert!(before.iter().all(|(_, rows)| 0 < *rows), "each table has some: {before:?}");

    let version = world.store.routing_version().await.expect("reads");
    let deletion = world.store.begin_deletion(&acme(), &entry()).await.expect("begins");
    assert_eq!((deletion.api_keys, deletion.subscriptions), (2, 1));
    assert!(Duration::from_secs(30) < deletion.quiet_in, "{deletion:?}");
    let mut portions = 0;
    while world.store.delete_portion(&acme(), &deletion).await.expect("deletes") != 0 {
        portions += 1;
    }
    assert_eq!(portions, 1);
    let found = world.store.subscription(&acme(), subscription).await;
    assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
    let found = world.store.event_by_id(&acme(), "order-1", false).await;
    assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
    let named = |table: &str| ["retention", "subscription"].contains(&table);
    for (table, left) in rows(&world, "acme").await {
        assert_eq!(left, i64::from(named(table)), "{table}");
    }
    world.store.end_deletion(&acme()).await.expect("ends");

    assert!(rows(&world, "acme").await.iter().all(|(_, rows)| *rows == 0));
    assert_eq!(rows(&world, "other").await, before);
    let named = "SELECT count(*) AS counted FROM data_key WHERE organization_id = $1";
    assert_eq!(count(&world, named, "acme").await, 0);
    // A replica that has heard of nothing since hears that it has ended.
    let changes = world.store.routing_changes(version).await.expect("reads");
    let ended = changes.changed.iter().find(|one| one.subscription.key == subscription);
    let ended = ended.expect("it is there");
    assert!(ended.deleted && ended.secrets.is_empty() && ended.subscription.spec.url.is_empty());
    assert_eq!(ended.subscription.organization.as_str(), "");

    let keys = world.store.api_keys().await.expect("lists");
    let opens = |left: &[OrganizationId]| {
        Organizations::Some(left.iter().cloned().collect::<BTreeSet<_>>())
    };
    let [alone, shared] = keys.as_slice() else { panic!("two keys: {keys:?}") };
    assert_eq!(alone.principal.organizations, opens(&[]));
    assert!(alone.revoke_time.is_some() && alone.label.is_empty());
    assert_eq!(shared.principal.organizations, opens(&[other()]));
    assert!(shared.revoke_time.is_none() && !shared.label.is_empty());
}

async fn what_requests_under_way_leave_behind_goes_too(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let deletion = world.store.begin_deletion(&acme(), &entry()).await.expect("begins");
    assert_eq!(world.store.delete_portion(&acme(), &deletion).await.expect("deletes"), 1);

    let delivery = DeliveryKey { event, subscription };
    world.settle(delivery, attempt(1, AttemptResult::HttpStatus), Next::Cancelled).await;

    let again = world.store.begin_deletion(&acme(), &entry()).await.expect("goes on");
    assert_eq!((again.api_keys, again.subscriptions), (0, 0));
    assert!(again.quiet_in <= deletion.quiet_in, "it counts from the first time");
    assert_eq!(world.store.delete_portion(&acme(), &again).await.expect("deletes"), 2);
    assert_eq!(world.store.delete_portion(&acme(), &again).await.expect("deletes"), 0);
}

/// Something of the organization in every table that holds something of organizations.
async fn furnish(world: &World, organization: &OrganizationId) -> SubscriptionKey {
    let mut new = world.new_subscription(organization);
    new.spec.tls.authorities = "authorities".to_owned();
    let subscription = new.key;
    let (request, entry) = (Some(request("r", 1)), entry_of(organization));
    let made = world.store.create_subscription(new, request, &entry, |_| Vec::new()).await;
    let Answer::Now(made) = made.expect("creates") else { panic!("it is new") };
    let version = made.subscription.version;
    let asked = OwnershipRule::Challenge.fingerprint("https://example.com/hook");
    let second = Duration::from_secs(1);
    let claim = world.store.claim_ownership(world.fence, subscription, asked, second).await;
    claim.expect("claims").expect("nobody has asked");
    let week = Kept { payload: Some(Duration::from_hours(24)), metadata: None };
    world.store.set_retention(Some(organization), week, &entry).await.expect("sets");
    let to = |draft: Draft| Draft { organization: organization.clone(), ..draft };
    let named = Draft { id: Some("order-1"), ..Draft::to(&[subscription]) };
    let event = world.publish(&to(named)).await;
    let dead = crate::store::Settlement {
        delivery: DeliveryKey { event, subscription },
        organization: organization.clone(),
        claim: 0,
        in_due: false,
        attempts: 1,
        attempt: Some(attempt(1, AttemptResult::HttpStatus)),
        next: Next::Dead(DeadReason::AttemptsExhausted),
        note: EndpointNote {
            mark: Mark::Exhausted,
            version,
            audience: Some(Audience { account: None }),
        },
    };
    world.store.settle(world.fence, &[dead]).await.expect("settles");
    world.publish(&to(Draft::parked(&[subscription]))).await;
    let stage = crate::domain::retention::Stage::Payload;
    world.store.purge_passing(Some(organization), stage, 100).await.expect("passes");
    subscription
}

async fn a_key_that_has_changed_meanwhile_is_not_given_back_what_it_lost(store: Store) {
    let world = World::new(store).await;
    key(&world, 1, &[acme(), other()]).await;
    let had = BTreeSet::from([acme(), other()]);
    let narrow = async |left: BTreeSet<OrganizationId>| {
        let transaction = world.store.begin().await.expect("begins");
        let narrowed = world.store.narrow_api_key(&transaction, ApiKeyId(1), &had, &left).await;
        transaction.commit().await.expect("commits");
        narrowed.expect("the database answers")
    };
    assert!(narrow(BTreeSet::from([acme()])).await);
    assert!(!narrow(BTreeSet::from([other()])).await, "by somebody who saw it before that");
    let keys = world.store.api_keys().await.expect("lists");
    let Organizations::Some(left) = &keys[0].principal.organizations else { panic!("all") };
    assert_eq!(*left, BTreeSet::from([acme()]));
}

async fn key(world: &World, number: i64, organizations: &[OrganizationId]) {
    let new = NewApiKey {
        id: ApiKeyId(number),
        label: "for tests".into(),
        organizations: Organizations::Some(organizations.iter().cloned().collect()),
        scopes: Scopes::all(),
        secret_hash: [3; 32],
        life: None,
    };
    world.store.create_api_key(new, &entry()).await.expect("makes");
}

/// How many rows of each table are an organization's.
async fn rows(world: &World, organization: &str) -> Vec<(&'static str, i64)> {
    let own = "organization_id = $1";
    let of_own = "subscription_key IN (SELECT key FROM subscription WHERE organization_id = $1)";
    let tables = [
        ("attempt", of_own),
        ("due", of_own),
        ("event", own),
        ("event_key", own),
        ("failure_streak", of_own),
        ("operational_event", own),
        ("ownership", of_own),
        ("request_log", own),
        ("retention", own),
        ("retention_visit", own),
        ("signing_secret", of_own),
        ("subscription", own),
        ("subscription_tls", of_own),
        ("undelivered", own),
    ];
    let mut counts = Vec::new();
    for (table, condition) in tables {
        let sql = format!("SELECT count(*) AS counted FROM {table} WHERE {condition}");
        counts.push((table, count(world, &sql, organization).await));
    }
    counts
}

async fn count(world: &World, sql: &str, organization: &str) -> i64 {
    let statement = world.store.statement(sql, vec![organization.into()]);
    let found = world.store.read().query_one_raw(statement).await.expect("counts");
    column(&found.expect("one row"), "counted").expect("a number")
}
