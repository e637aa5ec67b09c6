//! Promise: what is not needed any more is not there any more: on demand at once, by age
//! within minutes, and of a deleted organization nothing is left.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use hookward::grpc::pb;
use pb::delivery::State;
use sea_orm::{ConnectionTrait, Database};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::age::pass;
use crate::harness::client::{Organization, draft, event_with_id, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(
    a_purged_event_is_neither_shown_nor_sent,
    a_purge_by_subject_takes_all_of_an_organizations_and_no_others,
    payloads_go_after_a_week_and_the_rest_after_ninety_days,
    an_organization_may_be_kept_for_another_time,
    a_purge_that_fails_is_late,
    of_a_deleted_organization_nothing_is_left,
);

const DAY: Duration = Duration::from_hours(24);

/// A command on the database of `engine`.
fn hookward(engine: &Engine, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
    let command = command.args(words).args(["--database-url", engine.url()]);
    command.output().expect("the binary was built with the tests")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn about(subject: &str, id: &str) -> pb::Event {
    let attributes = [("name".to_owned(), "Robin".to_owned())].into();
    let subject = subject.to_owned();
    pb::Event { attributes, subject, ..event_with_id(id, "visit", r#"{"name":"Robin"}"#) }
}

/// Stops the server, lets time pass, and starts it again.
async fn later(service: &mut Service, engine: &Engine, span: Duration) {
    service.terminate();
    service.ends().await;
    pass(engine, span).await;
    service.restart().await;
}

async fn purged(organization: &Organization, id: &str) -> pb::Event {
    eventually("the purge", async || {
        let event = organization.read_event(id).await.expect("the rest of it stays");
        event.payload_purge_time.is_some().then_some(event)
    })
    .await
}

async fn a_purged_event_is_neither_shown_nor_sent(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let answer = Answer::Full(500, Vec::new(), b"no such patient: Robin".to_vec());
    let failing = Receiver::answering([answer]).await;
    let held = Receiver::answering([200]).await;
    let once =
        pb::Subscription { retry_policy: Some(waits(&[])), ..draft(&failing, "azodha", "*") };
    clinic.create(once).await;
    let paused = clinic.subscribe(&held, "azodha", "*").await.id;
    clinic.pause(&paused).await.expect("it is active");
    clinic.publish_event(about("patient-1", "event-1")).await;
    let dead = eventually("the failure", async || {
        let found = clinic.deliveries_of("event-1").await;
        found.into_iter().find(|delivery| delivery.state() == State::Dead)
    })
    .await;
    assert!(!clinic.attempts(&dead.id).await[0].response_body.is_empty());

    let left = clinic.purge("event-1").await.expect("it is there");
    assert!(left.payload_purge_time.is_some() && left.payload_bytes == 16, "{left:?}");

    let read = clinic.read_event("event-1").await.expect("the rest of it stays");
    assert_eq!(read, left);
    assert_eq!((read.payload, &*read.subject, read.attributes.len()), (None, "", 0));
    assert!(clinic.attempts(&dead.id).await[0].response_body.is_empty());
    let mut states = Vec::new();
    for delivery in clinic.deliveries_of("event-1").await {
        assert!(delivery.payload_purge_time.is_some(), "{delivery:?}");
        states.push(delivery.state());
        let refused = clinic.retry(&delivery.id).await.expect_err("there is nothing to send");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let info = refused.get_details_error_info().expect("every error has one");
        assert_eq!(info.reason, "PAYLOAD_PURGED");
    }
    states.sort_unstable();
    assert_eq!(states, [State::Dead, State::Cancelled]);
    // It was published all the same.
    assert!(clinic.publish_event(about("patient-1", "event-1")).await.duplicate);

    clinic.resume(&paused).await.expect("it is paused");
    clinic.publish_event(event_with_id("event-2", "visit", "{}")).await;
    eventually("the next event", async || held.request(0)).await;
    assert_eq!(held.request(0).expect("it came").text(), "{}", "the purged one came first");
}

async fn a_purge_by_subject_takes_all_of_an_organizations_and_no_others(engine: Engine) {
    let service = Service::start(engine).await;
    let (clinic, other) = (service.organization("clinic"), service.organization("other"));
    for id in ["event-1", "event-2"] {
        clinic.publish_event(about("patient-1", id)).await;
        other.publish_event(about("patient-1", id)).await;
    }
    clinic.publish_event(about("patient-2", "event-3")).await;

    assert_eq!(clinic.purge_subject("patient-1").await.expect("valid"), 2);
    assert_eq!(clinic.purge_subject("patient-1").await.expect("valid"), 0);

    for (organization, id, there) in [
        (&clinic, "event-1", false),
        (&clinic, "event-2", false),
        (&clinic, "event-3", true),
        (&other, "event-1", true),
        (&other, "event-2", true),
    ] {
        let read = organization.read_event(id).await.expect("it is there");
        assert_eq!(read.payload.is_some(), there, "{} {id}", organization.name());
    }
    let refused = clinic.purge_subject("").await.expect_err("nobody");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn payloads_go_after_a_week_and_the_rest_after_ninety_days(engine: Engine) {
    let mut service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let held = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "visit").await;
    let paused = clinic.subscribe(&held, "azodha", "waits").await.id;
    clinic.pause(&paused).await.expect("it is active");
    clinic.publish_event(about("patient-1", "event-1")).await;
    clinic.publish_event(event_with_id("event-2", "waits", r#"{"still":"needed"}"#)).await;
    clinic.delivery_of("event-1").reaches(State::Succeeded).await;

    later(&mut service, &engine, 8 * DAY).await;
    let clinic = service.organization("clinic");
    let left = purged(&clinic, "event-1").await;
    assert_eq!((left.payload, left.attributes.len()), (None, 0));
    assert_eq!(clinic.deliveries_of("event-1").await.len(), 1, "what became of it stays");
    assert!(clinic.read_event("event-2").await.expect("it waits").payload.is_some());

    later(&mut service, &engine, 90 * DAY).await;
    let clinic = service.organization("clinic");
    eventually("the end of everything", async || {
        let gone = clinic.read_event("event-1").await.err()?;
        (gone.code() == Code::NotFound).then_some(())
    })
    .await;
    assert_eq!(clinic.deliveries_of("event-1").await, []);
    let again = clinic.publish_event(about("patient-1", "event-1")).await;
    assert!(!again.duplicate, "its id is free");
    // What is held is sent, however long it was.
    clinic.resume(&paused).await.expect("it is paused");
    let sent = eventually("what was held", async || held.request(0)).await;
    assert_eq!(sent.text(), r#"{"still":"needed"}"#);
}

async fn an_organization_may_be_kept_for_another_time(engine: Engine) {
    let mut service = Service::start(engine.clone()).await;
    for name in ["clinic", "other"] {
        service.organization(name).publish_event(about("patient-1", "event-1")).await;
    }
    said(&hookward(&engine, &["retention", "set", "--organization", "clinic", "--payload", "1h"]));
    said(&hookward(&engine, &["retention", "set", "--metadata", "30d"]));
    let listed = said(&hookward(&engine, &["retention", "list"]));
    assert_eq!(listed, "*\t7d\t30d\nclinic\t1h\t-\n");
    let refused = hookward(&engine, &["retention", "set", "--payload", "59m"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--payload"), "{refused:?}");

    later(&mut service, &engine, Duration::from_hours(2)).await;

    purged(&service.organization("clinic"), "event-1").await;
    let other = service.organization("other").read_event("event-1").await;
    assert!(other.expect("it is there").payload.is_some());
    said(&hookward(&engine, &["retention", "clear", "--organization", "clinic"]));
    assert_eq!(said(&hookward(&engine, &["retention", "list"])), "*\t7d\t30d\n");
}

async fn a_purge_that_fails_is_late(engine: Engine) {
    let mut service = Service::start(engine.clone()).await;
    service.terminate();
    service.ends().await;
    let connection = Database::connect(engine.url()).await.expect("nobody holds it");
    let spoil = "ALTER TABLE retention_visit RENAME TO elsewhere";
    connection.execute_unprepared(spoil).await.expect("it is there");
    connection.close().await.expect("it was open");
    service.restart().await;
    let late = eventually("the first purge", async || {
        service.metric("hookward_purge_late_seconds").await.filter(|late| 0.0 < *late)
    });
    assert!(late.await < 60.0, "no longer than it runs");
}

async fn of_a_deleted_organization_nothing_is_left(engine: Engine) {
    let mut service = Service::start(engine.clone()).await;
    let receiver = Receiver::answering([200]).await;
    let mut ids = Vec::new();
    for name in ["clinic", "other"] {
        let organization = service.organization(name);
        ids.push(organization.subscribe(&receiver, "azodha", "*").await.id);
        organization.publish_event(about("patient-1", "event-1")).await;
        organization.delivery_of("event-1").reaches(State::Succeeded).await;
    }
    // Nothing is under way without a server, so that nothing is waited for.
    service.terminate();
    service.ends().await;
    let unsure = ["organization", "delete", "clinic", "--confirm", "clinc"];
    assert!(!hookward(&engine, &unsure).status.success());

    let words = ["organization", "delete", "clinic", "--confirm", "clinic"];
    let told = said(&hookward(&engine, &words));
    assert!(told.starts_with("ended: 1 subscriptions, 0 API keys\n"), "{told}");
    assert!(told.ends_with("done: nothing of it is left but its audit log\n"), "{told}");

    service.restart().await;
    for (name, id, there) in [("clinic", &ids[0], false), ("other", &ids[1], true)] {
        let organization = service.organization(name);
        assert_eq!(organization.get(id).await.is_ok(), there);
        assert_eq!(organization.read_event("event-1").await.is_ok(), there);
        let deliveries = organization.list(pb::ListDeliveriesRequest::default()).await;
        assert_eq!(deliveries.len(), usize::from(there));
    }
    let gone = service.organization("clinic").get(&ids[0]).await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
    // The name is free, and what was sent to the old one goes nowhere.
    let clinic = service.organization("clinic");
    assert_eq!(clinic.publish_event(about("patient-1", "event-1")).await.delivery_count, 0);
}

/// On PostgreSQL it stays in dead rows until VACUUM, in the log and in backups.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_is_not_in_the_file_of_sqlite() {
    const CANARY: &[u8] = b"Canary-Robin-Example";
    let engine = Engine::sqlite();
    let mut service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    // On a page with others, and on pages of its own.
    let canary = String::from_utf8_lossy(CANARY).into_owned();
    for (id, repeats) in [("event-1", 1), ("event-2", 9000)] {
        let payload = format!(r#"{{"name":"{}"}}"#, canary.repeat(repeats));
        clinic.publish_event(event_with_id(id, "visit", &payload)).await;
    }
    let written = || {
        let files = fs::read_dir(engine.folder()).expect("it is ours").flatten();
        let hits = files.filter(|file| {
            let bytes = fs::read(file.path()).unwrap_or_default();
            bytes.windows(CANARY.len()).any(|window| window == CANARY)
        });
        hits.map(|file| file.file_name()).collect::<Vec<_>>()
    };
    assert!(!written().is_empty(), "the search finds what is there");

    for id in ["event-1", "event-2"] {
        clinic.purge(id).await.expect("it is there");
    }
    assert_eq!(written(), Vec::<std::ffi::OsString>::new());
    service.terminate();
    service.ends().await;
    assert_eq!(written(), Vec::<std::ffi::OsString>::new());
}
