//! Contract: MeetingLawyers (assertions 1 to 6 of its contract).

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::authority::Certificate;
use crate::harness::client::{draft, event};
use crate::harness::engine::Engine;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;
use crate::harness::signature::sha256_base64;

const SECRET: &str = "ml-test-secret-16+";
const OPENED: &str =
    r#"{"installation_id":"0f4b8a6d-2c1e-4d73-9a58-6e7f1b3c5d90","user_id":"70000042T"}"#;

/// 2026-03-04T15:20:31.412 UTC.
fn opened() -> pb::Event {
    pb::Event {
        occur_time: Some(prost_types::Timestamp { seconds: 1_772_637_631, nanos: 412_000_000 }),
        ..event("app_opened", OPENED)
    }
}

#[tokio::test]
async fn the_signature_is_the_base64_hmac_of_the_received_bytes() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::answering([200]).await;
    company.create_with_secret(draft(&receiver, "meetinglawyers", "*"), SECRET).await;

    company.publish_event(opened()).await;

    let request = &receiver.received(1).await[0];
    let signature = request.header("X-Signature").expect("it is signed");
    let digest = signature.strip_prefix("sha256=").expect("its prefix");
    assert_eq!((digest.len(), &digest[43..]), (44, "="));
    assert_eq!(signature, sha256_base64(SECRET, &request.body));
}

#[tokio::test]
async fn the_body_is_type_occurred_on_and_payload_in_that_order() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::answering([200]).await;
    company.subscribe(&receiver, "meetinglawyers", "*").await;

    company.publish_event(opened()).await;

    let request = &receiver.received(1).await[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    let expected = format!(
        r#"{{"type":"app_opened","occurred_on":"2026-03-04T15:20:31.412+00:00","payload":{OPENED}}}"#
    );
    assert_eq!(request.text(), expected);
}

#[tokio::test]
async fn the_date_has_milliseconds_and_a_numeric_offset_never_a_z() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::answering([200]).await;
    company.subscribe(&receiver, "meetinglawyers", "*").await;
    let at = |seconds, nanos| pb::Event {
        occur_time: Some(prost_types::Timestamp { seconds, nanos }),
        ..event("app_opened", OPENED)
    };

    let times = [
        (at(1_772_637_631, 0), "2026-03-04T15:20:31.000+00:00"),
        (at(1_772_637_631, 999_999_000), "2026-03-04T15:20:31.999+00:00"),
        (at(951_782_400, 1_000_000), "2000-02-29T00:00:00.001+00:00"),
    ];
    for (number, (event, expected)) in times.into_iter().enumerate() {
        company.publish_event(event).await;
        let request = &receiver.received(number + 1).await[number];
        assert_eq!(request.json()["occurred_on"], expected);
    }
    // Left out: when it was taken in, in the same spelling.
    company.publish_event(event("app_opened", OPENED)).await;
    let request = receiver.received(4).await[3].json();
    let date = request["occurred_on"].as_str().expect("a string");
    assert_eq!((date.len(), &date[19..20], &date[23..]), (29, ".", "+00:00"), "{date}");
}

#[tokio::test]
async fn a_null_stays_null() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::answering([200]).await;
    company.subscribe(&receiver, "meetinglawyers", "*").await;
    let payload = r#"{"installation_id":"0f4b8a6d","user_id":null}"#;

    company.publish("app_uninstalled", payload).await;

    let request = &receiver.received(1).await[0];
    assert!(request.text().ends_with(&format!(r#""payload":{payload}}}"#)), "{}", request.text());
}

#[tokio::test]
async fn without_signing_there_is_no_signature_header() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::answering([200]).await;
    let unsigned = pb::Subscription {
        signing_enabled: Some(false),
        ..draft(&receiver, "meetinglawyers", "*")
    };
    let subscribed = company.create(unsigned).await;
    assert_eq!(subscribed.secret, "");

    company.publish_event(opened()).await;

    assert_eq!(receiver.received(1).await[0].header("X-Signature"), None);
}

#[tokio::test]
async fn secrets_have_16_to_32_characters() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::answering([200]).await;
    for length in [15, 33] {
        let secret = "s".repeat(length);
        let draft = draft(&receiver, "meetinglawyers", "*");
        let refused = company.try_create(draft, &secret).await.expect_err("its length");
        let expected = ("signing_secret".to_owned(), "INVALID_SECRET".to_owned());
        assert_eq!(violation(&refused), expected);
        assert!(!refused.message().contains(&secret), "a secret is never repeated");
    }
    for length in [16, 32] {
        let secret = "s".repeat(length);
        company.create_with_secret(draft(&receiver, "meetinglawyers", "*"), &secret).await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_fails_the_attempt_before_anything_is_sent() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    for kind in [Certificate::SelfSigned, Certificate::WrongName, Certificate::Expired] {
        let receiver = Receiver::secure(kind, [200]).await;
        let event_type = format!("{kind:?}");
        company
            .create(pb::Subscription {
                retry_policy: Some(pb::RetryPolicy::default()),
                ..draft(&receiver, "meetinglawyers", &event_type)
            })
            .await;

        let event = company.publish(&event_type, "{}").await;

        let delivery = company.delivery_of(&event).reaches(State::Dead).await;
        let last = delivery.last_attempt.expect("there was one");
        assert_eq!(last.outcome(), pb::delivery_attempt::Outcome::TlsError, "{kind:?}");
        assert_eq!(receiver.count(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let service = Service::start(Engine::sqlite()).await;
    let company = service.organization("company");
    let receiver = Receiver::secure(Certificate::Good, [200]).await;
    company.subscribe(&receiver, "meetinglawyers", "*").await;

    let event = company.publish_event(opened()).await.event_id;

    company.delivery_of(&event).reaches(State::Succeeded).await;
    assert_eq!(receiver.count(), 1);
}
