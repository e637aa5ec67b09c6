//! Contract: HapiHub (assertions 1 to 6 of its contract; `events` is a list here).

use hookward::grpc::pb;
use pb::delivery::State;
use tonic::Code;

use crate::harness::client::{draft, event_with_id};
use crate::harness::engine::Engine;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;
use crate::harness::signature::sha256_hex;

const CREATE: &str = "medical-encounters.create";

#[tokio::test]
async fn the_body_is_id_event_and_payload_and_a_ping_has_only_the_first_two() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("5d1e2f3a4b5c6d7e8f901234");
    let receiver = Receiver::answering([200]).await;
    mycure.subscribe(&receiver, "hapihub", "*").await;
    let payload = r#"{"id":"64f0c3a1b2d4e5f60718293a","createdAt":1772637631412}"#;

    mycure.publish_event(event_with_id("64f0c3a1b2d4e5f607182941", CREATE, payload)).await;
    let first = &receiver.received(1).await[0];
    let ping = pb::Event {
        id: "64f0c3a1b2d4e5f607182940".to_owned(),
        r#type: "ping".to_owned(),
        ..pb::Event::default()
    };
    mycure.publish_event(ping).await;
    let second = &receiver.received(2).await[1];

    let expected =
        format!(r#"{{"id":"64f0c3a1b2d4e5f607182941","event":"{CREATE}","payload":{payload}}}"#);
    assert_eq!(first.text(), expected);
    assert_eq!(second.text(), r#"{"id":"64f0c3a1b2d4e5f607182940","event":"ping"}"#);
    assert_eq!(second.body.len(), 48);
    for request in [first, second] {
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("Content-Type"), Some("application/json"));
        let signs = |name: &str| name.to_lowercase().contains("signature");
        assert!(!request.headers.iter().any(|(name, _)| signs(name)), "unsigned by default");
    }
}

#[tokio::test]
async fn only_200_is_delivered() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("mycure");
    for status in [201, 202, 204, 299, 301, 302, 404, 500] {
        let receiver = Receiver::answering([status, 200]).await;
        let event_type = format!("encounters-{status}.create");
        mycure.subscribe(&receiver, "hapihub", &event_type).await;
        let event = mycure.publish(&event_type, "{}").await;
        let delivery = mycure.delivery_of(&event).reaches(State::Succeeded).await;
        assert_eq!(delivery.attempt_count, 2, "{status}");
    }
}

#[tokio::test]
async fn patterns_are_services_and_methods_in_both_spellings() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("mycure");
    let receiver = Receiver::answering([200]).await;
    let cases = [
        ("medical-encounters", "medical-encounters.create", true),
        ("medical-encounters", "medical-encounters.update", true),
        ("medical-encounters", "medical-encounters.patch", true),
        ("medical-encounters", "medical-encounters.remove", true),
        ("medical-encounters.create", "medical-encounters.create", true),
        ("medical-encounters.create", "medical-encounters.created", true),
        ("medical-encounters.create", "medical-encounters.update", false),
        ("medical-encounters.updated", "medical-encounters.patch", true),
        ("medical-encounters.delete", "medical-encounters.removed", true),
        ("medical-encounters.remove", "medical-encounters.create", false),
        ("medical-records", "medical-records-x.create", false),
        ("medical-encounters", "medical-records.create", false),
        ("ping", "medical-encounters.create", false),
        ("ping", "ping", true),
    ];
    for (pattern, event_type, matches) in cases {
        let subscribed = mycure.subscribe(&receiver, "hapihub", pattern).await;
        let event = pb::Event { r#type: event_type.to_owned(), ..pb::Event::default() };
        let result = mycure.publish_event(event).await;
        assert_eq!(result.delivery_count, u32::from(matches), "{pattern} and {event_type}");
        mycure.delete(&subscribed.id).await.expect("it is there");
    }
}

#[tokio::test]
async fn organizations_and_accounts_get_only_what_is_theirs() {
    let service = Service::start(Engine::sqlite()).await;
    let (a, b) = (service.organization("a"), service.organization("b"));
    let receiver = Receiver::answering([200]).await;
    a.subscribe(&receiver, "hapihub", "*").await;
    let of_account = |account: &str| pb::Subscription {
        account_id: account.to_owned(),
        ..draft(&receiver, "hapihub", "*")
    };
    b.create(of_account("anna")).await;

    let by = |account: &str| pb::Event {
        account_id: account.to_owned(),
        r#type: CREATE.to_owned(),
        ..pb::Event::default()
    };
    let counts = [
        (a.publish_event(by("")).await, 1),
        (a.publish_event(by("anna")).await, 1),
        (b.publish_event(by("")).await, 0),
        (b.publish_event(by("anna")).await, 1),
        (b.publish_event(by("ben")).await, 0),
        (b.publish_event(by("Anna")).await, 0),
    ];
    for (number, (result, expected)) in counts.into_iter().enumerate() {
        assert_eq!(result.delivery_count, expected, "case {number}");
    }
}

#[tokio::test]
async fn several_matching_patterns_make_one_delivery() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("mycure");
    let receiver = Receiver::answering([200]).await;
    let event_patterns = ["*", "medical-encounters", CREATE].map(str::to_owned).into();
    let draft = pb::Subscription { event_patterns, ..draft(&receiver, "hapihub", "*") };
    mycure.create(draft).await;

    let event = mycure.publish(CREATE, "{}").await;

    mycure.delivery_of(&event).reaches(State::Succeeded).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_ping_reaches_the_named_subscription_only_whatever_its_patterns() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("mycure");
    let (named, other) = (Receiver::answering([200]).await, Receiver::answering([200]).await);
    let subscribed = mycure.subscribe(&named, "hapihub", CREATE).await;
    mycure.subscribe(&other, "hapihub", "*").await;

    let pinged = mycure.ping(&subscribed.id).await.expect("hapihub has a ping");

    let delivery = mycure.delivery_of(&pinged.event_id).reaches(State::Succeeded).await;
    assert_eq!(delivery.id, pinged.delivery_id);
    assert_eq!(delivery.subscription_id, subscribed.id);
    let request = &named.received(1).await[0];
    let expected = format!(r#"{{"id":"{}","event":"ping"}}"#, pinged.event_id);
    assert_eq!(request.text(), expected);
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn an_inactive_subscription_cannot_be_pinged() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("mycure");
    let receiver = Receiver::answering([200]).await;
    let subscribed = mycure.subscribe(&receiver, "hapihub", "ping").await;
    mycure.deactivate(&subscribed.id).await.expect("it is active");

    let refused = mycure.ping(&subscribed.id).await.expect_err("it is inactive");

    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn signing_can_be_asked_for() {
    let service = Service::start(Engine::sqlite()).await;
    let mycure = service.organization("mycure");
    let receiver = Receiver::answering([200]).await;
    let draft =
        pb::Subscription { signing_enabled: Some(true), ..draft(&receiver, "hapihub", "*") };
    let subscribed = mycure.create(draft).await;

    mycure.publish(CREATE, r#"{"id":"é"}"#).await;

    let request = &receiver.received(1).await[0];
    let signature = sha256_hex(&subscribed.secret, &request.body);
    assert_eq!(request.header("X-HapiHub-Signature"), Some(&*signature));
}
