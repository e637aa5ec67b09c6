//! A receiver on loopback that answers by a script and remembers every request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::authority::{AUTHORITY, Certificate};
use super::eventually::{eventually, meanwhile};
use super::wire::{Received, read_request, write_response};

/// What a receiver does with one request, once it has read and recorded it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Answers at once, without a body.
    Status(u16),
    /// Answers at once with these headers and this body.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// Waits for [`Receiver::release`], then answers.
    Held(u16),
    /// Never answers and keeps the connection open.
    Hang,
    /// Says 200 at once and then sends one byte of an endless body now and then.
    Drip,
    /// Closes the connection in good order, without an answer.
    Close,
    /// Breaks the connection off with RST.
    Reset,
    /// Closes in the middle of a body that was announced as longer.
    CutBody,
}

impl From<u16> for Answer {
    fn from(status: u16) -> Answer {
        Answer::Status(status)
    }
}

impl Answer {
    /// A status with one header.
    pub(crate) fn with(status: u16, name: &str, value: &str) -> Answer {
        Answer::Full(status, vec![(name.to_owned(), value.to_owned())], Vec::new())
    }
}

/// Given the number of the request, from 0, and the request.
type Script = Box<dyn Fn(usize, &Received) -> Answer + Send + Sync>;

pub(crate) struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
}

struct Shared {
    script: Script,
    requests: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    released: watch::Sender<bool>,
}

impl Receiver {
    /// A plain HTTP receiver with one answer for each request; the last one is for all
    /// that follow.
    pub(crate) async fn answering<A: Into<Answer>>(
        answers: impl IntoIterator<Item = A>,
    ) -> Receiver {
        Receiver::start(script(answers), "127.0.0.1:0", None).await
    }

    /// A plain HTTP receiver that decides by the request.
    pub(crate) async fn deciding(
        decide: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static,
    ) -> Receiver {
        Receiver::start(Box::new(decide), "127.0.0.1:0", None).await
    }

    /// The same as [`Receiver::answering`] over TLS, with such a certificate.
    pub(crate) async fn secure<A: Into<Answer>>(
        certificate: Certificate,
        answers: impl IntoIterator<Item = A>,
    ) -> Receiver {
        let tls = TlsAcceptor::from(AUTHORITY.server(certificate));
        Receiver::start(script(answers), "127.0.0.1:0", Some(tls)).await
    }

    /// The same as [`Receiver::deciding`] over TLS, with such a certificate.
    pub(crate) async fn secure_deciding(
        certificate: Certificate,
        decide: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static,
    ) -> Receiver {
        let tls = TlsAcceptor::from(AUTHORITY.server(certificate));
        Receiver::start(Box::new(decide), "127.0.0.1:0", Some(tls)).await
    }

    /// The same, with TLS as it is set up.
    pub(crate) async fn over_tls(config: Arc<ServerConfig>) -> Receiver {
        let tls = TlsAcceptor::from(config);
        Receiver::start(script([200]), "127.0.0.1:0", Some(tls)).await
    }

    /// A trap at `address`, which no server may call: whoever is there answers 200.
    pub(crate) async fn trap(address: &str) -> Receiver {
        Receiver::start(script([200]), address, None).await
    }

    /// What subscriptions call.
    pub(crate) fn url(&self) -> String {
        self.url_at("/hook")
    }

    /// The same receiver under another path.
    pub(crate) fn url_at(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Waits until `count` requests have come, and gives all that are there.
    pub(crate) async fn received(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} requests at {}", self.address);
        eventually(&what, async || (count <= self.count()).then(|| self.requests())).await
    }

    /// What has come so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.recorded().clone()
    }

    /// One of them, counted from 0.
    pub(crate) fn request(&self, number: usize) -> Option<Received> {
        self.recorded().get(number).cloned()
    }

    /// How many have come so far.
    pub(crate) fn count(&self) -> usize {
        self.recorded().len()
    }

    /// How many connections were opened so far, with or without a request.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Lets go what [`Answer::Held`] holds, now and later.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<Received>> {
        self.shared.requests.lock().expect("nobody panics while holding it")
    }

    async fn start(script: Script, address: &str, tls: Option<TlsAcceptor>) -> Receiver {
        let listener = TcpListener::bind(address).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            script,
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            released: watch::channel(false).0,
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Receiver { shared, address, scheme }
    }
}

fn script<A: Into<Answer>>(answers: impl IntoIterator<Item = A>) -> Script {
    let answers: Vec<Answer> = answers.into_iter().map(Into::into).collect();
    let last = answers.last().expect("a script has an answer").clone();
    Box::new(move |number, _| answers.get(number).unwrap_or(&last).clone())
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => converse(tcp, |tcp| tcp, connection, &shared).await,
                Some(tls) => {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    converse(stream, |stream| stream.get_ref().0, connection, &shared).await;
                }
            }
        });
    }
}

/// Answers the requests of one connection until it ends.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tcp: fn(&S) -> &TcpStream,
    connection: usize,
    shared: &Shared,
) {
    let mut stream = BufStream::new(stream);
    while let Ok(Some(request)) = read_request(&mut stream, connection).await {
        let answer = {
            let mut requests = shared.requests.lock().expect("nobody panics while holding it");
            let answer = (shared.script)(requests.len(), &request);
            requests.push(request);
            answer
        };
        let written = match answer {
            Answer::Status(status) => write_response(&mut stream, status, &[], b"").await,
            Answer::Full(status, headers, body) => {
                write_response(&mut stream, status, &headers, &body).await
            }
            Answer::Held(status) => {
                let mut released = shared.released.subscribe();
                let _ = released.wait_for(|released| *released).await;
                write_response(&mut stream, status, &[], b"").await
            }
            Answer::Hang => std::future::pending().await,
            Answer::Drip => drip(&mut stream).await,
            Answer::Close => return,
            Answer::Reset => {
                tcp(stream.get_ref()).set_zero_linger().expect("the socket is open");
                return;
            }
            Answer::CutBody => {
                let head = b"HTTP/1.1 200 Scripted\r\nContent-Length: 100\r\n\r\nhalf";
                let _ = stream.write_all(head).await;
                let _ = stream.flush().await;
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn drip(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 Scripted\r\nContent-Length: 1000000\r\n\r\n").await?;
    loop {
        stream.write_all(b".").await?;
        stream.flush().await?;
        meanwhile(Duration::from_millis(100)).await;
    }
}
