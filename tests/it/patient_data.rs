//! Promise: patient data and secrets are in the database, at the receiver and in
//! authorised reads: nowhere else. Canaries are sent through every way that an event can
//! go, and into every refusal that could repeat them; then everything that the server says
//! and leaves behind is searched for them, in every spelling.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookward::grpc::pb;
use pb::delivery::State;
use pb::event::Payload;
use tonic::Status;

use crate::harness::admin;
use crate::harness::canary::{Canary, assert_absent, files_in};
use crate::harness::client::{Organization, draft, event, waits};
use crate::harness::collector::Collector;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::locks::lock;
use crate::harness::postgres::Cluster;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(canaries_are_found_nowhere_but_where_they_belong);

/// One for each place where somebody can put data.
struct Canaries {
    payload: Canary,
    subject: Canary,
    attribute: Canary,
    name: Canary,
    header: Canary,
    url: Canary,
    signing_key: Canary,
    answer: Canary,
}

impl Canaries {
    fn new() -> Canaries {
        let [payload, subject, attribute, name] =
            ["payload", "subject", "attribute", "name"].map(Canary::new);
        let [header, url, signing_key, answer] =
            ["header", "url", "signing", "answer"].map(Canary::new);
        Canaries { payload, subject, attribute, name, header, url, signing_key, answer }
    }

    fn all(&self) -> [&Canary; 8] {
        let Canaries { payload, subject, attribute, name, header, url, signing_key, answer } = self;
        [payload, subject, attribute, name, header, url, signing_key, answer]
    }

    /// An event with a canary wherever a publisher can put data.
    fn event(&self, event_type: &str) -> pb::Event {
        let key = self.attribute.text().to_owned();
        pb::Event {
            subject: self.subject.text().to_owned(),
            attributes: [(key.clone(), key)].into(),
            ..event(event_type, &format!(r#"{{"name":"{}"}}"#, self.payload.text()))
        }
    }

    /// A subscription with a canary wherever its owner can put data.
    fn draft(&self, receiver: &Receiver, event_type: &str) -> pb::Subscription {
        let key = self.attribute.text().to_owned();
        let credentials = format!("Bearer {}", self.header.text());
        pb::Subscription {
            name: self.name.text().to_owned(),
            url: receiver.url_at(&format!("/{0}?token={0}", self.url.text())),
            headers: [("Authorization".to_owned(), credentials)].into(),
            attributes: [(key.clone(), key)].into(),
            retry_policy: Some(waits(&[100])),
            ..draft(receiver, "standard", event_type)
        }
    }

    fn signing_secret(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.signing_key.text()))
    }
}

async fn canaries_are_found_nowhere_but_where_they_belong(engine: Engine) {
    let (canaries, collector) = (Canaries::new(), Collector::start().await);
    let temporary = tempfile::TempDir::new().expect("a temporary folder");
    let folder = temporary.path().display().to_string();
    let service = Settings::new(engine.clone())
        .flag("--log", "trace")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
        .env("TMPDIR", &folder)
        .env("SQLITE_TMPDIR", &folder)
        .start()
        .await;
    let clinic = service.organization("clinic");
    deliver(&clinic, &canaries).await;
    let told = refusals(&clinic, &canaries).await;

    eventually("the last spans", async || {
        let spans = String::from_utf8_lossy(&collector.bytes()).into_owned();
        spans.contains("bird.unrenderable").then_some(())
    })
    .await;
    let all = canaries.all();
    for status in told {
        let details = [format!("{status:?}").as_bytes(), status.details()].concat();
        assert_absent(&all, "an error", &details);
    }
    for page in ["/metrics", "/readyz", "/healthz"] {
        let (_, text) = admin::get(service.admin_address(), page).await.expect("an answer");
        assert_absent(&all, page, text.as_bytes());
    }
    assert_absent(&all, "the spans", &collector.bytes());
    assert_absent(&all, "the log", service.written().as_bytes());
    assert!(service.written().contains("call answered"), "it logs what there is to log");
    let own = files_in(engine.folder()).into_iter();
    // The database is where they belong, until it is encrypted.
    let own = own.filter(|(path, _)| {
        !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hookward.db"))
    });
    for (path, bytes) in own.chain(files_in(temporary.path())) {
        assert_absent(&all, &path.display().to_string(), &bytes);
    }
}

