//! API keys: made, read back whole, ended once.

use std::time::Duration;

use super::on_both_engines;
use super::world::entry;
use crate::domain::api_key::{ApiKey, ApiKeySecret};
use crate::domain::id::{ApiKeyId, OrganizationId};
use crate::domain::principal::Organizations;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::timestamp::Timestamp;
use crate::keyring::Keyring;
use crate::store::{NewApiKey, Settings, Store, StoreError, Target};

on_both_engines! {
    keys_are_read_as_they_were_made,
    a_key_is_ended_once,
    every_change_raises_the_version_and_use_does_not,
}

const HOUR: Duration = Duration::from_hours(1);

fn new(id: i64) -> NewApiKey {
    NewApiKey {
        id: ApiKeyId(id),
        label: "scheduling".to_owned(),
        organizations: Organizations::All,
        scopes: Scopes::all(),
        secret_hash: ApiKeySecret::generate().hash(),
        life: None,
    }
}

async fn only(store: &Store) -> ApiKey {
    let mut keys = store.api_keys().await.expect("lists");
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

async fn keys_are_read_as_they_were_made(store: Store) {
    let these = ["clinic-7", "clinic-8"].map(OrganizationId::stored);
    let second = NewApiKey {
        label: "billing's, \"old\"".to_owned(),
        organizations: Organizations::Some(these.into()),
        scopes: [Scope::EventsPublish, Scope::BodiesRead].into_iter().collect(),
        life: Some(HOUR),
        ..new(i64::MAX)
    };
    for one in [new(i64::MIN), second.clone()] {
        store.create_api_key(one, &entry()).await.expect("makes");
    }
    let keys = store.api_keys().await.expect("lists");
    let [all, some] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(all.id, ApiKeyId(i64::MIN), "oldest first");
    assert_eq!(all.principal.organizations, Organizations::All);
    assert_eq!((all.expire_time, all.revoke_time, all.last_use_time), (None, None, None));

    assert_eq!((some.id, &some.label), (second.id, &second.label));
    assert_eq!(some.principal.organizations, second.organizations);
    assert_eq!(some.principal.scopes, second.scopes);
    assert_eq!(store.ids().parse_api_key(&some.principal.name), Some(second.id));
    assert_eq!(some.secret_hash, second.secret_hash);
    let life = some.expire_time.expect("it ends").since(some.create_time);
    assert!((HOUR..HOUR + Duration::from_secs(1)).contains(&life), "{life:?}");

    let taken = store.create_api_key(new(i64::MAX), &entry()).await;
    assert!(matches!(taken, Err(StoreError::Taken)), "{taken:?}");
}

async fn a_key_is_ended_once(store: Store) {
    store.create_api_key(new(7), &entry()).await.expect("makes");
    let missing = store.revoke_api_key(ApiKeyId(8), &entry()).await;
    assert!(matches!(missing, Err(StoreError::NotFound)), "{missing:?}");
    assert_eq!(only(&store).await.revoke_time, None);
    store.revoke_api_key(ApiKeyId(7), &entry()).await.expect("is there");
    let end = only(&store).await.revoke_time;
    assert!(end.is_some());
    let again = store.revoke_api_key(ApiKeyId(7), &entry()).await;
    assert!(matches!(again, Err(StoreError::NotFound)), "{again:?}");
    assert_eq!(only(&store).await.revoke_time, end);
}

async fn every_change_raises_the_version_and_use_does_not(store: Store) {
    let version = async || store.credentials_version().await.expect("is there");
    let first = version().await;
    store.create_api_key(new(7), &entry()).await.expect("makes");
    let made = version().await;
    assert!(first < made);
    for time in [5, 9, 7] {
        store.used_api_keys(&[(ApiKeyId(7), Timestamp(time))]).await.expect("notes");
    }
    assert_eq!(only(&store).await.last_use_time, Some(Timestamp(9)), "the latest");
    assert_eq!(version().await, made);
    store.revoke_api_key(ApiKeyId(7), &entry()).await.expect("is there");
    assert!(made < version().await);
}

#[tokio::test]
async fn a_visitor_is_let_in_beside_the_server_of_a_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let target = Target::Sqlite(directory.path().join("hookward.db"));
    let settings = Settings { target, connections_max: 2, keyring: Keyring::default() };
    let first = Store::visit(&settings).await.expect("makes the file");
    first.create_api_key(new(1), &entry()).await.expect("makes");
    first.close().await;
    drop(first);

    let store = Store::open(&settings).await.expect("opens");
    assert!(Store::open(&settings).await.is_err(), "one process serves it");
    let visitor = Store::visit(&settings).await.expect("visits");
    visitor.revoke_api_key(ApiKeyId(1), &entry()).await.expect("is there");
    visitor.close().await;
    drop(visitor);
    assert!(only(&store).await.revoke_time.is_some());
    store.close().await;
}
