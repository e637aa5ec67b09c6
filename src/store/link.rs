//! The one way of statements to the database, on either engine, but for those of the
//! lease and LISTEN ([`super::session`]), and migrations and checks at the start
//! ([`super::open`]).
//!
//! A transaction of one organization is bound to it where PostgreSQL keeps organizations
//! apart ([`super::row_security`]), and callers have no other there.
//!
//! On PostgreSQL each has a deadline at this end ([`super::server`]): a network that
//! swallows everything must not hold anybody up for the quarter of an hour that TCP
//! takes to notice. On SQLite nothing is between here and the file, and another program's
//! lock on it is waited for two and a half seconds at most.

use std::borrow::Cow;
use std::sync::Arc;

use sea_orm::sqlx;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::async_trait;
use tokio::sync::Mutex;

use super::engine::PostgresQuery;
use super::file::File;
use super::lent::Lent;
use super::server::{Server, Side};
use crate::domain::id::OrganizationId;

/// A way to the database. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Sqlite(File),
    Postgres(Arc<Server>, Side),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// On SQLite it holds the write lock from the start: a deferred one could fail
    /// half-way with `SQLITE_BUSY_SNAPSHOT`.
    Writing,
    /// Reads that belong together: all from one state of the database.
    Snapshot,
    /// Look-ups of which each may see a later state than the one before.
    Reading,
}

/// The way of one organization's look-ups: where nothing would bind a transaction to it,
/// none is begun.
pub(super) enum Reading<'a> {
    Free(&'a Link),
    Bound(Transaction),
}

/// Rolled back unless it is committed.
pub(super) enum Transaction {
    Sqlite(DatabaseTransaction, File),
    Postgres(Mutex<Lent>),
}

impl Link {
    /// Begins a transaction: an organization's, or the engine's own.
    pub(super) async fn begin(
        &self,
        purpose: Purpose,
        organization: Option<&OrganizationId>,
    ) -> Result<Transaction, DbErr> {
        match self {
            Link::Sqlite(file) => {
                let sqlite_transaction_mode = match purpose {
                    Purpose::Writing => Some(SqliteTransactionMode::Immediate),
                    // SQLite's transactions read one state anyway.
                    Purpose::Snapshot | Purpose::Reading => None,
                };
                let options =
                    TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
                let begun = file.connection().begin_with_options(options).await;
                Ok(Transaction::Sqlite(file.judge(begun)?, file.clone()))
            }
            Link::Postgres(server, side) => {
                // Planned each time, for the tables as they are: a plan that was made and
                // kept while `due` was empty joins by reading all of it.
                let sql = match purpose {
                    Purpose::Writing => "BEGIN; SET LOCAL plan_cache_mode = force_custom_plan",
                    Purpose::Snapshot => {
                        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                         SET LOCAL plan_cache_mode = force_custom_plan"
                    }
                    Purpose::Reading => "BEGIN READ ONLY",
                };
                let (mut lent, sql) = match server.api_role().zip(organization) {
                    Some((role, organization)) => {
                        let lent = server.lend(*side).await.map_err(failed)?;
                        (lent, Cow::Owned(role.bind(sql, organization)))
                    }
                    None => (lend(server, *side).await?, Cow::Borrowed(sql)),
                };
                lent.begin(&sql).await.map_err(not_begun)?;
                Ok(Transaction::Postgres(Mutex::new(lent)))
            }
        }
    }

    /// The way of an organization's look-ups.
    pub(super) async fn reading(
        &self,
        organization: &OrganizationId,
    ) -> Result<Reading<'_>, DbErr> {
        match self.server().and_then(|server| server.api_role()) {
            Some(_) => Ok(Reading::Bound(self.begin(Purpose::Reading, Some(organization)).await?)),
            None => Ok(Reading::Free(self)),
        }
    }

    /// Runs a statement of the hot path as its own transaction, and tells how many rows
    /// it wrote. On PostgreSQL only.
    pub(super) async fn execute_postgres(&self, query: PostgresQuery<'_>) -> Result<u64, DbErr> {
        let Link::Postgres(server, side) = self else {
            return Err(DbErr::Custom("SQLite has statements of its own".into()));
        };
        let mut lent = lend(server, *side).await?;
        lent.execute_query(query).await.map(|result| result.rows_affected()).map_err(failed)
    }

    /// The same connections for work that is no single organization's.
    pub(super) fn unbound(&self) -> Link {
        match self {
            Link::Sqlite(file) => Link::Sqlite(file.clone()),
            Link::Postgres(server, _) => Link::Postgres(Arc::clone(server), Side::Upkeep),
        }
    }

    /// The server; `None` on SQLite.
    pub(super) fn server(&self) -> Option<&Arc<Server>> {
        match self {
            Link::Sqlite(_) => None,
            Link::Postgres(server, _) => Some(server),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Link::Sqlite(file) => file.close().await,
            Link::Postgres(server, _) => server.close(),
        }
    }
}

