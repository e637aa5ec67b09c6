//! Promise: a copy that is made while the service works has every event that was acknowledged
//! before, and a server that is started on it delivers what waited.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::event_with_id;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;
use crate::harness::signature::standard_accepts;

on_both_engines!(a_copy_goes_on_where_the_original_was);

/// From a pod, whose image has no tools and which may write nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_can_be_taken_from_stdout() {
    let (engine, elsewhere) = (Engine::sqlite(), Engine::sqlite());
    let service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    clinic.publish_event(event_with_id("event-1", "visit.created", "{}")).await;
    let files = || {
        let entries = fs::read_dir(engine.folder()).expect("it is ours").flatten();
        entries.map(|entry| entry.file_name()).collect::<BTreeSet<_>>()
    };
    let before = files();

    let mut backup = Command::new(env!("CARGO_BIN_EXE_hookward"));
    backup.args(["backup", "--to", "-", "--database-url", engine.url()]);
    let copy = backup.output().expect("the binary was built with the tests");

    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    assert_eq!(files(), before, "nothing is left of it");
    let path = elsewhere.url().trim_start_matches("sqlite:").to_owned();
    fs::write(path, copy.stdout).expect("there is room");
    let restored = Service::start(elsewhere).await;
    restored.organization("clinic").read_event("event-1").await.expect("it is in the copy");
}

const SENT: usize = 10;
const WAITING: usize = 40;

async fn a_copy_goes_on_where_the_original_was(engine: Engine) {
    let mut service = Service::start(engine.clone()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;
    for number in 0..SENT {
        let id = format!("sent-{number}");
        clinic.publish_event(event_with_id(&id, "visit.created", "{}")).await;
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
    }
    clinic.pause(&subscribed.id).await.expect("it is active");
    for number in 0..WAITING {
        let id = format!("waiting-{number}");
        clinic.publish_event(event_with_id(&id, "visit.created", "{}")).await;
    }
    let goes_on = tokio::spawn({
        let clinic = clinic.clone();
        async move {
            let mut number = 0;
            loop {
                let id = format!("meanwhile-{number}");
                if clinic.try_publish(vec![event_with_id(&id, "later", "{}")]).await.is_err() {
                    return number;
                }
                number += 1;
            }
        }
    });
    let copy = tokio::task::spawn_blocking(move || engine.backup()).await.expect("is made");
    service.kill();
    let meanwhile = goes_on.await.expect("it ends with the server");
    assert!(0 < meanwhile, "there was something to write beside the copy");

    let restored = Service::start(copy).await;
    let clinic = restored.organization("clinic");
    clinic.resume(&subscribed.id).await.expect("it is paused in the copy, too");
    for number in 0..WAITING {
        clinic.delivery_of(&format!("waiting-{number}")).reaches(State::Succeeded).await;
    }
    for number in 0..SENT {
        let sent = clinic.delivery_of(&format!("sent-{number}"));
        assert_eq!(sent.reaches(State::Succeeded).await.attempt_count, 1);
    }
    let requests = receiver.requests();
    assert!(requests.iter().all(|request| standard_accepts(&subscribed.secret, request)));
    let ids: BTreeSet<_> = requests.iter().filter_map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), requests.len(), "what was sent before the copy is not sent again");
    assert!(SENT + WAITING <= requests.len());
}

#[test]
fn a_copy_is_made_of_a_file_and_into_a_new_one() {
    let engine = Engine::sqlite();
    let (from, to) = (engine.folder().join("from.db"), engine.folder().join("to.db"));
    let backup = |url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
        command.env_clear().args(["backup", "--database-url", url, "--to"]);
        let output = command.arg(&to).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let url = format!("sqlite:{}", from.display());
    let (code, said) = backup(&url);
    assert!(code == Some(78) && said.contains("is not there") && !to.exists(), "{said}");
    let (code, said) = backup("postgres://nobody@127.0.0.1:9/none");
    assert!(code == Some(78) && said.contains("pg_dump"), "{said}");
    std::fs::write(&from, "no database").expect("the folder is ours");
    assert_eq!(backup(&url).0, Some(1));
    assert!(!to.exists(), "half a copy is none");
    std::fs::write(&to, "somebody's").expect("the folder is ours");
    let (code, said) = backup(&url);
    assert!(code == Some(78) && said.contains("exists"), "{said}");
    assert_eq!(std::fs::read_to_string(&to).expect("still there"), "somebody's");
}
