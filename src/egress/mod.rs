//! The room that calls receivers: one signed request in, one [`Outcome`] out; and, before
//! there are any, the question whether they are wanted ([`Egress::inquire`]).
//!
//! It promises that [`Egress::send`] always answers, by its deadline; that no
//! address is called which the policy has not judged; that what a receiver sends
//! costs bounded memory and reaches nobody but its own subscription; and that a
//! request is repeated only when not a byte of it had been written.
//!
//! HTTP/1.1 over an own pool of kept-alive connections. Redirects are not
//! followed, bodies not decompressed, proxies of the environment not used; one that the
//! operator names is (`proxy`).

mod connect;
mod fetch;
mod inquiry;
mod interfaces;
mod pool;
mod proxy;
mod resolver;
mod response;
mod sender;
mod target;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

pub use fetch::FetchError;
pub use inquiry::Inquiry;
pub use inquiry::Reply;
pub use interfaces::interface_addresses;
pub use target::InvalidTarget;
pub use target::Target;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;

use crate::domain::address::AddressPolicy;
use crate::domain::attempt::Fault;
use crate::domain::attempt::Outcome;
use crate::domain::attempt::{Failure, Timing};
use crate::domain::id::SubscriptionKey;

/// Longest a connection waits for its next request.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// Longest a connection is used at all, so that a changed name is noticed.
pub const LIFE_MAX: Duration = Duration::from_mins(5);
/// Most connections that wait for one subscription.
pub const IDLE_PER_SUBSCRIPTION_MAX: usize = 256;

/// Most connections that wait for all subscriptions together: each is an open file.
pub const IDLE_IN_ALL_MAX: usize = 4096;

/// What becomes of a name of which some addresses may be called and others may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MixedAnswers {
    /// It is not called: this is a mistake or an attack, and which is not ours to guess.
    #[default]
    Refuse,
    /// Those that may be are called, and no other.
    Filter,
}

/// How receivers are reached.
pub struct Settings {
    /// Who may be called; asked for every address of a name before anything is sent.
    pub policy: AddressPolicy,
    /// What becomes of names with addresses of both kinds.
    pub mixed_answers: MixedAnswers,
    /// Name servers; empty: those of `/etc/resolv.conf`.
    pub nameservers: Vec<SocketAddr>,
    /// Host and port of a proxy through which receivers are reached.
    pub proxy: Option<(String, u16)>,
    /// Where this process takes in what the canary's probes deliver; `None`: nowhere.
    pub canary: Option<SocketAddr>,
    /// PEM texts of certificate authorities that are trusted besides the public ones.
    pub ca_files_pem: Vec<Vec<u8>>,
    /// Longest a connection waits for its next request, [`IDLE_MAX`] by default.
    pub idle_max: Duration,
    /// Longest a connection is used at all, [`LIFE_MAX`] by default.
    pub life_max: Duration,
    /// Most connections that wait at once, [`IDLE_IN_ALL_MAX`] by default.
    pub idle_in_all_max: usize,
}

impl Settings {
    /// The defaults, with this policy.
    #[must_use]
    pub fn new(policy: AddressPolicy) -> Self {
        Settings {
            policy,
            mixed_answers: MixedAnswers::default(),
            nameservers: Vec::new(),
            proxy: None,
            canary: None,
            ca_files_pem: Vec::new(),
            idle_max: IDLE_MAX,
            life_max: LIFE_MAX,
            idle_in_all_max: IDLE_IN_ALL_MAX,
        }
    }
}

/// The name servers that are asked with these settings.
#[must_use]
pub fn nameservers(settings: &Settings) -> Vec<SocketAddr> {
    resolver::servers(&settings.nameservers)
}

/// Why the room could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// One of [`Settings::ca_files_pem`], counted from 0, holds no usable certificate.
    #[error("certificate authority file number {0} holds no usable certificate")]
    CertificateAuthority(usize),
    /// The TLS library refused its own settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The resolver could not be made.
    #[error("the resolver cannot be set up")]
    Resolver(#[source] hickory_resolver::net::NetError),
}

