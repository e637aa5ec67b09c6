//! Promise: with a certificate the gRPC port speaks TLS and nothing else, goes on doing so
//! while certificates are renewed, and lets nobody hold it up who says nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::harness::authority::{AUTHORITY, Pair};
use crate::harness::caller::{Tls, code};
use crate::harness::engine::Engine;
use crate::harness::eventually::{eventually, within};
use crate::harness::process::Process;
use crate::harness::service::{Settings, addresses};

/// Writes a pair as Kubernetes does it: files are links to a folder behind a link that is
/// swapped whole.
fn mount(folder: &Path, version: &str, certificate_pem: &str, key_pem: &str) {
    let data = folder.join(version);
    fs::create_dir(&data).expect("it is new");
    fs::write(data.join("tls.crt"), certificate_pem).expect("the folder is ours");
    fs::write(data.join("tls.key"), key_pem).expect("the folder is ours");
    let (next, current) = (folder.join("..next"), folder.join("..data"));
    symlink(&data, &next).expect("the folder is ours");
    fs::rename(&next, &current).expect("the folder is ours");
    for name in ["tls.crt", "tls.key"] {
        // There from the first time on.
        let _ = symlink(current.join(name), folder.join(name));
    }
}

/// A server with this certificate; the folder of its files is the engine's.
async fn encrypted(engine: &Engine, pair: &Pair) -> (Process, SocketAddr) {
    mount(engine.folder(), "v1", &pair.certificate_pem, &pair.key_pem);
    let path = |name: &str| engine.folder().join(name).display().to_string();
    let settings = Settings::new(engine.clone())
        .flag("--tls-cert", &path("tls.crt"))
        .flag("--tls-key", &path("tls.key"));
    let mut process = settings.launch();
    let (grpc, _) = addresses(&mut process).await;
    (process, grpc.expect("it takes calls"))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tls_with_http2_is_answered() {
    let engine = Engine::sqlite();
    let (_process, address) = encrypted(&engine, &AUTHORITY.issue(&["127.0.0.1"])).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let tls = Tls { versions: vec![version], ..Tls::anonymous() };
        let channel = tls.channel(address).await.expect("it is right");
        assert_eq!(code(&channel, "clinic", None).await, Code::Ok, "{version:?}");
    }
    let plain = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    if let Ok(channel) = plain.connect().await {
        assert_ne!(code(&channel, "clinic", None).await, Code::Ok, "in the clear");
    }
    for protocols in [vec![], vec![&b"http/1.1"[..]]] {
        let tls = Tls { protocols: protocols.clone(), ..Tls::anonymous() };
        if let Ok(channel) = tls.channel(address).await {
            assert_ne!(code(&channel, "clinic", None).await, Code::Ok, "{protocols:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_one_that_cannot_be_is_not() {
    let engine = Engine::sqlite();
    let (first, second) = (AUTHORITY.issue(&["127.0.0.1"]), AUTHORITY.issue(&["127.0.0.1"]));
    let (process, address) = encrypted(&engine, &first).await;
    let shown = async || {
        let stream = Tls::anonymous().handshake(address).await.expect("TLS is spoken");
        let (_, session) = stream.get_ref();
        session.peer_certificates().expect("it showed some")[0].clone()
    };
    assert_eq!(shown().await, first.certificate);
    let kept = Tls::anonymous().channel(address).await.expect("it is right");
    assert_eq!(code(&kept, "clinic", None).await, Code::Ok);

    mount(engine.folder(), "v2", &second.certificate_pem, &second.key_pem);
    eventually("the new certificate", async || (shown().await == second.certificate).then_some(()))
        .await;
    assert_eq!(code(&kept, "clinic", None).await, Code::Ok, "connections stay");

    // Half of one pair and half of another.
    mount(engine.folder(), "v3", &first.certificate_pem, &second.key_pem);
    eventually("a warning", async || process.written().contains("the old one stays").then_some(()))
        .await;
    assert_eq!(shown().await, second.certificate);

    mount(engine.folder(), "v4", &first.certificate_pem, &first.key_pem);
    eventually("the next that is good", async || {
        (shown().await == first.certificate).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_hold_up_nobody_and_are_closed() {
    let engine = Engine::sqlite();
    let (_process, address) = encrypted(&engine, &AUTHORITY.issue(&["127.0.0.1"])).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    let channel = Tls::anonymous().channel(address).await.expect("it is right");
    assert_eq!(code(&channel, "clinic", None).await, Code::Ok);
    for mut stream in silent {
        within(Duration::from_secs(15), "the end of a silent connection", async || {
            let read = tokio::time::timeout(Duration::from_secs(1), stream.read_u8()).await;
            read.is_ok_and(|read| read.is_err()).then_some(())
        })
        .await;
    }
}
