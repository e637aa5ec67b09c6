//! Promise: a replica that dies or freezes loses only the time until another takes its
//! deliveries over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::admin;
use crate::harness::client::event_with_id;
use crate::harness::engine::Engine;
use crate::harness::eventually::{meanwhile, within};
use crate::harness::locks::lock;
use crate::harness::postgres::Cluster;
use crate::harness::proxy::Proxy;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

/// Two replicas on one PostgreSQL; the one that holds the delivery is killed.
#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_killed_replica_goes_on_within_three_seconds_twenty_times_in_a_row() {
    let Some(engine) = Engine::postgres() else { return };
    let mut replicas = [Service::start(engine).await];
    let mut other = replicas[0].replica().await;
    // The first request of each event hangs, the second is answered.
    let answer = |number: usize| {
        if number.is_multiple_of(2) { Answer::Hang } else { Answer::Status(200) }
    };
    let receiver = Receiver::deciding(move |number, _| answer(number)).await;
    other.organization("clinic").subscribe(&receiver, "azodha", "*").await;

    for round in 0..20 {
        let [holder] = &mut replicas;
        let id = format!("round-{round}");
        holder.organization("clinic").publish_event(event_with_id(&id, "held", "{}")).await;
        receiver.received(2 * round + 1).await;

        holder.kill();
        let killed = Instant::now();

        let taken = receiver.received(2 * round + 2).await[2 * round + 1].arrival - killed;
        assert!(taken <= Duration::from_secs(3), "round {round}: taken over after {taken:?}");
        other.organization("clinic").delivery_of(&id).reaches(State::Succeeded).await;
        holder.restart().await;
        // The one that took over holds the next one.
        std::mem::swap(holder, &mut other);
    }
    assert_eq!(receiver.count(), 40, "each was sent twice, once by each replica");
}

/// A frozen replica keeps its connections, so that only its lease tells.
#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_frozen_replica_goes_on_and_its_late_outcome_changes_nothing() {
    let Some(engine) = Engine::postgres() else { return };
    let holder = Service::start(engine).await;
    let other = holder.replica().await;
    let first =
        Receiver::deciding(
            |number, _| {
                if number == 0 { Answer::Held(500) } else { Answer::Status(200) }
            },
        )
        .await;
    let clinic = other.organization("clinic");
    clinic.subscribe(&first, "azodha", "*").await;
    let frozen = event_with_id("frozen", "held", "{}");
    holder.organization("clinic").publish_event(frozen).await;
    first.received(1).await;

    holder.freeze();
    let at = Instant::now();
    let taken = first.received(2).await[1].arrival - at;
    assert!(taken <= Duration::from_secs(14), "taken over after {taken:?}");
    let delivered = clinic.delivery_of("frozen").reaches(State::Succeeded).await;

    // The holder wakes up to an answer of 500, which is too late to count.
    first.release();
    holder.thaw();
    meanwhile(Duration::from_secs(3)).await;
    let now = clinic.delivery(&delivered.id).await.expect("it is there");
    assert_eq!((now.state(), now.attempt_count), (State::Succeeded, delivered.attempt_count));
    assert_eq!(first.count(), 2);
    assert_eq!(holder.metric("hookward_claims_lapsed_total").await, Some(1.0), "it says so");
}

/// Everything that the holder asks the database waits for locks, but for its heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_statements_all_wait_is_alive() {
    let Some(cluster) = Cluster::own("") else { return };
    let engine = Engine::postgres_on(&cluster);
    let holder = Settings::new(engine.clone()).flag("--database-connections", "2").start().await;
    let other = Service::start(engine).await;
    let receiver = holding_one(&holder).await;

    let tables = "event, attempt, due, subscription, routing_clock";
    let mut locking = lock(&cluster, tables, 14).await;
    receiver.release();
    let unlocked = tokio::task::spawn_blocking(move || locking.wait()).await;
    unlocked.expect("waiting does not panic").expect("it is our child");

    holder.organization("clinic").delivery_of("held").reaches(State::Succeeded).await;
    assert!(!has_taken_over(&other).await);
    assert_eq!(receiver.count(), 1, "it was sent once");
}

/// After an outage no replica is connected, and the first one back must not take the rest
/// for dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_finds_the_database_again_a_little_later_is_alive() {
    let Some(cluster) = Cluster::own("") else { return };
    let engine = Engine::postgres_on(&cluster);
    let proxy = Proxy::to(engine.port()).await;
    let holder = Service::start(engine.at_port(proxy.port())).await;
    let other = Service::start(engine).await;
    let receiver = holding_one(&holder).await;

    proxy.refuse();
    let cluster = Arc::new(cluster);
    let crashing = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || crashing.crash_and_restart()).await.expect("it runs");
    // Longer than the silence after which a replica without a session is dead.
    meanwhile(Duration::from_millis(1800)).await;
    proxy.accept();
    within(Duration::from_secs(10), "that the holder is ready", async || {
        let (status, _) = admin::get(holder.admin_address(), "/readyz").await?;
        (status == 200).then_some(())
    })
    .await;
    receiver.release();

    holder.organization("clinic").delivery_of("held").reaches(State::Succeeded).await;
    assert!(!has_taken_over(&other).await);
    assert_eq!(receiver.count(), 1, "it was sent once");
}

/// A receiver that has a delivery of the holder's, and answers it when it is released.
async fn holding_one(holder: &Service) -> Receiver {
    let answer = |number| if number == 0 { Answer::Held(200) } else { Answer::Status(200) };
    let receiver = Receiver::deciding(move |number, _| answer(number)).await;
    let clinic = holder.organization("clinic");
    clinic.subscribe(&receiver, "azodha", "*").await;
    clinic.publish_event(event_with_id("held", "held", "{}")).await;
    receiver.received(1).await;
    receiver
}

/// Whether a replica took deliveries of others over.
async fn has_taken_over(service: &Service) -> bool {
    let taken = service.metric("hookward_deliveries_taken_over_total").await;
    0.0 < taken.expect("it is on the page")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_goes_on_with_its_work_after_its_restart() {
    let mut service = Service::start(Engine::sqlite()).await;
    let receiver =
        Receiver::deciding(|number, _| if number < 5 { Answer::Hang } else { Answer::Status(200) })
            .await;
    let clinic = service.organization("clinic");
    clinic.subscribe(&receiver, "azodha", "*").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(clinic.publish("held", "{}").await);
    }
    receiver.received(5).await;

    service.kill();
    service.restart().await;
    let restarted = Instant::now();

    let all = receiver.received(10).await;
    let taken = all[9].arrival.duration_since(restarted);
    assert!(taken <= Duration::from_secs(3), "all were sent again after {taken:?}");
    let clinic = service.organization("clinic");
    for id in ids {
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
    }
    assert_eq!(receiver.count(), 10);
}
