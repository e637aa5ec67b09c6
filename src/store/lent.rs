//! A connection to PostgreSQL in somebody's hands, for one statement or one
//! transaction.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::Statement;
use sea_orm::sea_query::Values;
use sea_orm::sqlx::postgres::{PgQueryResult, PgRow, Postgres};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection, IntoArguments};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::server::{Doubt, Server, Session, Side};

/// How long a connection whose user went away half-way may take to become usable again.
const ABANDONED: Duration = Duration::from_secs(1);

/// Goes back when it is dropped; is closed when it broke.
pub(super) struct Lent {
    server: Arc<Server>,
    side: Side,
    /// `None` once it broke.
    session: Option<Session>,
    /// `None` for one that is nobody's place.
    place: Option<OwnedSemaphorePermit>,
    /// A statement was sent and its answer is not read.
    busy: bool,
    in_transaction: bool,
}

/// What an error says about the connection that it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is fine.
    Keep,
    /// It is not.
    Close,
    /// Nor are the others: the server is going away, only reads, or is out of reach.
    CloseAll(Doubt),
}

impl Lent {
    pub(super) fn new(
        server: Arc<Server>,
        side: Side,
        session: Session,
        place: Option<OwnedSemaphorePermit>,
    ) -> Lent {
        Lent { server, side, session: Some(session), place, busy: false, in_transaction: false }
    }

    /// Whether it can be trusted: it has not broken, nor has another that was as old.
    pub(super) fn is_current(&self) -> bool {
        self.session.as_ref().is_some_and(|session| self.server.is_current(session))
    }

    /// Begins a transaction, which [`Lent::commit`] ends; else it is rolled back.
    pub(super) async fn begin(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        self.in_transaction = true;
        self.execute_unprepared(sql).await.map(drop)
    }

    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.execute_unprepared("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    pub(super) async fn execute(
        &mut self,
        statement: Statement,
    ) -> Result<PgQueryResult, sqlx::Error> {
        self.execute_query(query(statement)).await
    }

    pub(super) async fn execute_query<'q>(
        &mut self,
        query: Query<'q, Postgres, impl IntoArguments<Postgres> + 'q>,
    ) -> Result<PgQueryResult, sqlx::Error> {
        let session = session(&mut self.session)?;
        self.busy = true;
        let whose = (session.backend, session.generation);
        let answer = query.execute(&mut session.connection);
        let answered = self.server.answered(whose, answer).await;
        self.judge(answered)
    }

    /// All rows. Also where one is wanted: an answer is whole only at its end, where the
    /// server says that what was written is stored.
    pub(super) async fn fetch(&mut self, statement: Statement) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = query(statement);
        let session = session(&mut self.session)?;
        self.busy = true;
        let whose = (session.backend, session.generation);
        let answer = query.fetch_all(&mut session.connection);
        let answered = self.server.answered(whose, answer).await;
        self.judge(answered)
    }

    pub(super) async fn execute_unprepared(
        &mut self,
        sql: &str,
    ) -> Result<PgQueryResult, sqlx::Error> {
        let session = session(&mut self.session)?;
        self.busy = true;
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let whose = (session.backend, session.generation);
        let answer = query.execute(&mut session.connection);
        let answered = self.server.answered(whose, answer).await;
        self.judge(answered)
    }

    fn judge<T>(&mut self, answered: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.busy = false;
        match answered.as_ref().err().map_or(Fate::Keep, fate) {
            Fate::Keep => {}
            Fate::Close => self.session = None,
            Fate::CloseAll(doubt) => {
                if let Some(session) = self.session.take() {
                    self.server.doubt(&session, doubt);
                }
            }
        }
        answered
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let (server, side) = (Arc::clone(&self.server), self.side);
        if !self.busy && !self.in_transaction {
            return server.take_back(side, session);
        }
        // Without a runtime the process is ending, and the connection with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (place, in_transaction) = (self.place.take(), self.in_transaction);
        runtime.spawn(async move {
            let connection = &mut session.connection;
            let clean = async {
                if in_transaction {
                    sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)
                } else {
                    connection.ping().await
                }
            };
            if matches!(timeout(ABANDONED, clean).await, Ok(Ok(()))) {
                server.take_back(side, session);
            }
            drop(place);
        });
    }
}

fn session(session: &mut Option<Session>) -> Result<&mut Session, sqlx::Error> {
    session.as_mut().ok_or(sqlx::Error::PoolClosed)
}

fn query(statement: Statement) -> Query<'static, Postgres, SqlxValues> {
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

fn fate(error: &sqlx::Error) -> Fate {
    match error {
        sqlx::Error::Database(error) => by_code(error.code().as_deref().unwrap_or_default()),
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Decode(_) => Fate::Keep,
        sqlx::Error::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut => Fate::CloseAll(Doubt::Silent),
            // The server was seen at work on it to the end.
            io::ErrorKind::Interrupted => Fate::Close,
            _ => Fate::CloseAll(Doubt::Closed),
        },
        _ => Fate::Close,
    }
}

fn by_code(code: &str) -> Fate {
    match code {
        // read_only_sql_transaction: a failover has made the server a standby
        "25006" => Fate::CloseAll(Doubt::Closed),
        // idle_in_transaction_session_timeout, idle_session_timeout; feature_not_supported:
        // a migration has changed what a prepared `SELECT *` yields
        "25P03" | "57P05" | "0A000" => Fate::Close,
        // operator intervention but query_canceled, connection exceptions
        _ if code.starts_with("57P") || code.starts_with("08") => Fate::CloseAll(Doubt::Closed),
        _ => Fate::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_outlives_a_statements_error_and_not_its_servers() {
        for code in ["23505", "40001", "40P01", "55P03", "57014", "53100", "22021"] {
            assert_eq!(by_code(code), Fate::Keep, "{code}");
        }
        for code in ["25006", "57P01", "57P02", "57P03", "08006", "08P01"] {
            assert_eq!(by_code(code), Fate::CloseAll(Doubt::Closed), "{code}");
        }
        assert_eq!(fate(&sqlx::Error::RowNotFound), Fate::Keep);
        let io = |kind: io::ErrorKind| fate(&sqlx::Error::Io(kind.into()));
        assert_eq!(io(io::ErrorKind::ConnectionReset), Fate::CloseAll(Doubt::Closed));
        assert_eq!(io(io::ErrorKind::TimedOut), Fate::CloseAll(Doubt::Silent));
        assert_eq!(io(io::ErrorKind::Interrupted), Fate::Close);
    }
}
