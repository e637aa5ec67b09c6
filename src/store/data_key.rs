//! Data keys in the database: found, made, destroyed.
//!
//! An organization's first sealed value makes its data key. From then on it is in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sea_orm::{ConnectionTrait, QueryResult};

use super::engine::column;
use super::link::Transaction;
use super::row::subject_digest;
use super::subscription::Tick;
use super::{Store, StoreError};
use crate::domain::audit::NewAuditEntry;
use crate::domain::id::OrganizationId;
use crate::keyring::{DataKey, Keyring, Locked, WrappedKey};

/// Tries to make a data key, each with another number.
const TRIES: usize = 5;
/// Keys asked for at once.
const CHUNK: usize = 500;

const COLUMNS: &str = "id, organization_id, kek_id, wrapped";
const CURRENT: &str = "
    SELECT id, organization_id, kek_id, wrapped FROM data_key
    WHERE organization_id = $1 AND is_current";
const KEYS: &str = "SELECT id FROM data_key WHERE organization_id = $1 AND routing_version = 0";
/// Of two that make an organization's first key, the later one waits for the earlier one's
/// end, and inserts nothing. Nor does a number that is taken.
const INSERT: &str = "
    INSERT INTO data_key (id, organization_id, kek_id, wrapped, is_current, routing_version,
        create_time)
    VALUES ($1, $2, $3, $4, $5, 0, {now}) ON CONFLICT DO NOTHING";
/// Takes the key out of its row, but not the row: its number must not come again.
const DESTROY: &str = "
    UPDATE data_key SET kek_id = '', wrapped = $1, is_current = $2, routing_version = $3
    WHERE organization_id = $4 AND routing_version = 0";
const DESTROYED: &str =
    "SELECT id FROM data_key WHERE routing_version > $1 AND routing_version <> 0";
/// Which key-encryption keys are needed, each with one data key that it wraps.
const NEEDED: &str = "
    SELECT id, organization_id, kek_id, wrapped FROM data_key
    WHERE id IN (SELECT min(id) FROM data_key WHERE routing_version = 0 GROUP BY kek_id)
    ORDER BY kek_id";

impl Store {
    /// Values that could not be decrypted since the start.
    #[must_use]
    pub fn decrypt_failures(&self) -> u64 {
        self.inner.vault.failures()
    }

