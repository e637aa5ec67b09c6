//! The gRPC surface: translates between protobuf and the domain, decides nothing.
//!
//! `connection` takes connections in, over TLS where there is any (`tls`).
//! `authentication` finds out who is calling, before anything is decoded; `refusals` answers
//! calls of nobody, which `failures` counts. Every method first asks `access` which
//! organization its caller may act for, and every call to the store takes that organization.
//! `trail` gathers what the audit log will say of each call. `status` is the only file that
//! makes errors; `call` gives each call its span, its deadline and its line in the log.

mod access;
mod audit;
mod authentication;
mod call;
mod complaint;
mod connection;
mod delivery;
mod event;
mod event_type;
mod failures;
mod field_mask;
mod methods;
mod page;
pub mod pb;
mod refusals;
mod request_id;
mod server;
mod status;
mod strangers;
mod subscription;
mod time;
mod tls;
mod trail;

pub use self::access::{Access, Guard};
pub use self::server::{Health, SERVICES, Settings, serve};
pub use self::tls::{Clients, Tls, TlsError, TlsFiles};

use crate::audit::Auditor;
use crate::domain::catalog::Catalog;
use crate::egress::Egress;
use crate::intake::Intake;
use crate::lease::Lease;
use crate::permits::{Circuits, RateLimiter};
use crate::routing::Routing;
use crate::store::Store;

/// What the services work with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where everything is kept.
    pub store: Store,
    /// Records reads and refused calls.
    pub auditor: Auditor,
    /// Takes events.
    pub intake: Intake,
    /// Told of each change of a subscription, so that this replica sees it at once. Knows the
    /// wire profiles of this deployment.
    pub routing: Routing,
    /// Makes keys and tells the time.
    pub lease: Lease,
    /// How this replica gets on with receivers; `None` where it does not send.
    pub circuits: Option<Circuits>,
    /// How often receivers of one organization may be pinged.
    pub pings: RateLimiter,
    /// The event types of the platforms.
    pub catalog: &'static Catalog,
    /// Knows which receivers may be called.
    pub egress: Egress,
    /// What callers may send.
    pub limits: Limits,
}

/// What callers may send, where the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest payload of an event, in bytes.
    pub payload_bytes_max: usize,
}

impl Context {
    /// Lets this replica see a change of subscriptions that has been committed. When
    /// that fails, the next look at the routing clock shows it; commits of events
    /// compare versions, so that they are exact either way.
    async fn refresh_routing(&self) {
        if let Err(error) = self.routing.refresh().await {
            tracing::warn!(%error, "a change of subscriptions is seen later");
        }
    }
}
