//! Promise: until its caller is known a connection costs little and not for long, so that
//! strangers keep nobody out.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use crate::harness::caller::code;
use crate::harness::engine::Engine;
use crate::harness::eventually::{eventually, within};
use crate::harness::issuer::{SigningKey, claims, key_set, table};
use crate::harness::process::Process;
use crate::harness::service::{Settings, addresses};

/// A server without TLS that believes who holds this key.
async fn guarded(engine: &Engine, key: &SigningKey) -> (Process, SocketAddr) {
    let path = |name: &str| engine.folder().join(name);
    fs::write(path("keys.json"), key_set(&[key])).expect("the folder is ours");
    let keys = format!("jwks_file = \"{}\"", path("keys.json").display());
    fs::write(path("auth.toml"), table(&keys)).expect("the folder is ours");
    let settings = Settings::new(engine.clone()).flag("--auth", "jwt");
    let file = path("auth.toml").display().to_string();
    let mut process = settings.flag("--auth-file", &file).launch();
    let (grpc, _) = addresses(&mut process).await;
    (process, grpc.expect("it takes calls"))
}

/// Waits for the end of a connection, whatever is said on it before.
async fn ends(mut stream: TcpStream, limit: Duration) {
    let mut bytes = [0; 1024];
    within(limit, "the end of the connection", async || {
        match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => Some(()),
            Ok(Ok(_)) | Err(_) => None,
        }
    })
    .await;
}

/// Asks for one answer after the other and reads none, until the connection ends.
async fn asks_and_never_reads(mut stream: TcpStream, limit: Duration) {
    // What a client says first, and PING (RFC 9113, 3.4 and 6.7).
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.expect("it listens");
    let pings = b"\0\0\x08\x06\0\0\0\0\0whosedog".repeat(20_000);
    let asks = async {
        let mut at = 0;
        while let Ok(written @ 1..) = stream.write(&pings[at..]).await {
            at = (at + written) % pings.len();
        }
    };
    tokio::time::timeout(limit, asks).await.expect("the end of the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_may_not_ask_for_health_at_length() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let (_process, address) = guarded(&engine, &key).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let mut health = HealthClient::new(endpoint.connect().await.expect("it listens"));
    for (length, expected) in
        [(0, None), (500, Some(Code::NotFound)), (2000, Some(Code::OutOfRange))]
    {
        let answer = health.check(HealthCheckRequest { service: "a".repeat(length) }).await;
        assert_eq!(answer.err().map(|refused| refused.code()), expected, "{length} characters");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_shows_no_credentials_in_half_a_minute_is_closed() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let (_process, address) = guarded(&engine, &key).await;
    let silent = TcpStream::connect(address).await.expect("it listens");
    let deaf = TcpStream::connect(address).await.expect("it listens");
    let deaf = tokio::spawn(asks_and_never_reads(deaf, Duration::from_secs(45)));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let connect = service_fn(move |_: Uri| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { TcpStream::connect(address).await.map(TokioIo::new) }
    });
    let known = endpoint.connect_with_connector(connect).await.expect("it listens");
    let token = key.sign(&claims("clinic", "events:read"));
    assert_eq!(code(&known, "clinic", Some(&token)).await, Code::Ok);

    ends(silent, Duration::from_secs(45)).await;
    deaf.await.expect("that one as well");
    assert_eq!(code(&known, "clinic", Some(&token)).await, Code::Ok);
    assert_eq!(connections.load(Ordering::SeqCst), 1, "who is known stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_a_hundred_connections_and_take_none_from_those_who_are_known() {
    let (engine, key) = (Engine::sqlite(), SigningKey::new("first"));
    let (process, address) = guarded(&engine, &key).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let token = key.sign(&claims("clinic", "events:read"));

    // More than a hundred, one after the other, each of which is known at once.
    let mut known = Vec::new();
    for number in 0..120 {
        let channel = endpoint.connect().await.expect("it listens");
        assert_eq!(code(&channel, "clinic", Some(&token)).await, Code::Ok, "{number}");
        known.push(channel);
    }
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    // The next is closed, known ones go on, and room comes back with those that leave.
    let mut next = TcpStream::connect(address).await.expect("the system accepts it");
    let ended = within(Duration::from_secs(10), "the end", async || {
        let mut byte = [0];
        match tokio::time::timeout(Duration::from_secs(1), next.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => Some(()),
            // What an HTTP/2 server says first.
            Ok(Ok(_)) => panic!("it was let in"),
            Err(_elapsed) => None,
        }
    });
    ended.await;
    assert_eq!(code(&known[0], "clinic", Some(&token)).await, Code::Ok);
    eventually("the log says so", async || {
        process.written().contains("too many show no credentials").then_some(())
    })
    .await;
    drop(silent);
    eventually("room", async || {
        let channel = endpoint.connect().await.ok()?;
        (code(&channel, "clinic", Some(&token)).await == Code::Ok).then_some(())
    })
    .await;
}
