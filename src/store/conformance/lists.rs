//! Lists of deliveries: whatever the filter and the page size, they are what
//! looking at every delivery one by one finds.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{Draft, NOON, World, acme, attempt, entry, other};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::{DeadReason, Delivery, DeliveryState};
use crate::domain::event::Payload;
use crate::domain::id::{AccountId, DeliveryKey, EventKey, SubscriptionKey};
use crate::domain::pattern::EventPattern;
use crate::store::{DeliveryFilter, LeaseSession, Next, Store};

on_both_engines! {
    lists_agree_with_looking_one_by_one,
    settled_events_need_no_tail,
    a_long_walk_comes_back_short,
    anothers_subscription_has_no_pages,
}

const STATES: [DeliveryState; 5] = [
    DeliveryState::Pending,
    DeliveryState::InFlight,
    DeliveryState::Succeeded,
    DeliveryState::Dead,
    DeliveryState::Cancelled,
];

async fn lists_agree_with_looking_one_by_one(store: Store) {
    let world = World::new(store).await;
    let (subscriptions, keys) = some_of_everything(&world).await;
    let mut all = Vec::new();
    for key in &keys {
        all.push(world.store.delivery(&acme(), *key).await.expect("is there"));
    }
    for state in STATES {
        assert!(all.iter().any(|one| one.state == state), "{state:?} is missing from the test");
    }
    for filter in filters(&subscriptions, &keys) {
        let expected: Vec<DeliveryKey> =
            all.iter().filter(|one| passes(&filter, one)).map(key_of).collect();
        for size in [1, 3, 100] {
            let listed = walk(&world, &filter, size).await;
            assert_eq!(listed, expected, "{filter:?} by {size}");
        }
        let elsewhere = world.store.deliveries(&other(), &filter, None, 10).await.expect("lists");
        assert!(elsewhere.deliveries.is_empty(), "{filter:?}");
    }
}

/// Says in the heartbeat that everything is settled or has a row.
async fn settled_events_need_no_tail(store: Store) {
    let world = World::new(store).await;
    let (subscriptions, keys) = some_of_everything(&world).await;
    let above = EventKey(keys[0].event.0 + 1);
    world.store.heartbeat(&mut LeaseSession::default(), world.fence, above).await.expect("beats");
    let filter = DeliveryFilter {
        subscription: Some(subscriptions[0]),
        states: vec![DeliveryState::Dead, DeliveryState::Succeeded],
        ..DeliveryFilter::default()
    };
    let mut expected = Vec::new();
    for key in &keys {
        let delivery = world.store.delivery(&acme(), *key).await.expect("is there");
        if passes(&filter, &delivery) {
            expected.push(*key);
        }
    }
    assert!(!expected.is_empty());
    assert_eq!(walk(&world, &filter, 2).await, expected);
}

async fn a_long_walk_comes_back_short(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let rare = world.publish(&Draft { event_type: "rare", ..Draft::to(&[subscription]) }).await;
    let common = Draft { payload: Payload::None, ..Draft::to(&[subscription]) };
    let rows: Vec<_> = (0..10_500).map(|_| world.row(&common)).collect();
    world.commit(&rows).await.expect("commits");
    let pattern = EventPattern::parse("rare", false).expect("a pattern");
    let filter = DeliveryFilter { pattern: Some(pattern), ..DeliveryFilter::default() };
    let first = world.store.deliveries(&acme(), &filter, None, 10).await.expect("lists");
    assert!(first.deliveries.is_empty());
    assert!(first.next.is_some(), "there may be more");
    let rest = world.store.deliveries(&acme(), &filter, first.next, 10).await.expect("lists");
    let found: Vec<_> = rest.deliveries.iter().map(key_of).collect();
    assert_eq!(found, [DeliveryKey { event: rare, subscription }]);
    assert_eq!(rest.next, None);
}

/// Events a minute apart, in every state, to two subscriptions; newest first.
async fn some_of_everything(world: &World) -> (Vec<SubscriptionKey>, Vec<DeliveryKey>) {
    let first = world.subscribe(&acme()).await.key;
    let second = world.subscribe(&acme()).await.key;
    let failed = || attempt(1, AttemptResult::HttpStatus);
    let later = Next::RetryIn(Duration::from_hours(1));
    let dead = Next::Dead(DeadReason::Gone);
    let mut keys = Vec::new();
    for number in 0..14_u64 {
        let is_even = number % 2 == 0;
        let at = NOON.plus(Duration::from_mins(number));
        let event_type = if is_even { "notes.create" } else { "labs.create" };
        let account = (number < 7).then(|| AccountId::stored("account-1"));
        let parked = if number % 7 == 1 { vec![second] } else { Vec::new() };
        let draft = Draft { account, event_type, at, parked, ..Draft::to(&[first, second]) };
        let event = world.publish(&draft).await;
        for subscription in [first, second] {
            let key = DeliveryKey { event, subscription };
            keys.push(key);
            match (number % 7, subscription == first) {
                (0, true) | (2, false) => world.settle(key, failed(), later).await,
                (1 | 3, true) => {
                    world.settle(key, attempt(1, AttemptResult::Succeeded), Next::Succeeded).await;
                }
                (2, true) | (0, false) => world.settle(key, failed(), dead).await,
                (4, _) => {
                    world.store.cancel_delivery(&acme(), key, &entry()).await.expect("cancels");
                }
                (5, _) => {
                    world.settle(key, failed(), Next::RetryIn(Duration::ZERO)).await;
                    let wanted = [(subscription, 1)];
                    world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims");
                }
                _ => {}
            }
        }
        let foreign = Draft { organization: other(), at, ..Draft::to(&[]) };
        world.publish(&foreign).await;
    }
    keys.sort_unstable();
    keys.reverse();
    (vec![first, second], keys)
}

