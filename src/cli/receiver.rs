//! An HTTP/1.1 receiver of webhooks, for people and for the demo: takes every request,
//! answers by a script and hands over what came.
//!
//! It promises that each request is handed over exactly once and before it is answered,
//! that bodies are bounded, and that whoever does not listen makes it slow, not large.

mod answers;
mod authority;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

pub use answers::Answers;
pub use answers::InvalidAnswers;
use answers::Script;

/// Most bytes of a body that are taken; a longer one is answered 413.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Requests that may wait to be looked at; more wait in their connections.
const WAITING_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection, most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a receiver behaves.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Whether it speaks TLS, with a certificate of an authority made for it alone.
    pub tls: bool,
    /// What it answers.
    pub answers: Answers,
    /// What it answers at these paths instead.
    pub answers_at: BTreeMap<String, Answers>,
    /// Time between taking a request and answering it.
    pub delay: Duration,
}

/// A receiver at work; it ends when this is dropped.
#[derive(Debug)]
pub struct Receiver {
    url: String,
    address: SocketAddr,
    authority_pem: Option<String>,
    requests: mpsc::Receiver<Received>,
    _accepting: AbortOnDropHandle<()>,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When all of it was there.
    pub at: OffsetDateTime,
    /// Such as `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Every header in the order of arrival; names are in lower case.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; `None` when it was longer than [`BODY_BYTES_MAX`].
    pub body: Option<Bytes>,
    /// The status that it is answered with.
    pub answer: u16,
}

impl ReceiverSettings {
    /// Plain HTTP at `listen`, and 200 at once for everything.
    #[must_use]
    pub fn new(listen: SocketAddr) -> ReceiverSettings {
        ReceiverSettings {
            listen,
            tls: false,
            answers: Answers::default(),
            answers_at: BTreeMap::new(),
            delay: Duration::ZERO,
        }
    }
}

impl Receiver {
    /// Listens. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When the address is taken, or no certificate can be made.
    pub async fn start(settings: ReceiverSettings) -> anyhow::Result<Receiver> {
        let listener = TcpListener::bind(settings.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", settings.listen))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let certified = settings.tls.then(|| authority::certify(address.ip())).transpose()?;
        let (tls, authority_pem) = certified.unzip();
        let scheme = if settings.tls { "https" } else { "http" };

        let (hand_over, requests) = mpsc::channel(WAITING_MAX);
        let counter = Arc::new(Counter {
            answers: Script::new(settings.answers),
            answers_at: settings
                .answers_at
                .into_iter()
                .map(|(path, answers)| (path, Script::new(answers)))
                .collect(),
            delay: settings.delay,
            hand_over,
        });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, tls, counter)));
        let url = format!("{scheme}://{address}");
        Ok(Receiver { url, address, authority_pem, requests, _accepting: accepting })
    }

    /// What to call, without a path: `https://127.0.0.1:9000`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate, in PEM, of the authority that a caller must trust; `None`
    /// without TLS.
    #[must_use]
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority_pem.as_deref()
    }

    /// The next request. Waits for one; can be cancelled without losing any.
    ///
    /// # Panics
    ///
    /// Never: the accepting task keeps a sender and does not end.
    pub async fn next(&mut self) -> Received {
        self.requests.recv().await.expect("the accepting task keeps a sender and never ends")
    }

    /// The next request, if it has come already.
    #[must_use]
    pub fn waiting(&mut self) -> Option<Received> {
        self.requests.try_recv().ok()
    }
}

impl Received {
    /// The value of a header that came once, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name);
        let value = values.next()?.1.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

/// Where requests are taken: shared by all connections.
struct Counter {
    answers: Script,
    answers_at: BTreeMap<String, Script>,
    delay: Duration,
    hand_over: mpsc::Sender<Received>,
}

async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, counter: Arc<Counter>) {
    let tls = tls.map(TlsAcceptor::from);
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections.spawn(connection(stream, tls.clone(), Arc::clone(&counter)));
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, counter: Arc<Counter>) {
    match tls {
        None => serve(stream, counter).await,
        Some(tls) => {
            if let Ok(stream) = shake_hands(&tls, stream).await {
                serve(stream, counter).await;
            }
        }
    }
}

async fn shake_hands(
    tls: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await?
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, counter: Arc<Counter>) {
    let take = service_fn(|request| take(&counter, request));
    let mut server = http1::Builder::new();
    let connection = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), take);
    // However it ends, what was taken is handed over and the client knows the rest.
    let _ = connection.await;
}

/// Takes one request. An error of the body ends the connection: half a request is none.
async fn take(
    counter: &Counter,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Some(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => None,
        Err(error) => return Err(error),
    };
    let answer = match body {
        None => StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
        Some(_) => counter.answers_at.get(head.uri.path()).unwrap_or(&counter.answers).next(),
    };
    let received = Received {
        at: OffsetDateTime::now_utc(),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or("*", |path| path.as_str()).to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        body,
        answer,
    };
    // Nobody there any more: the receiver is being dropped.
    let _ = counter.hand_over.send(received).await;
    sleep(counter.delay).await;
    Ok(answered(answer))
}

fn answered(status: u16) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(status).expect("scripts hold statuses only");
    response
}

#[cfg(test)]
mod tests;