/// One request, rendered and signed, ready to go.
pub struct SignedRequest {
    /// Whose connections it may use; they are never shared between subscriptions.
    pub subscription: SubscriptionKey,
    /// Where it goes.
    pub target: Arc<Target>,
    /// Its headers. `host`, `accept-encoding` and those that frame the message
    /// are this room's own and are ignored here.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
    /// Time for everything, from name resolution to the last byte of the answer.
    pub timeout: Duration,
}

/// What came of one request.
#[derive(Debug)]
pub struct Sent {
    /// What the receiver did.
    pub outcome: Outcome,
    /// Whose fault it is, where the receiver did not answer.
    pub fault: Fault,
    /// Where the time went.
    pub timing: Timing,
    /// Who was called, for traces only.
    pub peer: Option<SocketAddr>,
    /// Whether a kept-alive connection served.
    pub reused: bool,
    /// What went wrong, for people, empty when the receiver answered. Never an
    /// address, never the resolver's words.
    pub detail: &'static str,
}

/// The room. Clones share settings, connections, resolver and TLS sessions.
#[derive(Clone)]
pub struct Egress {
    room: Arc<ArcSwap<Room>>,
}

impl Egress {
    /// Opens the room. Needs no network and no runtime yet.
    ///
    /// # Errors
    ///
    /// When an extra certificate authority cannot be read.
    pub fn new(settings: Settings) -> Result<Egress, EgressError> {
        let room = Room {
            policy: Arc::new(settings.policy),
            mixed_answers: settings.mixed_answers,
            resolver: resolver::Resolver::new(&settings.nameservers)?,
            proxy: settings.proxy.map(|(host, port)| proxy::Proxy::new(host, port)),
            canary: settings.canary,
            tls: tls::Tls::new(&settings.ca_files_pem)?,
            pool: pool::Pool::new(settings.idle_max, settings.life_max, settings.idle_in_all_max),
        };
        Ok(Egress { room: Arc::new(ArcSwap::from_pointee(room)) })
    }

    /// Goes on as `other`, also in every clone. Requests under way end as they began; no other
    /// uses a connection, an address or a session from before.
    pub fn become_another(&self, other: &Egress) {
        self.room.store(other.room());
    }

    /// Who may be called now.
    #[must_use]
    pub fn policy(&self) -> Arc<AddressPolicy> {
        Arc::clone(&self.room.load().policy)
    }

    /// Sends one request and reads its answer. Cannot fail: whatever goes wrong
    /// is an [`Outcome`]. Dropping the future ends the connection.
    pub async fn send(&self, request: SignedRequest) -> Sent {
        sender::send(&self.room(), request).await
    }

    /// As it is now. A request keeps it until its end.
    fn room(&self) -> Arc<Room> {
        self.room.load_full()
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Egress").finish_non_exhaustive()
    }
}

struct Room {
    policy: Arc<AddressPolicy>,
    mixed_answers: MixedAnswers,
    resolver: resolver::Resolver,
    proxy: Option<proxy::Proxy>,
    canary: Option<SocketAddr>,
    tls: tls::Tls,
    pool: Arc<pool::Pool>,
}

/// Why there is no answer: what is recorded, and the sentence for people.
#[derive(Debug)]
struct Trouble {
    outcome: Outcome,
    fault: Fault,
    detail: &'static str,
}

impl Trouble {
    /// The receiver's, as far as can be told.
    fn new(failure: Failure, detail: &'static str) -> Self {
        Trouble { outcome: Outcome::NoResponse(failure), fault: Fault::Receiver, detail }
    }

    /// This machine's, or its name servers'.
    fn ours(failure: Failure, detail: &'static str) -> Self {
        Trouble { fault: Fault::Ours, ..Trouble::new(failure, detail) }
    }

    /// Our own way out does not work.
    fn not_asked(wait: Duration, detail: &'static str) -> Self {
        Trouble { outcome: Outcome::NotAsked { wait }, fault: Fault::Ours, detail }
    }
}
