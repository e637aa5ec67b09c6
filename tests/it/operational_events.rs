//! Promise: what the service itself has to tell goes as ordinary events to the
//! subscriptions that ask for it by name, and to nobody else; it holds ids and counts, and
//! is never told of itself.

use std::time::Duration;

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{Organization, draft, event, event_with_id, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    a_dead_delivery_is_an_event_for_those_who_name_it,
    the_end_of_such_an_event_is_not_told_of,
    a_receiver_that_is_gone_is_told_of,
    accounts_are_told_of_their_own_subscriptions,
);

/// A subscription whose deliveries have one attempt each.
async fn subscribe(organization: &Organization, receiver: &Receiver, pattern: &str) -> String {
    let retry_policy = Some(waits(&[]));
    let once = pb::Subscription { retry_policy, ..draft(receiver, "standard", pattern) };
    organization.create(once).await.id
}

/// The organization's own operational events.
async fn operational(organization: &Organization) -> Vec<pb::Event> {
    let request = pb::ListEventsRequest {
        organization_id: organization.name(),
        event_type_pattern: "hookward.*".to_owned(),
        include_payload: true,
        ..pb::ListEventsRequest::default()
    };
    let page = organization.events().list_events(request).await.expect("it is readable");
    page.into_inner().events
}

async fn a_dead_delivery_is_an_event_for_those_who_name_it(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let other = service.organization("other");
    let failing = Receiver::answering([500]).await;
    let [everything, by_prefix, exact, strange] = [
        Receiver::answering([200]).await,
        Receiver::answering([200]).await,
        Receiver::answering([200]).await,
        Receiver::answering([200]).await,
    ];
    let failing_id = subscribe(&clinic, &failing, "lab.result").await;
    subscribe(&clinic, &everything, "*").await;
    subscribe(&clinic, &by_prefix, "hookward.*").await;
    subscribe(&clinic, &exact, "hookward.delivery.dead").await;
    subscribe(&other, &strange, "hookward.*").await;

    let patient = r#"{"name":"Canary-Robin"}"#;
    clinic.publish_event(event_with_id("robin-1001", "lab.result", patient)).await;

    for receiver in [&by_prefix, &exact] {
        let request = receiver.received(1).await.remove(0);
        let body = request.json();
        assert_eq!(body["type"], "hookward.delivery.dead");
        let data = &body["data"];
        let delivery_id = data["delivery_id"].as_str().expect("a text");
        let delivery = clinic.delivery(delivery_id).await.expect("it is there");
        assert_eq!((delivery.state(), &*delivery.event_id), (State::Dead, "robin-1001"));
        assert_eq!(delivery.subscription_id, failing_id);
        assert_eq!(data["subscription_id"], *failing_id);
        assert_eq!(data["dead_reason"], delivery.dead_reason().as_str_name());
        assert_eq!(data["attempt_count"], 1);
        let text = request.text();
        assert!(!text.contains("Canary") && !text.contains("robin"), "ids and counts: {text}");
    }
    // An event like any other: listed, readable by its id, delivered on record.
    let listed = operational(&clinic).await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].id.starts_with("evt_"), "{}", listed[0].id);
    assert_eq!(clinic.read_event(&listed[0].id).await.expect("it is there"), listed[0]);
    assert_eq!(clinic.deliveries_of(&listed[0].id).await.len(), 2);
    let counted = "hookward_operational_events_total{type=\"hookward.delivery.dead\"}";
    eventually("the count", async || (service.metric(counted).await == Some(1.0)).then_some(()))
        .await;

    clinic.publish("lab.other", "{}").await;
    let requests = everything.received(2).await;
    let types = requests.iter().map(|request| request.json()["type"].clone());
    assert_eq!(types.collect::<Vec<_>>(), ["lab.result", "lab.other"]);
    assert_eq!(strange.count(), 0);
    assert!(operational(&other).await.is_empty());
}

async fn the_end_of_such_an_event_is_not_told_of(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let [failing, deaf] = [Receiver::answering([500]).await, Receiver::answering([500]).await];
    subscribe(&clinic, &failing, "lab.*").await;
    subscribe(&clinic, &deaf, "hookward.*").await;

    clinic.publish("lab.result", "{}").await;

    deaf.received(1).await;
    let told = operational(&clinic).await.remove(0);
    clinic.delivery_of(&told.id).reaches(State::Dead).await;
    // Time for another one, if there were one.
    meanwhile(Duration::from_secs(3)).await;
    assert_eq!(operational(&clinic).await.len(), 1);
    assert_eq!(deaf.count(), 1);
}

