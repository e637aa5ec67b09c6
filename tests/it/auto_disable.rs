//! Promise: a receiver that has had no success for days, and has let enough deliveries
//! exhaust their attempts, is switched off, and its owner is warned before; one success
//! starts the time anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::subscription::State;

use crate::harness::client::{Organization, draft, event, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(
    a_receiver_that_keeps_failing_is_warned_of_and_disabled,
    a_success_starts_the_time_anew_and_is_told_of,
);

const FAILING: &str = "hookward.subscription.failing";
const RECOVERED: &str = "hookward.subscription.recovered";
/// What a streak is spared before its time counts.
const HEAD_START: Duration = Duration::from_secs(5);

async fn start(engine: Engine, after: Duration, deliveries: &str) -> Service {
    let after = format!("{}s", after.as_secs());
    let settings = Settings::new(engine).flag("--auto-disable-after", &after);
    settings.flag("--auto-disable-deliveries", deliveries).start().await
}

/// A subscription whose deliveries have one attempt each.
async fn subscribe(organization: &Organization, receiver: &Receiver) -> String {
    let retry_policy = Some(waits(&[]));
    let once = pb::Subscription { retry_policy, ..draft(receiver, "azodha", "lab.*") };
    organization.create(once).await.id
}

/// Publishes now and then until `holds` of the subscription; the subscription then.
async fn publish_until(
    organization: &Organization,
    id: &str,
    what: &str,
    mut holds: impl FnMut(&pb::Subscription) -> bool,
) -> pb::Subscription {
    eventually(what, async || {
        organization.publish("lab.result", "{}").await;
        meanwhile(Duration::from_millis(200)).await;
        let subscription = organization.get(id).await.expect("it is there");
        holds(&subscription).then_some(subscription)
    })
    .await
}

/// Type and data of what an operational subscription got, in the order of arrival.
fn told(receiver: &Receiver) -> Vec<(String, serde_json::Value)> {
    let read = receiver.requests().into_iter().map(|request| {
        let mut body = request.json();
        (body["type"].as_str().expect("a text").to_owned(), body["data"].take())
    });
    read.collect()
}

async fn a_receiver_that_keeps_failing_is_warned_of_and_disabled(engine: Engine) {
    let is_shared = !engine.url().starts_with("sqlite:");
    // A warning is due for two seconds and more, and looked for every second.
    let after = Duration::from_secs(9);
    let service = start(engine, after, "5").await;
    // What several replicas see is told once.
    let _other = if is_shared { Some(service.replica().await) } else { None };
    let clinic = service.organization("clinic");
    // An answer that opens no circuit.
    let failing = Receiver::answering([404]).await;
    let id = subscribe(&clinic, &failing).await;
    let owner = Receiver::answering([200]).await;
    clinic.subscribe(&owner, "standard", "hookward.subscription.*").await;
    let begin = Instant::now();

    let disabled = publish_until(&clinic, &id, "a disabled subscription", |subscription| {
        subscription.state() == State::Disabled
    })
    .await;

    let took = begin.elapsed();
    assert!(HEAD_START + after <= took, "not before its time: {took:?}");
    let why = &disabled.state_reason;
    assert!(
        why.starts_with("no delivery succeeded for ") && why.contains(" seconds, and "),
        "{why}"
    );
    owner.received(3).await;
    // Time for one more, if there were one.
    meanwhile(Duration::from_secs(2)).await;
    let mut told = told(&owner);
    // They may overtake each other.
    told.sort_by_key(|(_, data)| data["percent"].as_u64().unwrap_or(100));
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| &**kind).collect();
    assert_eq!(kinds, [FAILING, FAILING, "hookward.subscription.disabled"], "{told:?}");
    for ((_, data), percent) in told.iter().zip([Some(50), Some(75), None]) {
        assert_eq!(data["subscription_id"], *id);
        assert_eq!(data["percent"].as_u64(), percent);
        assert!(data["failing_since"].is_string(), "{data}");
        assert!(0 < data["exhausted_deliveries"].as_u64().expect("a number"), "{data}");
    }
    assert_eq!(told[2].1["reason"], "FAILING");
    assert!(5 <= told[2].1["exhausted_deliveries"].as_u64().expect("a number"));

    // It stays off until its owner switches it on, and then begins anew.
    assert_eq!(clinic.publish_event(event("lab.result", "{}")).await.delivery_count, 0);
    clinic.activate(&id).await.expect("it is disabled");
    let again = Instant::now();
    publish_until(&clinic, &id, "failures for a while", |subscription| {
        assert_eq!(subscription.state(), State::Active, "what was before does not count");
        Duration::from_secs(3) < again.elapsed()
    })
    .await;
}

async fn a_success_starts_the_time_anew_and_is_told_of(engine: Engine) {
    let after = Duration::from_secs(12);
    let service = start(engine, after, "1").await;
    let clinic = service.organization("clinic");
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let receiver = Receiver::deciding(move |_, _| {
        Answer::Status(if answers.load(Ordering::SeqCst) { 200 } else { 404 })
    })
    .await;
    let id = subscribe(&clinic, &receiver).await;
    let owner = Receiver::answering([200]).await;
    clinic.subscribe(&owner, "standard", "hookward.subscription.*").await;
    let begin = Instant::now();

    publish_until(&clinic, &id, "a warning", |_| 0 < owner.count()).await;
    works.store(true, Ordering::SeqCst);
    publish_until(&clinic, &id, "the all-clear", |_| {
        told(&owner).iter().any(|(kind, _)| kind == RECOVERED)
    })
    .await;
    works.store(false, Ordering::SeqCst);

    // Without the success in between this would be long enough.
    publish_until(&clinic, &id, "failures for a while", |subscription| {
        assert_eq!(subscription.state(), State::Active);
        HEAD_START + after + Duration::from_secs(2) < begin.elapsed()
    })
    .await;
    let kinds: Vec<String> = told(&owner).into_iter().map(|(kind, _)| kind).collect();
    let warned = kinds.iter().filter(|kind| *kind == FAILING).count();
    assert!((1..=2).contains(&warned) && kinds.len() == warned + 1, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_disabled_where_that_is_off() {
    let engine = Engine::sqlite();
    let service = Settings::new(engine).flag("--auto-disable-after", "off").start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([404]).await;
    let id = subscribe(&clinic, &receiver).await;
    let begin = Instant::now();
    let subscription = publish_until(&clinic, &id, "some seconds", |_| {
        HEAD_START + Duration::from_secs(2) < begin.elapsed()
    })
    .await;
    assert_eq!(subscription.state(), State::Active);
    let failing = service.metric("hookward_subscriptions_failing").await;
    assert_eq!(failing, Some(1.0), "it is known all the same");
    let reason = "hookward_subscriptions_disabled_total{reason=\"failing\"}";
    assert_eq!(service.metric(reason).await, Some(0.0));
}
