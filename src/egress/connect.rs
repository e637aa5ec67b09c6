//! From a target to a connection: resolve, judge, connect to exactly the judged
//! addresses, compare, then TLS.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::domain::attempt::{Failure, Timing};
use crate::domain::endpoint_url::Host;
use crate::domain::endpoint_url::Scheme;

use super::MixedAnswers;
use super::Room;
use super::Trouble;
use super::sender::Course;
use super::target::Target;
use super::wire::Lookout;
use super::wire::Wire;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Time for the TCP connection, over all addresses.
pub(super) const TCP_BUDGET: Duration = Duration::from_secs(3);
/// Least time for one address, while there is as much: the far side of the world, twice.
const TCP_SHARE_MIN: Duration = Duration::from_secs(1);
/// Time for the TLS handshake.
const TLS_BUDGET: Duration = Duration::from_secs(5);
/// Most bytes of an answer's status line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// Most bytes hyper buffers of an answer; twice the head, so that the head's own
/// limit is the one that is met.
const BUFFER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;

/// An open connection to a receiver. Dropping it closes the socket, whatever its
/// task is doing.
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    pub(super) target: Arc<Target>,
    pub(super) peer: SocketAddr,
    pub(super) born: Instant,
    pub(super) lookout: Lookout,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // hyper would first finish writing, for ever if the receiver never reads.
        self.driver.abort();
    }
}

/// Opens a connection to `target`, writing down what it cost.
pub(super) async fn open(
    room: &Room,
    target: &Arc<Target>,
    course: &mut Course,
) -> Result<Connection, Trouble> {
    let (stream, peer) = reach(room, target, course).await?;
    let lookout = Lookout::default();
    let wire = Wire::new(stream, lookout.clone());
    let (sender, driver) = match target.scheme {
        Scheme::Http => speak_http(wire).await?,
        Scheme::Https => {
            let begun = Instant::now();
            let connector = room.tls.connector(target.tls.as_ref());
            let connector =
                connector.map_err(|_| Trouble::ours(Failure::Tls, "TLS cannot be set up."))?;
            let stream = timeout(TLS_BUDGET, connector.connect(target.server_name.clone(), wire))
                .await
                .map_err(|_elapsed| no_tls("The TLS handshake took too long."))?
                .map_err(|error| no_tls(tls_detail(&error)))?;
            course.timing.tls = Some(begun.elapsed());
            speak_http(stream).await?
        }
    };
    Ok(Connection { sender, target: target.clone(), peer, born: Instant::now(), lookout, driver })
}

/// The way to `target`.
async fn reach(
    room: &Room,
    target: &Target,
    course: &mut Course,
) -> Result<(TcpStream, SocketAddr), Trouble> {
    if target.is_canary() {
        return reach_canary(room, course).await;
    }
    let addresses = judged_addresses(room, target, &mut course.timing).await?;
    let begun = Instant::now();
    let reached = match &room.proxy {
        None => connect(&addresses).await?,
        Some(proxy) => proxy.tunnel(&addresses, course).await?,
    };
    course.timing.connect = Some(begun.elapsed());
    Ok(reached)
}

/// This process's own receiver: no name server is asked for it, no policy need open it, and
/// no proxy leads to it.
async fn reach_canary(
    room: &Room,
    course: &mut Course,
) -> Result<(TcpStream, SocketAddr), Trouble> {
    let detail = "This process has no receiver for the canary.";
    let receiver = room.canary.ok_or_else(|| Trouble::ours(Failure::Connect, detail))?;
    let begun = Instant::now();
    let reached = connect(&[receiver]).await?;
    course.timing.connect = Some(begun.elapsed());
    Ok(reached)
}

/// Every address of the host, all of them allowed. One forbidden address among many
/// refuses them all, unless [`MixedAnswers::Filter`] is wanted.
async fn judged_addresses(
    room: &Room,
    target: &Target,
    timing: &mut Timing,
) -> Result<Vec<SocketAddr>, Trouble> {
    let addresses: Vec<IpAddr> = match &target.host {
        Host::Ip(address) => vec![address.to_canonical()],
        Host::Name(name) => {
            let begun = Instant::now();
            let addresses = room.resolver.addresses(name).await;
            timing.dns = Some(begun.elapsed());
            addresses?
        }
    };
    let rules = room.policy.rules(target.organization.as_ref());
    let permitted = |address: &IpAddr| match target.scheme {
        Scheme::Https => rules.permits(*address, target.port),
        Scheme::Http => rules.permits_http(*address, target.port),
    };
    let found = addresses.len();
    let judged: Vec<IpAddr> = addresses.into_iter().filter(permitted).collect();
    let enough = match room.mixed_answers {
        MixedAnswers::Refuse => judged.len() == found,
        MixedAnswers::Filter => !judged.is_empty(),
    };
    if !enough {
        return Err(Trouble::new(Failure::BlockedAddress, "The address may not be called."));
    }
    let judged = judged.into_iter().take(ADDRESSES_MAX);
    Ok(judged.map(|address| SocketAddr::new(address, target.port)).collect())
}

