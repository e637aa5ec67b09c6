//! Promise: the key-encryption key is changed as `docs/OPERATIONS.md` tells it, step by
//! step, while 500 events a second are published; every delivery succeeds at its first
//! attempt, and in the end nothing needs the old key.

use std::collections::BTreeSet;

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::caller::hookward;
use crate::harness::client::{Subscribed, draft};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::fleet::{Fleet, Flow, PER_SECOND, name, stop};
use crate::harness::keys::{self, NEW, OLD, VARIABLE};
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};
use crate::harness::signature::standard_accepts;

on_both_engines!(a_key_is_changed_under_500_events_a_second);

/// More data keys than are wrapped anew in one transaction.
const ORGANIZATIONS: usize = 220;
/// What is published between one step and the next at least: two seconds' worth.
const BETWEEN: usize = 2 * PER_SECOND;

async fn a_key_is_changed_under_500_events_a_second(engine: Engine) {
    let receiver = Receiver::answering([200]).await;
    let subscriptions = store_before_there_are_keys(&engine, &receiver).await;
    let mut servers = start(&engine, OLD).await;
    // What waits here is read from the database in the end.
    let held = &subscriptions[0].id;
    servers.organization(&name(0)).pause(held).await.expect("it is active");
    let flow = Flow::start(&servers, ORGANIZATIONS);

    // What was stored before there were keys, so that every organization has a data key.
    let said = rotate(&engine, OLD);
    assert!(said.starts_with("everything is under old: 0 data keys wrapped anew, "), "{said}");
    assert!(!said.ends_with(" 0 plaintext values encrypted"), "{said}");
    flow.goes_on(BETWEEN).await;

    servers.restart_with(&with(&engine, &keys::both("old"))).await;
    flow.goes_on(BETWEEN).await;
    servers.restart_with(&with(&engine, &keys::both("new"))).await;
    flow.goes_on(BETWEEN).await;
    let before = flow.published();
    let said = rotate(&engine, &keys::both("new"));
    assert_eq!(said, under_new(ORGANIZATIONS));
    assert!(before < flow.published(), "events were published meanwhile");
    flow.goes_on(BETWEEN).await;
    servers.restart_with(&with(&engine, NEW)).await;
    flow.goes_on(BETWEEN).await;
    assert_eq!(rotate(&engine, NEW), under_new(0), "nothing was left");

    servers.organization(&name(0)).resume(held).await.expect("it is paused");
    let expected = ORGANIZATIONS + flow.end().await.len();
    each_came_once_and_signed(&receiver, &subscriptions, expected).await;
    each_succeeded_at_once(&servers, expected).await;
    servers.stop().await;
}

/// Two servers on PostgreSQL, on SQLite the one that can be.
async fn start(engine: &Engine, keys: &str) -> Fleet {
    let count = if engine.url().starts_with("postgres") { 2 } else { 1 };
    Fleet::start(&with(engine, keys), count).await
}

fn with(engine: &Engine, keys: &str) -> Settings {
    Settings::new(engine.clone()).env(VARIABLE, keys)
}

/// A subscription and an event of each organization, all of it plaintext.
async fn store_before_there_are_keys(engine: &Engine, receiver: &Receiver) -> Vec<Subscribed> {
    let plain = Service::start(engine.clone()).await;
    let mut subscriptions = Vec::new();
    for number in 0..ORGANIZATIONS {
        let clinic = plain.organization(&name(number));
        let url = receiver.url_at(&format!("/{number}"));
        let subscription = pb::Subscription { url, ..draft(receiver, "standard", "*") };
        subscriptions.push(clinic.create(subscription).await);
        clinic.publish("bird", r#"{"name":"Robin"}"#).await;
    }
    receiver.received(ORGANIZATIONS).await;
    stop(plain).await;
    subscriptions
}

/// What `hookward keys rotate` says with these keys.
fn rotate(engine: &Engine, keys: &str) -> String {
    hookward(engine, &["keys", "rotate", "--encryption-keys", keys])
}

fn under_new(data_keys: usize) -> String {
    format!(
        "everything is under new: {data_keys} data keys wrapped anew, 0 plaintext values encrypted"
    )
}

/// Nothing is lost, sent twice, or signed with anything but its subscription's secret.
async fn each_came_once_and_signed(
    receiver: &Receiver,
    subscriptions: &[Subscribed],
    expected: usize,
) {
    let requests = receiver.received(expected).await;
    let deliveries: BTreeSet<_> =
        requests.iter().filter_map(|request| request.header("webhook-id")).collect();
    assert_eq!((requests.len(), deliveries.len()), (expected, expected), "each once");
    for request in &requests {
        let number: usize = request.target.trim_start_matches('/').parse().expect("a number");
        assert!(standard_accepts(&subscriptions[number].secret, request), "{}", request.target);
    }
}

async fn each_succeeded_at_once(servers: &Fleet, expected: usize) {
    let mut count = 0;
    for number in 0..ORGANIZATIONS {
        let clinic = servers.organization(&name(number));
        let deliveries = eventually("the outcome of every delivery", async || {
            let filter = pb::ListDeliveriesRequest { page_size: 1000, ..Default::default() };
            let deliveries = clinic.list(filter).await;
            let open =
                |one: &pb::Delivery| [State::Pending, State::InFlight].contains(&one.state());
            (!deliveries.iter().any(open)).then_some(deliveries)
        })
        .await;
        count += deliveries.len();
        let failed: Vec<_> = deliveries
            .into_iter()
            .filter(|one| one.state() != State::Succeeded || one.attempt_count != 1)
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    assert_eq!(count, expected);
}
