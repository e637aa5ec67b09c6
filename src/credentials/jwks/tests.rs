//! Keys from a real HTTPS server that changes, fails and lies.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::id::OrganizationId;
use crate::domain::jwk::{Algorithm, KEYS_MAX};
use crate::egress;

/// RFC 8037, A.4.
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const NEVER_AGAIN: Rhythm =
    Rhythm { fresh: Duration::MAX, again: Duration::MAX, stale: Duration::MAX };
const ALWAYS: Rhythm = Rhythm { again: Duration::ZERO, ..NEVER_AGAIN };

/// A server that says what it is told to say.
struct Publisher {
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    target: Arc<Target>,
    certificate_pem: String,
    metrics: Metrics,
}

impl Publisher {
    async fn start() -> Publisher {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("key and certificate belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (answer, asked) = (Arc::new(Mutex::default()), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(serve(listener, acceptor, Arc::clone(&answer), Arc::clone(&asked)));
        let url = EndpointUrl::stored(&format!("https://127.0.0.1:{port}/keys")).expect("a URL");
        let target = Arc::new(Target::new(&url).expect("it can be called"));
        let (certificate_pem, metrics) = (certificate.pem(), Metrics::new());
        Publisher { answer, asked, target, certificate_pem, metrics }
    }

    fn says(&self, status: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        *self.answer.lock().expect("nobody panics") = head + body;
    }

    fn hangs_up(&self) {
        self.answer.lock().expect("nobody panics").clear();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Its keys, read in this rhythm by somebody who trusts it.
    fn keys(&self, rhythm: Rhythm) -> Arc<Jwks> {
        self.keys_trusting(rhythm, vec![self.certificate_pem.clone().into_bytes()])
    }

    fn keys_trusting(&self, rhythm: Rhythm, ca_files_pem: Vec<Vec<u8>>) -> Arc<Jwks> {
        let allow = vec!["127.0.0.1/32".parse().expect("a network")];
        let policy = AddressPolicy { allow, ..AddressPolicy::default() };
        let mut settings = egress::Settings::new(policy);
        settings.ca_files_pem = ca_files_pem;
        let egress = Egress::new(settings).expect("the certificate is one");
        let source = Source::Url(egress, Arc::clone(&self.target));
        Arc::new(Jwks::new("test".to_owned(), source, rhythm, self.metrics.clone()))
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
        let mut request = [0; 4096];
        // Requests here are one segment; what matters is that one came.
        if stream.read(&mut request).await.is_ok_and(|length| 0 < length) {
            asked.fetch_add(1, Ordering::SeqCst);
        }
        let answer = answer.lock().expect("nobody panics").clone();
        // Whoever has hung up needs no answer.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn document(kids: &[&str]) -> String {
    let key = |kid: &&str| format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{X}"}}"#);
    format!(r#"{{"keys":[{}]}}"#, kids.iter().map(key).collect::<Vec<_>>().join(","))
}

fn has(keys: &Jwks, kid: &str) -> bool {
    keys.current().is_some_and(|keys| keys.set().get(kid, Algorithm::EdDsa).is_some())
}

#[tokio::test]
async fn keys_that_cannot_be_read_anew_stay_and_new_ones_take_their_place() {
    let publisher = Publisher::start().await;
    let keys = publisher.keys(ALWAYS);
    assert!(keys.current().is_none());
    publisher.says("200 OK", &document(&["a"]));
    keys.refresh().await;
    assert!(has(&keys, "a") && !has(&keys, "b"));

    let good = document(&["b"]);
    let many: Vec<String> = (0..=KEYS_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = format!("{good}{}", " ".repeat(DOCUMENT_BYTES_MAX));
    for (status, body) in [
        ("503 Away", good.as_str()),
        ("204 Nothing", ""),
        ("302 Found\r\nLocation: /elsewhere", &good),
        ("200 OK", "<html>"),
        ("200 OK", &document(&many)),
        ("200 OK", &long),
    ] {
        publisher.says(status, body);
        keys.refresh().await;
        assert!(has(&keys, "a") && !has(&keys, "b"), "{status}");
    }
    publisher.hangs_up();
    keys.refresh().await;
    assert!(has(&keys, "a"));
    let failures = "hookward_credential_reload_failures_total{source=\"token_keys\"} 7\n";
    assert!(publisher.metrics.render().contains(failures));

    publisher.says("200 OK", &good);
    keys.refresh().await;
    assert!(has(&keys, "b") && !has(&keys, "a"), "a key that is withdrawn is gone");
}

#[tokio::test]
async fn whoever_wants_newer_keys_meanwhile_waits_for_one_reading() {
    let publisher = Publisher::start().await;
    publisher.says("200 OK", &document(&["a"]));
    let keys = publisher.keys(NEVER_AGAIN);
    let refreshed = (0..20).map(|_| async {
        keys.refresh().await;
        assert!(has(&keys, "a"), "it is there when the wait is over");
    });
    futures_util::future::join_all(refreshed).await;
    keys.refresh().await;
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn whoever_wants_newer_keys_and_does_not_wait_has_them_read_once() {
    let publisher = Publisher::start().await;
    publisher.says("200 OK", &document(&["a"]));
    let (keys, stop) = (publisher.keys(NEVER_AGAIN), CancellationToken::new());
    let kept = tokio::spawn(Arc::clone(&keys).keep(stop.clone()));
    keys.refresh().await;
    assert!(has(&keys, "a"));
    for _ in 0..1000 {
        keys.want();
    }
    keys.refresh().await;
    assert_eq!(publisher.asked(), 1, "it was asked a moment ago");
    stop.cancel();
    kept.await.expect("it ends");

    // By itself it would never be asked again.
    let rhythm = Rhythm { again: Duration::from_millis(1), ..NEVER_AGAIN };
    let (keys, stop) = (publisher.keys(rhythm), CancellationToken::new());
    let kept = tokio::spawn(Arc::clone(&keys).keep(stop.clone()));
    keys.refresh().await;
    assert!(has(&keys, "a"));
    publisher.says("200 OK", &document(&["b"]));
    let seen = async {
        while !has(&keys, "b") {
            keys.want();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen).await.expect("they are read");
    stop.cancel();
    kept.await.expect("it ends");
}

#[tokio::test]
async fn keys_grow_older_from_the_beginning_and_from_each_reading() {
    let publisher = Publisher::start().await;
    let keys = publisher.keys(ALWAYS);
    let before = keys.age();
    publisher.says("503 Away", "");
    keys.refresh().await;
    let never_read = keys.age();
    assert!(before < never_read, "a reading that failed does not count");
    publisher.says("200 OK", &document(&["a"]));
    let began = Instant::now();
    keys.refresh().await;
    assert!(keys.age() <= began.elapsed());
}

#[tokio::test]
async fn keys_that_are_too_old_are_none() {
    let publisher = Publisher::start().await;
    publisher.says("200 OK", &document(&["a"]));
    let keys = publisher.keys(Rhythm { stale: Duration::ZERO, ..ALWAYS });
    keys.refresh().await;
    assert_eq!(publisher.asked(), 1);
    assert!(keys.current().is_none());
}

#[tokio::test]
async fn whoever_is_not_who_the_url_says_publishes_nothing() {
    let publisher = Publisher::start().await;
    publisher.says("200 OK", &document(&["a"]));
    let keys = publisher.keys_trusting(ALWAYS, Vec::new());
    keys.refresh().await;
    assert_eq!(publisher.asked(), 0);
    assert!(keys.current().is_none());
}

#[tokio::test]
async fn verified_tokens_are_remembered_until_they_end_or_the_keys_are_read_anew() {
    let publisher = Publisher::start().await;
    publisher.says("200 OK", &document(&["a"]));
    let keys = publisher.keys(ALWAYS);
    keys.refresh().await;
    let current = keys.current().expect("just read");
    let (caller, end) = (Arc::new(Principal::anyone()), Timestamp(1000));
    current.remember([7; 32], Arc::clone(&caller), end);
    assert_eq!(current.remembered(&[7; 32], Timestamp(999)), Some(caller));
    assert_eq!(current.remembered(&[7; 32], end), None);
    assert_eq!(current.remembered(&[8; 32], Timestamp(999)), None);
    keys.refresh().await;
    let current = keys.current().expect("just read");
    assert_eq!(current.remembered(&[7; 32], Timestamp(999)), None);
}

#[tokio::test]
async fn what_is_remembered_is_bounded_by_the_memory_that_it_takes() {
    let publisher = Publisher::start().await;
    publisher.says("200 OK", &document(&["a"]));
    let keys = publisher.keys(ALWAYS);
    keys.refresh().await;
    let current = keys.current().expect("just read");
    let name = |number| OrganizationId::stored(&format!("{number:0>60}"));
    let organizations = Organizations::Some((0..100).map(name).collect());
    let caller = Arc::new(Principal { organizations, ..Principal::anyone() });
    let most = REMEMBERED_BYTES_MAX / (100 * 60);
    for number in 0..2 * most {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        current.remember(digest, Arc::clone(&caller), Timestamp(1000));
        current.remember(digest, Arc::clone(&caller), Timestamp(1000));
        assert!(current.remembered(&digest, Timestamp(0)).is_some(), "the last one is");
        let verified = current.verified.read().expect("no panic");
        assert!(verified.callers.len() <= most);
        assert_eq!(verified.bytes, verified.callers.len() * weight(&caller));
    }
}

#[tokio::test]
async fn a_file_is_read_as_well() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("keys.json");
    std::fs::write(&path, document(&["a"])).expect("it is ours");
    let (source, metrics) = (Source::File(path.clone()), Metrics::new());
    let keys = Arc::new(Jwks::new("test".to_owned(), source, ALWAYS, metrics));
    keys.refresh().await;
    assert!(has(&keys, "a"));
    std::fs::write(&path, document(&["b"])).expect("it is ours");
    keys.refresh().await;
    assert!(has(&keys, "b") && !has(&keys, "a"));
    std::fs::remove_file(&path).expect("it is ours");
    keys.refresh().await;
    assert!(has(&keys, "b"));
}
