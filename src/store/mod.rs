//! What Hookward remembers, on SQLite or PostgreSQL, through sea-orm.
//!
//! SQL lives here and nowhere else. A statement that carries a guarantee is a
//! documented constant; look-ups for people go through the entities. The hot
//! writes are [`Store::commit`], [`Store::claim`] and [`Store::settle`].
//!
//! On SQLite every write goes through one connection, so that writers queue in
//! memory and not on file locks; reads have connections of their own. On PostgreSQL
//! every statement has a deadline at this end (`server`). The engine has connections of
//! its own, on SQLite for reads. What is one organization's business takes its name as a
//! type, and on PostgreSQL the database sees to it as well (`row_security`).
//!
//! What may be patient data or a credential is sealed on its way in and opened on its way
//! out, if the operator has given keys (`vault`).

mod api_key;
mod audit;
mod audit_chain;
mod backlog;
mod backup;
mod canary;
mod claim;
mod commit;
mod data_key;
mod delivery;
mod delivery_list;
mod engine;
mod entity;
mod error;
mod event;
mod failure_streak;
mod file;
mod file_lock;
mod follow_up;
mod forget;
mod lent;
mod link;
mod migrate;
mod migrations;
mod open;
mod operational_event;
mod organization;
mod ownership;
mod partition;
mod pick;
mod published;
mod purge;
mod rekey;
mod replica;
mod request_log;
mod retention;
mod routing;
mod row;
mod row_security;
mod secret;
mod server;
mod session;
mod settle;
mod standing;
mod subscription;
mod sweep;
mod take_over;
mod tls;
mod vault;

#[cfg(test)]
mod conformance;

use std::sync::Arc;

use sea_orm::DbBackend;

pub use self::api_key::NewApiKey;
pub use self::audit::{AuditFilter, AuditHead, AuditPlace};
pub use self::audit_chain::FollowedChain;
pub use self::backlog::OpenDeliveries;
pub use self::claim::{Claim, Waiting};
pub use self::commit::{Commit, Committed, NewEventRow, Stale};
pub use self::delivery_list::{DeliveryFilter, DeliveryPage};
pub use self::error::StoreError;
pub use self::event::{EventFilter, EventPage};
pub use self::failure_streak::{EndpointNote, FailingEndpoint, HEAD_START};
pub use self::open::{Settings, Target};
pub use self::operational_event::UnpublishedEvent;
pub use self::organization::Deletion;
pub use self::ownership::OwnershipClaim;
pub use self::pick::CLAIM_ROWS;
pub use self::published::{ContentHash, Published};
pub use self::purge::SubjectPurge;
pub use self::rekey::Rekeyed;
pub use self::replica::{Fence, Heartbeat, Registered, Replica};
pub use self::request_log::{Answer, RequestRecord};
pub use self::routing::{Routed, RoutingChanges};
pub use self::row_security::RowSecurity;
pub use self::secret::NewSecret;
pub use self::session::{DueListener, LeaseSession};
pub use self::settle::{Next, Settlement};
pub use self::subscription::{
    Change, ChangeError, Created, DisableCause, NewSubscription, SUBSCRIPTIONS_MAX,
    SubscriptionFilter,
};
pub use self::sweep::Purged;

use self::link::Link;
use self::vault::Vault;
use crate::domain::id::IdCodec;
use crate::metrics::Pool;

/// A database, ready for use. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    /// For reads; on PostgreSQL the same as `write`.
    read: Link,
    /// For writes; on SQLite one connection.
    write: Link,
    /// For reads of people's calls, and on PostgreSQL for their writes.
    callers: Link,
    /// Last: the file's lock is let go of after the connections.
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: DbBackend,
    ids: IdCodec,
    page_key: [u8; 32],
    row_security: RowSecurity,
    vault: Vault,
    /// SQLite: held for as long as the store lives, so that no second process serves the
    /// file. One that only visits may do without.
    _lock: Option<file_lock::FileLock>,
}

impl Store {
    /// Turns keys into public ids and back.
    #[must_use]
    pub fn ids(&self) -> &IdCodec {
        &self.inner.ids
    }

    /// The key that page tokens are signed with; shared by all replicas.
    #[must_use]
    pub fn page_key(&self) -> &[u8; 32] {
        &self.inner.page_key
    }

    /// Whether the database itself keeps organizations apart.
    #[must_use]
    pub fn row_security(&self) -> &RowSecurity {
        &self.inner.row_security
    }

    /// Whether other processes may use this database at the same time.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.inner.engine == DbBackend::Postgres
    }

    /// What the database is, as OpenTelemetry's conventions name it.
    #[must_use]
    pub fn system(&self) -> &'static str {
        if self.is_shared() { "postgresql" } else { "sqlite" }
    }

    /// What tells how the connections to a server are used, the engine's and those of calls,
    /// for as long as the server is used. `None` on SQLite, which has none that anybody waits
    /// for.
    #[must_use]
    pub fn pools(&self) -> Option<impl Fn() -> Option<[Pool; 2]> + Send + Sync + use<>> {
        let server = Arc::downgrade(self.write.server()?);
        Some(move || server.upgrade().map(|server| server.pools()))
    }

    /// The same database for calls of people: they share connections of their own, so
    /// that however many there are, the engine's work does not wait behind them.
    #[must_use]
    pub fn for_callers(&self) -> Store {
        let write = if self.is_shared() { &self.callers } else { &self.write };
        Store { read: self.callers.clone(), write: write.clone(), ..self.clone() }
    }

    /// The same database for work of the server's own that may take long: over callers'
    /// connections, too, and bound to no organization.
    #[must_use]
    pub fn for_upkeep(&self) -> Store {
        let callers = self.for_callers();
        Store { read: callers.read.unbound(), write: callers.write.unbound(), ..callers }
    }

    fn read(&self) -> &Link {
        &self.read
    }

    fn write(&self) -> &Link {
        &self.write
    }
}
