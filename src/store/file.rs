//! Connections to a SQLite file, none of which is used again once it has failed.
//!
//! A full disk or a failing one can end a transaction behind the driver's back. The
//! driver still counts it as open then, and makes the next one a savepoint in a
//! transaction that nobody commits: writes would be answered, read back by their own
//! writer, and gone with the process. So a connection is looked at when its next user has
//! it in hands, and is replaced if the driver counts a transaction, or if anything has
//! failed for a reason that is not in the statement itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::sqlx::{self, Connection};
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, RuntimeErr};

/// `SQLITE_CONSTRAINT`: the statement's own fault, which ends no more than the statement.
const CONSTRAINT: u32 = 19;

/// The connections to the file: one that writes, or some that read. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct File {
    connection: DatabaseConnection,
    /// Something has failed since the last connection was looked at.
    failed: Arc<AtomicBool>,
}

impl File {
    pub(super) async fn open(mut options: ConnectOptions) -> Result<File, DbErr> {
        let failed = Arc::new(AtomicBool::new(false));
        let doubted = Arc::clone(&failed);
        options.map_sqlx_sqlite_before_acquire(move |connection, _| {
            let has_failed = doubted.swap(false, Ordering::AcqRel);
            let sound = !has_failed && !connection.is_in_transaction();
            Box::pin(async move { Ok(sound) })
        });
        Ok(File { connection: Database::connect(options).await?, failed })
    }

    pub(super) fn connection(&self) -> &DatabaseConnection {
        &self.connection
    }

    /// Passes an answer on, and remembers one that makes its connection doubtful.
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