impl Transaction {
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        match self {
            Transaction::Sqlite(transaction, file) => file.judge(transaction.commit().await),
            Transaction::Postgres(lent) => lent.into_inner().commit().await.map_err(failed),
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Link {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Link::Sqlite(_) => DbBackend::Sqlite,
            Link::Postgres(..) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Link::Sqlite(file) => file.judge(file.connection().execute_raw(statement).await),
            Link::Postgres(server, side) => {
                let mut lent = lend(server, *side).await?;
                lent.execute(statement).await.map(Into::into).map_err(failed)
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Link::Sqlite(file) => file.judge(file.connection().execute_unprepared(sql).await),
            Link::Postgres(server, side) => {
                let mut lent = lend(server, *side).await?;
                lent.execute_unprepared(sql).await.map(Into::into).map_err(failed)
            }
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Link::Sqlite(file) => file.judge(file.connection().query_one_raw(statement).await),
            Link::Postgres(..) => Ok(self.query_all_raw(statement).await?.into_iter().next()),
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Link::Sqlite(file) => file.judge(file.connection().query_all_raw(statement).await),
            Link::Postgres(server, side) => {
                let mut lent = lend(server, *side).await?;
                let rows = lent.fetch(statement).await.map_err(failed)?;
                Ok(rows.into_iter().map(Into::into).collect())
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Transaction::Sqlite(..) => DbBackend::Sqlite,
            Transaction::Postgres(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Transaction::Sqlite(transaction, file) => {
                file.judge(transaction.execute_raw(statement).await)
            }
            Transaction::Postgres(lent) => {
                let executed = lent.lock().await.execute(statement).await;
                executed.map(Into::into).map_err(failed)
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Transaction::Sqlite(transaction, file) => {
                file.judge(transaction.execute_unprepared(sql).await)
            }
            Transaction::Postgres(lent) => {
                let executed = lent.lock().await.execute_unprepared(sql).await;
                executed.map(Into::into).map_err(failed)
            }
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Transaction::Sqlite(transaction, file) => {
                file.judge(transaction.query_one_raw(statement).await)
            }
            Transaction::Postgres(_) => Ok(self.query_all_raw(statement).await?.into_iter().next()),
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Transaction::Sqlite(transaction, file) => {
                file.judge(transaction.query_all_raw(statement).await)
            }
            Transaction::Postgres(lent) => {
                let rows = lent.lock().await.fetch(statement).await.map_err(failed)?;
                Ok(rows.into_iter().map(Into::into).collect())
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Reading<'_> {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Reading::Free(link) => link.get_database_backend(),
            Reading::Bound(transaction) => transaction.get_database_backend(),
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Reading::Free(link) => link.execute_raw(statement).await,
            Reading::Bound(transaction) => transaction.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Reading::Free(link) => link.execute_unprepared(sql).await,
            Reading::Bound(transaction) => transaction.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Reading::Free(link) => link.query_one_raw(statement).await,
            Reading::Bound(transaction) => transaction.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Reading::Free(link) => link.query_all_raw(statement).await,
            Reading::Bound(transaction) => transaction.query_all_raw(statement).await,
        }
    }
}

/// Lends a connection for what is no single organization's. Callers have nothing of that
/// kind: where a role could bind them, a statement that was forgotten must not go unbound.
/// The server's own work in their places says that it is ([`Side::Upkeep`]).
async fn lend(server: &Arc<Server>, side: Side) -> Result<Lent, DbErr> {
    if side == Side::Callers && server.api_role().is_some() {
        return Err(DbErr::Custom("a caller's statement is bound to no organization".into()));
    }
    server.lend(side).await.map_err(failed)
}

/// Why a transaction did not begin. A role that is gone has the code of a bad value (22023),
/// and is not the caller's fault.
fn not_begun(error: sqlx::Error) -> DbErr {
    match &error {
        sqlx::Error::Database(refused) if refused.code().as_deref() == Some("22023") => {
            DbErr::Custom("the role of callers' work is gone".into())
        }
        _ => failed(error),
    }
}

pub(super) fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
