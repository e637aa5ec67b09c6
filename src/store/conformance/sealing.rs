//! Encryption: what is sealed, what opens it, and what becomes of it without its key.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sea_orm::{ConnectionTrait, QueryResult};

use super::world::{Draft, NOON, World, acme, attempt, entry, entry_of, other, request};
use super::{KEYS, Target, keyring, postgres};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::Payload;
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SecretKey, SubscriptionKey};
use crate::domain::receiver_tls::{ClientCertificate, PrivateKey, ReceiverTls};
use crate::domain::subscription::Subscription;
use crate::keyring::Keyring;
use crate::store::{
    Answer, Change, Committed, EndpointNote, EventFilter, NewSecret, Next, Rekeyed, Settings,
    Settlement, Stale, Store, StoreError,
};

/// Makes each story, which opens the database by itself, a test on either engine.
macro_rules! on_both_engines {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            #[tokio::test]
            async fn on_sqlite() {
                let directory = tempfile::tempdir().expect("temporary directory");
                let file = directory.path().join("hookward.db");
                super::$story(super::Target::Sqlite(file)).await;
            }

            #[tokio::test]
            async fn on_postgres() {
                if let Some(url) = super::postgres::database(stringify!($story)) {
                    super::$story(super::Target::Postgres(url)).await;
                }
            }
        }
    )+};
}

on_both_engines! {
    what_may_be_patient_data_or_a_credential_is_sealed,
    a_value_moved_to_another_row_does_not_open,
    without_its_key_a_payload_is_told_to_be_gone,
    a_subscription_without_its_keys_waits_and_can_be_mended,
    nothing_is_committed_under_a_destroyed_key,
    data_keys_move_to_the_primary_key,
    what_was_plaintext_is_sealed_later,
    a_missing_or_wrong_key_is_named_at_the_start,
}

async fn open(target: &Target, keyring: Keyring) -> Store {
    let settings = Settings { target: target.clone(), connections_max: 4, keyring };
    Store::migrate(&settings).await.expect("migrates");
    Store::open(&settings).await.expect("opens")
}

/// Why the database is not opened with these keys.
async fn refusal(target: &Target, keyring: Keyring) -> String {
    let settings = Settings { target: target.clone(), connections_max: 4, keyring };
    match Store::open(&settings).await {
        Err(StoreError::Setup(why)) => why,
        other => panic!("it should be refused: {other:?}"),
    }
}

/// Only the key of [`KEYS`] that has this id.
fn only(id: &str) -> Keyring {
    let line = KEYS.lines().find(|line| line.trim().starts_with(id)).expect("it is there");
    Keyring::parse(line).expect("it is one key")
}

async fn query(world: &World, sql: &str) -> Vec<QueryResult> {
    let rows = world.store.write().query_all_raw(world.store.statement(sql, vec![])).await;
    rows.expect("the statement is right")
}

/// One number.
async fn number(world: &World, sql: &str) -> i64 {
    query(world, sql).await[0].try_get_by_index(0).expect("a number")
}

