//! Contract: TelegraMD (assertions 1 to 7 of its contract).

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, event_with_id};
use crate::harness::engine::Engine;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::{Service, Settings};
use crate::harness::signature::sha256_hex;

const SECRET: &str = "tmd-test-secret-0001";
const CALL: &str = "patient_communication_answered_call";
const ID: &str = "event::3c9a7e52-41f0-4b6d-8a2e-5d1c0b9f7e63";
const BODY: &str = r#"{"id":"event::3c9a7e52-41f0-4b6d-8a2e-5d1c0b9f7e63","ownerEntity":"pat::5f0c2a6e-0b1d-4c52-9b6f-6a1c7b5d2e10","ownerEntityModel":"Patient","targetEntity":"order::0c7d4b1a-9f3e-4a68-8d25-3e9b1f7c6a42","targetEntityModel":"Order","eventTitle":"Patient answered call","eventDescription":"A call to the patient was answered.","eventType":"patient_communication_answered_call","eventData":{"performedBy":{"id":"usr::a3f8c1d2-6e5b-4d7a-8c9f-1b2e3d4c5a60","role":"affiliate_admin","name":"Robin Example"}},"createdAt":"2026-03-04T15:20:31.412Z","updatedAt":"2026-03-04T15:20:31.412Z"}"#;

/// With "Authentication" on.
fn signed(receiver: &Receiver) -> pb::Subscription {
    pb::Subscription { signing_enabled: Some(true), ..draft(receiver, "telegramd", CALL) }
}

#[tokio::test]
async fn a_request_is_a_post_of_json_by_telegramd_webhooks() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([200]).await;
    affiliate.subscribe(&receiver, "telegramd", CALL).await;

    affiliate.publish_event(event_with_id(ID, CALL, BODY)).await;

    let request = &receiver.received(1).await[0];
    assert_eq!((&*request.method, &*request.target), ("POST", "/hook"));
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    assert_eq!(request.header("User-Agent"), Some("TelegraMD Webhooks"));
    assert_eq!(request.text(), BODY);
}

#[tokio::test]
async fn without_authentication_there_is_no_signature_header_at_all() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([200]).await;
    let subscribed = affiliate.subscribe(&receiver, "telegramd", CALL).await;
    assert_eq!(subscribed.subscription.signing_enabled, Some(false));
    assert_eq!(subscribed.secret, "");

    affiliate.publish(CALL, BODY).await;

    let request = &receiver.received(1).await[0];
    let signs = |name: &str| name.to_lowercase().contains("signature");
    assert!(!request.headers.iter().any(|(name, _)| signs(name)), "{:?}", request.headers);
}

#[tokio::test]
async fn with_authentication_the_signature_is_the_hex_hmac_of_the_received_bytes() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([200]).await;
    affiliate.create_with_secret(signed(&receiver), SECRET).await;

    affiliate.publish(CALL, BODY).await;
    let first = &receiver.received(1).await[0];
    affiliate.publish(CALL, r#"{"message":"Médico – ok ✓"}"#).await;
    let second = &receiver.received(2).await[1];

    // The published vectors telegramd-call and telegramd-nonascii.
    let call = "sha256=b810987b455b68aff1d3925939a8b7fdef773aed891a36658406dd78e6c354b2";
    let nonascii = "sha256=4f1af30f8c8d7aa01f415eae0c874bd4d174733cfae92e57caafc07fdc8ebb86";
    for (request, vector) in [(first, call), (second, nonascii)] {
        let signature = request.header("TelegraMD-Signature");
        assert_eq!(signature, Some(vector));
        assert_eq!(signature, Some(&*sha256_hex(SECRET, &request.body)));
    }
}

#[tokio::test]
async fn authentication_without_a_secret_of_the_owner_signs_with_a_generated_one() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([200]).await;
    let subscribed = affiliate.create(signed(&receiver)).await;
    assert_eq!(subscribed.secret.len(), 32);

    affiliate.publish(CALL, BODY).await;

    let request = &receiver.received(1).await[0];
    let expected = sha256_hex(&subscribed.secret, &request.body);
    assert_eq!(request.header("TelegraMD-Signature"), Some(&*expected));
}

#[tokio::test]
async fn a_type_outside_the_interests_causes_no_request() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([200]).await;
    affiliate.subscribe(&receiver, "telegramd", "order_created").await;

    for stranger in ["order_updated", "order_created2", "order", "ORDER_CREATED"] {
        let result = affiliate.publish_event(event_with_id(stranger, stranger, BODY)).await;
        assert_eq!(result.delivery_count, 0, "{stranger}");
    }
    let own = affiliate.publish("order_created", "{}").await;
    affiliate.delivery_of(&own).reaches(State::Succeeded).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn only_statuses_from_200_to_299_count_as_delivered() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    for status in [200, 201, 204, 299] {
        let receiver = Receiver::answering([status]).await;
        let event_type = format!("accepted_{status}");
        affiliate.subscribe(&receiver, "telegramd", &event_type).await;
        let event = affiliate.publish(&event_type, BODY).await;
        let delivery = affiliate.delivery_of(&event).reaches(State::Succeeded).await;
        assert_eq!(delivery.attempt_count, 1, "{status}");
    }
    for status in [300, 301, 302, 304, 307, 400, 401, 404, 429, 500, 503] {
        let receiver = Receiver::answering([status, 200]).await;
        let event_type = format!("refused_{status}");
        affiliate.subscribe(&receiver, "telegramd", &event_type).await;
        let event = affiliate.publish(&event_type, BODY).await;
        let delivery = affiliate.delivery_of(&event).reaches(State::Succeeded).await;
        assert_eq!(delivery.attempt_count, 2, "{status}");
    }
}

#[tokio::test]
async fn a_retry_repeats_body_id_and_signature() {
    let service = Service::start(Engine::sqlite()).await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([500, 502, 200]).await;
    affiliate.create_with_secret(signed(&receiver), SECRET).await;

    affiliate.publish_event(event_with_id(ID, CALL, BODY)).await;

    let requests = receiver.received(3).await;
    for request in &requests {
        assert_eq!(request.text(), BODY);
        assert_eq!(request.json()["id"], ID);
        let expected = sha256_hex(SECRET, BODY.as_bytes());
        assert_eq!(request.header("TelegraMD-Signature"), Some(&*expected));
    }
}

#[tokio::test]
async fn an_http_url_is_refused_when_the_subscription_is_made() {
    let settings = Settings::new(Engine::sqlite()).public_addresses_only();
    let service = settings.start().await;
    let affiliate = service.organization("aff");
    let receiver = Receiver::answering([200]).await;
    for url in ["http://example.com/hook", &receiver.url()] {
        let draft = pb::Subscription { url: url.to_owned(), ..signed(&receiver) };
        let refused = affiliate.try_create(draft, "").await.expect_err("http is refused");
        let expected = ("subscription.url".to_owned(), "URL_SCHEME".to_owned());
        assert_eq!(violation(&refused), expected);
    }
}