/// The first address that accepts, each given its share of the time that is left, and no
/// less than [`TCP_SHARE_MIN`] of it.
async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Trouble> {
    let end = Instant::now() + TCP_BUDGET;
    let mut detail = "The receiver refused the connection.";
    // Unless one address was tried in earnest.
    let mut ours = true;
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = share(end.duration_since(Instant::now()), left);
        let stream = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(refused)) => {
                ours &= is_ours(&refused);
                continue;
            }
            Err(_elapsed) => {
                ours = false;
                detail = "The receiver did not accept a connection in time.";
                continue;
            }
        };
        let peer = stream.peer_addr().map_err(|_| no_connection(detail))?;
        if peer != *address {
            return Err(Trouble::new(Failure::BlockedAddress, "The address may not be called."));
        }
        // Without it a request in two segments waits for the receiver's delayed ack.
        stream.set_nodelay(true).map_err(|_| no_connection(detail))?;
        return Ok((stream, peer));
    }
    if ours {
        let detail = "No connection could be opened from here.";
        return Err(Trouble::ours(Failure::Connect, detail));
    }
    Err(no_connection(detail))
}

/// Whether the request did not even leave this machine: no way there, no file, no port or
/// no memory left, or not allowed.
fn is_ours(refused: &io::Error) -> bool {
    let reasons = [
        Errno::NETUNREACH,
        Errno::NETDOWN,
        Errno::ADDRNOTAVAIL,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ACCESS,
        Errno::PERM,
    ];
    Errno::from_io_error(refused).is_some_and(|reason| reasons.contains(&reason))
}

/// Time for one of `addresses` that have `left` together.
pub(super) fn share(left: Duration, addresses: usize) -> Duration {
    let equal = left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    equal.max(TCP_SHARE_MIN).min(left)
}

async fn speak_http<S>(stream: S) -> Result<(http1::SendRequest<Full<Bytes>>, AbortHandle), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| no_connection("The connection broke."))?;
    // Its error reaches the request it belongs to; an idle connection may just end.
    let driver = tokio::spawn(async { drop(connection.await) }).abort_handle();
    Ok((sender, driver))
}

pub(super) fn no_connection(detail: &'static str) -> Trouble {
    Trouble::new(Failure::Connect, detail)
}

fn no_tls(detail: &'static str) -> Trouble {
    Trouble::new(Failure::Tls, detail)
}

fn tls_detail(error: &io::Error) -> &'static str {
    use rustls::CertificateError;
    use rustls::Error;
    let Some(Error::InvalidCertificate(reason)) =
        error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return "The TLS handshake failed.";
    };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "The receiver's certificate has expired."
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "The receiver's certificate is for another name."
        }
        CertificateError::UnknownIssuer => {
            "The receiver's certificate comes from an unknown authority."
        }
        _ => "The receiver's certificate is not valid.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_on_this_machine_is_no_fault_of_the_receiver() {
        let is_ours = |reason: Errno| is_ours(&io::Error::from(reason));
        for reason in [Errno::NETUNREACH, Errno::MFILE, Errno::ADDRNOTAVAIL, Errno::PERM] {
            assert!(is_ours(reason), "{reason:?}");
        }
        for reason in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::CONNRESET, Errno::TIMEDOUT] {
            assert!(!is_ours(reason), "{reason:?}");
        }
        assert!(!super::is_ours(&io::Error::other("without a number")));
    }

    #[test]
    fn an_address_gets_enough_time_for_a_distant_receiver() {
        let [none, second, all] = [0, 1, 3].map(Duration::from_secs);
        assert_eq!(share(all, 1), all);
        assert_eq!(share(all, 2), all / 2);
        assert_eq!(share(all, 16), second, "however many there are");
        assert_eq!(share(second / 2, 16), second / 2, "what is left");
        assert_eq!(share(none, 1), none);
    }
}
