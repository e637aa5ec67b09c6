//! Promise: two servers never share a SQLite file, and a lock of another program keeps
//! nobody waiting for long.

use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;
use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use tonic::Code;

use crate::harness::engine::Engine;
use crate::harness::eventually::meanwhile;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

/// 78 is `EX_CONFIG` of sysexits.h.
#[tokio::test]
async fn a_second_server_on_the_same_file_exits_with_78_and_names_the_holder() {
    let service = Service::start(Engine::sqlite()).await;

    let mut second = service.settings().launch();
    let status = second.ends().await;

    assert_eq!(status.code(), Some(78));
    let written = second.written();
    assert!(written.contains(&service.id().to_string()), "names the holder: {written}");
    assert!(written.contains("hookward.db"), "names the file: {written}");
    // The first goes on.
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    let id = clinic.publish("invoice.paid", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
}

#[tokio::test]
async fn the_lock_of_a_killed_server_is_free() {
    let mut service = Service::start(Engine::sqlite()).await;
    for _ in 0..3 {
        service.kill();
        service.restart().await;
    }
    service.organization("clinic").publish("invoice.paid", "{}").await;
}

/// 2.75 seconds for the turn and 2.5 for the lock, and some for a machine that runs many
/// tests at once.
const REFUSED: Duration = Duration::from_millis(5500);

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_another_program_locks_out_are_refused_in_time() {
    let engine = Engine::sqlite();
    let service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscription = clinic.subscribe(&receiver, "standard", "*").await;
    let mut options = ConnectOptions::new(engine.url());
    options.max_connections(1).sqlx_logging(false);
    let other = Database::connect(options).await.expect("the file is there");
    other.execute_unprepared("BEGIN IMMEDIATE").await.expect("nobody writes for long");

    // One after the other, each of them in line behind those before it.
    let calls = (0..6).map(|number| {
        let (clinic, id) = (clinic.clone(), subscription.id.clone());
        tokio::spawn(async move {
            meanwhile(Duration::from_millis(number * 200)).await;
            let begun = Instant::now();
            let answer = clinic.pause(&id).await;
            (answer.map(drop), begun.elapsed())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (answer, took) = call.await.expect("it does not panic");
        let refused = answer.expect_err("nobody can write");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(took <= REFUSED, "refused after {took:?}");
    }
    other.execute_unprepared("COMMIT").await.expect("it holds the lock");
    service.organization("clinic").publish("invoice.paid", "{}").await;
}
