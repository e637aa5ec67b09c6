//! Promise: nobody changes the audit log unseen, and nothing happens that it cannot take.

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, Database};
use tonic::Code;

use crate::harness::audit::{entries, verify};
use crate::harness::client::draft;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

on_both_engines!(
    changes_at_once_are_one_unbroken_chain,
    what_somebody_changes_in_the_log_is_found,
    nothing_changes_and_no_payload_is_shown_without_its_entry,
);

/// Says something to the database, as somebody could who may do everything there.
async fn sql(engine: &Engine, statements: &[&str]) {
    let database = Database::connect(engine.url()).await.expect("it is there");
    for sql in statements {
        database.execute_unprepared(sql).await.expect("executes");
    }
    database.close().await.expect("closes");
}

fn is_shared(engine: &Engine) -> bool {
    engine.url().starts_with("postgres")
}

async fn changes_at_once_are_one_unbroken_chain(engine: Engine) {
    let service = Service::start(engine.clone()).await;
    let replica = if is_shared(&engine) { Some(service.replica().await) } else { None };
    let clinics =
        [&service, replica.as_ref().unwrap_or(&service)].map(|one| one.organization("clinic"));
    let receiver = Receiver::answering([200]).await;
    let changes = (0..32).map(|number| clinics[number % 2].create(draft(&receiver, "azodha", "*")));
    join_all(changes).await;
    let (fits, said) = verify(&engine, &["--organization", "clinic"]);
    assert!(fits && said.starts_with("clinic\tok\t32 entries fit\t"), "{said}");
    assert_eq!(entries(&engine, "clinic").len(), 32);
}

async fn what_somebody_changes_in_the_log_is_found(engine: Engine) {
    let mut service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.create(draft(&receiver, "azodha", "*")).await;
    clinic.pause(&subscribed.id).await.expect("it is active");
    clinic.delete(&subscribed.id).await.expect("it is there");
    let (fits, said) = verify(&engine, &[]);
    let head = said.lines().find_map(|line| line.strip_prefix("clinic\tok\t3 entries fit\t"));
    let head = head.expect("it fits").to_owned();
    assert!(fits, "{said}");
    service.terminate();
    service.ends().await;
    // A server tells at its start what has moved on lately.
    service.restart().await;
    eventually("the head in the log", async || service.written().contains(&head).then_some(()))
        .await;
    service.terminate();
    service.ends().await;
    let noted = ["--head", &head];
    assert!(verify(&engine, &noted).0, "what the log says is so");

    let disarm: &[&str] = if is_shared(&engine) {
        &["ALTER TABLE audit_entry DISABLE TRIGGER USER"]
    } else {
        &["DROP TRIGGER audit_entry_is_not_updated", "DROP TRIGGER audit_entry_is_not_deleted"]
    };
    sql(&engine, disarm).await;
    sql(&engine, &["UPDATE audit_entry SET principal = 'nobody' WHERE sequence = 2"]).await;
    let (fits, said) = verify(&engine, &[]);
    assert!(!fits && said.contains("clinic\tBROKEN at entry 2 of "), "{said}");
    sql(&engine, &["UPDATE audit_entry SET principal = 'anyone' WHERE sequence = 2"]).await;
    assert!(verify(&engine, &[]).0, "as it was");
    let forget = ["DELETE FROM audit_entry", "DELETE FROM audit_head"];
    sql(&engine, &forget).await;
    assert!(verify(&engine, &[]).0, "nobody can know that there was one");
    let (fits, said) = verify(&engine, &noted);
    assert!(!fits && said.contains("clinic\tBROKEN"), "but who has noted its head: {said}");
}

async fn nothing_changes_and_no_payload_is_shown_without_its_entry(engine: Engine) {
    let service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.create(draft(&receiver, "azodha", "*")).await;
    let event_id = clinic.publish("booked", "{}").await;
    sql(&engine, &["ALTER TABLE audit_entry RENAME TO audit_gone"]).await;

    let refused = [
        clinic.pause(&subscribed.id).await.err(),
        clinic.delete(&subscribed.id).await.err(),
        clinic.try_create(draft(&receiver, "azodha", "*"), "").await.err(),
        clinic.read_event(&event_id).await.err(),
    ];
    for refused in refused {
        assert_eq!(refused.expect("it cannot be recorded").code(), Code::Unavailable);
    }
    assert_eq!(clinic.get(&subscribed.id).await.expect("it is there"), subscribed.subscription);
    // Events are on their own record.
    clinic.publish("booked", "{}").await;

    sql(&engine, &["ALTER TABLE audit_gone RENAME TO audit_entry"]).await;
    clinic.read_event(&event_id).await.expect("it is there");
    eventually("what was refused meanwhile", async || {
        let told = entries(&engine, "clinic");
        let refused = told.iter().filter(|one| one.code == "UNAVAILABLE").count();
        (refused == 4).then_some(())
    })
    .await;
    let (fits, said) = verify(&engine, &["--organization", "clinic"]);
    assert!(fits && said.contains("6 entries fit"), "{said}");
}
