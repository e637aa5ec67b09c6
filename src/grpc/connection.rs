//! Connections as they come in: accepted, their TLS handshakes done, and with what is known
//! of whoever is at the other end.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::access::{Access, Certified};
use super::strangers::{Stranger, Strangers};
use super::tls::{HTTP2, Tls};
use crate::metrics::{AuthenticationRefusal, Metrics};

/// Time for a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Time for a connection to show who its caller is, by a call with good credentials. One
/// whose other end is gone without a word would never end, and keep its place among the
/// strangers: nothing else looks after connections that have not begun to speak HTTP/2.
const STRANGER_MAX: Duration = Duration::from_secs(30);
/// Rest after a connection could not be accepted, most likely for want of open files.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Accepts connections. Handshakes go on beside each other and hold up nobody; dropping it
/// ends them.
pub(super) struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
    access: Access,
    /// Counted where callers must show who they are.
    strangers: Option<Strangers>,
    handshakes: JoinSet<Option<Connection>>,
    metrics: Metrics,
}

impl Incoming {
    pub(super) fn new(
        listener: TcpListener,
        tls: Option<Tls>,
        access: Access,
        metrics: Metrics,
    ) -> Incoming {
        let strangers = access.asks().then(Strangers::default);
        Incoming { listener, tls, access, strangers, handshakes: JoinSet::new(), metrics }
    }

    /// Connections, without an end.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        stream::unfold(self, |mut incoming| async move {
            let connection = incoming.next().await;
            Some((Ok(connection), incoming))
        })
    }

    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        if let Some(connection) = self.greet(stream, address) {
                            return connection;
                        }
                    }
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_REST).await;
                    }
                },
                Some(shaken) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some(connection)) = shaken {
                        return connection;
                    }
                }
            }
        }
    }

    /// The connection, if it needs no handshake.
    fn greet(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let stranger = match &self.strangers {
            Some(strangers) => Some(Arc::new(strangers.admit(address.ip())?)),
            None => None,
        };
        // It has ended already if that fails, as will be seen.
        let _ = stream.set_nodelay(true);
        let peer = Peer { address, certified: Certified::Nothing, stranger };
        let Some(tls) = &self.tls else {
            return Some(Connection::new(Wire::Plain(stream), peer));
        };
        let (access, metrics) = (self.access.clone(), self.metrics.clone());
        self.handshakes.spawn(shake_hands(tls.acceptor(), stream, peer, access, metrics));
        None
    }
}

/// It has hung up before it was accepted, which says nothing of this machine.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The connection, once TLS is spoken on it; `None` when it comes to nothing.
async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    mut peer: Peer,
    access: Access,
    metrics: Metrics,
) -> Option<Connection> {
    let stream = match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if is_about_certificate(&error) {
                metrics.authentication_refused(AuthenticationRefusal::CertificateUntrusted);
            }
            tracing::debug!(%error, "no TLS handshake");
            return None;
        }
        Err(_elapsed) => {
            tracing::debug!("no TLS handshake in time");
            return None;
        }
    };
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(HTTP2) {
        tracing::debug!("a connection that is not for HTTP/2");
        return None;
    }
    if let Some([leaf, ..]) = session.peer_certificates() {
        peer.certified = access.certified(leaf);
    }
    if let Certified::Caller(_) = peer.certified {
        peer.acknowledge();
    }
    Some(Connection::new(Wire::Tls(Box::new(stream)), peer))
}

/// Whether a handshake came to nothing for the client's certificate: it is bad, or there is
/// none. What a client does not like about ours comes as an alert instead.
fn is_about_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(
        cause,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

/// What is known of whoever is at the other end. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    certified: Certified,
    stranger: Option<Arc<Stranger>>,
}

impl Peer {
    /// Where its connection comes from.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it is by its certificate.
    pub(super) fn certified(&self) -> &Certified {
        &self.certified
    }

    /// It has shown good credentials.
    pub(super) fn acknowledge(&self) {
        if let Some(stranger) = &self.stranger {
            stranger.acknowledge();
        }
    }

    /// Whether it has, or need not.
    pub(super) fn is_known(&self) -> bool {
        self.stranger.as_ref().is_none_or(|stranger| stranger.is_known())
    }
}

/// A connection that is ready for calls.
pub(super) struct Connection {
    stream: Wire,
    peer: Peer,
    /// Ends with [`STRANGER_MAX`]; `None` where nobody is a stranger, or no more.
    patience: Option<Pin<Box<Sleep>>>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn new(stream: Wire, peer: Peer) -> Connection {
        let patience = (!peer.is_known()).then(|| Box::pin(sleep(STRANGER_MAX)));
        Connection { stream, peer, patience }
    }

    /// Fails once a stranger's time is over. Also asked by what writes: of a peer that never
    /// reads, nothing more is read either.
    fn check_patience(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            self.patience = None;
            if !self.peer.is_known() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_patience(context)?;
        match &mut this.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_patience(context)?;
        match &mut this.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_patience(context)?;
        match &mut this.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_patience(context)?;
        match &mut this.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
