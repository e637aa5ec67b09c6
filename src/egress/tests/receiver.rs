//! Scripted receivers, a name server and the requests that the tests send.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio_rustls::TlsAcceptor;

use crate::domain::address::AddressPolicy;
use crate::domain::attempt::Failure;
use crate::domain::attempt::Outcome;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::id::SubscriptionKey;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::receiver_tls::SentKey;
use crate::domain::receiver_tls::TlsInput;
use crate::egress::Egress;
use crate::egress::Sent;
use crate::egress::Settings;
use crate::egress::SignedRequest;
use crate::egress::Target;

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// Long enough for what is meant to succeed on a busy machine.
pub(super) const PLENTY: Duration = Duration::from_secs(5);
/// A deadline that a test waits for.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// A listener on loopback that counts its connections.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Runs `script` for each connection, with its number from 0.
    pub(super) async fn scripted<S, F>(script: S) -> Receiver
    where
        S: Fn(TcpStream, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(stream, number));
            }
        });
        Receiver { address, connections, requests: Arc::default() }
    }

    /// Gives the same answer to every request and keeps connections open.
    pub(super) async fn answering(answer: impl Into<Vec<u8>>) -> Receiver {
        let answer: Vec<u8> = answer.into();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = requests.clone();
        let receiver =
            Receiver::scripted(move |stream, _| serve(stream, answer.clone(), record.clone()))
                .await;
        Receiver { requests, ..receiver }
    }

    /// The same behind TLS.
    pub(super) async fn answering_tls(acceptor: TlsAcceptor) -> Receiver {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = requests.clone();
        let receiver = Receiver::scripted(move |stream, _| {
            let (acceptor, record) = (acceptor.clone(), record.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, OK.to_vec(), record).await;
                }
            }
        })
        .await;
        Receiver { requests, ..receiver }
    }

    /// Connections accepted so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests read so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }

    /// A plain target here, by address.
    pub(super) fn target(&self) -> Arc<Target> {
        self.named("http", "127.0.0.1")
    }

    /// A target here, by another name.
    pub(super) fn named(&self, scheme: &str, host: &str) -> Arc<Target> {
        target(&format!("{scheme}://{host}:{}/hook?a=b", self.address.port()))
    }
}

async fn serve<S>(mut stream: S, answer: Vec<u8>, record: Arc<Mutex<Vec<String>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(request) = read_request(&mut stream).await {
        record.lock().expect("no panic").push(request);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// One request with a content length; `None` at the end of the connection.
pub(super) async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut text = Vec::new();
    loop {
        if let Some(head) = text.windows(4).position(|end| end == b"\r\n\r\n") {
            let head_text = String::from_utf8_lossy(&text[..head]).into_owned();
            let length: usize = head_text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().expect("a number"));
            if text.len() >= head + 4 + length {
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
}

/// What `url` names.
pub(super) fn target(url: &str) -> Arc<Target> {
    let url = EndpointUrl::stored(url).expect("a URL");
    Arc::new(Target::new(&url).expect("a target"))
}

/// A policy that opens `allow` and closes `deny`.
pub(super) fn policy(allow: &[&str], deny: &[&str]) -> AddressPolicy {
    AddressPolicy {
        allow: allow.iter().map(|entry| entry.parse().expect("an entry")).collect(),
        deny: deny.iter().map(|entry| entry.parse().expect("a network")).collect(),
        ..AddressPolicy::default()
    }
}

/// Settings that allow 127.0.0.1, TLS or not, besides what is public.
pub(super) fn loopback() -> Settings {
    Settings::new(policy(&["127.0.0.1"], &[]))
}

/// The room as the tests use it.
pub(super) fn egress() -> Egress {
    Egress::new(loopback()).expect("a room")
}

/// A request of subscription 1.
pub(super) fn request(target: &Arc<Target>, timeout: Duration) -> SignedRequest {
    let header = (HeaderName::from_static("webhook-id"), HeaderValue::from_static("dlv_1"));
    SignedRequest {
        subscription: SubscriptionKey(1),
        target: target.clone(),
        headers: vec![header],
        body: Bytes::from_static(b"{\"a\":1}"),
        timeout,
    }
}

/// Status and kept body of an answer.
pub(super) fn answered(sent: &Sent) -> (u16, &[u8]) {
    match &sent.outcome {
        Outcome::Responded { status, body, .. } => (*status, body),
        other => panic!("{other:?}: {}", sent.detail),
    }
}

/// Why there was no answer.
pub(super) fn failure(sent: &Sent) -> Failure {
    match &sent.outcome {
        Outcome::NoResponse(failure) => {
            assert!(!sent.detail.is_empty(), "people are told why");
            *failure
        }
        other => panic!("{other:?}"),
    }
}

/// Waits, without sleeping a fixed time, until `done` or five seconds have passed.
pub(super) async fn eventually(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PLENTY, waiting).await.is_ok(), "{what}");
}

/// A certificate authority made for one test.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(super) pem: Vec<u8>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem().into_bytes();
        Authority { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A server with a certificate for `name`, valid unless `expired`.
    pub(super) fn server(&self, name: &str, expired: bool) -> TlsAcceptor {
        let (certificate, key) = self.issue(name, expired);
        let config = server_config().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).expect("a server");
        TlsAcceptor::from(Arc::new(config))
    }

    /// One with a certificate for `name` that wants one from `clients`.
    pub(super) fn server_asking(&self, name: &str, clients: &Authority) -> TlsAcceptor {
        let (certificate, key) = self.issue(name, false);
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(&clients.pem).expect("a certificate");
        roots.add(root).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("a verifier");
        let config = server_config().with_client_cert_verifier(verifier);
        let config = config.with_single_cert(vec![certificate], key).expect("a server");
        TlsAcceptor::from(Arc::new(config))
    }

    /// What a subscription says to show a certificate of this authority.
    pub(super) fn client(&self) -> ReceiverTls {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["client.example".to_owned()]);
        let certificate = params.expect("a name").signed_by(&key, &self.issuer);
        let input = TlsInput {
            client_certificate: certificate.expect("a certificate").pem(),
            client_private_key: SentKey(key.serialize_pem()),
            certificate_authorities: String::new(),
        };
        input.check(&ReceiverTls::default()).expect("they belong together")
    }

    fn issue(
        &self,
        name: &str,
        expired: bool,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        if expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (certificate.der().clone(), key)
    }
}

