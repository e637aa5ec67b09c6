//! The operator's proxy: asked for judged addresses, and blamed for its own faults only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::domain::attempt::Failure;
use crate::domain::attempt::Fault;
use crate::domain::attempt::Outcome;
use crate::egress::Egress;
use crate::egress::Inquiry;
use crate::egress::Sent;
use crate::egress::Settings;

use super::receiver::Authority;
use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::SHORT;
use super::receiver::answered;
use super::receiver::failure;
use super::receiver::loopback;
use super::receiver::name_server;
use super::receiver::request;

/// A proxy that makes tunnels, or gives the same answer to whoever asks for one.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn working() -> Proxy {
        Proxy::answering(None).await
    }

    async fn answering(answer: Option<&'static [u8]>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, record.clone()));
            }
        });
        Proxy { address, asked }
    }

    /// The first line of each request.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    fn way_out(&self, mut settings: Settings) -> Egress {
        settings.proxy = Some((self.address.ip().to_string(), self.address.port()));
        Egress::new(settings).expect("a room")
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Option<&'static [u8]>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(head).expect("text");
    let line = head.lines().next().expect("a line").to_owned();
    let target: SocketAddr = line.split(' ').nth(1).expect("a target").parse().expect("no name");
    assert!(head.contains(&format!("\r\nhost: {target}\r\n")), "{head}");
    asked.lock().expect("no panic").push(line);
    if let Some(answer) = answer {
        // The asker may have heard enough.
        drop(stream.write_all(answer).await);
        return;
    }
    let mut there = TcpStream::connect(target).await.expect("a receiver");
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("a reader");
    drop(tokio::io::copy_bidirectional(&mut stream, &mut there).await);
}

/// How long to wait because nobody was asked.
fn not_asked(sent: &Sent) -> Option<Duration> {
    match sent.outcome {
        Outcome::NotAsked { wait } => Some(wait),
        Outcome::Responded { .. } | Outcome::NoResponse(_) => None,
    }
}

#[tokio::test]
async fn a_tunnel_is_asked_for_by_address_and_tls_is_spoken_through_it() {
    let authority = Authority::new("ours");
    let secure = Receiver::answering_tls(authority.server("hooks.example", false)).await;
    let plain = Receiver::answering(OK).await;
    let proxy = Proxy::working().await;
    let (nameserver, _) = name_server(&[std::net::Ipv4Addr::LOCALHOST]).await;
    let mut settings = loopback();
    settings.ca_files_pem.push(authority.pem);
    settings.nameservers.push(nameserver);
    let egress = proxy.way_out(settings);
    for (receiver, scheme) in [(&secure, "https"), (&plain, "http")] {
        let target = receiver.named(scheme, "hooks.example");
        for reused in [false, true] {
            let sent = egress.send(request(&target, PLENTY)).await;
            assert_eq!((answered(&sent).0, sent.reused), (200, reused));
            assert_eq!(sent.peer, Some(receiver.address));
        }
        assert!(receiver.requests()[0].contains("host: hooks.example:"));
    }
    let lines = [&secure, &plain].map(|one| format!("CONNECT {} HTTP/1.1", one.address));
    assert_eq!(proxy.asked(), lines);
}

#[tokio::test]
async fn what_may_not_be_called_is_not_asked_for() {
    let proxy = Proxy::working().await;
    let egress = proxy.way_out(Settings::new(super::receiver::policy(&[], &[])));
    for url in ["https://127.0.0.1/", "https://localhost/", "https://10.0.0.1/"] {
        let sent = egress.send(request(&super::receiver::target(url), PLENTY)).await;
        assert_eq!(failure(&sent), Failure::BlockedAddress, "{url}");
    }
    assert_eq!(proxy.asked().len(), 0);
}

#[tokio::test]
async fn a_receiver_that_speaks_first_has_itself_to_blame() {
    let answer = b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-OpenSSH\r\n";
    let egress = Proxy::answering(Some(answer)).await.way_out(loopback());
    let receiver = Receiver::answering(OK).await;
    let sent = egress.send(request(&receiver.target(), PLENTY)).await;
    assert_eq!((failure(&sent), sent.fault), (Failure::Protocol, Fault::Receiver));
}

#[tokio::test]
async fn the_proxys_faults_are_not_the_receivers() {
    let receiver = Receiver::answering(OK).await;
    let faults: [&[u8]; 8] = [
        b"",
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 405 Method Not Allowed\r\n\r\n",
        b"HTTP/1.1 429 Too Many Requests\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"HTTP/1.1 301 Elsewhere\r\nlocation: http://127.0.0.1/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ];
    for answer in faults {
        let egress = Proxy::answering(Some(answer)).await.way_out(loopback());
        let sent = egress.send(request(&receiver.target(), PLENTY)).await;
        let wait = not_asked(&sent).expect("nobody was asked");
        assert_eq!(wait, Duration::from_secs(5), "{}", String::from_utf8_lossy(answer));
        assert!(!sent.detail.is_empty());
        assert_eq!(sent.fault, Fault::Ours);
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut settings = loopback();
    settings.proxy = Some(("127.0.0.1".to_owned(), gone.local_addr().expect("bound").port()));
    drop(gone);
    let egress = Egress::new(settings).expect("a room");
    let sent = egress.send(request(&receiver.target(), PLENTY)).await;
    assert!(not_asked(&sent).is_some(), "{sent:?}");
    let question = Inquiry {
        target: receiver.target(),
        method: Method::OPTIONS,
        headers: Vec::new(),
        body: Bytes::new(),
        timeout: PLENTY,
    };
    let reply = egress.inquire(question).await;
    assert!(matches!(reply.outcome, Outcome::NotAsked { .. }), "{reply:?}");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn what_the_proxy_says_of_the_receiver_is_the_receivers() {
    let receiver = Receiver::answering(OK).await;
    for (answer, expected) in [
        (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], Failure::BlockedAddress),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Failure::Connect),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Failure::Connect),
        (b"HTTP/1.1 504 Gateway Timeout\r\nx: y\r\n\r\n", Failure::Connect),
    ] {
        let egress = Proxy::answering(Some(answer)).await.way_out(loopback());
        let sent = egress.send(request(&receiver.target(), PLENTY)).await;
        assert_eq!(failure(&sent), expected, "{}", String::from_utf8_lossy(answer));
    }
    assert_eq!(receiver.connections(), 0);
}

/// A receiver that swallows what is sent to it makes the proxy answer late.
#[tokio::test]
async fn a_proxy_that_does_not_answer_in_time_has_been_asked() {
    let silent = Receiver::scripted(|mut stream, _| async move {
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let mut settings = loopback();
    settings.proxy = Some(("127.0.0.1".to_owned(), silent.address.port()));
    let egress = Egress::new(settings).expect("a room");
    let receiver = Receiver::answering(OK).await;
    let sent = egress.send(request(&receiver.target(), SHORT)).await;
    assert_eq!(failure(&sent), Failure::Timeout);
}
