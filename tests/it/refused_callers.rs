//! Promise: who goes on calling without good credentials is told to come back later, costs
//! the server little, and takes nothing from those who show good ones; the operator sees on
//! the metrics page why callers are refused, and what is about to end.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::admin;
use crate::harness::authority::{AUTHORITY, Authority, Certificate, Pair};
use crate::harness::caller::{Tls, code, list_events};
use crate::harness::engine::Engine;
use crate::harness::eventually::eventually;
use crate::harness::issuer::{SigningKey, claims, key_set, now_secs, table};
use crate::harness::process::Process;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings, addresses};

const REFUSALS: &str = "hookward_authentication_refusals_total";
const LIMITED: &str = "hookward_authentication_refusals_limited_total";
const FAILURES: &str = "hookward_credential_reload_failures_total";
const EXPIRY: &str = "hookward_tls_certificate_expiry_timestamp_seconds";
/// 1 May, midnight.
const MAY_2031: f64 = 1_935_360_000.0;
const MAY_2032: f64 = 1_966_982_400.0;

/// A server that asks for API keys or tokens; `keys` says where those for tokens are.
async fn guarded(engine: &Engine, keys: &str) -> Service {
    let file = engine.folder().join("auth.toml");
    fs::write(&file, table(keys)).expect("the folder is ours");
    let settings = Settings::new(engine.clone()).flag("--auth", "api-key,jwt");
    settings.flag("--auth-file", &file.display().to_string()).start().await
}

/// The same, which believes who holds this key.
async fn believing(engine: &Engine, key: &SigningKey) -> Service {
    let published = engine.folder().join("keys.json");
    fs::write(&published, key_set(&[key])).expect("the folder is ours");
    guarded(engine, &format!("jwks_file = \"{}\"", published.display())).await
}

/// What so many calls at once with a token that is not good are answered, and when.
async fn flood(channel: &Channel, token: &str, count: usize) -> Vec<(Status, Duration)> {
    let began = Instant::now();
    let calls = (0..count).map(|_| async move {
        let answer = list_events(channel, "clinic", Some(token)).await;
        (answer.expect_err("nobody is known by that"), began.elapsed())
    });
    join_all(calls).await
}

fn is_limited((status, _): &(Status, Duration)) -> bool {
    status.code() == Code::ResourceExhausted
}

