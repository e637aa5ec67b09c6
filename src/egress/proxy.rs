//! The operator's own way out: a proxy that is asked for a tunnel (CONNECT, RFC 9110,
//! 9.3.6) to an address that was resolved and judged here. It is told an address and
//! never a name, so that no second resolution can lead elsewhere; TLS is spoken with the
//! receiver, through the tunnel.
//!
//! Promise: what is the proxy's fault is told apart from what is the receiver's. A
//! receiver that cannot be reached makes it answer 502, 503, 504 or late, and one that
//! speaks first is heard through the tunnel; everything else that goes wrong is between the
//! proxy and us, and nobody has been asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::lookup_host;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::domain::attempt::Failure;

use super::Trouble;
use super::connect::TCP_BUDGET;
use super::connect::no_connection;
use super::connect::share;
use super::sender::Course;

/// Time for the connection to the proxy, which is near.
const REACH_BUDGET: Duration = Duration::from_secs(1);
/// Most bytes of its answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// What could not be asked for waits as long as the proxy has been broken: this at
/// least, ...
const WAIT_MIN: Duration = Duration::from_secs(5);
/// ... and this at most.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// For so long its name is not looked up again, since that takes a thread each time, ...
const ADDRESSES_FRESH: Duration = Duration::from_secs(5);
/// ... and for so long after a look that found nothing.
const NONE_FRESH: Duration = Duration::from_secs(1);

pub(super) struct Proxy {
    /// Name or address; the system resolves it, since it is no receiver's.
    host: String,
    port: u16,
    broken_since: Mutex<Option<Instant>>,
    /// Where the name led, perhaps nowhere, and when that was asked. Held while it is looked
    /// up, so that all wait for one look.
    addresses: tokio::sync::Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
}

/// What came of asking for a tunnel.
enum Tunnel {
    Open(TcpStream),
    /// It is open, and there the receiver has spoken before it was asked.
    Heard,
    /// The proxy cannot reach the address.
    Unreachable,
    /// Its operator does not want it to.
    Forbidden,
    /// This is no answer of a proxy that works for us.
    Broken,
}

impl Proxy {
    pub(super) fn new(host: String, port: u16) -> Proxy {
        let addresses = tokio::sync::Mutex::default();
        Proxy { host, port, broken_since: Mutex::default(), addresses }
    }

    /// A tunnel to the first address that the proxy reaches.
    pub(super) async fn tunnel(
        &self,
        addresses: &[SocketAddr],
        course: &mut Course,
    ) -> Result<(TcpStream, SocketAddr), Trouble> {
        let end = Instant::now() + TCP_BUDGET;
        let mut detail = "The receiver cannot be reached.";
        for (&address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            let stream = self.reach(course).await?;
            let share = share(end.duration_since(Instant::now()), left);
            match timeout(share, ask(stream, address)).await {
                Ok(Ok(Tunnel::Open(stream))) => {
                    self.works();
                    return Ok((stream, address));
                }
                Ok(Ok(Tunnel::Heard)) => {
                    self.works();
                    let detail = "The receiver spoke before it was asked.";
                    return Err(Trouble::new(Failure::Protocol, detail));
                }
                Ok(Ok(Tunnel::Unreachable)) => self.works(),
                Ok(Ok(Tunnel::Forbidden)) => {
                    self.works();
                    let detail = "The address may not be called.";
                    return Err(Trouble::new(Failure::BlockedAddress, detail));
                }
                Ok(Ok(Tunnel::Broken) | Err(_)) => return Err(self.broken()),
                Err(_elapsed) => detail = "The receiver did not accept a connection in time.",
            }
        }
        Err(no_connection(detail))
    }

    /// What a request ends with that the proxy's fault kept from being made.
    pub(super) fn broken(&self) -> Trouble {
        let mut broken_since = self.broken_since.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *broken_since.get_or_insert_with(|| {
            tracing::warn!("the egress proxy does not work: requests wait, no retry is spent");
            Instant::now()
        });
        let wait = since.elapsed().clamp(WAIT_MIN, WAIT_MAX);
        Trouble::not_asked(wait, "The server's own proxy does not work.")
    }

    fn works(&self) {
        let mut broken_since = self.broken_since.lock().unwrap_or_else(PoisonError::into_inner);
        if broken_since.take().is_some() {
            tracing::info!("the egress proxy works again");
        }
    }

    async fn reach(&self, course: &mut Course) -> Result<TcpStream, Trouble> {
        course.at_proxy = true;
        let Ok(Ok(stream)) = timeout(REACH_BUDGET, self.connect()).await else {
            return Err(self.broken());
        };
        course.at_proxy = false;
        stream.set_nodelay(true).map_err(|_| self.broken())?;
        Ok(stream)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        // Without any it fails.
        TcpStream::connect(&*self.addresses().await).await
    }

    async fn addresses(&self) -> Arc<[SocketAddr]> {
        let mut known = self.addresses.lock().await;
        if let Some((asked, addresses)) = &*known {
            let fresh = if addresses.is_empty() { NONE_FRESH } else { ADDRESSES_FRESH };
            if asked.elapsed() < fresh {
                return Arc::clone(addresses);
            }
        }
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let addresses = found.map(Iterator::collect).unwrap_or_default();
        Arc::clone(&known.insert((Instant::now(), addresses)).1)
    }
}

async fn ask(mut stream: TcpStream, address: SocketAddr) -> io::Result<Tunnel> {
    let request = format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(256);
    let rest = loop {
        if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            break head.len() - end - 4;
        }
        if HEAD_BYTES_MAX < head.len() || stream.read_buf(&mut head).await? == 0 {
            return Ok(Tunnel::Broken);
        }
    };
    Ok(match status(&head) {
        // What follows comes through the tunnel (RFC 9110, 9.3.6), where we speak first.
        Some(200..=299) if rest == 0 => Tunnel::Open(stream),
        Some(200..=299) => Tunnel::Heard,
        Some(403 | 451) => Tunnel::Forbidden,
        Some(502..=504) => Tunnel::Unreachable,
        Some(_) | None => Tunnel::Broken,
    })
}

/// The status of an HTTP/1 answer.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let line = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, rest) = line.split_at_checked(3)?;
    let plain = digits.iter().all(u8::is_ascii_digit) && (rest.is_empty() || rest[0] == b' ');
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        for (head, expected) in [
            (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], Some(200)),
            (b"HTTP/1.0 200\r\n\r\n", Some(200)),
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Some(407)),
            (b"HTTP/1.1 2000\r\n\r\n", None),
            (b"HTTP/1.1 +20 OK\r\n\r\n", None),
            (b"HTTP/1.1 20\r\n\r\n", None),
            (b"HTTP/2 200\r\n\r\n", None),
            (b"SSH-2.0-OpenSSH\r\n\r\n", None),
            (b"\r\n\r\n", None),
        ] {
            assert_eq!(status(head), expected, "{}", String::from_utf8_lossy(head));
        }
    }
}
