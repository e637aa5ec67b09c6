//! Endpoints that are asked whether they want events, and profiles that have them asked.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hookward::grpc::pb;
use pb::ownership::State;

use super::authority::Certificate;
use super::client::Organization;
use super::engine::Engine;
use super::eventually::eventually;
use super::receiver::{Answer, Receiver};
use super::service::Settings;
use super::wire::Received;

/// What the sender calls itself.
pub(crate) const ORIGIN: &str = "hooks.clinic.example";

/// A profile that does not ask yet.
pub(crate) const PLAIN: &str = r#"
    name = "handshake"
    description = "The payload, to endpoints that have consented"
    content_type = "application/json"
    [body]
    kind = "payload"
    payload = "json"
    [ping]
    event_type = "ping"
    payload = "{}"
"#;

/// What makes it ask.
pub(crate) const ASKING: &str = r#"
    [ownership]
    kind = "handshake"
    origin = "hooks.clinic.example"
"#;

const STANDARD: &str = include_str!("../../profiles/standard.toml");

/// A server that knows the profiles `handshake` and `challenge`.
pub(crate) fn settings(engine: Engine) -> Settings {
    let name = "name = \"standard\"";
    assert!(STANDARD.contains(name));
    let challenge = STANDARD.replace(name, "name = \"challenge\"");
    write_profile(&engine, "handshake", &format!("{PLAIN}{ASKING}"));
    write_profile(&engine, "challenge", &format!("{challenge}\n[ownership]\nkind = \"challenge\""));
    let folder = engine.folder().join("profiles.d").display().to_string();
    Settings::new(engine).flag("--profiles", &folder)
}

/// Writes one file of the folder that a server reads at its start.
pub(crate) fn write_profile(engine: &Engine, name: &str, text: &str) {
    let folder = engine.folder().join("profiles.d");
    fs::create_dir_all(&folder).expect("the folder is ours");
    fs::write(folder.join(format!("{name}.toml")), text).expect("the folder is ours");
}

/// A receiver over TLS that consents to a handshake once it wants events.
pub(crate) struct Endpoint {
    pub(crate) receiver: Receiver,
    wants: Arc<AtomicBool>,
}

impl Endpoint {
    pub(crate) async fn new(wants: bool) -> Endpoint {
        // As a web server that has never heard of it answers.
        Endpoint::reluctant(wants, Answer::with(204, "Allow", "GET, POST, OPTIONS")).await
    }

    /// One that answers so until it wants them.
    pub(crate) async fn reluctant(wants: bool, refusal: Answer) -> Endpoint {
        let wants = Arc::new(AtomicBool::new(wants));
        let mind = Arc::clone(&wants);
        let decide = move |_, request: &Received| match request.method.as_str() {
            "OPTIONS" if mind.load(Ordering::SeqCst) => {
                Answer::with(200, "WebHook-Allowed-Origin", ORIGIN)
            }
            "OPTIONS" => refusal.clone(),
            _ => Answer::Status(200),
        };
        let receiver = Receiver::secure_deciding(Certificate::Good, decide).await;
        Endpoint { receiver, wants }
    }

    /// From now on it wants events.
    pub(crate) fn consent(&self) {
        self.wants.store(true, Ordering::SeqCst);
    }

    /// The questions that have come so far.
    pub(crate) fn checks(&self) -> Vec<Received> {
        let mut requests = self.receiver.requests();
        requests.retain(|request| request.method == "OPTIONS");
        requests
    }

    /// Everything else that has come so far.
    pub(crate) fn events(&self) -> Vec<Received> {
        let mut requests = self.receiver.requests();
        requests.retain(|request| request.method != "OPTIONS");
        requests
    }

    /// Waits until it was asked so often.
    pub(crate) async fn asked(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} questions");
        eventually(&what, async || Some(self.checks()).filter(|all| count <= all.len())).await
    }
}

/// Waits until a subscription's endpoint has come so far.
pub(crate) async fn reaches(clinic: &Organization, id: &str, state: State) -> pb::Ownership {
    is(clinic, id, "in its state", |ownership| ownership.state() == state).await
}

/// Waits until so many checks have failed.
pub(crate) async fn fails(clinic: &Organization, id: &str, count: u32) -> pb::Ownership {
    is(clinic, id, "refused", |ownership| count <= ownership.failed_checks).await
}

async fn is(
    clinic: &Organization,
    id: &str,
    what: &str,
    holds: impl Fn(&pb::Ownership) -> bool,
) -> pb::Ownership {
    eventually(&format!("an endpoint {what}"), async || {
        let subscription = clinic.get(id).await.expect("it is there");
        subscription.ownership.filter(&holds)
    })
    .await
}