/// Sends an event each way that a delivery can end, and checks what the receiver gets, and
/// nobody else.
async fn deliver(clinic: &Organization, canaries: &Canaries) {
    let body = format!("no such patient: {}", canaries.answer.text()).into_bytes();
    let answers = [
        Answer::Full(500, Vec::new(), body.clone()),
        Answer::with(503, "X-Patient", canaries.answer.text()),
        Answer::Reset,
        Answer::Status(410),
        Answer::Full(200, Vec::new(), body),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let taken = matches!(answer, Answer::Full(200, ..));
        let end = if taken { State::Succeeded } else { State::Dead };
        let receiver = Receiver::answering([answer]).await;
        let event_type = format!("bird.{number}");
        let draft = canaries.draft(&receiver, &event_type);
        let subscribed = clinic.create_with_secret(draft, &canaries.signing_secret()).await;
        let shown = &subscribed.subscription.headers["Authorization"];
        assert_eq!(shown, "***", "credentials are write-only");

        let id = clinic.publish_event(canaries.event(&event_type)).await.event_id;

        let ended = clinic.delivery_of(&id).reaches(end).await;
        let told = ended.last_attempt.expect("there was one").error_message;
        assert_absent(&canaries.all(), "an attempt's error", told.as_bytes());
        let request = &receiver.requests()[0];
        assert!(request.text().contains(canaries.payload.text()));
        let credentials = format!("Bearer {}", canaries.header.text());
        assert_eq!(request.header("Authorization"), Some(&*credentials));
        let sent = format!("{:?}{}", request.headers, request.text());
        let kept = [&canaries.subject, &canaries.attribute, &canaries.name, &canaries.signing_key];
        assert_absent(&kept, "a request", sent.as_bytes());
    }
    // What cannot be put into the profile's shape is told without what it is.
    let receiver = Receiver::answering([200]).await;
    let draft = pb::Subscription {
        profile: "azodha".to_owned(),
        ..canaries.draft(&receiver, "bird.unrenderable")
    };
    clinic.create(draft).await;
    let text = Some(Payload::Json(format!("\"{}\"", canaries.payload.text())));
    let event = pb::Event { payload: text, ..canaries.event("bird.unrenderable") };
    let id = clinic.publish_event(event).await.event_id;
    let dead = clinic.delivery_of(&id).reaches(State::Dead).await;
    let told = dead.last_attempt.expect("it is recorded").error_message;
    assert!(!told.is_empty(), "it says what is wrong");
    assert_absent(&canaries.all(), "an attempt's error", told.as_bytes());
}

