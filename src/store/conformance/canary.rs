//! The canary's subscription is made once, and mended.

use futures_util::future::join_all;

use super::on_both_engines;
use crate::domain::canary;
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::store::{Change, Store};

on_both_engines!(its_subscription_is_made_once_however_many_begin, what_was_changed_is_mended);

async fn its_subscription_is_made_once_however_many_begin(store: Store) {
    let upkeep = store.for_upkeep();
    let begin = |number: i32| {
        let upkeep = upkeep.clone();
        async move { upkeep.keep_canary(format!("whsec_{number}")).await }
    };
    for made in join_all((0..5).map(begin)).await {
        made.expect("each finds it as it should be");
    }
    let organization = canary::organization();
    let there = store.subscription(&organization, canary::SUBSCRIPTION).await.expect("it is there");
    assert_eq!((there.spec, there.state), (canary::spec(), SubscriptionState::Active));
    let secrets = store.secrets(&organization, canary::SUBSCRIPTION).await.expect("it is there");
    assert_eq!(secrets.len(), 1);
    let version = store.routing_version().await.expect("it tells");
    upkeep.keep_canary("whsec_later".to_owned()).await.expect("it is there");
    assert_eq!(store.routing_version().await.expect("it tells"), version, "nothing to do");
    let again = store.secrets(&organization, canary::SUBSCRIPTION).await.expect("it is there");
    assert_eq!(again[0].secret, secrets[0].secret);
    let kept = store.retention_settings().await.expect("it tells").own;
    assert_eq!(kept[&organization].metadata, Some(canary::KEPT));
}

async fn what_was_changed_is_mended(store: Store) {
    let upkeep = store.for_upkeep();
    upkeep.keep_canary("whsec_first".to_owned()).await.expect("it is made");
    let (organization, key) = (canary::organization(), canary::SUBSCRIPTION);
    let entry = super::world::entry_of(&organization);
    let change = |mut there: Subscription| {
        there.state = SubscriptionState::Disabled;
        there.spec.url = "https://elsewhere.example/".to_owned();
        Ok::<_, ()>(Change::Write(Box::new(there)))
    };
    let changed = store.change_subscription(&organization, key, None, &entry, change).await;
    assert_eq!(changed.expect("it is there").state, SubscriptionState::Disabled);

    upkeep.keep_canary("whsec_second".to_owned()).await.expect("it is mended");

    let mended = store.subscription(&organization, key).await.expect("it is there");
    assert_eq!((mended.spec, mended.state), (canary::spec(), SubscriptionState::Active));
    let secrets = store.secrets(&organization, key).await.expect("it is there");
    assert_eq!(secrets.len(), 1, "the secret stays");
}
