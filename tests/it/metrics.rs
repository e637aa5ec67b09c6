//! Contract: what operators watch is at `/metrics`, in base units, with labels from
//! closed sets only.

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::admin;
use crate::harness::client::{draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::locks::lock;
use crate::harness::postgres::Cluster;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

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

/// Two connections: one is the engine's, and the other has a call that waits for a lock.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_connection_is_counted() {
    let Some(cluster) = Cluster::own("") else { return };
    let engine = Engine::postgres_on(&cluster);
    let service = Settings::new(engine).flag("--database-connections", "2").start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "azodha", "*").await;
    let of_calls = async |name: &str| service.metric(&format!("{name}{{work=\"calls\"}}")).await;
    assert_eq!(of_calls("hookward_database_connections_max").await, Some(1.0));

    let mut locking = lock(&cluster, "subscription", 5).await;
    // Whether they are answered in time is not what this is about: upkeep may be first.
    let _ = tokio::join!(clinic.get(&subscribed.id), clinic.get(&subscribed.id), async {
        eventually("somebody who waits for the only connection", async || {
            let in_use = of_calls("hookward_database_connections_in_use").await;
            let waits = of_calls("hookward_database_waits_total").await?;
            (in_use == Some(1.0) && 1.0 <= waits).then_some(())
        })
        .await;
    });
    let unlocked = tokio::task::spawn_blocking(move || locking.wait()).await;
    unlocked.expect("waiting does not panic").expect("it is our child");
    assert!(of_calls("hookward_database_wait_seconds_total").await.is_some_and(|time| 0.0 < time));
    // Upkeep has it now and then.
    eventually("the connection at rest", async || {
        let in_use = of_calls("hookward_database_connections_in_use").await;
        (in_use == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_no_connections_to_wait_for() {
    let service = Service::start(Engine::sqlite()).await;
    assert!(!scrape(&service).await.contains("hookward_database_"));
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