async fn a_receiver_that_is_gone_is_told_of(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let [gone, owner] = [Receiver::answering([410]).await, Receiver::answering([200]).await];
    let id = subscribe(&clinic, &gone, "lab.*").await;
    subscribe(&clinic, &owner, "hookward.subscription.disabled").await;

    clinic.publish("lab.result", "{}").await;

    let body = owner.received(1).await[0].json();
    assert_eq!(body["type"], "hookward.subscription.disabled");
    assert_eq!(body["data"], serde_json::json!({"subscription_id": id, "reason": "GONE"}));
    let subscription = clinic.get(&id).await.expect("it is there");
    assert_eq!(subscription.state(), pb::subscription::State::Disabled);
    assert_eq!(subscription.state_reason, "the receiver answered 410 Gone");
}

async fn accounts_are_told_of_their_own_subscriptions(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let failing = Receiver::answering([500]).await;
    let [ward, other_ward, whole] = [
        Receiver::answering([200]).await,
        Receiver::answering([200]).await,
        Receiver::answering([200]).await,
    ];
    let of = |account: &str, receiver: &Receiver, pattern: &str| pb::Subscription {
        account_id: account.to_owned(),
        retry_policy: Some(waits(&[])),
        ..draft(receiver, "standard", pattern)
    };
    clinic.create(of("ward-3", &failing, "lab.*")).await;
    clinic.create(of("", &failing, "lab.*")).await;
    clinic.create(of("ward-3", &ward, "hookward.*")).await;
    clinic.create(of("ward-4", &other_ward, "hookward.*")).await;
    clinic.create(of("", &whole, "hookward.*")).await;

    let account_id = "ward-3".to_owned();
    clinic.publish_event(pb::Event { account_id, ..event("lab.result", "{}") }).await;

    whole.received(2).await;
    ward.received(1).await;
    let accounts = operational(&clinic).await.into_iter().map(|event| event.account_id);
    let mut accounts: Vec<String> = accounts.collect();
    accounts.sort_unstable();
    assert_eq!(accounts, ["", "ward-3"]);
    eventually("every delivery's end", async || {
        let open = pb::ListDeliveriesRequest {
            states: vec![State::Pending.into(), State::InFlight.into()],
            ..pb::ListDeliveriesRequest::default()
        };
        clinic.list(open).await.is_empty().then_some(())
    })
    .await;
    assert_eq!((ward.count(), other_ward.count()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_of_other_platforms_never_send_them() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    for profile in ["azodha", "hapihub", "meetinglawyers", "telegramd"] {
        for pattern in ["hookward.*", "hookward.delivery.dead"] {
            let refused = clinic.try_create(draft(&receiver, profile, pattern), "").await;
            let refused = refused.expect_err(profile);
            let expected = "OPERATIONAL_EVENTS_UNSUPPORTED".to_owned();
            let field = "subscription.event_patterns[0]".to_owned();
            assert_eq!(violation(&refused), (field, expected), "{profile} {pattern}");
        }
        // Nor by a change of the profile.
        let standard = clinic.subscribe(&receiver, "standard", "hookward.*").await;
        let changed = pb::Subscription { profile: profile.to_owned(), ..standard.subscription };
        let refused = clinic.try_update(changed, &["profile"]).await.expect_err(profile);
        assert_eq!(violation(&refused).1, "OPERATIONAL_EVENTS_UNSUPPORTED", "{profile}");
        clinic.delete(&standard.id).await.expect("it is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_publishes_them() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    for own in ["hookward.subscription.disabled", "hookward.x"] {
        let refused = clinic.try_publish(vec![event(own, "{}")]).await.expect_err(own);
        let expected = ("events[0].type".to_owned(), "RESERVED_EVENT_TYPE".to_owned());
        assert_eq!(violation(&refused), expected, "{own}");
    }
    clinic.publish("hookward", "{}").await;
    clinic.publish("hookwards.x", "{}").await;
}