    /// Makes everything of an organization that is sealed unreadable for good, by
    /// destroying its data keys; how many there were. Every replica notices within a
    /// second. What the organization stores afterwards gets a new key. Leaves `entry`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn shred(
        &self,
        organization: &OrganizationId,
        entry: &NewAuditEntry,
    ) -> Result<u64, StoreError> {
        let transaction = self.begin().await?;
        // No commit that was made ready with the old key is stored after this one.
        let tick = self.raise(&transaction).await?;
        let destroyed = self.destroy_keys(&transaction, organization, tick).await?;
        let sql = "UPDATE subscription SET routing_version = $1 WHERE organization_id = $2";
        let values = vec![tick.version.into(), organization.as_str().into()];
        transaction.execute_raw(self.statement(sql, values)).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        self.clear_destroyed().await;
        Ok(destroyed)
    }

    /// Destroys an organization's data keys at this tick of the routing clock; how many
    /// there were.
    pub(super) async fn destroy_keys(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
        tick: Tick,
    ) -> Result<u64, StoreError> {
        let nothing = Vec::<u8>::new();
        let values =
            vec![nothing.into(), false.into(), tick.version.into(), organization.as_str().into()];
        let destroyed = transaction.execute_raw(self.statement(DESTROY, values)).await?;
        Ok(destroyed.rows_affected())
    }

    /// Overwrites the rows of destroyed keys, as far as the database does so. The keys are
    /// gone from the table in any case; copies of them end with their key-encryption key.
    pub(super) async fn clear_destroyed(&self) {
        let cleared = if self.is_shared() {
            let vacuum = self.write().execute_unprepared("VACUUM data_key").await;
            vacuum.map(drop).map_err(StoreError::from)
        } else {
            self.truncate_log().await
        };
        if let Err(error) = cleared {
            tracing::warn!(%error, "the row of a destroyed key may linger in the files");
        }
    }

    /// The key that seals an organization's new values, made if there is none; `None`:
    /// nothing is sealed.
    pub(super) async fn sealing_key(
        &self,
        organization: &OrganizationId,
    ) -> Result<Option<Arc<DataKey>>, StoreError> {
        if !self.inner.vault.is_on() {
            return Ok(None);
        }
        if let Some(key) = self.inner.vault.current(organization) {
            return Ok(Some(key));
        }
        let key = Arc::new(self.current_key(self.write(), organization).await?);
        self.inner.vault.keep_current(Arc::clone(&key));
        Ok(Some(key))
    }

    /// The same for several organizations.
    pub(super) async fn sealing_keys(
        &self,
        organizations: impl Iterator<Item = &OrganizationId>,
    ) -> Result<SealingKeys, StoreError> {
        let mut keys = HashMap::new();
        if !self.inner.vault.is_on() {
            return Ok(SealingKeys(keys));
        }
        let mut unknown = BTreeSet::new();
        for organization in organizations {
            if keys.contains_key(organization) {
                continue;
            }
            if let Some(key) = self.inner.vault.current(organization) {
                keys.insert(organization.clone(), key);
            } else {
                unknown.insert(organization.clone());
            }
        }
        for organization in unknown {
            if let Some(key) = self.sealing_key(&organization).await? {
                keys.insert(organization, key);
            }
        }
        Ok(SealingKeys(keys))
    }

    /// The same within a transaction that has raised the routing clock, so that the key
    /// cannot be destroyed before its end. Memory knows it only later: with the
    /// transaction a new key may come to nothing.
    pub(super) async fn sealing_key_within(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
    ) -> Result<Option<DataKey>, StoreError> {
        if !self.inner.vault.is_on() {
            return Ok(None);
        }
        self.current_key(transaction, organization).await.map(Some)
    }

    async fn current_key(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
    ) -> Result<DataKey, StoreError> {
        let keyring = self.inner.vault.keyring();
        for _ in 0..TRIES {
            let current = self.statement(CURRENT, vec![organization.as_str().into()]);
            if let Some(row) = connection.query_one_raw(current).await? {
                return Ok(keyring.unwrap(&read(&row)?)?);
            }
            let missing = || Locked::Missing("primary".to_owned());
            let new = keyring.generate(fastrand::i32(1..), organization).ok_or_else(missing)?;
            let values = vec![
                new.id.into(),
                organization.as_str().into(),
                new.kek_id.into(),
                new.wrapped.into(),
                true.into(),
            ];
            connection.execute_raw(self.statement(INSERT, values)).await?;
        }
        Err(StoreError::Unavailable("no number for a data key".into()))
    }

    /// Brings data keys into memory that rows name, where they are not there yet. One that
    /// is gone, or does not open, stays away.
    pub(super) async fn learn_keys(
        &self,
        connection: &impl ConnectionTrait,
        ids: impl IntoIterator<Item = i32>,
    ) -> Result<(), StoreError> {
        let unknown: Vec<i32> = self.inner.vault.unknown(ids).into_iter().collect();
        for chunk in unknown.chunks(CHUNK) {
            let (list, values) = self.among(0, chunk.iter().map(|id| i64::from(*id)));
            let sql = format!(
                "SELECT {COLUMNS} FROM data_key WHERE id IN ({list}) AND routing_version = 0"
            );
            for row in connection.query_all_raw(self.statement(&sql, values)).await? {
                let stored = read(&row)?;
                match self.inner.vault.keyring().unwrap(&stored) {
                    Ok(key) => self.inner.vault.keep(Arc::new(key)),
                    Err(why) => tracing::error!(data_key = stored.id, %why, "a data key is locked"),
                }
            }
        }
        Ok(())
    }

    /// The same for rows that name them in `key_id`.
    pub(super) async fn learn_keys_of(
        &self,
        connection: &impl ConnectionTrait,
        rows: &[QueryResult],
        key_id: &'static str,
    ) -> Result<(), StoreError> {
        let ids = rows.iter().map(|row| column(row, key_id));
        let ids = ids.collect::<Result<BTreeSet<i32>, StoreError>>()?;
        self.learn_keys(connection, ids).await
    }

    /// What may stand in `event.subject` for a subject of the organization: itself, where
    /// the event is plaintext, and its digest where it is sealed.
    pub(super) async fn subject_marks(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        subject: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut marks = vec![subject.to_owned()];
        let ids = self.statement(KEYS, vec![organization.as_str().into()]);
        let rows = connection.query_all_raw(ids).await?;
        self.learn_keys_of(connection, &rows, "id").await?;
        for row in &rows {
            if let Some(key) = self.inner.vault.key(column(row, "id")?) {
                marks.push(subject_digest(&key, subject));
            }
        }
        Ok(marks)
    }

    /// Forgets the data keys that were destroyed after this version of the routing clock.
    pub(super) async fn forget_destroyed_keys(&self, version: i64) -> Result<(), StoreError> {
        let destroyed = self.statement(DESTROYED, vec![version.into()]);
        for row in self.read().query_all_raw(destroyed).await? {
            self.inner.vault.forget(column(&row, "id")?);
        }
        Ok(())
    }

    /// Refuses to go on without the key-encryption keys that data keys are wrapped by.
    pub(super) async fn check_keys(&self) -> Result<(), StoreError> {
        self.check_needed(&self.inner.vault.keyring()).await
    }

    /// Whether the service can go on with these keys.
    ///
    /// # Errors
    ///
    /// [`StoreError::Setup`] when they lack one that is in use; the present primary always is,
    /// since a data key may be made under it at any time. [`StoreError::Unavailable`]: nobody
    /// can tell.
    pub async fn check_keyring(&self, keyring: &Keyring) -> Result<(), StoreError> {
        let present = self.inner.vault.keyring();
        if let Some(primary) = present.primary()
            && !keyring.has(primary)
        {
            let why = format!(
                "the encryption key {primary} is the primary; let another be that before it goes"
            );
            return Err(StoreError::Setup(why));
        }
        self.check_needed(keyring).await
    }

    /// Goes on with these keys, which [`Store::check_keyring`] has accepted.
    pub fn use_keyring(&self, keyring: Keyring) {
        self.inner.vault.use_keyring(keyring);
    }

    async fn check_needed(&self, keyring: &Keyring) -> Result<(), StoreError> {
        let rows = self.read().query_all_raw(self.statement(NEEDED, vec![])).await?;
        let mut faults = Vec::new();
        for row in &rows {
            if let Err(why) = keyring.unwrap(&read(row)?) {
                faults.push(why.to_string());
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(StoreError::Setup(faults.join("\n")))
    }
}

/// Keys for a batch; none where nothing is sealed.
#[derive(Default)]
pub(super) struct SealingKeys(HashMap<OrganizationId, Arc<DataKey>>);

impl SealingKeys {
    pub(super) fn of(&self, organization: &OrganizationId) -> Option<&DataKey> {
        self.0.get(organization).map(|key| &**key)
    }
}

pub(super) fn read(row: &QueryResult) -> Result<WrappedKey, StoreError> {
    Ok(WrappedKey {
        id: column(row, "id")?,
        organization: OrganizationId::stored(&column::<String>(row, "organization_id")?),
        kek_id: column(row, "kek_id")?,
        wrapped: column(row, "wrapped")?,
    })
}
