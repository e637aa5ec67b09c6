//! Contract: what operators watch is at `/metrics`, in base units, with labels from
//! closed sets only.

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::admin;
use crate::harness::client::{draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(
    counters_follow_what_happens,
    what_an_endpoint_or_its_owner_holds_up_is_told_apart,
    labels_hold_nothing_of_callers,
);

async fn scrape(service: &Service) -> String {
    let (status, body) = admin::get(service.admin_address(), "/metrics").await.expect("an answer");
    assert_eq!(status, 200);
    body
}

/// The sum of all samples of `name` whose labels contain each of `labels`.
fn total(text: &str, name: &str, labels: &[&str]) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let rest = series.strip_prefix(name)?;
        let whole = rest.is_empty() || rest.starts_with('{');
        (whole && labels.iter().all(|label| rest.contains(label)))
            .then(|| value.parse::<f64>().expect("a number"))
    });
    samples.sum()
}

async fn counters_follow_what_happens(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([500, 200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    let before = total(&scrape(&service).await, "hookward_events_accepted_total", &[]);

    let events = (0..5).map(|_| event("invoice.paid", "{}")).collect();
    for result in clinic.try_publish(events).await.expect("it keeps the rules") {
        clinic.delivery_of(&result.event_id).reaches(State::Succeeded).await;
    }

    eventually("the counters", async || {
        let text = scrape(&service).await;
        let accepted = total(&text, "hookward_events_accepted_total", &[]) - before;
        let attempts = total(&text, "hookward_attempt_duration_seconds_count", &[]);
        let succeeded = total(&text, "hookward_deliveries_ended_total", &["succeeded"]);
        let ended = (accepted, attempts, succeeded);
        (ended == (5.0, 6.0, 5.0)).then_some(())
    })
    .await;
}

async fn what_an_endpoint_or_its_owner_holds_up_is_told_apart(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let slow = Receiver::answering([Answer::Held(200)]).await;
    let one_at_a_time = pb::Subscription { max_in_flight: 1, ..draft(&slow, "standard", "lab.*") };
    let subscribed = clinic.create(one_at_a_time).await;
    let first = clinic.publish("lab.result", "{}").await;
    slow.received(1).await;
    let second = clinic.publish("lab.result", "{}").await;
    slow.release();
    clinic.delivery_of(&first).reaches(State::Succeeded).await;
    clinic.delivery_of(&second).reaches(State::Succeeded).await;

    clinic.pause(&subscribed.id).await.expect("it is active");
    let paused = clinic.publish("lab.result", "{}").await;
    clinic.delivery_of(&paused).reaches(State::Pending).await;
    clinic.resume(&subscribed.id).await.expect("it is paused");
    clinic.delivery_of(&paused).reaches(State::Succeeded).await;
    let after = clinic.publish("lab.result", "{}").await;
    clinic.delivery_of(&after).reaches(State::Succeeded).await;

    eventually("the first attempts", async || {
        let text = scrape(&service).await;
        let name = "hookward_first_attempt_delay_seconds_count";
        let count = |held| total(&text, name, &[held]);
        let told = (count("held=\"false\""), count("held=\"true\""));
        (told == (2.0, 2.0)).then_some(())
    })
    .await;
}

async fn labels_hold_nothing_of_callers(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic-secretive");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;
    let id = clinic.publish("secretive.type", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;

    let text = scrape(&service).await;

    let port = receiver.port().to_string();
    for secret in ["secretive", &*subscribed.id, &*id, &*port, "clinic"] {
        assert!(!text.contains(secret), "{secret}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let ours = ["hookward_", "rpc_", "http_", "process_", "target_info", "otel_"];
        assert!(ours.iter().any(|prefix| line.starts_with(prefix)), "{line}");
    }
    assert!(text.contains("hookward_build_info"));
    assert!(text.contains(env!("CARGO_PKG_VERSION")));
}
