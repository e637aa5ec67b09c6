//! A copy of a SQLite file while a server uses it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sea_orm::{ConnectionTrait, Database};

use super::open::{Target, sqlite_options};
use super::{Store, StoreError};

/// Whoever reads it reads what is stored.
const OWNER_ONLY: u32 = 0o600;

impl Store {
    /// Writes everything that is committed now into a new file, which is on disk when this
    /// returns. Writers go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Setup`]: the database is none in a file, or there is something at `to`
    /// already, or it cannot be written.
    pub async fn back_up(target: &Target, to: &Path) -> Result<(), StoreError> {
        let Target::Sqlite(path) = target else {
            let why = "PostgreSQL has tools of its own for this: pg_dump, or a base backup";
            return Err(StoreError::Setup(why.into()));
        };
        if !path.is_file() {
            return Err(StoreError::Setup(format!("{} is not there", path.display())));
        }
        let unwritable = |error| StoreError::Setup(format!("{}: {error}", to.display()));
        // A path from the root means a file to SQLite, whatever its name begins with.
        let to = &std::path::absolute(to).map_err(unwritable)?;
        let name =
            to.to_str().ok_or_else(|| StoreError::Setup("a name in UTF-8, please".into()))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(to);
        let file = file.map_err(unwritable)?;
        let copied = copy(path, name).await;
        let synced = copied
            .and_then(|()| file.sync_all().and_then(|()| sync_folder_of(to)).map_err(unwritable));
        if synced.is_err() {
            // What is left of it is of no use, and only in the way.
            let _ = std::fs::remove_file(to);
        }
        synced
    }
}

/// The name is on disk as well.
fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

async fn copy(path: &Path, to: &str) -> Result<(), StoreError> {
    let connection = Database::connect(sqlite_options(path, 1, true)).await?;
    let engine = connection.get_database_backend();
    let vacuum = sea_orm::Statement::from_sql_and_values(engine, "VACUUM INTO ?", [to.into()]);
    let copied = connection.execute_raw(vacuum).await;
    connection.close().await?;
    copied.map(drop).map_err(StoreError::from)
}
