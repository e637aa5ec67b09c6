//! Contract: Standard Webhooks, as its reference library reads it.

use std::time::{Duration, SystemTime};

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, event, waits};
use crate::harness::engine::Engine;
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;
use crate::harness::signature::standard_accepts;

#[tokio::test]
async fn the_reference_library_accepts_the_request_and_no_changed_one() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;
    assert!(subscribed.secret.starts_with("whsec_"), "the prefix of the specification");

    clinic.publish("invoice.paid", r#"{"text":"Médico – ok ✓"}"#).await;

    let request = receiver.received(1).await.remove(0);
    assert!(standard_accepts(&subscribed.secret, &request));
    let mut body = request.clone();
    body.body[20] ^= 1;
    assert!(!standard_accepts(&subscribed.secret, &body), "the body is signed");
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut changed = request.clone();
        let header = changed.headers.iter_mut().find(|(known, _)| known == name);
        let value = &mut header.expect("it is there").1;
        let last = value.pop().expect("not empty");
        value.push(if last == '1' { '2' } else { '1' });
        assert!(!standard_accepts(&subscribed.secret, &changed), "{name} is signed");
    }
}

#[tokio::test]
async fn the_body_is_type_timestamp_and_data() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.create(pb::Subscription { profile: String::new(), ..draft(&receiver, "", "*") }).await;

    let occur_time = Some(prost_types::Timestamp { seconds: 1_772_637_631, nanos: 412_345_678 });
    clinic
        .publish_event(pb::Event { occur_time, ..event("invoice.paid", "{ \"id\" : 1.0 }") })
        .await;

    let request = &receiver.received(1).await[0];
    let expected = r#"{"type":"invoice.paid","timestamp":"2026-03-04T15:20:31.412345Z","data":{ "id" : 1.0 }}"#;
    assert_eq!(request.text(), expected);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(request.header("User-Agent"), Some(&*format!("Hookward/{version}")));
    assert_eq!(request.header("Content-Type"), Some("application/json"));
}

#[tokio::test]
async fn the_id_is_the_deliverys_and_the_time_is_that_of_each_attempt() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([503, 200]).await;
    let subscribed = clinic
        .create(pb::Subscription {
            retry_policy: Some(waits(&[1100])),
            ..draft(&receiver, "standard", "*")
        })
        .await;

    let event = clinic.publish("invoice.paid", "{}").await;

    let delivery = clinic.delivery_of(&event).reaches(State::Succeeded).await;
    let requests = receiver.requests();
    let time = |number: usize| -> u64 {
        let header = requests[number].header("webhook-timestamp").expect("it is there");
        header.parse().expect("whole seconds")
    };
    assert_eq!(requests[0].header("webhook-id"), Some(&*delivery.id));
    assert_eq!(requests[1].header("webhook-id"), Some(&*delivery.id));
    assert!(time(0) < time(1), "{} and {}", time(0), time(1));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    assert!(time(1).abs_diff(now.as_secs()) <= 5, "seconds since 1970");
    assert!(requests.iter().all(|request| standard_accepts(&subscribed.secret, request)));
}

#[tokio::test]
async fn during_a_rotation_both_secrets_verify_and_a_revoked_one_no_more() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;
    let new = clinic.rotate(&subscribed.id, Duration::from_hours(1)).await;
    assert_ne!(new, subscribed.secret);

    // New secrets reach every dispatcher within a second.
    let both = eventually("a request that both secrets sign", async || {
        let before = receiver.count();
        clinic.publish("invoice.paid", "{}").await;
        let request = receiver.received(before + 1).await.remove(before);
        standard_accepts(&new, &request).then_some(request)
    })
    .await;
    assert!(standard_accepts(&subscribed.secret, &both), "the old one signs on");
    let signatures = both.header("webhook-signature").expect("it is signed");
    assert_eq!(signatures.split(' ').count(), 2);

    let listed = pb::ListSigningSecretsRequest {
        organization_id: clinic.name(),
        subscription_id: subscribed.id.clone(),
    };
    let listed = clinic.subscriptions().list_signing_secrets(listed).await.expect("it is there");
    let listed = listed.into_inner().signing_secrets;
    assert!(listed.iter().all(|secret| secret.secret.is_empty() && secret.signs), "{listed:?}");
    let [_, old] = &listed[..] else { panic!("two are live: {listed:?}") };
    assert!(old.expire_time.is_some(), "newest first, the old one has an end");
    let revoke = pb::RevokeSigningSecretRequest {
        organization_id: clinic.name(),
        subscription_id: subscribed.id.clone(),
        signing_secret_id: old.id.clone(),
    };
    clinic.subscriptions().revoke_signing_secret(revoke).await.expect("another one is live");

    let one = eventually("a request without the revoked secret", async || {
        let before = receiver.count();
        clinic.publish("invoice.paid", "{}").await;
        let request = receiver.received(before + 1).await.remove(before);
        (!standard_accepts(&subscribed.secret, &request)).then_some(request)
    })
    .await;
    assert!(standard_accepts(&new, &one));
}

#[tokio::test]
async fn a_raw_payload_goes_as_it_is_with_its_content_type() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;

    let raw = pb::Event {
        payload: Some(pb::event::Payload::Raw("MSH|^~\\&|HIS\r".into())),
        content_type: "application/hl7-v2".to_owned(),
        ..event("hl7.message", "")
    };
    clinic.publish_event(raw).await;

    let request = &receiver.received(1).await[0];
    assert_eq!(request.text(), "MSH|^~\\&|HIS\r");
    assert_eq!(request.header("Content-Type"), Some("application/hl7-v2"));
    assert!(standard_accepts(&subscribed.secret, request));
}

#[tokio::test]
async fn secrets_are_whsec_and_24_to_64_bytes() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let secret = |bytes: usize| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]);
        format!("whsec_{text}")
    };
    let bad = ["plain-text-secret-000000", "whsec_", "whsec_!", &secret(23), &secret(65)];
    for bad in bad {
        let draft = draft(&receiver, "standard", "*");
        let refused = clinic.try_create(draft, bad).await.expect_err(bad);
        let expected = ("signing_secret".to_owned(), "INVALID_SECRET".to_owned());
        assert_eq!(violation(&refused), expected, "{bad}");
    }
    for bytes in [24, 64] {
        let draft = draft(&receiver, "standard", "*");
        let subscribed = clinic.create_with_secret(draft, &secret(bytes)).await;
        assert_eq!(subscribed.secret, secret(bytes));
    }
}