fn filters(subscriptions: &[SubscriptionKey], keys: &[DeliveryKey]) -> Vec<DeliveryFilter> {
    let any = DeliveryFilter::default;
    let mut filters = Vec::new();
    let choices = (0..1_u32 << STATES.len()).map(|bits| {
        let chosen = |at: &usize| bits & (1 << at) != 0;
        (0..STATES.len()).filter(chosen).map(|at| STATES[at]).collect::<Vec<_>>()
    });
    for states in choices {
        let to_one = Some(subscriptions[0]);
        filters.push(DeliveryFilter { states: states.clone(), subscription: to_one, ..any() });
        filters.push(DeliveryFilter { states, ..any() });
    }
    let event = Some(keys[4].event);
    filters.push(DeliveryFilter { event, ..any() });
    filters.push(DeliveryFilter { event, subscription: Some(subscriptions[1]), ..any() });
    filters.push(DeliveryFilter { event: Some(EventKey(1)), ..any() });
    filters.push(DeliveryFilter { subscription: Some(SubscriptionKey(1)), ..any() });
    let account = Some(AccountId::stored("account-1"));
    let pattern = EventPattern::parse("labs.*", false).ok();
    let from = Some(NOON.plus(Duration::from_mins(3)));
    let to = Some(NOON.plus(Duration::from_mins(9)));
    for subscription in [None, Some(subscriptions[1])] {
        filters.push(DeliveryFilter { account: account.clone(), subscription, ..any() });
        filters.push(DeliveryFilter { pattern: pattern.clone(), subscription, ..any() });
        for states in [vec![], vec![DeliveryState::Pending], vec![DeliveryState::Dead]] {
            filters.push(DeliveryFilter { subscription, states, from, to, ..any() });
        }
    }
    filters
}

fn passes(filter: &DeliveryFilter, one: &Delivery) -> bool {
    (filter.states.is_empty() || filter.states.contains(&one.state))
        && filter.subscription.is_none_or(|key| key == one.subscription)
        && filter.event.is_none_or(|key| key == one.event.key)
        && filter.account.as_ref().is_none_or(|account| one.event.account.as_ref() == Some(account))
        && filter.pattern.as_ref().is_none_or(|pattern| pattern.matches(&one.event.event_type))
        && filter.from.is_none_or(|from| from <= one.event.publish_time)
        && filter.to.is_none_or(|to| one.event.publish_time < to)
}

async fn walk(world: &World, filter: &DeliveryFilter, size: usize) -> Vec<DeliveryKey> {
    let (mut keys, mut before) = (Vec::new(), None);
    loop {
        let page = world.store.deliveries(&acme(), filter, before, size).await.expect("lists");
        assert!(page.deliveries.len() <= size);
        keys.extend(page.deliveries.iter().map(key_of));
        before = page.next;
        if before.is_none() {
            return keys;
        }
    }
}

fn key_of(delivery: &Delivery) -> DeliveryKey {
    DeliveryKey { event: delivery.event.key, subscription: delivery.subscription }
}

/// By the number of its empty pages one could tell how much another has.
async fn anothers_subscription_has_no_pages(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&other()).await.key;
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO undelivered (subscription_key, event_key, organization_id, state, reason, end_time)
        SELECT $1, i, $2, $3, 1, 0 FROM n";
    let state = DeliveryState::Dead as i16;
    let values = vec![subscription.0.into(), other().as_str().into(), state.into()];
    world.store.write().execute_raw(world.store.statement(many, values)).await.expect("inserts");
    let filter = DeliveryFilter {
        subscription: Some(subscription),
        states: vec![DeliveryState::Dead],
        ..DeliveryFilter::default()
    };
    let own = world.store.deliveries(&other(), &filter, None, 10).await.expect("lists");
    assert!(own.next.is_some(), "there is more to look at");
    let page = world.store.deliveries(&acme(), &filter, None, 10).await.expect("lists");
    assert!(page.deliveries.is_empty() && page.next.is_none());
}
