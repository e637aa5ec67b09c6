//! Direct PostgreSQL connections: the crash hint and the wake-up.
//!
//! Both only make things faster. A replica whose crash hint is missing (behind a
//! transaction pooler, say) is taken over when its lease ends; a lost wake-up is
//! found by the next poll.

use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use sea_orm::sqlx::{self, Connection};
use tokio::time::timeout;

use super::replica::SESSION_LOCK_CLASS;
use super::{Fence, Store, StoreError};

/// Channel on which replicas tell each other that due rows were added.
const DUE_CHANNEL: &str = "hookward_due";

/// Longest wait for an answer on these connections.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a listener is believed to hear.
const LISTEN_MAX: Duration = Duration::from_secs(30);

/// A session that holds this replica's advisory lock: PostgreSQL drops the lock
/// as soon as the process is gone, so others learn of a crash within a second.
#[derive(Debug)]
pub struct CrashHint {
    connection: PgConnection,
}

impl CrashHint {
    /// Whether the session still lives.
    pub async fn is_held(&mut self) -> bool {
        let ping = timeout(ANSWER, self.connection.ping());
        matches!(ping.await, Ok(Ok(())))
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
    /// Takes this replica's advisory lock on a connection of its own. `None` on SQLite,
    /// and while another session holds it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn crash_hint(&self, fence: Fence) -> Result<Option<CrashHint>, StoreError> {
        let Some(server) = self.write().server() else { return Ok(None) };
        let mut connection = server.open_apart().await.map_err(|_| lost())?;
        // Not waited for: an earlier session that was cut off may hold it until the
        // server has noticed.
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(SESSION_LOCK_CLASS)
            .bind(i32::from(fence.replica));
        let taken = timeout(ANSWER, lock.fetch_one(&mut connection)).await;
        let taken: bool = taken.map_err(|_| lost())?.map_err(|_| lost())?;
        Ok(taken.then_some(CrashHint { connection }))
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
