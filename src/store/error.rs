//! What can go wrong with the database, by what the caller can do about it.

use std::io::ErrorKind;

use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::keyring::Locked;

/// Why the store did not do what it was asked. The database's own text stays
/// inside: it may carry values, so it goes to no caller and no log.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object, or it is another organization's.
    #[error("not found")]
    NotFound,
    /// The object changed since the caller read it.
    #[error("changed since it was read")]
    Stale,
    /// The object's state does not allow this.
    #[error("not possible in this state: {0}")]
    WrongState(&'static str),
    /// What the event carried is gone.
    #[error("the event's payload was purged")]
    Purged,
    /// The organization holds as many as it may.
    #[error("too many")]
    TooMany,
    /// The request id was used for another request.
    #[error("request id used for another request")]
    RequestIdReused,
    /// This process lost its place among the replicas; nothing was written.
    #[error("this replica has been taken over")]
    Fenced,
    /// The database cannot be reached or is too busy; nothing was written, or it
    /// is not known whether it was. Asking again is safe.
    #[error("database unavailable ({0})")]
    Unavailable(String),
    /// No space left; nothing was written.
    #[error("no space left in the database")]
    StorageFull,
    /// The database refused a value; nothing was written.
    #[error("the database refused a value ({0})")]
    Rejected(String),
    /// A unique key is taken; nothing was written.
    #[error("already there")]
    Taken,
    /// A stored row cannot be read.
    #[error("stored {0} cannot be read")]
    Corrupt(&'static str),
    /// A stored value was encrypted, and its data key is gone: for ever, unless a backup
    /// brings the key back.
    #[error("the data key of a stored value is gone")]
    Shredded,
    /// A data key cannot be opened with the operator's keys; nothing was written.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// The database cannot be used as it is set up; for the operator.
    #[error("{0}")]
    Setup(String),
}

impl StoreError {
    /// Whether it may be over in a moment, so that whoever is in no hurry waits: a server that
    /// cannot be reached, is full, starts or stops. What it says about this user, this database
    /// or these rights is for the operator.
    #[must_use]
    pub fn passes(&self) -> bool {
        let StoreError::Unavailable(why) = self else { return false };
        match why.strip_prefix("code ") {
            Some(code) => {
                let passing = ["53", "57P", "08"].iter().any(|class| code.starts_with(class));
                // 08P01: it does not understand what is asked for.
                passing && code != "08P01"
            }
            None => true,
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let (DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner))
        | DbErr::Conn(RuntimeErr::SqlxError(inner))) = &error
        else {
            return match error {
                DbErr::ConnectionAcquire(_) => StoreError::Unavailable("no free connection".into()),
                DbErr::Conn(_) => StoreError::Unavailable("connection failed".into()),
                DbErr::RecordNotFound(_) => StoreError::NotFound,
                DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. } => {
                    StoreError::Corrupt("row")
                }
                other => StoreError::Unavailable(kind(&other).into()),
            };
        };
        from_driver(inner)
    }
}

/// Whether a lock was not to be had in time, or at all while somebody else waited for one of
/// ours.
pub(super) fn is_lock_timeout(error: &DbErr) -> bool {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner))
        | DbErr::Conn(RuntimeErr::SqlxError(inner)) => match &**inner {
            // lock_not_available, deadlock_detected
            sqlx::Error::Database(database) => {
                matches!(database.code().as_deref(), Some("55P03" | "40P01"))
            }
            _ => false,
        },
        _ => false,
    }
}

fn from_driver(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(database) => {
            from_code(database.code().as_deref().unwrap_or_default())
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt("row"),
        sqlx::Error::PoolTimedOut => StoreError::Unavailable("no free connection".into()),
        sqlx::Error::Io(error)
            if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) =>
        {
            StoreError::Unavailable("no answer in time".into())
        }
        sqlx::Error::Io(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            StoreError::Unavailable("the server only reads".into())
        }
        _ => StoreError::Unavailable("connection lost".into()),
    }
}

fn kind(error: &DbErr) -> &'static str {
    match error {
        DbErr::Migration(_) => "migration failed",
        _ => "operation failed",
    }
}

/// By SQLSTATE (PostgreSQL, five characters) or result code (SQLite, a number),
/// never by text.
fn from_code(code: &str) -> StoreError {
    match code {
        // unique_violation; SQLITE_CONSTRAINT_PRIMARYKEY, _UNIQUE, _ROWID
        "23505" | "1555" | "2067" | "2579" => StoreError::Taken,
        // disk_full; SQLITE_FULL
        "53100" | "13" => StoreError::StorageFull,
        // out of memory or connections, shutdown, read-only, conflicts, time limits
        "53200" | "53300" | "57P01" | "57P02" | "57P03" | "25006" | "40001" | "40P01" | "55P03"
        | "57014" => StoreError::Unavailable(format!("code {code}")),
        _ if code.len() == 5 && code.starts_with("08") => {
            StoreError::Unavailable(format!("code {code}"))
        }
        // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR, SQLITE_CANTOPEN and their kin
        _ if code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 14)) => {
            StoreError::Unavailable(format!("code {code}"))
        }
        // data exceptions, constraints, program limits; SQLITE_TOOBIG, _CONSTRAINT, _MISMATCH
        _ if code.len() == 5 && ["22", "23", "54"].contains(&&code[..2]) => {
            StoreError::Rejected(format!("code {code}"))
        }
        _ if code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20)) => {
            StoreError::Rejected(format!("code {code}"))
        }
        // Whatever else it is, it is not the value's fault: a publisher must not take
        // it for final.
        _ => StoreError::Unavailable(format!("code {code}")),
    }
}
