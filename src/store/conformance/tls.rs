//! Certificates towards receivers: kept with their subscription, and gone with it.

use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{World, acme, entry};
use crate::domain::id::SubscriptionKey;
use crate::domain::receiver_tls::{ClientCertificate, PrivateKey, ReceiverTls};
use crate::domain::subscription::Subscription;
use crate::store::{Change, Store};

on_both_engines! {
    certificates_read_back_wherever_a_subscription_is_read,
    certificates_are_changed_and_deleted_with_their_subscription,
    a_key_in_a_form_of_a_later_version_is_there_and_cannot_be_read,
}

fn tls(key: &str) -> ReceiverTls {
    let key = PrivateKey::stored(key.to_owned());
    ReceiverTls {
        client: Some(ClientCertificate { chain: "chain".to_owned(), key }),
        authorities: "authorities".to_owned(),
    }
}

async fn subscribe(world: &World, tls: ReceiverTls) -> SubscriptionKey {
    let mut new = world.new_subscription(&acme());
    new.spec.tls = tls;
    let key = new.key;
    world.store.create_subscription(new, None, &entry(), |_| Vec::new()).await.expect("creates");
    key
}

async fn change(world: &World, key: SubscriptionKey, tls: ReceiverTls) -> Subscription {
    let change = |mut one: Subscription| -> Result<Change, ()> {
        one.spec.tls = tls;
        Ok(Change::Write(Box::new(one)))
    };
    world.store.change_subscription(&acme(), key, None, &entry(), change).await.expect("changes")
}

async fn rows(world: &World) -> usize {
    let sql = "SELECT subscription_key FROM subscription_tls";
    let statement = world.store.statement(sql, vec![]);
    world.store.read().query_all_raw(statement).await.expect("reads").len()
}

async fn certificates_read_back_wherever_a_subscription_is_read(store: Store) {
    let world = World::new(store).await;
    let version = world.store.routing_version().await.expect("version");
    let wanted = [tls("one"), ReceiverTls::default(), tls("three")];
    let mut keys = Vec::new();
    for one in &wanted {
        keys.push(subscribe(&world, one.clone()).await);
    }
    for (key, one) in keys.iter().zip(&wanted) {
        let read = world.store.subscription(&acme(), *key).await.expect("is there");
        assert_eq!(&read.spec.tls, one);
    }
    let listed = world.store.subscriptions(&acme(), &<_>::default(), None, 10).await;
    let listed: Vec<_> = listed.expect("lists").into_iter().map(|one| one.spec.tls).collect();
    assert!(listed.iter().eq(wanted.iter().rev()), "{listed:?}");
    let mut told = world.store.routing_changes(version).await.expect("tells").changed;
    told.sort_by_key(|one| one.subscription.key.0);
    assert!(told.iter().map(|one| &one.subscription.spec.tls).eq(&wanted), "{told:?}");
    assert_eq!(rows(&world).await, 2);
}

async fn certificates_are_changed_and_deleted_with_their_subscription(store: Store) {
    let world = World::new(store).await;
    let key = subscribe(&world, tls("old")).await;
    for wanted in [tls("new"), tls("new"), ReceiverTls::default(), tls("again")] {
        assert_eq!(change(&world, key, wanted.clone()).await.spec.tls, wanted);
        let read = world.store.subscription(&acme(), key).await.expect("is there");
        assert_eq!(read.spec.tls, wanted);
    }
    assert_eq!(rows(&world).await, 1);
    world.store.delete_subscription(&acme(), key, None, &entry()).await.expect("deletes");
    assert_eq!(rows(&world).await, 0, "the private key is not kept");
}

/// The others go on, and nothing is lost by changing something else.
async fn a_key_in_a_form_of_a_later_version_is_there_and_cannot_be_read(store: Store) {
    let world = World::new(store).await;
    let (key, other) = (subscribe(&world, tls("a")).await, subscribe(&world, tls("b")).await);
    let later = "UPDATE subscription_tls SET secret_version = secret_version + 9
                 WHERE subscription_key = $1";
    world.execute(later, vec![key.0.into()]).await;

    let read = world.store.subscription(&acme(), key).await.expect("is there");
    let client = read.spec.tls.client.clone().expect("there is one");
    assert_eq!(client.key.pem(), None);
    assert_eq!(world.store.routing_changes(0).await.expect("tells").changed.len(), 2);
    let other = world.store.subscription(&acme(), other).await.expect("is there");
    assert_eq!(other.spec.tls, tls("b"));

    change(&world, key, read.spec.tls).await;
    let back = "UPDATE subscription_tls SET secret_version = secret_version - 9
                WHERE subscription_key = $1";
    world.execute(back, vec![key.0.into()]).await;
    let read = world.store.subscription(&acme(), key).await.expect("is there");
    assert_eq!(read.spec.tls, tls("a"));
}
