//! A connection to a SQLite file that is not used again once it has failed.
//!
//! A full disk or a failing one can end a transaction behind the driver's back. The
//! driver still counts it as open then, and makes the next one a savepoint in a
//! transaction that nobody commits: writes would be answered, read back by their own
//! writer, and gone with the process. So whatever fails for a reason that is not in the
//! statement itself costs the connection, and the next statement opens another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, sqlx};

/// `SQLITE_CONSTRAINT`: the statement's own fault, which ends no more than the statement.
const CONSTRAINT: u32 = 19;

/// The connections to the file: one that writes, or some that read. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct File {
    connection: DatabaseConnection,
    /// Something has failed since the connections were opened.
    failed: Arc<AtomicBool>,
}

impl File {
    pub(super) fn new(connection: DatabaseConnection) -> File {
        File { connection, failed: Arc::default() }
    }

    /// The connection, opened anew if the last one failed. Waits for the transaction that
    /// is still under way on that one.
    pub(super) async fn trusted(&self) -> Result<&DatabaseConnection, DbErr> {
        if self.failed.load(Ordering::Acquire) {
            let pool = self.connection.get_sqlite_connection_pool();
            let doubted = pool.acquire().await.map_err(lost)?;
            if self.failed.swap(false, Ordering::AcqRel)
                && let Err(error) = doubted.close().await
            {
                self.failed.store(true, Ordering::Release);
                return Err(lost(error));
            }
        }
        Ok(&self.connection)
    }

    /// Passes an answer on, and remembers one that makes the connection doubtful.
    pub(super) fn judge<T>(&self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
        if answer.as_ref().is_err_and(|error| !is_of_the_statement(error)) {
            self.failed.store(true, Ordering::Release);
        }
        answer
    }

    pub(super) async fn close(&self) {
        // An error here means that the connection is gone already.
        let _ = self.connection.close_by_ref().await;
    }
}

fn is_of_the_statement(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let code = code.and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == CONSTRAINT)
}

fn lost(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}
