//! Promise: publishing an event again under its id stores nothing twice, and another
//! event under that id is refused; a request id gets the same answer again.

use hookward::grpc::pb;
use pb::delivery::State;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::client::{Organization, draft, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    a_repeated_event_is_a_duplicate_and_is_delivered_once,
    another_content_under_a_used_id_is_refused,
    of_32_callers_with_one_id_exactly_one_stores_it,
    the_server_makes_ids_where_the_publisher_does_not,
    a_request_id_gets_the_first_answer_again,
);

async fn a_repeated_event_is_a_duplicate_and_is_delivered_once(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    let event = || event_with_id("order:1", "order.created", r#"{"n":1}"#);

    let first = clinic.publish_event(event()).await;
    // A later subscription does not change what the stored event made.
    clinic.subscribe(&receiver, "azodha", "*").await;
    let again = clinic.publish_event(event()).await;
    let both = clinic.try_publish(vec![event(), event()]).await.expect("all are the same");
    let fresh = event_with_id("order:2", "order.created", r#"{"n":2}"#);
    let twice = clinic.try_publish(vec![fresh.clone(), fresh]).await.expect("both are the same");

    let result = |duplicate, delivery_count, id: &str| pb::PublishResult {
        event_id: id.to_owned(),
        duplicate,
        delivery_count,
    };
    assert_eq!(first, result(false, 1, "order:1"));
    assert_eq!(again, result(true, 1, "order:1"));
    assert_eq!(both, [result(true, 1, "order:1"), result(true, 1, "order:1")]);
    assert_eq!(twice, [result(false, 2, "order:2"), result(true, 2, "order:2")]);
    clinic.delivery_of("order:1").reaches(State::Succeeded).await;
    let all = receiver.received(3).await;
    assert_eq!(all.iter().filter(|request| request.text() == r#"{"n":1}"#).count(), 1);
}

async fn another_content_under_a_used_id_is_refused(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let original = event_with_id("order-1", "order.created", r#"{"n":1}"#);
    clinic.publish_event(original.clone()).await;

    let others = [
        event_with_id("order-1", "order.created", r#"{"n":2}"#),
        event_with_id("order-1", "order.created", r#"{"n": 1}"#),
        event_with_id("order-1", "order.updated", r#"{"n":1}"#),
        pb::Event { account_id: "a".to_owned(), ..original.clone() },
        pb::Event { subject: "patient-1".to_owned(), ..original.clone() },
        pb::Event { attributes: [("k".to_owned(), "v".to_owned())].into(), ..original.clone() },
        pb::Event { payload: None, ..original.clone() },
    ];
    for other in others {
        let fresh = event_with_id("fresh", "order.created", "{}");
        let refused = clinic.try_publish(vec![fresh, other.clone()]).await.expect_err("used");
        assert_eq!(refused.code(), Code::AlreadyExists, "{other:?}");
        let info = refused.get_details_error_info().expect("ErrorInfo is there");
        assert!(!info.reason.is_empty() && !info.domain.is_empty(), "{info:?}");
        assert!(!refused.message().contains("patient-1"), "values are not repeated");
    }
    let none = clinic.read_event("fresh").await.expect_err("all or none");
    assert_eq!(none.code(), Code::NotFound);
    assert!(clinic.publish_event(original).await.duplicate);
}

async fn of_32_callers_with_one_id_exactly_one_stores_it(engine: Engine) {
    let service = Service::start(engine).await;
    race(&[service.organization("clinic")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_callers_at_two_replicas_exactly_one_stores_it() {
    let Some(engine) = Engine::postgres() else { return };
    let first = Service::start(engine).await;
    let second = first.replica().await;
    race(&[first.organization("clinic"), second.organization("clinic")]).await;
}

/// 32 callers publish the same event at once, ten times.
async fn race(callers: &[Organization]) {
    let receiver = Receiver::answering([200]).await;
    callers[0].subscribe(&receiver, "azodha", "*").await;
    for round in 0..10 {
        let calls = callers.iter().cycle().take(32).map(|caller| {
            let (caller, id) = (caller.clone(), format!("race-{round}"));
            tokio::spawn(
                async move { caller.publish_event(event_with_id(&id, "race", "{}")).await },
            )
        });
        let calls: Vec<_> = calls.collect();
        let mut stored = 0;
        for call in calls {
            let result = call.await.expect("it does not panic");
            assert_eq!(result.delivery_count, 1);
            stored += usize::from(!result.duplicate);
        }
        assert_eq!(stored, 1, "round {round}");
        let id = format!("race-{round}");
        callers[0].delivery_of(&id).reaches(State::Succeeded).await;
    }
    assert_eq!(receiver.count(), 10);
}

async fn the_server_makes_ids_where_the_publisher_does_not(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let first = clinic.publish("order.created", "{}").await;
    let second = clinic.publish("order.created", "{}").await;
    assert_ne!(first, second, "without an id each publish is an event of its own");
    for id in [&first, &second] {
        let digits = id.strip_prefix("evt_").expect("the prefix of events");
        assert_eq!(digits.len(), 13);
        let alphabet =
            |b: u8| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"ilou".contains(&b));
        assert!(digits.bytes().all(alphabet), "{id}");
        assert_eq!(clinic.read_event(id).await.expect("it is there").id, *id);
    }
}

async fn a_request_id_gets_the_first_answer_again(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let request = pb::CreateSubscriptionRequest {
        organization_id: clinic.name(),
        subscription: Some(draft(&receiver, "standard", "*")),
        request_id: "5b0e8d1c-7b2f-4a2e-9a53-0d2a8b1c4e6f".to_owned(),
        ..Default::default()
    };
    let create = async |request: pb::CreateSubscriptionRequest| {
        let response = clinic.subscriptions().create_subscription(request).await;
        response.map(tonic::Response::into_inner)
    };

    let first = create(request.clone()).await.expect("it keeps the rules");
    let again = create(request.clone()).await.expect("it is the same request");
    assert_eq!(first, again, "the secret too, in the first 10 minutes");
    let other = pb::CreateSubscriptionRequest {
        subscription: Some(draft(&receiver, "standard", "other")),
        ..request
    };
    let refused = create(other).await.expect_err("another content");
    assert_eq!(violation(&refused).0, "request_id");

    let id = first.subscription.expect("always there").id;
    let rotate = pb::RotateSigningSecretRequest {
        organization_id: clinic.name(),
        subscription_id: id,
        request_id: "0f0c3d1e-52f4-4a52-8a0e-3f6f2d3c9b11".to_owned(),
        ..Default::default()
    };
    let first = clinic.subscriptions().rotate_signing_secret(rotate.clone()).await;
    let again = clinic.subscriptions().rotate_signing_secret(rotate).await;
    assert_eq!(
        first.expect("it is there").into_inner(),
        again.expect("it is the same request").into_inner(),
    );
}
