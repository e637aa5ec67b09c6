//! The processes that share a database: who is alive, and the fence that keeps a
//! dead one from writing.

use sea_orm::{ConnectionTrait, EntityTrait};

use super::engine::column;
use super::entity::replica;
use super::link::Transaction;
use super::{LeaseSession, Store, StoreError};
use crate::domain::id::{EPOCH_MILLIS, EventKey, REPLICA_MAX};
use crate::domain::timestamp::Timestamp;

/// Who writes. Every write after a claim carries one, and changes nothing once
/// its replica row is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Number among the live replicas, part of every key it makes.
    pub replica: u16,
    /// Unique over all time.
    pub incarnation: i64,
}

/// A registered process, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who.
    pub fence: Fence,
    /// Its last sign of life, by the database's clock.
    pub heartbeat_at: Timestamp,
    /// By the database's clock.
    pub now: Timestamp,
    /// Whether its lease's session holds its lock.
    pub session_held: bool,
}

/// What a registration answers.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// What every write carries from now on.
    pub fence: Fence,
    /// By the database's clock.
    pub now: Timestamp,
    /// The newest key of an event or a subscription, 0 without any. The clock may have
    /// stepped back behind it.
    pub newest: i64,
}

/// What a heartbeat answers.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// By the database's clock.
    pub now: Timestamp,
}

/// Adds a row with the lowest free number. The incarnation is the database's
/// clock, pushed past every one in the table. The watermark starts a minute ago: keys
/// are made by the same clock.
const REGISTER: &str = "
    INSERT INTO replica (number, incarnation, heartbeat_at, low_key)
    SELECT free.number, free.incarnation, {now}, ({now} / 1000 - $2 - 60000) << 22 FROM (
        SELECT (SELECT min(n.number) FROM (SELECT 0 AS number UNION ALL SELECT number + 1 FROM replica) n
                WHERE n.number NOT IN (SELECT number FROM replica)) AS number,
               (SELECT CASE WHEN max(r.incarnation) >= {now} THEN max(r.incarnation) + 1 ELSE {now} END
                FROM replica r) AS incarnation) free
    WHERE free.number <= $1
    RETURNING number, incarnation, heartbeat_at";
/// One step of each index.
const NEWEST: &str = "
    SELECT max(newest.key) AS key FROM (
        SELECT max(key) AS key FROM event UNION ALL SELECT max(key) FROM subscription
        UNION ALL SELECT 0) newest";

/// Renews the lease. No row: this replica has been taken over.
const HEARTBEAT: &str = "
    UPDATE replica SET heartbeat_at = {now}, low_key = $3
    WHERE number = $1 AND incarnation = $2
    RETURNING heartbeat_at";

/// The fence: present exactly while the replica is. `FOR KEY SHARE` holds off the
/// take-over, which locks the row for update, until this transaction ends;
/// heartbeats pass.
const HOLD_POSTGRES: &str =
    "SELECT number FROM replica WHERE number = $1 AND incarnation = $2 FOR KEY SHARE";
/// The same, and no transaction that holds the row goes on beside this one: a commit
/// whose answer was lost has ended, one way or the other.
const HOLD_ALONE_POSTGRES: &str =
    "SELECT number FROM replica WHERE number = $1 AND incarnation = $2 FOR UPDATE";
/// Ends every commit of this replica that has not begun yet and whose events have
/// smaller keys: it was sent, nobody heard of it, and it may be on its way. The caller
/// holds the row alone, so that one that has begun waits for it here, and looks at the
/// row again before it stores anything. Never lowers it: of two that recover at once, the
/// one that asked first may come last.
const RAISE_FLOOR: &str = "UPDATE replica SET commit_floor = $3
    WHERE number = $1 AND incarnation = $2 AND commit_floor < $3";
const HOLD_SQLITE: &str = "SELECT number FROM replica WHERE number = $1 AND incarnation = $2";

