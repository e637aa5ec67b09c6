//! The one way of statements to the database, on either engine, but for those of the
//! lease and LISTEN ([`super::session`]), and migrations and checks at the start
//! ([`super::open`]).
//!
//! On PostgreSQL each has a deadline at this end ([`super::server`]): a network that
//! swallows everything must not hold anybody up for the quarter of an hour that TCP
//! takes to notice. On SQLite nothing is between here and the file, and another program's
//! lock on it is waited for two and a half seconds at most.

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
}

/// Rolled back unless it is committed.
pub(super) enum Transaction {
    Sqlite(DatabaseTransaction, File),
    Postgres(Mutex<Lent>),
}

impl Link {
    pub(super) async fn begin(&self, purpose: Purpose) -> Result<Transaction, DbErr> {
        match self {
            Link::Sqlite(file) => {
                let sqlite_transaction_mode = match purpose {
                    Purpose::Writing => Some(SqliteTransactionMode::Immediate),
                    // SQLite's transactions read one state anyway.
                    Purpose::Snapshot => None,
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
                };
                let mut lent = server.lend(*side).await.map_err(failed)?;
                lent.begin(sql).await.map_err(failed)?;
                Ok(Transaction::Postgres(Mutex::new(lent)))
            }
        }
    }

    /// Runs a statement of the hot path as its own transaction, and tells how many rows
    /// it wrote. On PostgreSQL only.
    pub(super) async fn execute_postgres(&self, query: PostgresQuery<'_>) -> Result<u64, DbErr> {
        let Link::Postgres(server, side) = self else {
            return Err(DbErr::Custom("SQLite has statements of its own".into()));
        };
        let mut lent = server.lend(*side).await.map_err(failed)?;
        lent.execute_query(query).await.map(|result| result.rows_affected()).map_err(failed)
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
                let mut lent = server.lend(*side).await.map_err(failed)?;
                lent.execute(statement).await.map(Into::into).map_err(failed)
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Link::Sqlite(file) => file.judge(file.connection().execute_unprepared(sql).await),
            Link::Postgres(server, side) => {
                let mut lent = server.lend(*side).await.map_err(failed)?;
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
                let mut lent = server.lend(*side).await.map_err(failed)?;
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

pub(super) fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
