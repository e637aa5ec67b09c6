//! Contract: Azodha (assertions 1 to 6 of its contract, in their gRPC form).

use hookward::grpc::pb;
use pb::delivery::State;
use tonic::Code;

use crate::harness::client::draft;
use crate::harness::engine::Engine;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;
use crate::harness::signature::sha256_hex;

const COUNTER: &str = "HealthRecordCounter";
const BODY: &str = r#"{"count":12,"eventName":"HealthRecordCounter","patientId":4101}"#;

/// Whatever kind of map the generated code has.
fn map<M: FromIterator<(String, String)>>(entries: &[(&str, &str)]) -> M {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn every_configured_header_is_on_the_request() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    let headers = map(&[
        ("Content-Type", "application/json"),
        ("X-Api-Key", "k-123"),
        ("organization_code", "EXAMPLE-ORG"),
    ]);
    azodha.create(pb::Subscription { headers, ..draft(&receiver, "azodha", COUNTER) }).await;

    azodha.publish(COUNTER, BODY).await;

    let request = &receiver.received(1).await[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    assert_eq!(request.header("X-Api-Key"), Some("k-123"));
    assert_eq!(request.header("organization_code"), Some("EXAMPLE-ORG"));
    assert_eq!(request.text(), BODY);
}

#[tokio::test]
async fn headers_of_http_and_of_the_service_cannot_be_replaced() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    let reserved =
        ["Host", "content-length", "Transfer-Encoding", "Connection", "X-Azodha-Signature"];
    for name in reserved {
        let headers = map(&[(name, "v")]);
        let draft = pb::Subscription { headers, ..draft(&receiver, "azodha", COUNTER) };
        let refused = azodha.try_create(draft, "").await.expect_err(name);
        let field = format!("subscription.headers[\"{name}\"]");
        assert_eq!(violation(&refused), (field, "HEADER_RESERVED".to_owned()));
    }
    let headers = map(&[("Content-Type", "text/plain")]);
    let draft = pb::Subscription { headers, ..draft(&receiver, "azodha", COUNTER) };
    let refused = azodha.try_create(draft, "").await.expect_err("another type");
    assert_eq!(violation(&refused).1, "HEADER_RESERVED");
}

#[tokio::test]
async fn the_organization_code_is_appended_and_signed_only_when_asked_for() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let (with, without) = (Receiver::answering([200]).await, Receiver::answering([200]).await);
    let code = [("organizationCode", "EXAMPLE-ORG")];
    let asked = pb::Subscription {
        attributes: map(&code),
        send_organization_code: true,
        ..draft(&with, "azodha", COUNTER)
    };
    let secret = "s3cr3t-of-azodha";
    azodha.create_with_secret(asked, secret).await;
    azodha
        .create(pb::Subscription { attributes: map(&code), ..draft(&without, "azodha", COUNTER) })
        .await;

    azodha.publish(COUNTER, BODY).await;

    let request = &with.received(1).await[0];
    let expected = r#"{"count":12,"eventName":"HealthRecordCounter","patientId":4101,"organizationCode":"EXAMPLE-ORG"}"#;
    assert_eq!(request.text(), expected);
    let signature = sha256_hex(secret, expected.as_bytes());
    assert_eq!(request.header("X-Azodha-Signature"), Some(&*signature));
    assert_eq!(without.received(1).await[0].text(), BODY);
}

#[tokio::test]
async fn a_code_that_is_missing_or_has_no_place_is_refused() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    for (profile, attributes, reason) in [
        ("azodha", map(&[]), "ORGANIZATION_CODE_MISSING"),
        ("telegramd", map(&[("organizationCode", "A")]), "ORGANIZATION_CODE_UNSUPPORTED"),
    ] {
        let draft = pb::Subscription {
            attributes,
            send_organization_code: true,
            ..draft(&receiver, profile, COUNTER)
        };
        let refused = azodha.try_create(draft, "").await.expect_err(reason);
        let field = "subscription.send_organization_code".to_owned();
        assert_eq!(violation(&refused), (field, reason.to_owned()));
    }
}

