//! Promise: with encryption keys, whoever has a copy of the database reads no payload, no
//! secret and no header in it; keys are changed while events flow; and without its key
//! nothing is sent, and nothing fails but what needs it.

use std::fs;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hookward::grpc::pb;
use pb::delivery::State;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::authority::AUTHORITY;
use crate::harness::client::{Organization, draft, event, event_with_id, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::postgres;
use crate::harness::process::Process;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};
use crate::harness::signature::{hex, standard_accepts};

on_both_engines!(
    a_copy_of_the_database_shows_nothing,
    keys_are_changed_while_events_flow,
    the_server_starts_only_with_the_keys_that_are_needed,
    what_was_shredded_is_gone_and_others_notice_nothing,
);

const OLD: &str = "old=b2xkIGtleSBvbGQga2V5IG9sZCBrZXkgb2xkIGtleTA=";
const NEW: &str = "new=bmV3IGtleSBuZXcga2V5IG5ldyBrZXkgbmV3IGtleTA=";
const VARIABLE: &str = "HOOKWARD_ENCRYPTION_KEYS";

const PATIENT: &str = "Canary-Robin-Example";
const HEADER: &str = "Canary-header-value";

fn keys(primary: &str) -> String {
    format!("{OLD};{NEW};primary={primary}")
}

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

    let service = Settings::new(engine.clone()).env(VARIABLE, &keys("new")).start().await;
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

const ORGANIZATIONS: usize = 20;
/// 250 events a second, which two busy cores still deliver as they come: one request of ten,
/// 25 times a second.
const REQUEST: usize = 10;
const RHYTHM: Duration = Duration::from_millis(40);

async fn keys_are_changed_while_events_flow(engine: Engine) {
    let receiver = Receiver::answering([200]).await;
    let subscriptions = store_before_there_are_keys(&engine, &receiver).await;
    let service = Settings::new(engine.clone()).env(VARIABLE, &keys("old")).start().await;
    // What waits here is read from the database in the end.
    let held = service.organization("clinic-0");
    held.pause(&subscriptions[0]).await.expect("it is active");
    let published = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let publishers = publishers(&service, &published, &over);
    eventually("every data key", async || {
        (ORGANIZATIONS * REQUEST * 3 <= published.load(Ordering::SeqCst)).then_some(())
    })
    .await;

    let (status, written) = run(&engine, &["keys", "rotate"], Some(&keys("new"))).await;
    assert!(status.success(), "{written}");
    assert!(written.contains(&format!("{ORGANIZATIONS} data keys wrapped anew")), "{written}");
    assert!(!written.contains(" 0 plaintext values"), "{written}");
    // On, with what was wrapped anew.
    meanwhile(Duration::from_secs(1)).await;
    held.resume(&subscriptions[0]).await.expect("it is paused");
    over.store(true, Ordering::SeqCst);
    for task in publishers {
        task.await.expect("it does not panic");
    }

    let expected = ORGANIZATIONS + published.load(Ordering::SeqCst);
    receiver.received(expected).await;
    assert_eq!(receiver.count(), expected, "each once");
    let ended = |state| format!("hookward_deliveries_ended_total{{state=\"{state}\"}}");
    let here = u32::try_from(expected - ORGANIZATIONS).expect("a small number");
    eventually("every outcome", async || {
        let succeeded = service.metric(&ended("succeeded")).await?;
        (f64::from(here) <= succeeded).then_some(())
    })
    .await;
    assert_eq!(service.metric(&ended("dead")).await, Some(0.0));
    assert_eq!(service.metric("hookward_decrypt_failures_total").await, Some(0.0));
    stop(service).await;

    // Nothing needs the old key any more.
    let service = Settings::new(engine).env(VARIABLE, NEW).start().await;
    let clinic = service.organization("clinic-1");
    clinic.publish("after", "{}").await;
    receiver.received(expected + 1).await;
}

/// A subscription and an event of each organization; the subscriptions' ids.
async fn store_before_there_are_keys(engine: &Engine, receiver: &Receiver) -> Vec<String> {
    let plain = Service::start(engine.clone()).await;
    let mut subscriptions = Vec::new();
    for number in 0..ORGANIZATIONS {
        let clinic = plain.organization(&format!("clinic-{number}"));
        subscriptions.push(clinic.subscribe(receiver, "standard", "*").await.id);
        clinic.publish("before", "{}").await;
    }
    receiver.received(ORGANIZATIONS).await;
    stop(plain).await;
    subscriptions
}

/// Four callers that publish in this rhythm, for every organization in turn, until it is over.
fn publishers(
    service: &Service,
    published: &Arc<AtomicUsize>,
    over: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let start = |first| {
        let (published, over) = (Arc::clone(published), Arc::clone(over));
        let clinics: Vec<_> = (first..ORGANIZATIONS)
            .step_by(4)
            .map(|number| service.organization(&format!("clinic-{number}")))
            .collect();
        tokio::spawn(async move {
            let mut rhythm = tokio::time::interval(4 * RHYTHM);
            for clinic in clinics.iter().cycle() {
                rhythm.tick().await;
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let events = (0..REQUEST).map(|_| event("bird", r#"{"name":"Robin"}"#));
                match clinic.try_publish(events.collect()).await {
                    Ok(results) => {
                        published.fetch_add(results.len(), Ordering::SeqCst);
                    }
                    // Nothing was stored: more waits than a busy disk takes.
                    Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
                }
            }
        })
    };
    (0..4).map(start).collect()
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

    let service = settings.env(VARIABLE, &keys("new")).start().await;
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