/// The bytes that a query finds, one after the other.
async fn stored(world: &World, sql: &str) -> Vec<u8> {
    let rows = query(world, sql).await;
    let bytes = |row: &QueryResult| match row.try_get_by_index::<Vec<u8>>(0) {
        Ok(bytes) => bytes,
        Err(_) => row.try_get_by_index::<String>(0).expect("bytes or text").into_bytes(),
    };
    rows.iter().flat_map(bytes).collect()
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

fn robin() -> Payload {
    Payload::Json(Bytes::from_static(br#"{"name":"Robin"}"#))
}

/// A client certificate, for who does not look at it.
fn tls() -> ReceiverTls {
    let key = PrivateKey::stored("Robins-private-key".to_owned());
    let client = Some(ClientCertificate { chain: "chain".to_owned(), key });
    ReceiverTls { client, authorities: String::new() }
}

/// A failed delivery of an event with an id, to a new subscription.
async fn fail_one(world: &World, organization: &OrganizationId) -> DeliveryKey {
    let subscription = world.subscribe(organization).await.key;
    let (organization, payload) = (organization.clone(), robin());
    let draft = Draft {
        organization: organization.clone(),
        id: Some("order-1"),
        payload,
        ..Draft::to(&[subscription])
    };
    let event = world.publish(&draft).await;
    let delivery = DeliveryKey { event, subscription };
    let one = Settlement {
        delivery,
        organization,
        claim: 0,
        in_due: false,
        attempts: 1,
        attempt: Some(attempt(1, AttemptResult::HttpStatus)),
        next: Next::RetryIn(Duration::ZERO),
        note: EndpointNote::default(),
    };
    world.store.settle(world.fence, &[one]).await.expect("settles");
    delivery
}

/// Table, column, the column of its version, and a part of what [`fail_one`] and a
/// subscription with [`tls`] store there.
const SEALED_COLUMNS: [(&str, &str, &str, &str); 7] = [
    ("event", "payload", "payload_version", "Robin"),
    ("event", "attributes", "payload_version", "\"k\""),
    ("event", "subject", "payload_version", "patient-1"),
    ("attempt", "response_body", "response_version", "busy"),
    ("signing_secret", "secret", "secret_version", "whsec_first"),
    ("subscription", "headers", "headers_version", "X-Key"),
    ("subscription_tls", "secret", "secret_version", "private-key"),
];

async fn what_may_be_patient_data_or_a_credential_is_sealed(target: Target) {
    for (keyring, sealed) in [(Keyring::default(), false), (keyring(), true)] {
        let world = World::new(open(&target, keyring).await).await;
        let organization = if sealed { other() } else { acme() };
        fail_one(&world, &organization).await;
        let mut certified = world.new_subscription(&organization);
        certified.spec.tls = tls();
        let entry = entry_of(&organization);
        let made = world.store.create_subscription(certified, None, &entry, |_| Vec::new()).await;
        made.expect("creates");
        let form = if sealed { "<> 0" } else { "= 0" };
        for (table, column, version, part) in SEALED_COLUMNS {
            let sql = format!("SELECT {column} FROM {table} WHERE {version} {form}");
            let bytes = stored(&world, &sql).await;
            assert!(!bytes.is_empty(), "{table}.{column}");
            assert_eq!(contains(&bytes, part), !sealed, "{table}.{column}");
        }
        let sql = format!("SELECT content_hash FROM event_key WHERE hash_key_id {form}");
        assert_eq!(stored(&world, &sql).await == [7; 32], !sealed);
        world.store.close().await;
    }
}

async fn a_value_moved_to_another_row_does_not_open(target: Target) {
    let world = World::new(open(&target, keyring()).await).await;
    let event = world.publish(&Draft { payload: robin(), ..Draft::to(&[]) }).await;
    let neighbour = world.publish(&Draft::to(&[])).await;
    let foreign = Draft { organization: other(), ..Draft::to(&[]) };
    let stranger = world.publish(&foreign).await;
    let read = async |organization, key| {
        let id = world.store.ids().event(key);
        world.store.event_by_id(&organization, &id, true).await.map(|event| event.payload)
    };
    assert_eq!(read(acme(), event).await.expect("its own place"), robin());
    let marks = world.store.subject_marks(world.store.read(), &acme(), "patient-1").await;
    let marks = marks.expect("looks up");
    let sql = format!("SELECT count(*) FROM event WHERE subject = '{}'", marks[1]);
    assert_eq!((marks.len(), number(&world, &sql).await), (2, 2), "found without being named");
    // With its key's number, as whoever copies whole rows would.
    for to in [neighbour, stranger] {
        let sql = format!(
            "UPDATE event SET payload = f.payload, payload_key_id = f.payload_key_id
             FROM (SELECT payload, payload_key_id FROM event WHERE key = {}) f WHERE key = {}",
            event.0, to.0
        );
        world.execute(&sql, vec![]).await;
    }
    let moved = read(acme(), neighbour).await;
    assert!(matches!(moved, Err(StoreError::Corrupt(_))), "{moved:?}");
    let moved = read(other(), stranger).await;
    assert!(matches!(moved, Err(StoreError::Corrupt(_))), "{moved:?}");
    assert_eq!(world.store.decrypt_failures(), 2);
    world.store.close().await;
}

async fn without_its_key_a_payload_is_told_to_be_gone(target: Target) {
    let world = World::new(open(&target, keyring()).await).await;
    let delivery = fail_one(&world, &acme()).await;
    let kept = world.subscribe(&other()).await.key;
    let foreign = Draft { organization: other(), ..Draft::parked(&[kept]) };
    world.publish(&foreign).await;
    assert_eq!(world.store.shred(&acme(), &entry()).await.expect("destroys"), 1);
    world.store.routing_changes(0).await.expect("tells");

    let read = world.store.event_by_id(&acme(), "order-1", true).await;
    assert!(matches!(read, Err(StoreError::Shredded)), "{read:?}");
    let bare = world.store.event_by_id(&acme(), "order-1", false).await.expect("is there");
    assert!(bare.summary.subject.is_empty() && bare.summary.attributes.is_empty());
    assert_eq!(bare.summary.event_type, "notes.create");
    let filter = EventFilter::default();
    let page = world.store.events(&acme(), &filter, None, 10, true).await.expect("lists");
    assert_eq!((page.events.len(), &page.events[0].payload), (1, &Payload::None));
    let attempts = world.store.attempts(&acme(), delivery, 0, 10, true).await.expect("lists");
    assert!(attempts[0].response_body.is_empty());

    // It is not sent, and stays; others are not held up.
    let wanted = [(delivery.subscription, 10), (kept, 10)];
    let claims = world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims");
    let claimed: Vec<SubscriptionKey> = claims.iter().map(|claim| claim.subscription).collect();
    assert_eq!(claimed, [kept]);
    assert_eq!(state(&world, delivery).await, DeliveryState::Pending);
    let again = world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims");
    assert!(again.is_empty(), "not at once again");
    world.store.cancel_delivery(&acme(), delivery, &entry()).await.expect("can be given up");
    let retry = world.store.retry_delivery(&acme(), delivery, None, &entry(), |_| Vec::new()).await;
    assert!(matches!(retry, Err(StoreError::Shredded)), "{retry:?}");

    // The organization may go on, with a new key; its old ids stay taken.
    let after = world.publish(&Draft { payload: robin(), ..Draft::to(&[]) }).await;
    let id = world.store.ids().event(after);
    let read = world.store.event_by_id(&acme(), &id, true).await.expect("has a new key");
    assert_eq!(read.payload, robin());
    let asked = [(acme(), "order-1".to_owned())];
    let published = world.store.published(&asked).await.expect("looks up");
    assert!(!published[0].content.is_of(&[7; 32]));
    world.store.close().await;
}

async fn state(world: &World, delivery: DeliveryKey) -> DeliveryState {
    world.store.delivery(&acme(), delivery).await.expect("is there").state
}

async fn a_subscription_without_its_keys_waits_and_can_be_mended(target: Target) {
    let world = World::new(open(&target, keyring()).await).await;
    let mut new = world.new_subscription(&acme());
    new.spec.tls = tls();
    let key = new.key;
    world.store.create_subscription(new, None, &entry(), |_| Vec::new()).await.expect("creates");
    let version = world.store.routing_version().await.expect("version");
    world.store.shred(&acme(), &entry()).await.expect("destroys");
    let changed = world.store.routing_changes(version).await.expect("tells").changed;
    assert_eq!(changed.len(), 1, "every replica hears of it");
    let client = changed[0].subscription.spec.tls.client.clone().expect("it is known to be there");
    assert_eq!(client.key.pem(), None);
    assert!(
        changed[0].subscription.headers_lost && changed[0].subscription.spec.headers.is_empty()
    );
    assert_eq!(changed[0].secrets[0].secret, None);

    // Another change leaves what is stored of them.
    let rename = |mut subscription: Subscription| {
        subscription.spec.name = "renamed".into();
        Ok::<_, ()>(Change::Write(Box::new(subscription)))
    };
    let renamed = world.store.change_subscription(&acme(), key, None, &entry(), rename).await;
    assert!(renamed.expect("can be changed").headers_lost);
    assert_eq!(number(&world, "SELECT count(*) FROM subscription WHERE headers <> ''").await, 1);

    let headers = BTreeMap::from([("X-Key".to_owned(), "new".to_owned())]);
    let mend = |mut subscription: Subscription| {
        subscription.spec.headers.clone_from(&headers);
        Ok::<_, ()>(Change::Write(Box::new(subscription)))
    };
    world
        .store
        .change_subscription(&acme(), key, None, &entry(), mend)
        .await
        .expect("can be changed");
    let overlap = Duration::from_hours(1);
    let (secret_key, secret) = (SecretKey(world.key()), "whsec_new".to_owned());
    let new = NewSecret { key: secret_key, secret, overlap };
    let rotated =
        world.store.rotate_secret(&acme(), key, new, None, &entry(), |_| Vec::new()).await;
    rotated.expect("rotates");
    let changed = world.store.routing_changes(version).await.expect("tells").changed;
    assert!(!changed[0].subscription.headers_lost);
    assert_eq!(changed[0].subscription.spec.headers, headers);
    let secrets: Vec<_> = changed[0].secrets.iter().map(|one| one.secret.as_deref()).collect();
    assert_eq!(secrets, [None, Some("whsec_new")]);
    world.store.delete_subscription(&acme(), key, None, &entry()).await.expect("can be deleted");
    world.store.close().await;
}

async fn nothing_is_committed_under_a_destroyed_key(target: Target) {
    let world = World::new(open(&target, keyring()).await).await;
    world.publish(&Draft::to(&[])).await;
    let routing_version = world.store.routing_version().await.expect("version");
    world.store.shred(&acme(), &entry()).await.expect("destroys");
    let events = [world.row(&Draft { id: Some("a"), payload: robin(), ..Draft::to(&[]) })];
    for stale in [Stale::ByAnyChange, Stale::ByOwnChange] {
        let committed = world.commit_at(routing_version, stale, &events).await.expect("answers");
        assert_eq!(committed, Committed::RoutingMoved, "{stale:?}");
    }
    world.store.routing_changes(routing_version).await.expect("tells");
    assert_eq!(world.commit(&events).await.expect("commits"), Committed::Stored);
    let read = world.store.event_by_id(&acme(), "a", true).await.expect("has a new key");
    assert_eq!(read.payload, robin());
    world.store.close().await;
}

async fn data_keys_move_to_the_primary_key(target: Target) {
    let world = World::new(open(&target, only("old")).await).await;
    let events: Vec<EventKey> = {
        let event = world.publish(&Draft { payload: robin(), ..Draft::to(&[]) }).await;
        let foreign = Draft { organization: other(), payload: robin(), ..Draft::to(&[]) };
        vec![event, world.publish(&foreign).await]
    };
    world.store.close().await;
    drop(world);
    assert!(refusal(&target, only("new")).await.contains("old"));

    let store = open(&target, keyring()).await;
    let rekeyed = store.rekey(&entry()).await.expect("it has both keys");
    assert_eq!(rekeyed, Rekeyed { data_keys: 2, sealed: 0 });
    assert_eq!(store.rekey(&entry()).await.expect("again"), Rekeyed::default());
    store.close().await;
    drop(store);

    assert!(refusal(&target, only("old")).await.contains("new"));
    let store = open(&target, only("new")).await;
    for (organization, key) in [acme(), other()].into_iter().zip(events) {
        let id = store.ids().event(key);
        let read = store.event_by_id(&organization, &id, true).await.expect("opens");
        assert_eq!(read.payload, robin());
    }
    store.close().await;
}

async fn what_was_plaintext_is_sealed_later(target: Target) {
    let world = World::new(open(&target, Keyring::default()).await).await;
    let delivery = fail_one(&world, &acme()).await;
    let at = NOON.plus(Duration::from_mins(1));
    world.publish(&Draft { payload: Payload::None, at, ..Draft::to(&[]) }).await;
    let mut new = world.new_subscription(&acme());
    new.spec.tls = tls();
    let certified = new.key;
    let answer = |_: &_| b"created".to_vec();
    let made =
        world.store.create_subscription(new.clone(), Some(request("r", 1)), &entry(), answer).await;
    made.expect("creates");
    let before = world.store.event_by_id(&acme(), "order-1", true).await.expect("is there");
    world.store.leave(world.fence).await.expect("leaves");
    world.store.close().await;
    drop(world);

    let world = World::new(open(&target, keyring()).await).await;
    // Two events, an id, a response body; two secrets and the headers of two subscriptions,
    // a private key, and an answer.
    let rekeyed = world.store.rekey(&entry()).await.expect("seals");
    assert_eq!(rekeyed, Rekeyed { data_keys: 0, sealed: 2 + 1 + 1 + 2 + 2 + 1 + 1 });
    assert_eq!(world.store.rekey(&entry()).await.expect("again"), Rekeyed::default());
    for (table, version) in [("event", "payload_version"), ("request_log", "response_version")] {
        let plain = format!("SELECT count(*) FROM {table} WHERE {version} = 0");
        assert_eq!(number(&world, &plain).await, 0);
    }

    let after = world.store.event_by_id(&acme(), "order-1", true).await.expect("is there");
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    let attempts = world.store.attempts(&acme(), delivery, 0, 10, true).await.expect("lists");
    assert_eq!(attempts[0].response_body, Bytes::from_static(b"\xffbusy"));
    let secrets = world.store.secrets(&acme(), delivery.subscription).await.expect("lists");
    assert_eq!(secrets[0].secret.as_deref(), Some("whsec_first"));
    let read = world.store.subscription(&acme(), delivery.subscription).await.expect("is there");
    assert_eq!(read.spec, super::world::spec());
    let read = world.store.subscription(&acme(), certified).await.expect("is there");
    assert_eq!(read.spec.tls, tls());
    let asked = [(acme(), "order-1".to_owned())];
    let published = world.store.published(&asked).await.expect("looks up");
    assert!(published[0].content.is_of(&[7; 32]), "a repetition is still known");
    let again = world.store.create_subscription(new, Some(request("r", 1)), &entry(), answer).await;
    let Ok(Answer::Before { response, .. }) = again else { panic!("made twice: {again:?}") };
    assert_eq!(response, b"created");
    let claims = world.store.claim(world.fence, &[(delivery.subscription, 1)], u64::MAX).await;
    assert_eq!(claims.expect("claims")[0].event.payload, robin());
    world.store.close().await;
}

async fn a_missing_or_wrong_key_is_named_at_the_start(target: Target) {
    let world = World::new(open(&target, only("old")).await).await;
    world.publish(&Draft::to(&[])).await;
    world.store.close().await;
    drop(world);
    assert!(refusal(&target, Keyring::default()).await.contains("old"));
    let namesake = KEYS.lines().find_map(|line| line.trim().strip_prefix("new = "));
    let namesake = format!("old = {}", namesake.expect("it is there"));
    let why = refusal(&target, Keyring::parse(&namesake).expect("it is one key")).await;
    assert!(why.contains("old"), "{why}");
    // Those who come for something else are let in.
    let settings = Settings { target, connections_max: 2, keyring: Keyring::default() };
    Store::visit(&settings).await.expect("opens").close().await;
}
