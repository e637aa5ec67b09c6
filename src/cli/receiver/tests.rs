//! The receiver over its socket, byte for byte.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::*;

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn started(change: impl FnOnce(&mut ReceiverSettings)) -> Receiver {
    let mut settings = ReceiverSettings::new(LOOPBACK);
    change(&mut settings);
    Receiver::start(settings).await.expect("loopback has a free port")
}

async fn exchange(client: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    client.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.expect("read"), 0, "closed too early");
    }
    String::from_utf8(answer).expect("ASCII")
}

#[tokio::test]
async fn one_connection_serves_request_after_request_by_the_script() {
    let mut receiver = started(|settings| {
        settings.answers = "503,200".parse().expect("statuses");
        settings.answers_at.insert("/other".to_owned(), "418".parse().expect("a status"));
    })
    .await;
    let mut client = TcpStream::connect(receiver.address()).await.expect("connected");

    let request = "POST /hook?x=1 HTTP/1.1\r\nhost: a\r\nx-one: 1\r\nX-Two: 2\r\nx-one: 3\r\n\
                   content-length: 5\r\n\r\nhello";
    assert!(exchange(&mut client, request).await.starts_with("HTTP/1.1 503 "));
    let other = "POST /other HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
                 2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    assert!(exchange(&mut client, other).await.starts_with("HTTP/1.1 418 "));
    assert!(exchange(&mut client, request).await.starts_with("HTTP/1.1 200 "));
    assert!(exchange(&mut client, request).await.starts_with("HTTP/1.1 200 "));

    let first = receiver.next().await;
    assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/hook?x=1"));
    assert_eq!(first.body.as_deref(), Some(&b"hello"[..]));
    assert_eq!(first.answer, 503);
    assert_eq!(first.header("x-two"), Some("2"));
    assert_eq!(first.header("x-one"), None, "it came twice");
    assert_eq!(receiver.next().await.body.as_deref(), Some(&b"abc"[..]));
    assert_eq!(receiver.next().await.answer, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_told_of() {
    let mut receiver = started(|_| {}).await;
    for (size, status) in [(BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413)] {
        let mut client = TcpStream::connect(receiver.address()).await.expect("connected");
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        let (mut from, mut to) = client.split();
        let body = vec![b'x'; size];
        // The receiver may answer and close before all is written: that is its right.
        let send = async {
            to.write_all(head.as_bytes()).await.expect("written");
            let _ = to.write_all(&body).await;
        };
        let read = async {
            let mut answer = [0; 12];
            from.read_exact(&mut answer).await.expect("answered");
            String::from_utf8(answer.to_vec()).expect("ASCII")
        };
        let ((), answer) = tokio::join!(send, read);
        assert_eq!(answer, format!("HTTP/1.1 {status}"));
        let taken = receiver.next().await;
        assert_eq!(taken.answer, status);
        assert_eq!(taken.body.map(|body| body.len()), (status == 200).then_some(size));
    }
}

#[tokio::test]
async fn who_trusts_the_authority_reaches_it_by_tls() {
    let mut receiver = started(|settings| settings.tls = true).await;
    assert_eq!(receiver.url(), format!("https://{}", receiver.address()));
    let pem = receiver.authority_pem().expect("there is one with TLS").as_bytes();
    let authority = rustls_pki_types::pem::PemObject::from_pem_slice(pem).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for name in ["localhost", "127.0.0.1"] {
        let tcp = TcpStream::connect(receiver.address()).await.expect("connected");
        let name = rustls_pki_types::ServerName::try_from(name).expect("a name");
        let mut client = connector.connect(name, tcp).await.expect("trusted");
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        assert!(exchange(&mut client, request).await.starts_with("HTTP/1.1 200 "));
        assert_eq!(receiver.next().await.body, Some(Bytes::new()));
    }
}

#[tokio::test]
async fn dropping_it_closes_its_connections() {
    let receiver = started(|_| {}).await;
    let mut client = TcpStream::connect(receiver.address()).await.expect("connected");
    let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    exchange(&mut client, request).await;
    drop(receiver);
    assert_eq!(client.read(&mut [0; 1]).await.ok().unwrap_or(0), 0);
}
