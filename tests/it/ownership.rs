//! Promise: where the profile demands it, an endpoint gets nothing before it has consented;
//! what was published meanwhile is sent then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hookward::grpc::pb;
use pb::delivery::State;
use pb::ownership::State as Ownership;
use tonic::Code;

use crate::harness::authority::Certificate;
use crate::harness::client::draft;
use crate::harness::consent::{
    ASKING, Endpoint, ORIGIN, PLAIN, fails, reaches, settings, write_profile,
};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;
use crate::harness::signature::standard_accepts;
use crate::harness::wire::Received;

on_both_engines!(
    no_event_is_sent_before_the_endpoint_has_consented,
    another_url_is_asked_before_it_gets_anything,
    a_challenge_is_signed_and_must_be_repeated,
    an_endpoint_that_was_given_up_is_asked_when_its_owner_says_so,
);

async fn no_event_is_sent_before_the_endpoint_has_consented(engine: Engine) {
    let service = settings(engine).start().await;
    let clinic = service.organization("clinic");
    let endpoint = Endpoint::new(false).await;
    let credential = ("Authorization".to_owned(), "Bearer hunter2".to_owned());
    let headers = [credential].into_iter().collect();
    let draft = pb::Subscription { headers, ..draft(&endpoint.receiver, "handshake", "*") };
    let created = clinic.create(draft).await;
    let begun = created.subscription.ownership.expect("it must consent");
    assert_eq!((begun.state(), begun.failed_checks), (Ownership::Pending, 0));
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(clinic.publish("appointment.booked", r#"{"room":4}"#).await);
    }

    let refused = fails(&clinic, &created.id, 1).await;

    assert_eq!(refused.state(), Ownership::Pending);
    let why = "The answer does not allow this sender in WebHook-Allowed-Origin.";
    assert_eq!(refused.reason, why);
    let time = |time: Option<prost_types::Timestamp>| -> SystemTime {
        time.expect("it is set").try_into().expect("a time")
    };
    let wait = time(refused.next_check_time).duration_since(time(refused.check_time));
    let wait = wait.expect("later").as_secs_f64();
    assert!((5.0..=5.6).contains(&wait), "{wait}");
    for event in &events {
        let delivery = clinic.delivery_of(event).reaches(State::Pending).await;
        assert_eq!(delivery.attempt_count, 0);
    }
    let ping = clinic.ping(&created.id).await.expect_err("it would be an event");
    assert_eq!(ping.code(), Code::FailedPrecondition);
    assert_eq!(service.metric("hookward_endpoints_unproven").await, Some(1.0));
    assert!(endpoint.events().is_empty());
    let check = endpoint.checks().remove(0);
    assert_eq!(check.target, "/hook");
    assert_eq!(check.header("WebHook-Request-Origin"), Some(ORIGIN));
    assert_eq!(check.header("Authorization"), None, "nobody knows who listens");
    assert!(check.body.is_empty());

    endpoint.consent();
    let proven = reaches(&clinic, &created.id, Ownership::Proven).await;

    assert_eq!((proven.reason.as_str(), proven.next_check_time), ("", None));
    for event in &events {
        let delivery = clinic.delivery_of(event).reaches(State::Succeeded).await;
        assert_eq!(delivery.attempt_count, 1, "no retry was spent");
    }
    let consent = endpoint.checks().pop().expect("it was asked");
    assert_eq!(endpoint.events().len(), events.len());
    for sent in endpoint.events() {
        assert!(consent.arrival <= sent.arrival, "not before the consent");
        assert_eq!(sent.header("WebHook-Request-Origin"), Some(ORIGIN));
        assert_eq!(sent.header("Authorization"), Some("Bearer hunter2"));
        assert_eq!(sent.text(), r#"{"room":4}"#);
    }
    let read = clinic.get(&created.id).await.expect("it is there");
    assert_eq!(read.etag, created.subscription.etag, "a check is no change");
    assert_eq!(service.metric("hookward_endpoints_unproven").await, Some(0.0));
    let log = service.written();
    assert_eq!(log.matches("an endpoint has consented").count(), 1);
    assert!(!log.contains("/hook") && !log.contains("hunter2"), "no path, no credential");
}

async fn another_url_is_asked_before_it_gets_anything(engine: Engine) {
    let service = settings(engine).start().await;
    let clinic = service.organization("clinic");
    let (old, new) = (Endpoint::new(true).await, Endpoint::new(false).await);
    let created = clinic.subscribe(&old.receiver, "handshake", "*").await;
    reaches(&clinic, &created.id, Ownership::Proven).await;
    let first = clinic.publish("first", "{}").await;
    clinic.delivery_of(&first).reaches(State::Succeeded).await;

    let moved = pb::Subscription { url: new.receiver.url(), ..created.subscription };
    let moved = clinic.try_update(moved, &["url"]).await.expect("nobody else changed it");
    assert_eq!(moved.ownership.expect("it must consent").state(), Ownership::Pending);
    let second = clinic.publish("second", "{}").await;
    fails(&clinic, &created.id, 1).await;

    let waiting = clinic.delivery_of(&second).reaches(State::Pending).await;
    assert_eq!(waiting.attempt_count, 0);
    assert!(new.events().is_empty());
    new.consent();
    clinic.delivery_of(&second).reaches(State::Succeeded).await;
    assert_eq!((old.checks().len(), old.events().len()), (1, 1));
    assert_eq!((new.checks().len(), new.events().len()), (2, 1));
}

/// A receiver that repeats challenges, or in `mode` 0 everything.
async fn repeating(mode: Arc<AtomicUsize>) -> Receiver {
    let decide = move |_, request: &Received| {
        let body = request.json();
        let Some(challenge) = body["challenge"].as_str() else { return Answer::Status(200) };
        let answer = match mode.load(Ordering::SeqCst) {
            0 => request.body.clone(),
            _ => format!(r#"{{"challenge":"{challenge}"}}"#).into_bytes(),
        };
        Answer::Full(200, Vec::new(), answer)
    };
    Receiver::secure_deciding(Certificate::Good, decide).await
}

async fn a_challenge_is_signed_and_must_be_repeated(engine: Engine) {
    let service = settings(engine).start().await;
    let clinic = service.organization("clinic");
    let mode = Arc::<AtomicUsize>::default();
    let receiver = repeating(Arc::clone(&mode)).await;
    let created = clinic.subscribe(&receiver, "challenge", "*").await;

    let refused = fails(&clinic, &created.id, 1).await;

    assert_eq!(refused.reason, "The answer does not repeat the challenge.", "an echo is none");
    let asked = receiver.request(0).expect("it was asked");
    assert!(standard_accepts(&created.secret, &asked));
    assert_eq!(asked.method, "POST");
    assert!(asked.header("webhook-id").expect("it has one").starts_with("chk_"));
    assert_eq!(asked.json()["type"], "hookward.challenge");
    assert_eq!(asked.json()["subscription_id"], created.id.as_str());

    mode.store(1, Ordering::SeqCst);
    let id = clinic.publish("invoice.paid", r#"{"id":1}"#).await;
    reaches(&clinic, &created.id, Ownership::Proven).await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
    let requests = receiver.received(3).await;
    assert_eq!(requests.len(), 3, "two questions and one event");
    assert_ne!(requests[0].json()["challenge"], requests[1].json()["challenge"]);
    assert_eq!(requests[2].json()["data"]["id"], 1);
}

async fn an_endpoint_that_was_given_up_is_asked_when_its_owner_says_so(engine: Engine) {
    let service = settings(engine).start().await;
    let clinic = service.organization("clinic");
    let endpoint = Endpoint::reluctant(false, Answer::Status(410)).await;
    let created = clinic.subscribe(&endpoint.receiver, "handshake", "*").await;
    let failed = reaches(&clinic, &created.id, Ownership::Failed).await;
    assert_eq!(failed.reason, "The endpoint answered with status 410.");
    assert_eq!((failed.failed_checks, failed.next_check_time), (1, None));
    let id = clinic.publish("invoice.paid", "{}").await;
    let held = clinic.delivery_of(&id).reaches(State::Pending).await;
    assert_eq!(held.attempt_count, 0);

    endpoint.consent();
    clinic.activate(&created.id).await.expect("it is active already");
    reaches(&clinic, &created.id, Ownership::Proven).await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
    let read = clinic.get(&created.id).await.expect("it is there");
    assert_eq!(read.etag, created.subscription.etag, "no change of the subscription");
    assert_eq!(endpoint.checks().len(), 2);
    clinic.activate(&created.id).await.expect("it is active already");

    clinic.deactivate(&created.id).await.expect("from any state");
    clinic.activate(&created.id).await.expect("it is inactive");
    let checks = endpoint.asked(3).await;
    assert_eq!(checks.len(), 3, "once anew, and not for the call that changed nothing");
    reaches(&clinic, &created.id, Ownership::Proven).await;
    let gap = checks[2].arrival - checks[1].arrival;
    // Five seconds lie between the starts; requests arrive a moment later.
    assert!(Duration::from_secs(4) <= gap, "never more often: {gap:?}");
}

/// Whoever subscribed before the profile asked has not consented either.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_begins_to_ask_asks_everybody() {
    let engine = Engine::sqlite();
    let settings = settings(engine.clone());
    write_profile(&engine, "handshake", PLAIN);
    let mut service = settings.start().await;
    let endpoint = Endpoint::new(false).await;
    let clinic = service.organization("clinic");
    let created = clinic.subscribe(&endpoint.receiver, "handshake", "*").await;
    assert_eq!(created.subscription.ownership, None);
    let first = clinic.publish("first", "{}").await;
    clinic.delivery_of(&first).reaches(State::Succeeded).await;
    assert!(endpoint.checks().is_empty());
    service.terminate();
    service.ends().await;

    write_profile(&engine, "handshake", &format!("{PLAIN}{ASKING}"));
    service.restart().await;
    let clinic = service.organization("clinic");
    let second = clinic.publish("second", "{}").await;
    fails(&clinic, &created.id, 1).await;
    assert_eq!(endpoint.events().len(), 1, "the second is held");
    endpoint.consent();
    clinic.delivery_of(&second).reaches(State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_that_do_not_ask_send_at_once() {
    let service = settings(Engine::sqlite()).start().await;
    for profile in ["standard", "telegramd", "azodha", "meetinglawyers", "hapihub"] {
        let clinic = service.organization(profile);
        let endpoint = Endpoint::new(false).await;
        let created = clinic.subscribe(&endpoint.receiver, profile, "*").await;
        assert_eq!(created.subscription.ownership, None, "{profile}");
        let id = clinic.publish("invoice.paid", "{}").await;
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
        assert!(endpoint.checks().is_empty(), "{profile}");
        assert_eq!(endpoint.events()[0].header("WebHook-Request-Origin"), None, "{profile}");
    }
}

/// Others see it as the one that asked does.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_replicas_one_asks_and_all_send() {
    let Some(engine) = Engine::postgres() else { return };
    let first = settings(engine).start().await;
    let others = [first.replica().await, first.replica().await];
    let clinic = first.organization("clinic");
    let endpoint = Endpoint::new(true).await;
    let mut ids = Vec::new();
    for number in 0..30 {
        let url = endpoint.receiver.url_at(&format!("/{number}"));
        let draft = pb::Subscription { url, ..draft(&endpoint.receiver, "handshake", "*") };
        ids.push(clinic.create(draft).await.id);
    }
    let services: Vec<&Service> = [&first].into_iter().chain(&others).collect();
    for service in &services {
        for id in &ids {
            reaches(&service.organization("clinic"), id, Ownership::Proven).await;
        }
        service.organization("clinic").publish("invoice.paid", "{}").await;
    }
    endpoint.receiver.received(30 + 90).await;
    let mut asked: Vec<String> = endpoint.checks().into_iter().map(|one| one.target).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!((asked.len(), endpoint.checks().len()), (30, 30), "each once");
}