/// Every refusal that could repeat what it refuses.
async fn refusals(clinic: &Organization, canaries: &Canaries) -> Vec<Status> {
    let (text, bird) = (canaries.payload.text(), || canaries.event("bird"));
    clinic.publish_event(pb::Event { id: "bird".to_owned(), ..bird() }).await;
    let bad_events = vec![
        pb::Event { id: format!("{text}."), ..bird() },
        pb::Event { id: "bird".to_owned(), ..canaries.event("bird.other") },
        pb::Event { r#type: format!("{text} "), ..bird() },
        pb::Event { account_id: format!("{text} "), ..bird() },
        pb::Event { content_type: format!("{text} "), ..bird() },
        pb::Event { subject: format!("{text}\0"), ..bird() },
        pb::Event { payload: Some(Payload::Json(format!("{{\"{text}"))), ..bird() },
        pb::Event { attributes: [("k".to_owned(), format!("{text}\0"))].into(), ..bird() },
        pb::Event { attributes: [(format!("{text}\0"), String::new())].into(), ..bird() },
    ];
    let mut told = Vec::new();
    for event in bad_events {
        told.push(clinic.try_publish(vec![event]).await.expect_err("it breaks a rule"));
    }
    let receiver = Receiver::answering([200]).await;
    let good = || canaries.draft(&receiver, "bird");
    let url = canaries.url.text();
    let entry = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let bad_subscriptions = vec![
        pb::Subscription { name: format!("{text}\0"), ..good() },
        pb::Subscription { url: format!("https://{url}:{url}@example.com/"), ..good() },
        pb::Subscription { url: format!("https://example.com/{url}#{url}"), ..good() },
        pb::Subscription { url: format!("https://10.0.0.1/{url}"), ..good() },
        pb::Subscription { headers: entry("X", &format!("{text}\n")), ..good() },
        pb::Subscription { headers: entry(&format!("{text} "), "v"), ..good() },
        pb::Subscription { headers: entry("Host", text), ..good() },
        pb::Subscription { event_patterns: vec![format!("{text}*")], ..good() },
        pb::Subscription { attributes: entry("k", &format!("{text}\0")), ..good() },
        pb::Subscription { profile: text.to_owned(), ..good() },
    ];
    for subscription in bad_subscriptions {
        let refused = clinic.try_create(subscription, "").await;
        told.push(refused.expect_err("it breaks a rule"));
    }
    let secret = format!("{}!", canaries.signing_secret());
    told.push(clinic.try_create(good(), &secret).await.expect_err("it is no secret"));
    let list = pb::ListEventsRequest {
        organization_id: clinic.name(),
        page_token: text.to_owned(),
        ..Default::default()
    };
    told.push(clinic.events().list_events(list).await.expect_err("it is no token"));
    told
}

/// The database's server writes down statements that fail, and their values where it is set
/// up to: not ours.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_fail_leave_no_values_in_the_log_of_postgresql() {
    let Some(cluster) = Cluster::own("log_parameter_max_length_on_error = -1\n") else { return };
    let service = Service::start(Engine::postgres_on(&cluster)).await;
    let clinic = service.organization("clinic");
    let canaries = Canaries::new();
    let receiver = Receiver::answering([200]).await;
    let mut holder = lock(&cluster, "event", 60).await;

    let refused = clinic.try_publish(vec![canaries.event("bird")]).await;
    let refused = refused.expect_err("it waits for the lock, and then no longer");
    let draft = canaries.draft(&receiver, "bird");
    clinic.create_with_secret(draft, &canaries.signing_secret()).await;

    holder.kill().expect("it is our child");
    holder.wait().expect("it is our child");
    assert_absent(&canaries.all(), "an error", format!("{refused:?}").as_bytes());
    let log = eventually("a statement that failed", async || {
        let log = cluster.log();
        let text = String::from_utf8_lossy(&log);
        text.contains("canceling statement due to lock timeout").then(|| log.clone())
    })
    .await;
    assert_absent(&canaries.all(), "the log of PostgreSQL", &log);
    assert_absent(&canaries.all(), "the log", service.written().as_bytes());
}

/// In a process of its own, this program again: what a panic says is decided for all of it.
#[test]
fn a_panic_tells_its_place_and_not_its_message() {
    const PANICS: &str = "HOOKWARD_TEST_PANICS";
    if let Some(patient) = std::env::var_os(PANICS) {
        hookward::telemetry::hide_panic_messages();
        panic!("no room for {}", patient.display());
    }
    let canary = Canary::new("panic");
    let own = std::env::current_exe().expect("it runs");
    let output = Command::new(own)
        .args(["--exact", "patient_data::a_panic_tells_its_place_and_not_its_message"])
        .arg("--nocapture")
        .env(PANICS, canary.text())
        .output()
        .expect("it runs once more");
    assert!(!output.status.success(), "it panics: {output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert_absent(&[&canary], "what it says", &said);
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("hookward: panic at tests/it/patient_data.rs:"), "{said}");
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
