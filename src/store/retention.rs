//! How long everybody's data is kept: settings that all replicas share.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::engine::column;
use super::link::Transaction;
use super::{Store, StoreError};
use crate::domain::audit::NewAuditEntry;
use crate::domain::id::OrganizationId;
use crate::domain::retention::{Kept, Retention};

/// The row for all organizations without one of their own.
pub(super) const EVERYBODY: &str = "";

const RETENTION: &str = "
    SELECT organization_id, payload_seconds, metadata_seconds FROM retention";

impl Store {
    /// How long everybody's data is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn retention_settings(&self) -> Result<Retention, StoreError> {
        self.retention(self.read()).await
    }

    /// Sets how long an organization's data is kept; for `None`, everybody's that says
    /// nothing. What is `None` of `kept` stays as it is. Leaves `entry`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn set_retention(
        &self,
        organization: Option<&OrganizationId>,
        kept: Kept,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let seconds = [kept.payload.map(seconds), kept.metadata.map(seconds)];
        self.change_retention(organization, seconds, entry).await
    }

    /// From now on the organization's data is kept as everybody's. Leaves `entry`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn clear_retention(
        &self,
        organization: &OrganizationId,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        self.change_retention(Some(organization), [Some(0); 2], entry).await
    }

    async fn change_retention(
        &self,
        organization: Option<&OrganizationId>,
        seconds: [Option<i64>; 2],
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        self.write_retention(&transaction, organization, seconds).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// In whole seconds; 0 is as everybody's, and `None` as it is.
    pub(super) async fn write_retention(
        &self,
        transaction: &Transaction,
        organization: Option<&OrganizationId>,
        [payload, metadata]: [Option<i64>; 2],
    ) -> Result<(), StoreError> {
        if let Some(organization) = organization {
            // Begins where the cursors of all are: these have passed its older events, and
            // leave its others alone from here on.
            let lock = if self.is_shared() { "FOR UPDATE" } else { "" };
            let sql = format!("SELECT 1 AS one FROM retention WHERE organization_id = '' {lock}");
            transaction.query_one_raw(self.statement(&sql, vec![])).await?;
            let sql = "INSERT INTO retention (organization_id, payload_seconds, metadata_seconds,
                    payload_key, metadata_key)
                SELECT $1, 0, 0, payload_key, metadata_key FROM retention WHERE organization_id = ''
                ON CONFLICT (organization_id) DO NOTHING";
            let values = vec![organization.as_str().into()];
            transaction.execute_raw(self.statement(sql, values)).await?;
        }
        let name = organization.map_or(EVERYBODY, OrganizationId::as_str);
        for (column, seconds) in [("payload_seconds", payload), ("metadata_seconds", metadata)] {
            if let Some(seconds) = seconds {
                let sql = format!("UPDATE retention SET {column} = $1 WHERE organization_id = $2");
                let values = vec![seconds.into(), name.into()];
                transaction.execute_raw(self.statement(&sql, values)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn retention(
        &self,
        connection: &impl ConnectionTrait,
    ) -> Result<Retention, StoreError> {
        let mut everybody = None;
        let mut own = BTreeMap::new();
        for found in connection.query_all_raw(self.statement(RETENTION, vec![])).await? {
            let name: String = column(&found, "organization_id")?;
            let time = |of| {
                let seconds = u64::try_from(column::<i64>(&found, of)?).unwrap_or_default();
                Ok::<_, StoreError>((seconds != 0).then(|| Duration::from_secs(seconds)))
            };
            let kept =
                Kept { payload: time("payload_seconds")?, metadata: time("metadata_seconds")? };
            if name == EVERYBODY {
                everybody = kept.payload.zip(kept.metadata);
            } else {
                own.insert(OrganizationId::stored(&name), kept);
            }
        }
        let (payload, metadata) = everybody.ok_or(StoreError::Corrupt("retention"))?;
        Ok(Retention { payload, metadata, own })
    }
}
