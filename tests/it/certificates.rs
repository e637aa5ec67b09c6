//! Promise: a caller's certificate opens what the operator wrote down for the name in it,
//! and whoever must show one gets no connection without.

use std::fs;
use std::net::SocketAddr;

use tonic::Code;

use crate::harness::authority::{AUTHORITY, Authority, Pair};
use crate::harness::caller::{Tls, code, list_events};
use crate::harness::engine::Engine;
use crate::harness::issuer::{SigningKey, claims, key_set, table};
use crate::harness::process::Process;
use crate::harness::service::{Settings, addresses};

const CALLERS: &str = r#"
    [[certificate]]
    uri = "spiffe://clinic.example/reader"
    organizations = ["clinic"]
    scopes = ["events:read"]

    [[certificate]]
    dns = "platform.example"
    organizations = "*"
    scopes = ["events:read"]

    [[certificate]]
    dns = "publisher.example"
    organizations = ["clinic"]
    scopes = ["events:publish"]
"#;

/// A server that knows [`CALLERS`], and others as `kinds` and `more` say.
async fn knowing(engine: &Engine, kinds: &str, more: &str) -> (Process, SocketAddr) {
    let path = |name: &str| engine.folder().join(name);
    let pair = AUTHORITY.issue(&["127.0.0.1"]);
    for (name, text) in [
        ("tls.crt", pair.certificate_pem.as_str()),
        ("tls.key", &pair.key_pem),
        ("clients.pem", &AUTHORITY.pem()),
        ("auth.toml", &format!("{CALLERS}{more}")),
    ] {
        fs::write(path(name), text).expect("the folder is ours");
    }
    let mut settings = Settings::new(engine.clone()).flag("--auth", kinds);
    for (flag, name) in [
        ("--tls-cert", "tls.crt"),
        ("--tls-key", "tls.key"),
        ("--tls-client-ca", "clients.pem"),
        ("--auth-file", "auth.toml"),
    ] {
        settings = settings.flag(flag, &path(name).display().to_string());
    }
    let mut process = settings.launch();
    let (grpc, _) = addresses(&mut process).await;
    (process, grpc.expect("it takes calls"))
}

/// The code of a call with this certificate; `None` where there is no connection.
async fn answer(address: SocketAddr, tls: &Tls, organization: &str) -> Option<Code> {
    let channel = tls.channel(address).await.ok()?;
    match list_events(&channel, organization, None).await {
        Ok(()) => Some(Code::Ok),
        // In TLS 1.3 the server's refusal comes after the client's part of the handshake, and
        // then it is the call that breaks. What a server answers has details.
        Err(status) => (!status.details().is_empty()).then(|| status.code()),
    }
}

fn showing(names: &[&str]) -> Tls {
    Tls::showing(AUTHORITY.issue(names))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_what_is_written_down_for_its_name() {
    let engine = Engine::sqlite();
    let (_process, address) = knowing(&engine, "certificate", "").await;
    for (names, organization, expected) in [
        (&["spiffe://clinic.example/reader"][..], "clinic", Code::Ok),
        (&["spiffe://clinic.example/reader"], "other", Code::PermissionDenied),
        (&["platform.example"], "other", Code::Ok),
        (&["some.example", "platform.example"], "clinic", Code::Ok),
        (&["publisher.example"], "clinic", Code::PermissionDenied),
        (&["unknown.example"], "clinic", Code::Unauthenticated),
        (&["*.example"], "clinic", Code::Unauthenticated),
        (&["platform.example", "publisher.example"], "clinic", Code::Unauthenticated),
    ] {
        let code = answer(address, &showing(names), organization).await;
        assert_eq!(code, Some(expected), "{names:?} {organization}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_must_show_a_good_certificate_gets_no_connection_without() {
    let engine = Engine::sqlite();
    let (_process, address) = knowing(&engine, "certificate", "").await;
    let foreign: Pair = Authority::new().issue(&["platform.example"]);
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    for version in versions {
        let only = |tls: Tls| Tls { versions: vec![version], ..tls };
        let good = only(showing(&["platform.example"]));
        assert_eq!(answer(address, &good, "clinic").await, Some(Code::Ok), "{version:?}");
        let anonymous = only(Tls::anonymous());
        assert_eq!(answer(address, &anonymous, "clinic").await, None, "{version:?}");
    }
    assert_eq!(answer(address, &Tls::showing(foreign), "clinic").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_other_credentials_a_certificate_may_be_shown_and_what_is_said_counts() {
    let engine = Engine::sqlite();
    let key = SigningKey::new("first");
    let published = engine.folder().join("keys.json");
    fs::write(&published, key_set(&[&key])).expect("the folder is ours");
    let issuer = table(&format!("jwks_file = \"{}\"", published.display()));
    let (_process, address) = knowing(&engine, "certificate,jwt", &issuer).await;
    let anonymous = Tls::anonymous().channel(address).await.expect("it is right");
    let certified = showing(&["platform.example"]).channel(address).await.expect("it is right");
    let token = key.sign(&claims("clinic", "events:read"));
    let bad = SigningKey::new("first").sign(&claims("clinic", "events:read"));

    assert_eq!(code(&anonymous, "clinic", None).await, Code::Unauthenticated);
    assert_eq!(code(&anonymous, "clinic", Some(&token)).await, Code::Ok);
    assert_eq!(code(&certified, "other", None).await, Code::Ok);
    assert_eq!(code(&certified, "other", Some(&token)).await, Code::PermissionDenied);
    assert_eq!(code(&certified, "clinic", Some(&bad)).await, Code::Unauthenticated);

    let foreign = Tls::showing(Authority::new().issue(&["platform.example"]));
    assert_eq!(answer(address, &foreign, "clinic").await, None, "a bad one is worse than none");
}
