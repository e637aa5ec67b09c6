//! Secrets: rotated with an overlap, limited in number, revoked.

use std::time::Duration;

use super::on_both_engines;
use super::world::{World, acme, entry, request};
use crate::domain::id::{SecretKey, SubscriptionKey};
use crate::domain::subscription::SigningSecret;
use crate::store::{Answer, NewSecret, Store, StoreError};

on_both_engines! {
    rotation_gives_the_old_secrets_an_end,
    rotation_without_overlap_ends_them_now,
    five_may_be_live,
    a_revoked_secret_ends_and_the_last_may_have_to_stay,
    rotation_is_answered_once,
    long_expired_secrets_are_not_listed,
    of_expired_secrets_the_last_ten_stay,
    revoking_the_new_secret_undoes_its_rotation,
}

const HOUR: Duration = Duration::from_hours(1);

async fn rotation_gives_the_old_secrets_an_end(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let second = rotate(&world, made.key, HOUR).await.expect("rotates");
    let third = rotate(&world, made.key, 2 * HOUR).await.expect("rotates");
    let secrets = world.store.secrets(&acme(), made.key).await.expect("lists");
    let keys: Vec<SecretKey> = secrets.iter().map(|secret| secret.key).collect();
    assert_eq!(keys[1..], [second.key, third.key], "oldest first");
    let ends: Vec<_> = secrets.iter().map(|secret| secret.expire_time).collect();
    assert_eq!(ends[0], Some(second.create_time.plus(HOUR)), "its end stays the sooner one");
    assert_eq!(ends[1], Some(third.create_time.plus(2 * HOUR)));
    assert_eq!(ends[2], None);
    assert_eq!(secrets[2].secret, third.secret);
    let read = world.store.subscription(&acme(), made.key).await.expect("is there");
    assert_eq!(read.version, made.version + 2, "a new secret is a change");
    let routed = world.store.routing_changes(made.version).await.expect("tells").changed;
    assert_eq!(routed[0].secrets, secrets);
}

async fn rotation_without_overlap_ends_them_now(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let second = rotate(&world, key, Duration::ZERO).await.expect("rotates");
    let secrets = world.store.secrets(&acme(), key).await.expect("lists");
    assert_eq!(secrets[0].expire_time, Some(second.create_time));
}

async fn five_may_be_live(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    for _ in 0..4 {
        rotate(&world, key, HOUR).await.expect("rotates");
    }
    let refused = rotate(&world, key, HOUR).await;
    assert!(matches!(refused, Err(StoreError::WrongState(_))), "{refused:?}");
    assert_eq!(world.store.secrets(&acme(), key).await.expect("lists").len(), 5);
    rotate(&world, key, Duration::ZERO).await.expect("the others end with it");
}

async fn revoking_the_new_secret_undoes_its_rotation(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let second = rotate(&world, made.key, 2 * HOUR).await.expect("rotates").key;
    let third = rotate(&world, made.key, HOUR).await.expect("rotates").key;
    world.store.revoke_secret(&acme(), made.key, third, &entry()).await.expect("revokes");
    let secrets = world.store.secrets(&acme(), made.key).await.expect("lists");
    let stay: Vec<_> = secrets.iter().filter(|one| one.expire_time.is_none()).collect();
    assert_eq!(stay.iter().map(|one| one.key).collect::<Vec<_>>(), [second]);
}

async fn a_revoked_secret_ends_and_the_last_may_have_to_stay(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let second = rotate(&world, made.key, HOUR).await.expect("rotates").key;
    let secrets = world.store.secrets(&acme(), made.key).await.expect("lists");
    let first = secrets[0].key;
    let revoke =
        async |secret| world.store.revoke_secret(&acme(), made.key, secret, &entry()).await;
    revoke(first).await.expect("revokes");
    assert!(matches!(revoke(first).await, Err(StoreError::NotFound)), "not live any more");
    assert!(matches!(revoke(second).await, Err(StoreError::WrongState(_))));
    let read = world.store.subscription(&acme(), made.key).await.expect("is there");
    assert_eq!(read.version, made.version + 2);
    let sql = "UPDATE subscription SET signing_enabled = $1 WHERE key = $2";
    world.execute(sql, vec![false.into(), made.key.0.into()]).await;
    revoke(second).await.expect("revokes");
    let elsewhere = world.subscribe(&acme()).await.key;
    let foreign = world.store.secrets(&acme(), elsewhere).await.expect("lists")[0].key;
    assert!(matches!(revoke(foreign).await, Err(StoreError::NotFound)));
}

async fn rotation_is_answered_once(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    let rotate = async || {
        let secret = "whsec_next".to_owned();
        let new = NewSecret { key: SecretKey(world.key()), secret, overlap: HOUR };
        let respond = |_: &SigningSecret| b"rotated".to_vec();
        let request = Some(request("r", 1));
        world.store.rotate_secret(&acme(), key, new, request, &entry(), respond).await
    };
    let Ok(Answer::Now(made)) = rotate().await else { panic!("not rotated") };
    let again = rotate().await;
    let Ok(Answer::Before { response, secret }) = again else { panic!("made twice: {again:?}") };
    assert_eq!((response.as_slice(), secret), (b"rotated".as_slice(), Some(made)));
    assert_eq!(world.store.secrets(&acme(), key).await.expect("lists").len(), 2);
}

async fn long_expired_secrets_are_not_listed(store: Store) {
    let world = World::new(store).await;
    let key = world.subscribe(&acme()).await.key;
    rotate(&world, key, Duration::ZERO).await.expect("rotates");
    let month = 30 * 24 * 3_600_000_000_i64;
    let sql = "UPDATE signing_secret SET expire_time = expire_time - $1 WHERE expire_time <> 0";
    world.execute(sql, vec![(month - 60_000_000).into()]).await;
    assert_eq!(world.store.secrets(&acme(), key).await.expect("lists").len(), 2);
    world.execute(sql, vec![60_000_000_i64.into()]).await;
    assert_eq!(world.store.secrets(&acme(), key).await.expect("lists").len(), 1);
}

async fn of_expired_secrets_the_last_ten_stay(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let mut keys = Vec::new();
    for _ in 0..30 {
        keys.push(rotate(&world, made.key, Duration::ZERO).await.expect("rotates").key);
    }
    let secrets = world.store.secrets(&acme(), made.key).await.expect("lists");
    let left: Vec<SecretKey> = secrets.iter().map(|secret| secret.key).collect();
    assert_eq!(left, keys[19..]);
    let routed = world.store.routing_changes(made.version).await.expect("tells").changed;
    assert_eq!(routed[0].secrets, secrets);
}

async fn rotate(
    world: &World,
    key: SubscriptionKey,
    overlap: Duration,
) -> Result<SigningSecret, StoreError> {
    let secret = SecretKey(world.key());
    let new = NewSecret { key: secret, secret: format!("whsec_{}", secret.0), overlap };
    let made = world.store.rotate_secret(&acme(), key, new, None, &entry(), |_| Vec::new()).await;
    match made? {
        Answer::Now(made) => Ok(made),
        Answer::Before { .. } => unreachable!("there was no request id"),
    }
}
