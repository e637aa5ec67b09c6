//! Direct PostgreSQL connections: the lease's session and the wake-up.
//!
//! What only a direct connection can do makes things faster, no more. A replica whose
//! advisory lock is missing (behind a transaction pooler, say) is taken over when its
//! lease ends; a lost wake-up is found by the next poll.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::{PgListener, PgPoolOptions};
use sea_orm::{QueryResult, Statement, sqlx};
use tokio::time::timeout;

use super::engine::column;
use super::lent::Lent;
use super::link::failed;
use super::replica::SESSION_LOCK_CLASS;
use super::server::{Server, Side};
use super::{Fence, Store, StoreError};

/// Channel on which replicas tell each other that due rows were added.
const DUE_CHANNEL: &str = "hookward_due";

const TAKE_LOCK: &str = "SELECT pg_try_advisory_lock($1, $2) AS taken";
/// Nobody else has a lock of this number while this replica is registered. A connection that
/// was cut off may be alive to PostgreSQL for hours.
const END_EARLIER: &str = "
    SELECT pg_terminate_backend(pid) AS ended FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = $1 AND objid = $2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND pid <> pg_backend_pid()";

/// Longest wait for an answer of the listener.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a listener is believed to hear.
const LISTEN_MAX: Duration = Duration::from_secs(30);

/// The connection over which a lease is renewed. It is the lease's own, so that however
/// busy the others are, a living replica is known to live. It also holds the replica's
/// advisory lock, which PostgreSQL drops as soon as the process is gone: others learn of a
/// crash within a second. Opened when it is needed; on SQLite there is none.
#[derive(Default)]
pub struct LeaseSession {
    lent: Option<Lent>,
    /// Whose lock it holds.
    held: Option<Fence>,
}

impl LeaseSession {
    /// The only row that `statement` yields, over a connection that can be trusted.
    pub(super) async fn query_one(
        &mut self,
        server: &Arc<Server>,
        statement: Statement,
    ) -> Result<Option<QueryResult>, StoreError> {
        let lent = if let Some(lent) = self.lent.take().filter(Lent::is_current) {
            lent
        } else {
            self.held = None;
            server.lend(Side::Apart).await.map_err(failed)?
        };
        let rows = self.lent.insert(lent).fetch(statement).await.map_err(failed)?;
        Ok(rows.into_iter().next().map(Into::into))
    }

    /// Whether it holds the lock of `fence`.
    fn holds(&self, fence: Fence) -> bool {
        self.held == Some(fence) && self.lent.as_ref().is_some_and(Lent::is_current)
    }
}

impl fmt::Debug for LeaseSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LeaseSession").field("held", &self.held).finish_non_exhaustive()
    }
}

/// Hears when another replica has added due rows.
#[derive(Debug)]
pub struct DueListener {
    listener: PgListener,
    since: Instant,
}

impl DueListener {
    /// Waits for the next notice. An error means that the connection is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: listen anew.
    pub async fn heard(&mut self) -> Result<(), StoreError> {
        self.listener.recv().await.map(drop).map_err(|_| lost())
    }

    /// Whether it is time to listen anew: a connection that is cut off says nothing,
    /// and neither does one on which nobody has anything to say.
    #[must_use]
    pub fn is_old(&self) -> bool {
        LISTEN_MAX <= self.since.elapsed()
    }
}

impl Store {
    /// Takes this replica's advisory lock on the lease's session, unless it holds it. An
    /// earlier session that was cut off may still hold it, and would tell the others that
    /// this replica lives when it does not: it is ended, and the next call gets the lock.
    /// To be called right after a heartbeat. Does nothing on SQLite.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn hold_session(
        &self,
        session: &mut LeaseSession,
        fence: Fence,
    ) -> Result<(), StoreError> {
        let Some(server) = self.write().server() else { return Ok(()) };
        if session.holds(fence) {
            return Ok(());
        }
        let lock = vec![SESSION_LOCK_CLASS.into(), i32::from(fence.replica).into()];
        let row = session.query_one(server, self.statement(TAKE_LOCK, lock.clone())).await?;
        let taken = row.map(|row| column(&row, "taken")).transpose()?;
        if taken == Some(true) {
            session.held = Some(fence);
        } else {
            session.query_one(server, self.statement(END_EARLIER, lock)).await?;
        }
        Ok(())
    }

    /// Listens for due rows of other replicas. `None` on SQLite.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn due_listener(&self) -> Result<Option<DueListener>, StoreError> {
        let Some(server) = self.write().server() else { return Ok(None) };
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ANSWER);
        let pool = pool.connect_lazy_with(server.options().clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(DUE_CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let listener = timeout(ANSWER, listening).await.map_err(|_| lost())?.map_err(|_| lost())?;
        Ok(Some(DueListener { listener, since: Instant::now() }))
    }

    /// Tells other replicas that due rows were added. Outside the transaction that
    /// added them, and seldom: NOTIFY takes a lock of the whole database at commit.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: their next poll finds the rows.
    pub async fn notify_due(&self) -> Result<(), StoreError> {
        use sea_orm::ConnectionTrait;
        if self.is_shared() {
            self.write().execute_unprepared(&format!("NOTIFY {DUE_CHANNEL}")).await?;
        }
        Ok(())
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("connection lost".into())
}
