//! Request ids: the same request changes things once.

use futures_util::future::join_all;

use super::on_both_engines;
use super::world::{World, acme, entry, entry_of, other, request};
use crate::domain::id::SecretKey;
use crate::domain::subscription::SigningSecret;
use crate::store::{Answer, Created, NewSecret, Store, StoreError, SubscriptionFilter};

on_both_engines! {
    the_same_request_gets_the_first_answer,
    the_secret_is_shown_for_ten_minutes,
    a_revoked_secret_is_not_shown_again,
    answers_are_forgotten_after_a_day,
    another_content_under_the_same_id_is_refused,
    twins_at_once_make_one,
}

const MINUTE: i64 = 60_000_000;

async fn the_same_request_gets_the_first_answer(store: Store) {
    let world = World::new(store).await;
    assert!(matches!(create(&world, 1).await, Ok(Answer::Now(_))));
    let (response, secret) = before(create(&world, 1).await);
    assert_eq!(response, b"first answer");
    assert_eq!(secret.expect("is shown").secret.as_deref(), Some("whsec_first"));
    assert_eq!(count(&world).await, 1);
    // The id belongs to the organization that used it.
    let elsewhere = world.new_subscription(&other());
    let (request, entry) = (Some(request("r", 1)), entry_of(&other()));
    let made = world.store.create_subscription(elsewhere, request, &entry, |_| Vec::new()).await;
    assert!(matches!(made, Ok(Answer::Now(_))));
}

async fn the_secret_is_shown_for_ten_minutes(store: Store) {
    let world = World::new(store).await;
    create(&world, 1).await.expect("creates");
    age(&world, 9 * MINUTE).await;
    assert!(before(create(&world, 1).await).1.is_some());
    age(&world, MINUTE).await;
    let (response, secret) = before(create(&world, 1).await);
    assert_eq!((response.as_slice(), secret), (b"first answer".as_slice(), None));
}

async fn a_revoked_secret_is_not_shown_again(store: Store) {
    let world = World::new(store).await;
    let Ok(Answer::Now(created)) = create(&world, 1).await else { panic!("not created") };
    let secret = created.secret.expect("has one").key;
    let key = created.subscription.key;
    let sql = "UPDATE subscription SET signing_enabled = $1 WHERE key = $2";
    world.execute(sql, vec![false.into(), key.0.into()]).await;
    world.store.revoke_secret(&acme(), key, secret, &entry()).await.expect("revokes");
    assert_eq!(before(create(&world, 1).await).1, None);
}

async fn answers_are_forgotten_after_a_day(store: Store) {
    let world = World::new(store).await;
    create(&world, 1).await.expect("creates");
    age(&world, 24 * 60 * MINUTE - MINUTE).await;
    before(create(&world, 1).await);
    assert_eq!(world.store.purge_request_log().await.expect("purges"), 0);
    age(&world, MINUTE).await;
    assert!(matches!(create(&world, 2).await, Ok(Answer::Now(_))), "seen as too old");
    assert_eq!(count(&world).await, 2);
    before(create(&world, 2).await);
    age(&world, 24 * 60 * MINUTE).await;
    assert_eq!(world.store.purge_request_log().await.expect("purges"), 1);
}

async fn another_content_under_the_same_id_is_refused(store: Store) {
    let world = World::new(store).await;
    let Ok(Answer::Now(created)) = create(&world, 1).await else { panic!("not created") };
    assert!(matches!(create(&world, 2).await, Err(StoreError::RequestIdReused)));
    let key = created.subscription.key;
    let new = NewSecret {
        key: SecretKey(world.key()),
        secret: "whsec_next".to_owned(),
        overlap: std::time::Duration::ZERO,
    };
    let request = Some(request("r", 3));
    let rotated =
        world.store.rotate_secret(&acme(), key, new, request, &entry(), |_| Vec::new()).await;
    assert!(matches!(rotated, Err(StoreError::RequestIdReused)));
    assert_eq!(world.store.secrets(&acme(), key).await.expect("lists").len(), 1);
}

async fn twins_at_once_make_one(store: Store) {
    let world = World::new(store).await;
    let made = join_all((0..6).map(|_| create(&world, 1))).await;
    let is_now = |one: &&Result<Answer<Created>, StoreError>| matches!(one, Ok(Answer::Now(_)));
    assert_eq!(made.iter().filter(is_now).count(), 1, "{made:?}");
    for one in made {
        assert!(one.is_ok(), "{one:?}");
    }
    assert_eq!(count(&world).await, 1);
}

async fn create(world: &World, hash: u8) -> Result<Answer<Created>, StoreError> {
    let new = world.new_subscription(&acme());
    let respond = |_: &Created| b"first answer".to_vec();
    world.store.create_subscription(new, Some(request("r", hash)), &entry(), respond).await
}

fn before(answer: Result<Answer<Created>, StoreError>) -> (Vec<u8>, Option<SigningSecret>) {
    match answer {
        Ok(Answer::Before { response, secret }) => (response, secret),
        Ok(Answer::Now(_)) | Err(_) => panic!("not the answer from before: {answer:?}"),
    }
}

async fn age(world: &World, micros: i64) {
    let sql = "UPDATE request_log SET create_time = create_time - $1";
    world.execute(sql, vec![micros.into()]).await;
}

async fn count(world: &World) -> usize {
    let all = SubscriptionFilter::default();
    world.store.subscriptions(&acme(), &all, None, 100).await.expect("lists").len()
}
