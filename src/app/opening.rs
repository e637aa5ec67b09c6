//! The database at the start: one that is away is waited for, as it would be later. Whoever
//! gave up instead would be started again and again while PostgreSQL is down, and be the
//! longer away for it.

use std::time::Duration;

use crate::store::{RowSecurity, Settings, Store, StoreError, Target};

/// Time between two tries.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries between two lines of the log.
const TOLD_EVERY: u32 = 30;

/// Opens the database as soon as it can be.
///
/// # Errors
///
/// As [`Store::open`], but for a server that cannot be reached now.
pub(super) async fn open(settings: &Settings) -> Result<Store, StoreError> {
    let is_server = matches!(settings.target, Target::Postgres(_));
    let mut tries = 0_u32;
    loop {
        match Store::open(settings).await {
            Err(error) if is_server && error.passes() => {
                if tries.is_multiple_of(TOLD_EVERY) {
                    tracing::warn!(%error, "waiting for the database");
                }
                tries = tries.wrapping_add(1);
                tokio::time::sleep(AGAIN).await;
            }
            opened => return opened.inspect(warn_of_missing_policies),
        }
    }
}

/// The service keeps organizations apart alone, where the database could as well.
fn warn_of_missing_policies(store: &Store) {
    if let RowSecurity::Off(remedy) = store.row_security() {
        tracing::warn!(remedy, "row-level security is off");
    }
}