async fn counted(service: &Service, cause: &str) -> Option<f64> {
    service.metric(&format!("{REFUSALS}{{cause=\"{cause}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_keeps_failing_is_told_to_come_back_and_good_credentials_are_served() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let service = believing(&engine, &key).await;
    let (one, other) = (service.channel_from(2).await, service.channel_from(3).await);
    let good = key.sign(&claims("clinic", "events:read"));
    let bad = SigningKey::new("first").sign(&claims("clinic", "events:read"));
    assert_eq!(code(&service.channel(), "clinic", Some(&good)).await, Code::Ok);

    let began = Instant::now();
    let answers = flood(&one, &bad, 200).await;
    let served = [code(&one, "clinic", Some(&good)).await, {
        let same_address = service.channel_from(2).await;
        code(&same_address, "clinic", Some(&good)).await
    }];
    assert_eq!(served, [Code::Ok; 2], "on the same connection, and from the same address");
    let (limited, usual): (Vec<_>, Vec<_>) = answers.into_iter().partition(is_limited);
    assert!(usual.iter().all(|(status, _)| status.code() == Code::Unauthenticated), "{usual:?}");
    // Ten in each second that has begun meanwhile.
    let most = 10 * (began.elapsed().as_secs() + 2);
    assert!((10..=most).contains(&(usual.len() as u64)), "{} of 200", usual.len());
    let (status, _) = &limited[0];
    assert_eq!(status.get_details_error_info().expect("has one").reason, "TOO_MANY_FAILURES");
    let wait = status.get_details_retry_info().expect("a wait").retry_delay;
    assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "{wait:?}");

    // Another address has ten of its own, and this one again in the next second.
    let others = flood(&other, &bad, 10).await;
    assert!(!others.iter().any(is_limited), "{others:?}");
    eventually("another second", async || {
        (code(&one, "clinic", Some(&bad)).await == Code::Unauthenticated).then_some(())
    })
    .await;

    let signature = counted(&service, "token_signature").await.expect("it is on the page");
    assert!(210.0 <= signature, "{signature}");
    let told = u32::try_from(limited.len()).expect("they are few");
    assert!(service.metric(LIMITED).await.is_some_and(|count| f64::from(told) <= count));
    // One line for each that was answered as usual, and one for all others.
    let written = eventually("the log says so", async || {
        Some(service.written()).filter(|text| text.contains("more than ten times in a second"))
    })
    .await;
    assert!(!written.contains("TOO_MANY_FAILURES"), "no line for each");
    let lines = written.matches("credentials were refused").count();
    assert!(lines <= usual.len() + others.len() + 1, "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_wait_by_the_thousand_for_an_issuer_that_hangs() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let issuer = Receiver::secure(Certificate::Good, [Answer::Hang]).await;
    let authority = engine.folder().join("authority.pem");
    let keys =
        format!("jwks = \"{}\"\njwks_ca = \"{}\"", issuer.url_at("/keys"), authority.display());
    let service = guarded(&engine, &keys).await;
    let stranger = service.channel_from(2).await;
    let token = key.sign(&claims("clinic", "events:read"));

    let answers = flood(&stranger, &token, 90).await;

    let (limited, usual): (Vec<_>, Vec<_>) = answers.into_iter().partition(is_limited);
    assert!(usual.iter().all(|(status, _)| status.code() == Code::Unauthenticated), "{usual:?}");
    assert!(usual.len() <= 30, "ten in each second in which they came: {}", usual.len());
    let slowest = limited.iter().map(|(_, took)| *took).max().expect("many");
    assert!(slowest < Duration::from_secs(3), "they waited: {slowest:?}");
    assert_eq!(issuer.count(), 1, "one reading for all of them");
    eventually("the age of keys that were never read", async || {
        let age = service.metric("hookward_token_keys_oldest_age_seconds").await;
        age.filter(|age| 0.0 < *age)
    })
    .await;
    eventually("the reading has failed", async || {
        let failures = service.metric(&format!("{FAILURES}{{source=\"token_keys\"}}")).await;
        failures.filter(|count| 1.0 <= *count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_why_callers_are_refused() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let service = believing(&engine, &key).await;
    let channel = service.channel();
    let with = |claim: &str, value: Value| {
        let mut changed = claims("clinic", "events:read");
        changed[claim] = value;
        key.sign(&changed)
    };
    let good = claims("clinic", "events:read");
    let table = [
        ("no_credentials", None),
        ("api_key_unknown", Some(format!("whk_0123456789abc_{}", "x".repeat(43)))),
        ("token_form", Some(key.sign_with(&json!({"alg": "none"}), &good))),
        ("token_issuer", Some(with("iss", json!("https://evil.example")))),
        ("token_key", Some(SigningKey::new("unknown").sign(&good))),
        ("token_signature", Some(SigningKey::new("first").sign(&good))),
        ("token_expired", Some(with("exp", json!(now_secs() - 61)))),
        ("token_claims", Some(with("aud", json!("other")))),
    ];
    for (cause, token) in &table {
        assert_eq!(counted(&service, cause).await, Some(0.0), "{cause}");
        let code = code(&channel, "clinic", token.as_deref()).await;
        assert_eq!(code, Code::Unauthenticated, "{cause}");
        assert_eq!(counted(&service, cause).await, Some(1.0), "{cause}");
    }
    assert_eq!(counted(&service, "header").await, Some(0.0));
    assert_eq!(service.metric(EXPIRY).await, None, "there is no certificate");
}

/// A server behind TLS whose files are in the engine's folder; its ports.
async fn encrypted(engine: &Engine, pair: &Pair) -> (Process, SocketAddr, SocketAddr) {
    let path = |name: &str| engine.folder().join(name);
    let entry = "[[certificate]]\ndns = \"known.example\"\norganizations = \"*\"\n\
                 scopes = [\"events:read\"]\n";
    for (name, text) in [
        ("tls.crt", pair.certificate_pem.as_str()),
        ("tls.key", &pair.key_pem),
        ("clients.pem", &AUTHORITY.pem()),
        ("auth.toml", entry),
    ] {
        fs::write(path(name), text).expect("the folder is ours");
    }
    let mut settings = Settings::new(engine.clone()).flag("--auth", "certificate");
    for (flag, name) in [
        ("--tls-cert", "tls.crt"),
        ("--tls-key", "tls.key"),
        ("--tls-client-ca", "clients.pem"),
        ("--auth-file", "auth.toml"),
    ] {
        settings = settings.flag(flag, &path(name).display().to_string());
    }
    let mut process = settings.launch();
    let (grpc, admin) = addresses(&mut process).await;
    (process, grpc.expect("it takes calls"), admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_open_nothing_are_counted() {
    let engine = Engine::sqlite();
    let (_process, grpc, admin) = encrypted(&engine, &AUTHORITY.issue(&["127.0.0.1"])).await;
    let counted = async |cause: &str| {
        let series = format!("{REFUSALS}{{cause=\"{cause}\"}}");
        admin::metric(admin, &series).await.expect("it is on the page")
    };
    let more = async |cause: &str, before: f64| {
        eventually(cause, async || (before < counted(cause).await).then_some(())).await;
    };
    let known = Tls::showing(AUTHORITY.issue(&["known.example"]));
    let channel = known.channel(grpc).await.expect("it is right");
    assert_eq!(code(&channel, "clinic", None).await, Code::Ok);
    for cause in ["certificate_untrusted", "certificate_unknown"] {
        assert!(counted(cause).await < 1.0, "{cause}");
    }

    let foreign = Tls::showing(Authority::new().issue(&["known.example"]));
    for tls in [foreign, Tls::anonymous()] {
        let before = counted("certificate_untrusted").await;
        // In TLS 1.3 the server's refusal comes after the client's part of the handshake.
        if let Ok(channel) = tls.channel(grpc).await {
            assert_ne!(code(&channel, "clinic", None).await, Code::Ok);
        }
        more("certificate_untrusted", before).await;
    }
    let unknown = Tls::showing(AUTHORITY.issue(&["unknown.example"]));
    let channel = unknown.channel(grpc).await.expect("it is of the right authority");
    assert_eq!(code(&channel, "clinic", None).await, Code::Unauthenticated);
    more("certificate_unknown", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_certificate_is_told_and_so_is_one_that_cannot_be_used() {
    let engine = Engine::sqlite();
    let names = ["127.0.0.1"];
    let [first, second] = [2031, 2032].map(|year| AUTHORITY.issue_until(&names, year));
    let (_process, _, admin) = encrypted(&engine, &first).await;
    let failures = format!("{FAILURES}{{source=\"tls_files\"}}");
    let metric = async |series: &str| admin::metric(admin, series).await;
    let ends = async |end: f64| (metric(EXPIRY).await == Some(end)).then_some(());
    eventually("its end", async || ends(MAY_2031).await).await;
    assert_eq!(metric(&failures).await, Some(0.0));

    // Half of one pair and half of another: counted at each look, not only at the first.
    let write = |name: &str, text: &str| {
        fs::write(engine.folder().join(name), text).expect("the folder is ours");
    };
    write("tls.crt", &second.certificate_pem);
    eventually("failures", async || metric(&failures).await.filter(|count| 2.0 <= *count)).await;
    assert_eq!(metric(EXPIRY).await, Some(MAY_2031), "the old one stays");

    write("tls.key", &second.key_pem);
    eventually("the end of the other", async || ends(MAY_2032).await).await;
}
