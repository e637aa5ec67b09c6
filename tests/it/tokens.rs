//! Promise: a token opens what its issuer says, for as long as its issuer says, and every
//! other one is answered as if there were none.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::authority::Certificate;
use crate::harness::caller::{code, list_events};
use crate::harness::engine::Engine;
use crate::harness::eventually::{eventually, within};
use crate::harness::issuer::{SigningKey, claims, key_set, now_secs, table};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::refusal::seen;
use crate::harness::service::{Service, Settings};

/// A server that believes who holds these keys, published in a file.
async fn believing(engine: &Engine, keys: &[&SigningKey]) -> Service {
    let published = engine.folder().join("keys.json");
    fs::write(&published, key_set(keys)).expect("the folder is ours");
    guarded(engine, &table(&format!("jwks_file = \"{}\"", published.display()))).await
}

async fn guarded(engine: &Engine, auth: &str) -> Service {
    let file = engine.folder().join("auth.toml");
    fs::write(&file, auth).expect("the folder is ours");
    let settings = Settings::new(engine.clone()).flag("--auth", "api-key,jwt");
    settings.flag("--auth-file", &file.display().to_string()).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_it_says_and_nothing_else() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let service = believing(&engine, &[&key]).await;
    let channel = service.channel();
    let reads = key.sign(&claims("clinic", "openid events:read"));
    let publishes = key.sign(&claims("clinic", "events:publish"));
    assert_eq!(code(&channel, "clinic", Some(&reads)).await, Code::Ok);
    for (organization, token, reason) in
        [("other", &reads, "ORGANIZATION_DENIED"), ("clinic", &publishes, "SCOPE_MISSING")]
    {
        let refused = list_events(&channel, organization, Some(token)).await;
        let refused = refused.expect_err("it is not for that");
        assert_eq!(refused.code(), Code::PermissionDenied, "{reason}");
        assert_eq!(refused.get_details_error_info().expect("has one").reason, reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_token_gets_one_and_the_same_answer() {
    let engine = Engine::sqlite();
    let (key, stranger) = (SigningKey::new("first"), SigningKey::new("first"));
    let service = believing(&engine, &[&key]).await;
    let channel = service.channel();
    let good = claims("clinic", "events:read");
    let with = |claim: &str, value: Value| {
        let mut changed = good.clone();
        changed[claim] = value;
        key.sign(&changed)
    };
    let token = key.sign(&good);
    assert_eq!(code(&channel, "clinic", Some(&token)).await, Code::Ok);
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let unsigned = key.sign_with(&json!({"alg": "none"}), &good);
    let bad = [
        None,
        Some(String::new()),
        Some("x".repeat(9000)),
        Some("whk_0123456789abc_x".to_owned()),
        Some(stranger.sign(&good)),
        Some(SigningKey::new("unknown").sign(&good)),
        Some(format!("{signed}.")),
        Some(format!("{signed}x.{signature}")),
        Some(format!("{}.", unsigned.rsplit_once('.').expect("three parts").0)),
        Some(unsigned),
        Some(key.sign_with(&json!({"alg": "HS256"}), &good)),
        Some(key.sign_with(&json!({"jku": "https://evil.example/keys"}), &good)),
        Some(key.sign_with(&json!({"crit": ["exp"]}), &good)),
        Some(key.sign_with(&json!({"kid": 1}), &good)),
        Some(with("iss", json!("https://evil.example"))),
        Some(with("aud", json!("other"))),
        Some(with("sub", json!(7))),
        Some(with("exp", json!(now_secs() - 61))),
        Some(with("exp", json!(now_secs() + 90_000))),
        Some(with("exp", json!((now_secs() + 60).to_string()))),
        Some(with("nbf", json!(now_secs() + 120))),
        Some(with("nbf", json!("0"))),
        Some(with("organizations", json!([]))),
        Some(with("organizations", json!("*"))),
        Some(with("scope", Value::Null)),
    ];
    let mut answers = Vec::new();
    // Who fails more than ten times in a second is told something else.
    for (last, ten) in (2..).zip(bad.chunks(10)) {
        let channel = service.channel_from(last).await;
        for (number, token) in ten.iter().enumerate() {
            let refused = list_events(&channel, "clinic", token.as_deref()).await;
            let refused = refused.expect_err("nobody is known by that");
            assert_eq!(refused.code(), Code::Unauthenticated, "token {number} of {last}");
            answers.push(seen(&refused));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // The operator learns the cause, and nobody the token.
    let written = eventually("the log says why", async || {
        Some(service.written()).filter(|written| written.contains("the token's scopes are"))
    })
    .await;
    assert!(written.contains("another audience"));
    assert!(!written.contains(signed) && !written.contains("evil.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_restart_and_the_issuer_is_not_asked_for_each_stranger() {
    let engine = Engine::sqlite();
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let answer = |keys: &[&SigningKey]| Answer::Full(200, vec![], key_set(keys).into_bytes());
    let first = answer(&[&old]);
    let issuer = Receiver::secure(Certificate::Good, [first, answer(&[&new])]).await;
    let authority = engine.folder().join("authority.pem");
    let keys =
        format!("jwks = \"{}\"\njwks_ca = \"{}\"", issuer.url_at("/keys"), authority.display());
    let service = guarded(&engine, &table(&keys)).await;
    let channel = service.channel();
    let good = claims("clinic", "events:read");
    let (by_old, by_new) = (old.sign(&good), new.sign(&good));
    assert_eq!(code(&channel, "clinic", Some(&by_old)).await, Code::Ok);
    assert_eq!(issuer.request(0).expect("it was asked").target, "/keys");

    let unknown = SigningKey::new("unknown").sign(&good);
    for last in 2..4 {
        let stranger = service.channel_from(last).await;
        for _ in 0..10 {
            assert_eq!(code(&stranger, "clinic", Some(&unknown)).await, Code::Unauthenticated);
        }
    }
    assert_eq!(issuer.count(), 1, "asked a moment ago");

    // Half a minute after the last reading somebody with a new key may cause another, even
    // who has failed too often to be told.
    let stranger = service.channel_from(4).await;
    within(Duration::from_mins(1), "the new key is known", async || {
        list_events(&stranger, "clinic", Some(&by_new)).await.ok()
    })
    .await;
    assert_eq!(issuer.count(), 2);
    assert_eq!(code(&channel, "clinic", Some(&by_old)).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_of_keys_is_noticed() {
    let engine = Engine::sqlite();
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let service = believing(&engine, &[&old]).await;
    let channel = service.channel();
    let good = claims("clinic", "events:read");
    let (by_old, by_new) = (old.sign(&good), new.sign(&good));
    assert_eq!(code(&channel, "clinic", Some(&by_old)).await, Code::Ok);
    fs::write(engine.folder().join("keys.json"), key_set(&[&new])).expect("the folder is ours");
    // Whoever asks so often is told for a second that this was too often.
    let impatient = service.channel_from(2).await;
    eventually("the new key is known", async || {
        list_events(&impatient, "clinic", Some(&by_new)).await.ok()
    })
    .await;
    assert_eq!(code(&channel, "clinic", Some(&by_old)).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_stops_no_start_and_no_other_credentials() {
    let engine = Engine::sqlite();
    let key = SigningKey::new("first");
    // A port that nobody listens on.
    let service = guarded(&engine, &table("jwks = \"https://127.0.0.1:1/keys\"")).await;
    let token = key.sign(&claims("clinic", "events:read"));
    assert_eq!(code(&service.channel(), "clinic", Some(&token)).await, Code::Unauthenticated);
    eventually("the log says so", async || {
        service.written().contains("cannot read the keys of a token issuer").then_some(())
    })
    .await;
}