/// All replicas, with whether the session lock of each is held ([`LeaseSession`]).
const REPLICAS_POSTGRES: &str = "
    SELECT r.number, r.incarnation, r.heartbeat_at, {now} AS now, EXISTS (
        SELECT 1 FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
          AND l.classid = $1 AND l.objid = r.number
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS held
    FROM replica r ORDER BY r.number";
const REPLICAS_SQLITE: &str = "
    SELECT r.number, r.incarnation, r.heartbeat_at, {now} AS now, 0 AS held, $1 AS class
    FROM replica r ORDER BY r.number";

/// Class of the advisory locks of live sessions.
pub(super) const SESSION_LOCK_CLASS: i32 = 0x686f_6f6b;

impl Store {
    /// Registers this process.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Setup`] when 1,024 replicas live.
    pub async fn register(&self) -> Result<Registered, StoreError> {
        let transaction = self.begin().await?;
        if self.is_shared() {
            // Two that register at once would choose the same number.
            transaction
                .execute_unprepared("LOCK TABLE replica IN SHARE ROW EXCLUSIVE MODE")
                .await?;
        }
        let most = i16::try_from(REPLICA_MAX).unwrap_or(i16::MAX);
        let register = self.statement(REGISTER, vec![most.into(), EPOCH_MILLIS.into()]);
        let row = transaction.query_one_raw(register).await?;
        let row = row.ok_or_else(|| StoreError::Setup("too many live replicas".into()))?;
        let number: i32 = small(&row, "number")?;
        let fence = Fence {
            replica: u16::try_from(number).map_err(|_| StoreError::Corrupt("number"))?,
            incarnation: column(&row, "incarnation")?,
        };
        let now = Timestamp(column(&row, "heartbeat_at")?);
        let row = transaction.query_one_raw(self.statement(NEWEST, vec![])).await?;
        let newest = column(&row.ok_or(StoreError::Corrupt("key"))?, "key")?;
        transaction.commit().await?;
        Ok(Registered { fence, now, newest })
    }

    /// Renews this replica's lease, on PostgreSQL over `session`. `low_key`: every event of
    /// this replica with a smaller key is settled or has a due row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] when it has been taken over: the session is ended, and with it
    /// the lock on a number that may be another's by now.
    pub async fn heartbeat(
        &self,
        session: &mut LeaseSession,
        fence: Fence,
        low_key: EventKey,
    ) -> Result<Heartbeat, StoreError> {
        let values = vec![number(fence).into(), fence.incarnation.into(), low_key.0.into()];
        let statement = self.statement(HEARTBEAT, values);
        let row = match self.write().server() {
            Some(server) => session.query_one(server, statement).await?,
            None => self.write().query_one_raw(statement).await?,
        };
        let Some(row) = row else {
            *session = LeaseSession::default();
            return Err(StoreError::Fenced);
        };
        Ok(Heartbeat { now: Timestamp(column(&row, "heartbeat_at")?) })
    }

    /// Leaves: for a replica that knows of no claims any more. What it claimed without
    /// hearing of it is put back in line.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: others will notice by themselves.
    pub async fn leave(&self, fence: Fence) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        let values = vec![number(fence).into(), fence.incarnation.into()];
        // First: it waits for claims that are under way, and voids those that come later.
        let sql = "DELETE FROM replica WHERE number = $1 AND incarnation = $2";
        transaction.execute_raw(self.statement(sql, values)).await?;
        let sql = "UPDATE due SET owner = 0 WHERE owner = $1 AND owner <> 0";
        transaction.execute_raw(self.statement(sql, vec![fence.incarnation.into()])).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Every registered replica.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        let sql = if self.is_shared() { REPLICAS_POSTGRES } else { REPLICAS_SQLITE };
        let class = self.statement(sql, vec![SESSION_LOCK_CLASS.into()]);
        let rows = self.write().query_all_raw(class).await?;
        let replica = |row| -> Result<Replica, StoreError> {
            let number = small(&row, "number")?;
            let fence = Fence {
                replica: u16::try_from(number).map_err(|_| StoreError::Corrupt("number"))?,
                incarnation: column(&row, "incarnation")?,
            };
            let heartbeat_at = Timestamp(column(&row, "heartbeat_at")?);
            let now = Timestamp(column(&row, "now")?);
            Ok(Replica { fence, heartbeat_at, now, session_held: column(&row, "held")? })
        };
        rows.into_iter().map(replica).collect()
    }

    /// Fails with [`StoreError::Fenced`] unless the replica is registered; keeps it
    /// so until `transaction` ends.
    pub(super) async fn hold(
        &self,
        transaction: &Transaction,
        fence: Fence,
    ) -> Result<(), StoreError> {
        self.hold_by(transaction, fence, HOLD_POSTGRES).await
    }

    /// As [`Store::hold`], once every other transaction that holds it has ended; commits
    /// below `floor` that come later store nothing.
    pub(super) async fn hold_alone(
        &self,
        transaction: &Transaction,
        fence: Fence,
        floor: EventKey,
    ) -> Result<(), StoreError> {
        self.hold_by(transaction, fence, HOLD_ALONE_POSTGRES).await?;
        let values = vec![number(fence).into(), fence.incarnation.into(), floor.0.into()];
        transaction.execute_raw(self.statement(RAISE_FLOOR, values)).await?;
        Ok(())
    }

    async fn hold_by(
        &self,
        transaction: &Transaction,
        fence: Fence,
        postgres: &str,
    ) -> Result<(), StoreError> {
        let sql = if self.is_shared() { postgres } else { HOLD_SQLITE };
        let values = vec![number(fence).into(), fence.incarnation.into()];
        let row = transaction.query_one_raw(self.statement(sql, values)).await?;
        row.map(drop).ok_or(StoreError::Fenced)
    }

    /// Whether the replica is registered now.
    pub(super) async fn is_registered(&self, fence: Fence) -> Result<bool, StoreError> {
        let row = replica::Entity::find_by_id(number(fence)).one(self.write()).await?;
        Ok(row.is_some_and(|row| row.incarnation == fence.incarnation))
    }
}

pub(super) fn number(fence: Fence) -> i16 {
    i16::try_from(fence.replica).unwrap_or(i16::MAX)
}

/// An int2 of PostgreSQL or an INTEGER of SQLite.
fn small(row: &sea_orm::QueryResult, name: &'static str) -> Result<i32, StoreError> {
    match row.try_get::<i32>("", name) {
        Ok(number) => Ok(number),
        Err(_) => column::<i16>(row, name).map(i32::from),
    }
}
