//! The lock that keeps a second process off a SQLite file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{StoreError, Target};

/// Held for as long as it lives.
#[derive(Debug)]
pub(super) struct FileLock(File);

impl FileLock {
    /// Takes the lock of a SQLite file; PostgreSQL needs none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Setup`] when another process holds it, naming that process.
    pub(super) fn take(target: &Target) -> Result<Option<FileLock>, StoreError> {
        let Target::Sqlite(path) = target else { return Ok(None) };
        let mut name = path.clone().into_os_string();
        name.push(".lock");
        let setup = |error: std::io::Error| {
            StoreError::Setup(format!("cannot lock {}: {error}", Path::new(&name).display()))
        };
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
        let mut file = open.map_err(setup)?;
        match file.try_lock() {
            Ok(()) => {
                let lock = FileLock(file);
                lock.name_holder().map_err(setup)?;
                Ok(Some(lock))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy: an unreadable name changes nothing.
                let _ = file.read_to_string(&mut holder);
                Err(StoreError::Setup(format!(
                    "{} is in use by {}: one process may open a SQLite file; \
                     stop it, or use PostgreSQL for several",
                    path.display(),
                    holder.trim()
                )))
            }
            Err(TryLockError::Error(error)) => Err(setup(error)),
        }
    }

    fn name_holder(&self) -> std::io::Result<()> {
        let mut file = &self.0;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "process {}", std::process::id())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was forked a moment ago and has not yet
        // become another program has the file open too, and would go on holding the lock.
        // An error means that there is no lock any more.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_inherited_the_open_file_does_not_keep_the_lock() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let target = Target::Sqlite(directory.path().join("hookward.db"));
        let lock = FileLock::take(&target).expect("free").expect("SQLite has one");
        assert!(FileLock::take(&target).is_err(), "it is held");

        // As a forked child has it: the same open file under another descriptor.
        let inherited = lock.0.try_clone().expect("duplicated");
        drop(lock);

        FileLock::take(&target).expect("free again");
        drop(inherited);
    }
}
