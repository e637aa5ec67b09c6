//! The receivers: one server for all targets, told apart by path. Each request is written
//! down before it is answered.
//!
//! Plain HTTP is spoken on 127.0.0.1. TLS is spoken on an address for each replica, to
//! which only that replica's name server leads: so it can be told who sent a request.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::authority::{AUTHORITY, Certificate};
use crate::ledger::{Ledger, Request, digest};
use crate::payload;
use crate::target::{Mood, Target, Targets, clock_off};
use crate::trick::{self, Trick};
use crate::wire::{Received, read_request, write_response};

/// Where everything is to be found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    plain: u16,
    secure: u16,
}

struct Shared {
    ledger: Arc<Ledger>,
    targets: Arc<Targets>,
}

/// What a request is answered.
enum Answer {
    Status(u16, Duration),
    Never,
    Trick(Trick),
}

/// The address that leads the replica of this slot to the receivers.
pub(crate) fn address_for(slot: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(slot).expect("a few replicas"))
}

/// What receivers' addresses are in, for `--egress-allow`.
pub(crate) const ALLOWED: &str = "127.0.0.0/28";
/// One that is not among them.
pub(crate) const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 99);
/// Tries to find a port that is free on several addresses.
const PORT_TRIES: usize = 50;

impl Ports {
    /// What the subscription of a target calls.
    pub(crate) fn url(self, target: &Target) -> String {
        let number = target.number;
        if target.plan.secure {
            format!("https://t{number}.receiver.example:{}/{number}", self.secure)
        } else {
            format!("http://127.0.0.1:{}/{number}", self.plain)
        }
    }
}

/// Starts answering for `slots` replicas. A connection to the forbidden address is noted
/// as a broken promise.
pub(crate) async fn start(ledger: Arc<Ledger>, targets: Arc<Targets>, slots: usize) -> Ports {
    let shared = Arc::new(Shared { ledger, targets });
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let plain_port = plain.local_addr().expect("it is bound").port();
    let (secure, trap) = listen_on_all(slots).await;
    let secure_port = trap.local_addr().expect("it is bound").port();
    tokio::spawn(accept(plain, None, None, Arc::clone(&shared)));
    for (slot, listener) in secure.into_iter().enumerate() {
        let tls = TlsAcceptor::from(AUTHORITY.server(Certificate::Good));
        tokio::spawn(accept(listener, Some(tls), Some(slot), Arc::clone(&shared)));
    }
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            shared.ledger.broken(format!("{FORBIDDEN}, which may not be called, was called"));
        }
    });
    Ports { plain: plain_port, secure: secure_port }
}

/// The same port on every replica's address and on the forbidden one.
async fn listen_on_all(slots: usize) -> (Vec<TcpListener>, TcpListener) {
    'ports: for _ in 0..PORT_TRIES {
        let trap = TcpListener::bind((FORBIDDEN, 0)).await.expect("a free port");
        let port = trap.local_addr().expect("it is bound").port();
        let mut listeners = Vec::new();
        for slot in 0..slots {
            match TcpListener::bind((address_for(slot), port)).await {
                Ok(listener) => listeners.push(listener),
                Err(_) => continue 'ports,
            }
        }
        return (listeners, trap);
    }
    panic!("no port is free on {slots} addresses");
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    slot: Option<usize>,
    shared: Arc<Shared>,
) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => converse(tcp, |tcp| tcp, slot, &shared).await,
                Some(tls) => {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    converse(stream, |stream| stream.get_ref().0, slot, &shared).await;
                }
            }
        });
    }
}

/// Answers the requests of one connection until it ends.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tcp: fn(&S) -> &TcpStream,
    slot: Option<usize>,
    shared: &Shared,
) {
    let mut stream = BufStream::new(stream);
    while let Ok(Some(request)) = read_request(&mut stream, 0).await {
        let number = request.target.trim_start_matches('/').parse().ok();
        let Some(target) = number.and_then(|number| shared.targets.get(number)) else {
            shared.ledger.broken(format!("a request to {}, where nobody is", request.target));
            return;
        };
        let (entry, answer) = shared.note(&target, &request, slot);
        match answer {
            Answer::Status(status, after) => {
                tokio::time::sleep(after).await;
                let wait = ("Retry-After".to_owned(), "1".to_owned());
                let headers = if status == 429 { vec![wait] } else { Vec::new() };
                if write_response(&mut stream, status, &headers, b"").await.is_err() {
                    return;
                }
                shared.ledger.answered(entry);
                if shared.targets.closes_connections() {
                    return;
                }
            }
            Answer::Never => return trick::hang(&mut stream).await,
            Answer::Trick(trick) => {
                if trick == Trick::Reset {
                    // It may be gone already.
                    let _ = tcp(stream.get_ref()).set_zero_linger();
                    return;
                }
                if trick.status() != 0 {
                    shared.ledger.answered(entry);
                }
                trick.play(&mut stream).await;
                return;
            }
        }
    }
}

impl Shared {
    /// Writes the request down and decides on its answer.
    fn note(&self, target: &Target, request: &Received, slot: Option<usize>) -> (usize, Answer) {
        let body = std::str::from_utf8(&request.body).unwrap_or_default();
        let read = payload::read(target.plan.profile, body);
        let event = read.and_then(|(id, _)| self.ledger.find(id));
        let whole = match (read, event) {
            (Some((id, payload)), Some(event)) => {
                let kind = self.ledger.book().events[event].kind.clone();
                payload::expected(target.plan.profile, id, &kind, payload) == body
            }
            _ => false,
        };
        let before = self.ledger.requests_before(target.number, event);
        let answer = match target.mood() {
            Mood::Slow(after) => Answer::Status(200, after),
            Mood::Failing(status) => Answer::Status(status, Duration::ZERO),
            Mood::Hanging => Answer::Never,
            Mood::Hostile if before < 2 => Answer::Trick(Trick::of(event.unwrap_or(0) + before)),
            Mood::Well | Mood::Hostile => Answer::Status(200, Duration::ZERO),
        };
        let status = match &answer {
            Answer::Status(status, _) => *status,
            Answer::Trick(trick) => trick.status(),
            Answer::Never => 0,
        };
        let entry = self.ledger.received(Request {
            target: target.number,
            event,
            digest: read.map(|(_, payload)| digest(payload.as_bytes())).unwrap_or_default(),
            slot,
            at: request.arrival,
            status,
            answered: None,
            genuine: whole && target.is_signed(request, false),
            outdated: !target.is_signed(request, true),
            clock_off: clock_off(request),
        });
        (entry, answer)
    }
}
