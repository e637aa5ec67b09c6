//! Promise: a payload reaches the receiver byte for byte inside its profile's envelope,
//! and the signature covers exactly the bytes sent.

use hookward::grpc::pb;

use crate::harness::client::event;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;
use crate::harness::signature::{sha256_hex, standard_accepts};

on_both_engines!(
    json_that_a_parser_would_change_arrives_unchanged,
    flat_profiles_send_the_payload_and_nothing_else,
    raw_payloads_of_any_bytes_arrive_unchanged,
    the_largest_payload_arrives_unchanged,
);

/// Each means something else, or nothing, once a JSON library has read and written it.
const PAYLOADS: [&str; 14] = [
    r#"{"a":1,"a":2}"#,
    r#"{"z":1,"a":2,"m":3}"#,
    r#"{"big":12345678901234567890123456789.000,"huge":1e400,"tiny":-0.0}"#,
    r#"{"lone":"\ud800","pair":"\ud83d\ude00","slash":"\/","e":"\u00e9"}"#,
    "{ \"spaced\" :\t[ 1 ,2 ]\n}",
    r#"  {"around":true}  "#,
    r#"{"text":"Médico – ok ✓ 漢字 🩺"}"#,
    r#"{"nul":"\u0000","line":"\u2028","del":""}"#,
    "{}",
    "[]",
    "null",
    "true",
    "-1.5E+10",
    r#""""#,
];

async fn json_that_a_parser_would_change_arrives_unchanged(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;

    for (number, payload) in PAYLOADS.into_iter().enumerate() {
        let id = clinic.publish("odd", payload).await;

        let request = &receiver.received(number + 1).await[number];
        assert!(request.text().starts_with(r#"{"type":"odd","timestamp":""#), "{payload}");
        assert!(request.text().ends_with(&format!(r#","data":{payload}}}"#)), "{payload}");
        assert!(standard_accepts(&subscribed.secret, request), "{payload}");
        let stored = clinic.read_event(&id).await.expect("it is there");
        assert_eq!(stored.payload, Some(pb::event::Payload::Json(payload.to_owned())));
        assert_eq!(stored.payload_bytes, payload.len() as u64);
    }
}

async fn flat_profiles_send_the_payload_and_nothing_else(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "azodha", "*").await;
    let objects = PAYLOADS.into_iter().filter(|payload| payload.trim_start().starts_with('{'));

    for (number, payload) in objects.enumerate() {
        clinic.publish("odd", payload).await;

        let request = &receiver.received(number + 1).await[number];
        assert_eq!(request.text(), payload);
        let signature = sha256_hex(&subscribed.secret, payload.as_bytes());
        assert_eq!(request.header("X-Azodha-Signature"), Some(&*signature));
    }
}

async fn raw_payloads_of_any_bytes_arrive_unchanged(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    let all: Vec<u8> = (0..=255).collect();

    for (number, bytes) in [all, vec![0; 1000], Vec::new()].into_iter().enumerate() {
        let raw = pb::Event {
            payload: Some(pb::event::Payload::Raw(bytes.clone().into())),
            content_type: "application/octet-stream".to_owned(),
            ..event("raw", "")
        };
        let id = clinic.publish_event(raw).await.event_id;

        let request = &receiver.received(number + 1).await[number];
        assert_eq!(request.body, bytes);
        assert_eq!(request.header("content-type"), Some("application/octet-stream"));
        let stored = clinic.read_event(&id).await.expect("it is there");
        assert_eq!(stored.payload, Some(pb::event::Payload::Raw(bytes.into())));
    }
}

async fn the_largest_payload_arrives_unchanged(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    let payload = format!(r#"{{"text":"{}"}}"#, "é".repeat((256 * 1024 - 11) / 2));
    assert_eq!(payload.len(), 256 * 1024 - 1);

    clinic.publish("large", &payload).await;

    assert_eq!(receiver.received(1).await[0].text(), payload);
}
