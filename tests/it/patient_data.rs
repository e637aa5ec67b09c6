//! Promise: patient data and secrets are in the database, at the receiver and in
//! authorised reads: nowhere else. Canaries are sent through every way that an event can
//! go; then everything that the server says is searched for them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use hookward::grpc::pb;
use pb::delivery::State;
use pb::event::Payload;

use crate::harness::admin;
use crate::harness::client::{draft, event, waits};
use crate::harness::collector::Collector;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(canaries_are_found_nowhere_but_where_they_belong);

const CANARY: &str = "Canary-Robin-Example";
const HEADER: &str = "Canary-header-value";

/// An event with a canary wherever a publisher can put data.
fn bird(event_type: &str) -> pb::Event {
    pb::Event {
        subject: format!("{CANARY}-subject"),
        attributes: [("name".to_owned(), format!("{CANARY}-attribute"))].into(),
        ..event(event_type, &format!(r#"{{"name":"{CANARY}"}}"#))
    }
}

async fn canaries_are_found_nowhere_but_where_they_belong(engine: Engine) {
    let collector = Collector::start().await;
    let service = Settings::new(engine)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    let clinic = service.organization("clinic");
    let answers = [
        Answer::Full(500, Vec::new(), format!("no such patient: {CANARY}").into_bytes()),
        Answer::with(503, "X-Patient", CANARY),
        Answer::Reset,
        Answer::Status(410),
    ];
    let mut secrets = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        let receiver = Receiver::answering([answer]).await;
        let event_type = format!("bird.{number}");
        let subscribed = clinic
            .create(pb::Subscription {
                headers: [("Authorization".to_owned(), format!("Bearer {HEADER}"))].into(),
                retry_policy: Some(waits(&[100])),
                ..draft(&receiver, "standard", &event_type)
            })
            .await;
        let shown = &subscribed.subscription.headers["Authorization"];
        assert_eq!(shown, "***", "credentials are write-only");
        secrets.push(subscribed.secret);

        let id = clinic.publish_event(bird(&event_type)).await.event_id;

        let dead = clinic.delivery_of(&id).reaches(State::Dead).await;
        let told = dead.last_attempt.expect("there was one").error_message;
        assert!(!told.contains("Canary"), "{told}");
        let request = &receiver.requests()[0];
        assert!(request.text().contains(CANARY));
        assert_eq!(request.header("Authorization"), Some(&*format!("Bearer {HEADER}")));
        let sent = format!("{:?}{}", request.headers, request.text());
        assert!(!sent.contains("-subject") && !sent.contains("-attribute"), "{sent}");
    }
    refuse(&service).await;

    let (_, metrics) = admin::get(service.admin_address(), "/metrics").await.expect("an answer");
    let spans = format!("{:?}", collector.spans());
    let written = service.written();
    for (place, text) in [("log", &written), ("metrics", &metrics), ("spans", &spans)] {
        for secret in [CANARY, HEADER].into_iter().chain(secrets.iter().map(String::as_str)) {
            assert!(!text.contains(secret), "{secret} in the {place}");
        }
    }
}

/// Every refusal that could repeat what it refuses.
async fn refuse(service: &Service) {
    let clinic = service.organization("clinic");
    clinic.publish_event(pb::Event { id: "bird".to_owned(), ..bird("bird") }).await;
    let bad = [
        pb::Event { id: format!("{CANARY}."), ..bird("bird") },
        pb::Event { id: "bird".to_owned(), ..bird("bird.other") },
        pb::Event { r#type: format!("{CANARY} "), ..bird("bird") },
        pb::Event { account_id: format!("{CANARY} "), ..bird("bird") },
        pb::Event { content_type: format!("{CANARY} "), ..bird("bird") },
        pb::Event { subject: format!("{CANARY}\0"), ..bird("bird") },
        pb::Event { payload: Some(Payload::Json(format!("{{\"{CANARY}"))), ..bird("bird") },
        pb::Event { attributes: [("k".to_owned(), format!("{CANARY}\0"))].into(), ..bird("bird") },
    ];
    for event in bad {
        let refused = clinic.try_publish(vec![event]).await.expect_err("it breaks a rule");
        let details = String::from_utf8_lossy(refused.details()).into_owned();
        assert!(!format!("{refused:?}{details}").contains("Canary"), "{refused:?}");
    }
}

#[test]
fn a_process_leaves_no_core_dump_and_may_open_what_the_system_grants() {
    let engine = Engine::sqlite();
    let mut server = Command::new("sh")
        .args(["-c", r#"ulimit -Sn 256; exec "$0" "$@""#, env!("CARGO_BIN_EXE_hookward"), "serve"])
        .args(["--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--database-url", engine.url()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says where it is");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("it runs");
    server.kill().expect("it is our child");
    server.wait().expect("it is our child");
    let of = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("Max core file size"), ["0", "0"]);
    let files = of("Max open files");
    assert_ne!(files[0], "256", "as many as the shell left it");
    assert_eq!(files[0], files[1], "soft and hard");
}
