//! Promise: with encryption keys, whoever has a copy of the database reads no payload, no
//! secret and no header in it; and without its key nothing is sent, and nothing fails but
//! what needs it.

use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hookward::grpc::pb;
use pb::delivery::State;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::authority::AUTHORITY;
use crate::harness::client::{Organization, draft, event_with_id, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::keys::{self, NEW, OLD, VARIABLE};
use crate::harness::postgres;
use crate::harness::process::Process;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};
use crate::harness::signature::{hex, standard_accepts};

on_both_engines!(
    a_copy_of_the_database_shows_nothing,
    the_server_starts_only_with_the_keys_that_are_needed,
    what_was_shredded_is_gone_and_others_notice_nothing,
);

const PATIENT: &str = "Canary-Robin-Example";
const HEADER: &str = "Canary-header-value";

/// Runs `hookward` on the engine's database until it ends; what it wrote.
async fn run(engine: &Engine, words: &[&str], keys: Option<&str>) -> (ExitStatus, String) {
    let words = [words, &["--database-url", engine.url()]].concat();
    let arguments: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let environment = keys.map(|keys| (VARIABLE.to_owned(), keys.to_owned()));
    let environment: Vec<_> = environment.into_iter().collect();
    let mut process = Process::start(&arguments, &environment, engine.folder());
    (process.ends().await, process.written())
}

/// What a thief of the database, or of its backup, has.
fn copy(engine: &Engine) -> Vec<u8> {
    if engine.url().starts_with("postgres") {
        return postgres::dump(engine.url()).into_bytes();
    }
    let mut copy = Vec::new();
    for name in ["hookward.db", "hookward.db-wal"] {
        copy.extend(fs::read(engine.folder().join(name)).expect("the server keeps it"));
    }
    copy
}

/// A text as it may stand in a file: raw, in hexadecimal, in base64.
fn disguises(text: &str) -> Vec<Vec<u8>> {
    let mut disguises = vec![text.as_bytes().to_vec(), hex(text.as_bytes()).into_bytes()];
    for offset in 0..3 {
        let shifted = [&b"\0\0\0"[..offset], text.as_bytes()].concat();
        let encoded = STANDARD_NO_PAD.encode(shifted).into_bytes();
        // The digits at both ends are also made of what stands around the text.
        let begin = (offset * 8).div_ceil(6);
        disguises.push(encoded[begin..(offset + text.len()) * 8 / 6].to_vec());
    }
    disguises
}

fn shows(copy: &[u8], text: &str) -> bool {
    let stands = |needle: &[u8]| {
        let mut starts = (0..copy.len()).filter(|at| copy[*at] == needle[0]);
        starts.any(|at| copy[at..].starts_with(needle))
    };
    disguises(text).iter().any(|needle| stands(needle))
}

async fn a_copy_of_the_database_shows_nothing(engine: Engine) {
    // Without keys everything is found, or the search would be worth nothing.
    let plain = Service::start(engine.clone()).await;
    let texts = fill(&plain, "open", PATIENT, HEADER).await;
    let copied = copy(&engine);
    for text in &texts {
        assert!(shows(&copied, text), "{text} is stored");
    }
    stop(plain).await;

    let service = Settings::new(engine.clone()).env(VARIABLE, &keys::both("new")).start().await;
    let texts = fill(&service, "clinic", "Secret-Robin-Example", "Secret-header-value").await;
    let copied = copy(&engine);
    for text in &texts {
        assert!(!shows(&copied, text), "{text} is readable");
    }
    assert!(service.written().contains("what is stored is encrypted"));
}

