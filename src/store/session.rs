//! Direct PostgreSQL connections: the crash hint and the wake-up.
//!
//! Both only make things faster. A replica whose crash hint is missing (behind a
//! transaction pooler, say) is taken over when its lease ends; a lost wake-up is
//! found by the next poll.

use std::time::Duration;

use sea_orm::sqlx::postgres::{PgConnection, PgListener};
use sea_orm::sqlx::{self, Connection};

use super::replica::SESSION_LOCK_CLASS;
use super::{Fence, Store, StoreError};

/// Channel on which replicas tell each other that due rows were added.
const DUE_CHANNEL: &str = "hookward_due";

/// A session that holds this replica's advisory lock: PostgreSQL drops the lock
/// as soon as the process is gone, so others learn of a crash within a second.
#[derive(Debug)]
pub struct CrashHint {
    connection: PgConnection,
}

impl CrashHint {
    /// Whether the session still lives.
    pub async fn is_held(&mut self) -> bool {
        let ping = tokio::time::timeout(Duration::from_secs(1), self.connection.ping());
        matches!(ping.await, Ok(Ok(())))
    }
}

/// Hears when another replica has added due rows.
#[derive(Debug)]
pub struct DueListener {
    listener: PgListener,
}

impl DueListener {
    /// Waits for the next notice. An error means that the connection is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: listen anew.
    pub async fn heard(&mut self) -> Result<(), StoreError> {
        match self.listener.recv().await {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Unavailable("listener lost".into())),
        }
    }
}

impl Store {
    /// Takes this replica's advisory lock on a connection of its own. `None` on SQLite.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn crash_hint(&self, fence: Fence) -> Result<Option<CrashHint>, StoreError> {
        if !self.is_shared() {
            return Ok(None);
        }
        let lost = |_| StoreError::Unavailable("connection lost".into());
        let pool = self.write().get_postgres_connection_pool();
        let mut connection = pool.acquire().await.map_err(lost)?.detach();
        let lock = sqlx::query("SELECT pg_advisory_lock($1, $2)")
            .bind(SESSION_LOCK_CLASS)
            .bind(i32::from(fence.replica));
        lock.execute(&mut connection).await.map_err(lost)?;
        Ok(Some(CrashHint { connection }))
    }

    /// Listens for due rows of other replicas. `None` on SQLite.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn due_listener(&self) -> Result<Option<DueListener>, StoreError> {
        if !self.is_shared() {
            return Ok(None);
        }
        let lost = |_| StoreError::Unavailable("connection lost".into());
        let pool = self.write().get_postgres_connection_pool();
        let mut listener = PgListener::connect_with(pool).await.map_err(lost)?;
        listener.listen(DUE_CHANNEL).await.map_err(lost)?;
        Ok(Some(DueListener { listener }))
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
