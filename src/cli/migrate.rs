//! `hookward migrate`: brings the database to this version.

use super::{CONFIGURATION, Failure};
use crate::config::{self, DatabaseArguments};
use crate::store::Store;

/// Migrates, and says what was done.
pub(super) async fn migrate(arguments: &DatabaseArguments) -> Result<(), Failure> {
    let settings = config::read_database(arguments)
        .map_err(|faults| Failure::new(CONFIGURATION, faults))?;
    let version = env!("CARGO_PKG_VERSION");
    match Store::migrate(&settings).await? {
        0 => println!("the database was ready for hookward {version} already"),
        1 => println!("the database is ready for hookward {version}: 1 migration applied"),
        count => println!("the database is ready for hookward {version}: {count} migrations applied"),
    }
    Ok(())
}