#[tokio::test]
async fn a_body_that_has_an_organization_code_already_is_dead_and_says_why() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    azodha
        .create(pb::Subscription {
            attributes: map(&[("organizationCode", "EXAMPLE-ORG")]),
            send_organization_code: true,
            ..draft(&receiver, "azodha", COUNTER)
        })
        .await;

    let event = azodha.publish(COUNTER, r#"{"organizationCode":"OTHER"}"#).await;

    let delivery = azodha.delivery_of(&event).reaches(State::Dead).await;
    assert_eq!(delivery.dead_reason(), pb::delivery::DeadReason::NotSendable);
    let last = delivery.last_attempt.expect("it says why");
    assert_eq!(last.outcome(), pb::delivery_attempt::Outcome::NotSent);
    assert!(last.error_message.contains("organization code"), "{}", last.error_message);
    assert!(!last.error_message.contains("OTHER"), "it holds nothing of the payload");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_subscription_made_without_a_secret_answers_with_a_generated_one() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    let subscribed = azodha.subscribe(&receiver, "azodha", COUNTER).await;
    assert_eq!(subscribed.secret.len(), 32);

    azodha.publish(COUNTER, BODY).await;

    let request = &receiver.received(1).await[0];
    let signature = sha256_hex(&subscribed.secret, &request.body);
    assert_eq!(request.header("X-Azodha-Signature"), Some(&*signature));
}

#[tokio::test]
async fn inactive_and_deleted_subscriptions_get_no_request() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receivers = [Receiver::answering([200]).await, Receiver::answering([200]).await];
    let inactive = pb::Subscription {
        state: pb::subscription::State::Inactive.into(),
        ..draft(&receivers[0], "azodha", COUNTER)
    };
    let inactive = azodha.create(inactive).await;
    let deleted = azodha.subscribe(&receivers[1], "azodha", COUNTER).await;
    azodha.delete(&deleted.id).await.expect("it is there");
    let witness = Receiver::answering([200]).await;
    azodha.subscribe(&witness, "azodha", COUNTER).await;

    let event = azodha.publish(COUNTER, BODY).await;

    azodha.delivery_of(&event).reaches(State::Succeeded).await;
    assert_eq!(receivers.each_ref().map(Receiver::connections), [0, 0]);

    // What was published meanwhile is not made up for.
    azodha.activate(&inactive.id).await.expect("it is inactive");
    azodha.publish(COUNTER, r#"{"count":13}"#).await;
    assert_eq!(receivers[0].received(1).await[0].text(), r#"{"count":13}"#);
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_for_its_owner() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    let subscribed = azodha.subscribe(&receiver, "azodha", COUNTER).await;

    azodha.delete(&subscribed.id).await.expect("it is there");

    let gone = azodha.get(&subscribed.id).await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
    let again = azodha.delete(&subscribed.id).await.expect_err("it is gone");
    assert_eq!(again.code(), Code::NotFound);
    let request = pb::DeleteSubscriptionRequest {
        organization_id: azodha.name(),
        subscription_id: subscribed.id,
        allow_missing: true,
        ..pb::DeleteSubscriptionRequest::default()
    };
    azodha.subscriptions().delete_subscription(request).await.expect("missing is allowed");
}

#[tokio::test]
async fn patient_ids_may_be_numbers_or_strings_and_travel_as_they_are() {
    let service = Service::start(Engine::sqlite()).await;
    let azodha = service.organization("100");
    let receiver = Receiver::answering([200]).await;
    azodha.subscribe(&receiver, "azodha", COUNTER).await;
    let schema: serde_json::Value = serde_json::from_str(
        &super::catalogue::event_type(&azodha, "azodha", COUNTER).await.schema_json,
    )
    .expect("a schema is JSON");

    for (number, patient) in ["4101", "\"p-4101\""].into_iter().enumerate() {
        let body = format!(r#"{{"count":1,"eventName":"{COUNTER}","patientId":{patient}}}"#);
        azodha.publish(COUNTER, &body).await;
        let request = &receiver.received(number + 1).await[number];
        assert_eq!(request.text(), body);
        jsonschema::validate(&schema, &request.json()).expect("it fits the schema");
    }
}