/// Sends these texts every way that a publisher and a receiver have; what must not be
/// readable then, the secret too.
async fn fill(service: &Service, name: &str, patient: &str, header: &str) -> Vec<String> {
    let clinic = service.organization(name);
    let body = format!("no such patient: {patient}-body");
    let answer = Answer::Full(500, Vec::new(), body.clone().into_bytes());
    let receiver = Receiver::answering([answer, Answer::Status(200)]).await;
    let request = pb::CreateSubscriptionRequest {
        organization_id: clinic.name(),
        subscription: Some(pb::Subscription {
            headers: [("Authorization".to_owned(), format!("Bearer {header}"))].into(),
            ..draft(&receiver, "standard", "*")
        }),
        request_id: "5b0e8d1c-7b2f-4a2e-9a53-0d2a8b1c4e6f".to_owned(),
        ..Default::default()
    };
    let created = clinic.subscriptions().create_subscription(request.clone()).await;
    let created = created.expect("it keeps the rules").into_inner();
    let again = clinic.subscriptions().create_subscription(request).await;
    assert_eq!(again.expect("the same request").into_inner(), created);
    let secret = created.signing_secret.expect("it signs").secret;
    let private_key = certify(&clinic, &receiver).await;

    let json = format!(r#"{{"name":"{patient}-payload"}}"#);
    let published = pb::Event {
        subject: format!("{patient}-subject"),
        attributes: [("name".to_owned(), format!("{patient}-attribute"))].into(),
        ..event_with_id("order-1", "bird", &json)
    };
    assert!(!clinic.publish_event(published.clone()).await.duplicate);
    let delivery = clinic.delivery_of("order-1").reaches(State::Succeeded).await;
    // All of it is there for those who may see it.
    let requests = receiver.requests();
    assert!(requests.iter().all(|request| standard_accepts(&secret, request)));
    assert!(requests[1].text().contains(&json));
    assert_eq!(requests[1].header("Authorization"), Some(&*format!("Bearer {header}")));
    let read = clinic.read_event("order-1").await.expect("it is there");
    assert_eq!(read.payload, published.payload);
    assert_eq!(read.subject, published.subject);
    assert_eq!(read.attributes, published.attributes);
    let attempts = clinic.attempts(&delivery.id).await;
    assert_eq!(attempts[0].response_body, body.as_bytes());
    assert!(clinic.publish_event(published).await.duplicate);
    let other = clinic.try_publish(vec![event_with_id("order-1", "bird", "{}")]).await;
    assert_eq!(other.expect_err("another content").code(), Code::AlreadyExists);

    let secret = secret.trim_start_matches("whsec_").to_owned();
    let parts = ["-payload", "-subject", "-attribute", "-body"];
    let patients = parts.iter().map(|part| format!("{patient}{part}"));
    patients.chain([header.to_owned(), secret, private_key]).collect()
}

/// Gives a subscription a client certificate; a line of its private key.
async fn certify(clinic: &Organization, receiver: &Receiver) -> String {
    let client = AUTHORITY.issue(&["client.example"]);
    let line = client.key_pem.lines().nth(1).expect("base64").to_owned();
    let tls = pb::ReceiverTls {
        client_certificate: client.certificate_pem,
        client_private_key: client.key_pem,
        ..Default::default()
    };
    let certified = pb::Subscription {
        url: "https://receiver.example/hook".to_owned(),
        tls: Some(tls),
        ..draft(receiver, "standard", "never")
    };
    clinic.create(certified).await;
    line
}

async fn stop(mut service: Service) {
    service.terminate();
    assert!(service.ends().await.success());
}

async fn the_server_starts_only_with_the_keys_that_are_needed(engine: Engine) {
    let settings = Settings::new(engine.clone());
    let service = settings.clone().env(VARIABLE, OLD).start().await;
    service.organization("clinic").publish("bird", "{}").await;
    stop(service).await;

    let swapped = NEW.replace("new=", "old=");
    for environment in ["", NEW, swapped.as_str()] {
        let mut refused = settings.clone().env(VARIABLE, environment).launch();
        assert_eq!(refused.ends().await.code(), Some(78), "{environment}");
        let written = refused.written();
        assert!(written.contains("the encryption key old "), "{environment}: {written}");
    }
    let (status, written) = run(&engine, &["keys", "rotate"], None).await;
    assert!(!status.success() && written.contains("--encryption-keys-file"), "{written}");
    let (status, written) = run(&engine, &["keys", "rotate"], Some(NEW)).await;
    assert_eq!(status.code(), Some(78));
    assert!(written.contains("the encryption key old "), "{written}");

    let service = settings.env(VARIABLE, &keys::both("new")).start().await;
    service.organization("clinic").publish("bird", "{}").await;
}

async fn what_was_shredded_is_gone_and_others_notice_nothing(engine: Engine) {
    let service = Settings::new(engine.clone()).env(VARIABLE, OLD).start().await;
    let (gone, stays) = (service.organization("gone"), service.organization("stays"));
    let receiver = Receiver::answering([200]).await;
    let failing = Receiver::answering([500]).await;
    stays.subscribe(&receiver, "standard", "*").await;
    let once = pb::Subscription {
        retry_policy: Some(waits(&[3_600_000])),
        headers: [("X-Tenant".to_owned(), "robin".to_owned())].into(),
        ..draft(&failing, "standard", "*")
    };
    let waiting = gone.create(once).await;
    gone.publish_event(event_with_id("order-1", "bird", r#"{"name":"Robin"}"#)).await;
    failing.received(1).await;

    let words = ["keys", "shred", "--organization", "gone"];
    let (status, written) = run(&engine, &words, None).await;
    assert!(status.success() && written.contains("1 data keys of gone destroyed"), "{written}");

    let refused =
        eventually("the end of the key", async || gone.read_event("order-1").await.err()).await;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let info = refused.get_details_error_info().expect("ErrorInfo is there");
    assert_eq!(info.reason, "DATA_KEY_GONE");
    let request = pb::ListEventsRequest {
        organization_id: gone.name(),
        include_payload: true,
        ..Default::default()
    };
    let listed = gone.events().list_events(request).await.expect("it is listed").into_inner();
    let [event] = listed.events.as_slice() else { panic!("one event: {listed:?}") };
    assert_eq!((&*event.id, &event.payload, event.payload_bytes), ("order-1", &None, 16));

    // The subscription cannot be signed for: its deliveries wait, and none is sent unsigned.
    gone.publish_event(event_with_id("order-2", "bird", "{}")).await;
    let pending = gone.delivery_of("order-2").reaches(State::Pending).await;
    assert_eq!(pending.attempt_count, 0);
    assert!(gone.get(&waiting.id).await.expect("it is shown").headers.is_empty());
    stays.publish("bird", "{}").await;
    receiver.received(1).await;
    assert_eq!(failing.count(), 1);
    eventually("the metric", async || {
        let failures = service.metric("hookward_decrypt_failures_total").await?;
        (0.0 < failures).then_some(())
    })
    .await;

    // Its owner may begin anew.
    gone.rotate(&waiting.id, Duration::ZERO).await;
    let mended = pb::Subscription {
        id: waiting.id.clone(),
        headers: [("X-Tenant".to_owned(), "wren".to_owned())].into(),
        ..pb::Subscription::default()
    };
    gone.try_update(mended, &["headers"]).await.expect("it can be mended");
    let sent = failing.received(2).await;
    assert_eq!(sent[1].header("X-Tenant"), Some("wren"));
}
