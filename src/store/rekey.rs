//! Bringing what is stored under the primary key, beside the servers that use it: data
//! keys are wrapped anew, and what was stored as plaintext is sealed.
//!
//! In small transactions, each followed by a pause as long as itself, so that on either
//! engine the servers' own work goes first. Stopped at any point, it goes on from there
//! when it is started again.

mod plaintext;

use std::time::Instant;

use sea_orm::ConnectionTrait;

use super::data_key::read;
use super::{Store, StoreError};
use crate::domain::audit::NewAuditEntry;
use crate::keyring::Locked;

/// Data keys wrapped anew in one transaction.
const BATCH: u32 = 200;

/// Data keys that another key than the primary wraps.
const OLD: &str = "
    SELECT id, organization_id, kek_id, wrapped FROM data_key
    WHERE routing_version = 0 AND kek_id <> $1 AND id > $2 ORDER BY id LIMIT $3";
/// One that was destroyed in between stays so.
const REWRAP: &str = "UPDATE data_key SET kek_id = $1, wrapped = $2 WHERE id = $3 AND kek_id = $4";

/// What was brought under the primary key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Data keys wrapped anew.
    pub data_keys: u64,
    /// Values that had been stored as plaintext, and are sealed now.
    pub sealed: u64,
}

impl Store {
    /// Wraps every data key with the primary key, and seals what was stored without keys.
    /// Leaves `entry` before it begins.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when there is no key, or one is missing that a data key is
    /// wrapped by; [`StoreError::Unavailable`]: start it again.
    pub async fn rekey(&self, entry: &NewAuditEntry) -> Result<Rekeyed, StoreError> {
        let none = || StoreError::Locked(Locked::Missing("primary".to_owned()));
        let keyring = self.inner.vault.keyring();
        let primary = keyring.primary().ok_or_else(none)?;
        self.audit_alone(entry).await?;
        let mut rekeyed = Rekeyed { data_keys: self.rewrap_all(primary).await?, sealed: 0 };
        rekeyed.sealed += self.seal_events().await?;
        rekeyed.sealed += self.seal_event_keys().await?;
        rekeyed.sealed += self.seal_attempts().await?;
        rekeyed.sealed += self.seal_secrets().await?;
        rekeyed.sealed += self.seal_tls().await?;
        rekeyed.sealed += self.seal_headers().await?;
        rekeyed.sealed += self.seal_answers().await?;
        Ok(rekeyed)
    }

    async fn rewrap_all(&self, primary: &str) -> Result<u64, StoreError> {
        let keyring = self.inner.vault.keyring();
        let (mut after, mut count) = (0_i32, 0);
        loop {
            let began = Instant::now();
            let values = vec![primary.into(), after.into(), i64::from(BATCH).into()];
            let rows = self.read().query_all_raw(self.statement(OLD, values)).await?;
            if rows.is_empty() {
                return Ok(count);
            }
            let transaction = self.begin().await?;
            for row in &rows {
                let old = read(row)?;
                let new = keyring.rewrap(&old)?;
                let values =
                    vec![new.kek_id.into(), new.wrapped.into(), new.id.into(), old.kek_id.into()];
                let written = transaction.execute_raw(self.statement(REWRAP, values)).await?;
                count += written.rows_affected();
                after = old.id;
            }
            transaction.commit().await?;
            tokio::time::sleep(began.elapsed()).await;
        }
    }
}