fn server_config() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().expect("protocol versions")
}

/// A name server that gives `addresses` for `hooks.example`. It fails when it is asked for
/// `broken.example` or for an IPv6 address of `half.example`, which has no other; and it
/// knows no other name. It remembers the names it was asked for.
pub(super) async fn name_server(
    addresses: &'static [Ipv4Addr],
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("its address");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = asked.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let (name, answer) = dns_answer(&packet[..length], addresses);
            record.lock().expect("no panic").push(name);
            // The asker may be gone.
            drop(socket.send_to(&answer, peer).await);
        }
    });
    (address, asked)
}

/// RFC 1035, 4: the question's name, and an answer to it.
fn dns_answer(query: &[u8], addresses: &[Ipv4Addr]) -> (String, Vec<u8>) {
    const HEADER: usize = 12;
    const TYPE_A: u8 = 1;
    const NONE: &[Ipv4Addr] = &[];
    // With the bit for "recursion available".
    const NO_ERROR: u8 = 0x80;
    const SERVER_FAILURE: u8 = 0x82;
    const NO_SUCH_NAME: u8 = 0x83;
    let (mut name, mut at) = (String::new(), HEADER);
    while query[at] != 0 {
        let label = &query[at + 1..=at + usize::from(query[at])];
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        name.push('.');
        at += 1 + label.len();
    }
    let wants_ipv4 = query[at + 2] == TYPE_A;
    let (code, found) = match name.as_str() {
        "hooks.example." if wants_ipv4 => (NO_ERROR, addresses),
        "hooks.example." => (NO_ERROR, NONE),
        "half.example." if wants_ipv4 => (NO_ERROR, NONE),
        "half.example." | "broken.example." => (SERVER_FAILURE, NONE),
        _ => (NO_SUCH_NAME, NONE),
    };
    let count = u8::try_from(found.len()).expect("few addresses");
    let mut answer = [query[0], query[1], 0x81, code, 0, 1, 0, count, 0, 0, 0, 0].to_vec();
    answer.extend_from_slice(&query[HEADER..at + 5]);
    for address in found {
        // A pointer to the question's name, A, IN, 30 s, 4 bytes.
        answer.extend_from_slice(&[0xc0, 12, 0, TYPE_A, 0, 1, 0, 0, 0, 30, 0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    (name, answer)
}
