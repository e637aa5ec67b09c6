//! API keys: made, listed and revoked by whoever reaches the database, read by every
//! replica that takes calls.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, QueryResult};

use super::engine::column;
use super::link::Transaction;
use super::{Store, StoreError};
use crate::domain::api_key::ApiKey;
use crate::domain::audit::NewAuditEntry;
use crate::domain::id::{ApiKeyId, OrganizationId};
use crate::domain::principal::{Organizations, Principal};
use crate::domain::scope::Scopes;
use crate::domain::timestamp::{Timestamp, micros};

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Which; random.
    pub id: ApiKeyId,
    /// For people.
    pub label: String,
    /// Whose data it opens.
    pub organizations: Organizations,
    /// What for.
    pub scopes: Scopes,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// How long it is good for.
    pub life: Option<std::time::Duration>,
}

/// Each change raises it, so that nobody reads the keys anew for nothing.
const RAISE: &str = "UPDATE credential_clock SET version = version + 1";
const INSERT: &str = "
    INSERT INTO api_key (id, label, organizations, scopes, secret_hash, create_time, expire_time,
        revoke_time, last_use_time)
    VALUES ($1, $2, $3, $4, $5, {now}, CASE WHEN $6 = 0 THEN 0 ELSE {now} + $6 END, 0, 0)";
const REVOKE: &str = "UPDATE api_key SET revoke_time = {now} WHERE id = $1 AND revoke_time = 0";
const NARROW: &str = "UPDATE api_key SET organizations = $2 WHERE id = $1 AND organizations = $3";
const END: &str = "
    UPDATE api_key SET label = '', revoke_time = CASE WHEN revoke_time = 0 THEN {now} ELSE revoke_time END
    WHERE id = $1";
const LIST: &str = "
    SELECT id, label, organizations, scopes, secret_hash, create_time, expire_time, revoke_time,
        last_use_time
    FROM api_key ORDER BY create_time, id";
const USED: &str = "UPDATE api_key SET last_use_time = $2 WHERE id = $1 AND last_use_time < $2";

impl Store {
    /// Makes a key, and leaves `entry`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn create_api_key(
        &self,
        new: NewApiKey,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        let organizations = match &new.organizations {
            Organizations::All => json(None),
            Organizations::Some(these) => json(Some(these)),
        };
        let values = vec![
            new.id.0.into(),
            new.label.into(),
            organizations.into(),
            new.scopes.bits().into(),
            new.secret_hash.to_vec().into(),
            new.life.map_or(0, micros).into(),
        ];
        let transaction = self.begin().await?;
        transaction.execute_raw(self.statement(INSERT, values)).await?;
        transaction.execute_raw(self.statement(RAISE, vec![])).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Ends a key now, and leaves `entry`; one that is revoked stays as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]: there never was one of this id, or it is revoked already.
    pub async fn revoke_api_key(
        &self,
        id: ApiKeyId,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        let revoke = self.statement(REVOKE, vec![id.0.into()]);
        if transaction.execute_raw(revoke).await?.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        transaction.execute_raw(self.statement(RAISE, vec![])).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Leaves a key of those that it `had` these organizations; one that has none left ends,
    /// and keeps its id only. `false`: it has others by now, and nothing was changed.
    pub(super) async fn narrow_api_key(
        &self,
        transaction: &Transaction,
        id: ApiKeyId,
        had: &BTreeSet<OrganizationId>,
        left: &BTreeSet<OrganizationId>,
    ) -> Result<bool, StoreError> {
        let values = vec![id.0.into(), json(Some(left)).into(), json(Some(had)).into()];
        let narrowed = transaction.execute_raw(self.statement(NARROW, values)).await?;
        if narrowed.rows_affected() == 0 {
            return Ok(false);
        }
        if left.is_empty() {
            transaction.execute_raw(self.statement(END, vec![id.0.into()])).await?;
        }
        transaction.execute_raw(self.statement(RAISE, vec![])).await?;
        Ok(true)
    }

    /// Every key, revoked ones included, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows = self.read().query_all_raw(self.statement(LIST, vec![])).await?;
        rows.iter().map(|row| self.read_api_key(row)).collect()
    }

    /// The version that the last change of credentials made.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn credentials_version(&self) -> Result<i64, StoreError> {
        let clock = self.statement("SELECT version FROM credential_clock", vec![]);
        let row = self.read().query_one_raw(clock).await?;
        column(&row.ok_or(StoreError::Corrupt("clock"))?, "version")
    }

    /// Notes when keys were used last. It changes nothing about who may call, so that
    /// nobody reads them anew for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn used_api_keys(&self, used: &[(ApiKeyId, Timestamp)]) -> Result<(), StoreError> {
        for (id, time) in used {
            let values = vec![id.0.into(), time.0.into()];
            self.write().execute_raw(self.statement(USED, values)).await?;
        }
        Ok(())
    }

    fn read_api_key(&self, row: &QueryResult) -> Result<ApiKey, StoreError> {
        let id = ApiKeyId(column(row, "id")?);
        let organizations: String = column(row, "organizations")?;
        let organizations: Option<BTreeSet<String>> = serde_json::from_str(&organizations)
            .map_err(|_| StoreError::Corrupt("organizations"))?;
        let organizations = organizations.map_or(Organizations::All, |these| {
            Organizations::Some(these.iter().map(|one| OrganizationId::stored(one)).collect())
        });
        let hash: Vec<u8> = column(row, "secret_hash")?;
        let time = |name| column(row, name).map(|time: i64| (time != 0).then_some(Timestamp(time)));
        Ok(ApiKey {
            id,
            label: column(row, "label")?,
            principal: Principal {
                name: self.ids().api_key(id),
                organizations,
                scopes: Scopes::stored(column(row, "scopes")?),
            },
            secret_hash: hash.try_into().map_err(|_| StoreError::Corrupt("secret_hash"))?,
            create_time: Timestamp(column(row, "create_time")?),
            expire_time: time("expire_time")?,
            revoke_time: time("revoke_time")?,
            last_use_time: time("last_use_time")?,
        })
    }
}

/// Organizations as they are stored; `None`: every one.
fn json(these: Option<&BTreeSet<OrganizationId>>) -> String {
    let names: Option<Vec<&str>> =
        these.map(|these| these.iter().map(OrganizationId::as_str).collect());
    serde_json::to_string(&names).expect("strings are JSON")
}
