//! Deleting everything of an organization: in portions, each in one transaction. Whoever
//! is interrupted begins again, and goes on with what is left.
//!
//! First its keys and subscriptions end, so that nothing comes and nothing is sent any
//! more, and the data keys that its values are sealed with are destroyed. Of a subscription
//! a row is left that says only that it is deleted: a replica that has not heard of it yet
//! would go on sending otherwise. Its audit log stays.

use std::collections::BTreeSet;
use std::time::Duration;

use sea_orm::{ConnectionTrait, Value};

use super::engine::column;
use super::{Store, StoreError};
use crate::domain::audit::NewAuditEntry;
use crate::domain::id::{ApiKeyId, EventKey, OrganizationId};
use crate::domain::principal::Organizations;
use crate::domain::timestamp::Timestamp;

/// When what was under way at the end of a subscription has been recorded: an attempt takes
/// 30 seconds at most, and no request starts later than a second after it.
const QUIET_AFTER: Duration = Duration::from_secs(40);
/// Rows of one portion.
const PORTION: i64 = 1000;

/// An organization that is being deleted.
#[derive(Clone, Copy, Debug)]
pub struct Deletion {
    /// API keys that opened it, and do not any more.
    pub api_keys: u64,
    /// Subscriptions that have ended now.
    pub subscriptions: u64,
    /// How long requests that are under way may still leave something behind.
    pub quiet_in: Duration,
    /// What was taken in before this is deleted.
    before: EventKey,
    began: Timestamp,
}

/// Nothing is left but that they are deleted.
const END_SUBSCRIPTIONS: &str = "
    UPDATE subscription SET
        routing_version = CASE WHEN deleted THEN routing_version ELSE $2 END,
        update_time = CASE WHEN deleted THEN update_time ELSE $3 END,
        deleted = $4, account_id = '', name = '', url = '', event_patterns = '[]', headers = '',
        headers_key_id = 0, headers_version = 0, attributes = '', state_reason = '',
        payload_mode = 1, masked_pointers = ''
    WHERE organization_id = $1";
const END_CERTIFICATES: &str = "
    DELETE FROM subscription_tls WHERE subscription_key IN (
        SELECT key FROM subscription WHERE organization_id = $1)";
const END_SECRETS: &str = "
    DELETE FROM signing_secret WHERE subscription_key IN (
        SELECT key FROM subscription WHERE organization_id = $1)";
const END_CONSENTS: &str = "
    DELETE FROM ownership WHERE subscription_key IN (
        SELECT key FROM subscription WHERE organization_id = $1)";
const END_STREAKS: &str = "
    DELETE FROM failure_streak WHERE subscription_key IN (
        SELECT key FROM subscription WHERE organization_id = $1)";
/// What requests under way leave there is dropped when it is looked for: nobody is left to be
/// told of it.
const END_NOTICES: &str = "DELETE FROM operational_event WHERE organization_id = $1";
const LIVE: &str =
    "SELECT count(*) AS live FROM subscription WHERE organization_id = $1 AND NOT deleted";
const LAST_END: &str = "
    SELECT max(update_time) AS ended FROM subscription WHERE organization_id = $1 AND deleted";
/// Whose they were is forgotten last: by it the rest is found.
const FORGET_NAME: &str = "
    UPDATE subscription SET organization_id = '', routing_version = $2
    WHERE organization_id = $1 AND deleted";

/// Whether there is something again of an organization whose name was forgotten.
const BEGUN_ANEW: &str = "
    SELECT EXISTS (SELECT 1 FROM event WHERE organization_id = $1)
        OR EXISTS (SELECT 1 FROM subscription WHERE organization_id = $1) AS anew";
/// The numbers of destroyed data keys stay taken, but nobody's.
const FORGET_KEYS: &str = "
    UPDATE data_key SET organization_id = '' WHERE organization_id = $1 AND routing_version <> 0";

/// Portions by what they are found by: a subscription `$1`.
const OF_SUBSCRIPTION: [&str; 2] = [
    "DELETE FROM due WHERE subscription_key = $1 AND event_key <= (
        SELECT max(event_key) FROM (
            SELECT event_key FROM due WHERE subscription_key = $1
            ORDER BY event_key LIMIT $2) portion)",
    "DELETE FROM attempt WHERE subscription_key = $1 AND event_key <= (
        SELECT max(event_key) FROM (
            SELECT event_key FROM attempt WHERE subscription_key = $1
            ORDER BY event_key LIMIT $2) portion)",
];
/// The organization `$1`, before the event `$3`.
const OF_ORGANIZATION: [&str; 4] = [
    "DELETE FROM event WHERE organization_id = $1 AND key < $3 AND key <= (
        SELECT max(key) FROM (
            SELECT key FROM event WHERE organization_id = $1 AND key < $3
            ORDER BY key LIMIT $2) portion)",
    "DELETE FROM undelivered WHERE organization_id = $1 AND event_key < $3 AND event_key <= (
        SELECT max(event_key) FROM (
            SELECT event_key FROM undelivered WHERE organization_id = $1 AND event_key < $3
            ORDER BY event_key LIMIT $2) portion)",
    "DELETE FROM event_key WHERE organization_id = $1 AND event_key < $3 AND event_id <= (
        SELECT max(event_id) FROM (
            SELECT event_id FROM event_key WHERE organization_id = $1 AND event_key < $3
            ORDER BY event_id LIMIT $2) portion)",
    "DELETE FROM retention_visit
    WHERE stage IN (1, 2) AND organization_id = $1 AND event_key < $3 AND event_key <= (
        SELECT max(event_key) FROM (
            SELECT event_key FROM retention_visit
            WHERE stage IN (1, 2) AND organization_id = $1 AND event_key < $3
            ORDER BY event_key LIMIT $2) portion)",
];
/// The organization `$1`, before the time `$3`.
const ANSWERS: &str = "
    DELETE FROM request_log WHERE organization_id = $1 AND create_time < $3 AND request_id <= (
        SELECT max(request_id) FROM (
            SELECT request_id FROM request_log WHERE organization_id = $1 AND create_time < $3
            ORDER BY request_id LIMIT $2) portion)";

impl Store {
    /// Ends an organization's API keys, subscriptions and secrets, and destroys its data keys.
    /// Leaves `entry`, and one for each of those API keys. The organization's own audit log
    /// stays.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn begin_deletion(
        &self,
        organization: &OrganizationId,
        entry: &NewAuditEntry,
    ) -> Result<Deletion, StoreError> {
        let api_keys = self.close_to_keys(organization, entry).await?;
        let transaction = self.begin().await?;
        let tick = self.raise(&transaction).await?;
        let name: Value = organization.as_str().into();
        let one = |sql| self.statement(sql, vec![name.clone()]);
        transaction.execute_raw(one(END_SECRETS)).await?;
        transaction.execute_raw(one(END_CERTIFICATES)).await?;
        transaction.execute_raw(one(END_CONSENTS)).await?;
        transaction.execute_raw(one(END_STREAKS)).await?;
        transaction.execute_raw(one(END_NOTICES)).await?;
        self.destroy_keys(&transaction, organization, tick).await?;
        let live = transaction.query_one_raw(one(LIVE)).await?;
        let live: i64 = column(&live.ok_or(StoreError::Corrupt("live"))?, "live")?;
        let values = vec![name.clone(), tick.version.into(), tick.now.0.into(), Value::from(true)];
        transaction.execute_raw(self.statement(END_SUBSCRIPTIONS, values)).await?;
        let ended = transaction.query_one_raw(one(LAST_END)).await?;
        let ended: Option<i64> = column(&ended.ok_or(StoreError::Corrupt("ended"))?, "ended")?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        let quiet = ended.map(|ended| Timestamp(ended).plus(QUIET_AFTER).since(tick.now));
        Ok(Deletion {
            api_keys,
            subscriptions: u64::try_from(live).unwrap_or_default(),
            quiet_in: quiet.unwrap_or_default(),
            before: EventKey::first_at(tick.now),
            began: tick.now,
        })
    }

    /// Deletes about a thousand rows of each table that holds something of an organization
    /// whose deletion has begun. 0: nothing is left.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: some may be deleted; asking again is safe.
    pub async fn delete_portion(
        &self,
        organization: &OrganizationId,
        deletion: &Deletion,
    ) -> Result<u64, StoreError> {
        let name: Value = organization.as_str().into();
        let mut deleted = 0;
        let sql = "SELECT key FROM subscription WHERE organization_id = $1 AND deleted";
        let ended = self.read().query_all_raw(self.statement(sql, vec![name.clone()])).await?;
        for found in &ended {
            let key: i64 = column(found, "key")?;
            for sql in OF_SUBSCRIPTION {
                deleted += self.delete_rows(sql, vec![key.into(), PORTION.into()]).await?;
            }
        }
        for sql in OF_ORGANIZATION {
            let values = vec![name.clone(), PORTION.into(), deletion.before.0.into()];
            deleted += self.delete_rows(sql, values).await?;
        }
        let values = vec![name, PORTION.into(), deletion.began.0.into()];
        deleted += self.delete_rows(ANSWERS, values).await?;
        Ok(deleted)
    }

    /// Forgets the organization's name, once nothing else of it is left.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn end_deletion(&self, organization: &OrganizationId) -> Result<(), StoreError> {
        let name: Value = organization.as_str().into();
        let transaction = self.begin().await?;
        let tick = self.raise(&transaction).await?;
        let one = |sql| self.statement(sql, vec![name.clone()]);
        // Requests and questions that were under way may have left something.
        transaction.execute_raw(one(END_CONSENTS)).await?;
        transaction.execute_raw(one(END_STREAKS)).await?;
        let values = vec![name.clone(), tick.version.into()];
        transaction.execute_raw(self.statement(FORGET_NAME, values)).await?;
        transaction.execute_raw(one("DELETE FROM retention WHERE organization_id = $1")).await?;
        // What was under way may have made a data key for what it has left.
        let anew = transaction.query_one_raw(one(BEGUN_ANEW)).await?;
        if !column::<bool>(&anew.ok_or(StoreError::Corrupt("anew"))?, "anew")? {
            self.destroy_keys(&transaction, organization, tick).await?;
        }
        transaction.execute_raw(one(FORGET_KEYS)).await?;
        transaction.commit().await?;
        self.clear_destroyed().await;
        self.truncate_log().await
    }

    async fn delete_rows(&self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        Ok(self.write().execute_raw(self.statement(sql, values)).await?.rows_affected())
    }

    /// Takes the organization from all API keys, and ends those that opened nothing else.
    async fn close_to_keys(
        &self,
        organization: &OrganizationId,
        entry: &NewAuditEntry,
    ) -> Result<u64, StoreError> {
        let mut closed = 0;
        let mut is_again = true;
        while is_again {
            is_again = false;
            for key in self.api_keys().await? {
                let Organizations::Some(had) = key.principal.organizations else { continue };
                if !had.contains(organization) {
                    continue;
                }
                if self.close_to_key(organization, key.id, &had, entry).await? {
                    closed += 1;
                } else {
                    is_again = true;
                }
            }
        }
        Ok(closed)
    }

    /// The same for one key; `false`: it was changed meanwhile, and is as it was.
    async fn close_to_key(
        &self,
        organization: &OrganizationId,
        key: ApiKeyId,
        had: &BTreeSet<OrganizationId>,
        entry: &NewAuditEntry,
    ) -> Result<bool, StoreError> {
        let mut left = had.clone();
        left.remove(organization);
        let transaction = self.begin().await?;
        if !self.narrow_api_key(&transaction, key, had, &left).await? {
            return Ok(false);
        }
        let mut entry = entry.clone();
        entry.object_ids.push(self.ids().api_key(key));
        let ended = if left.is_empty() { &["label", "revoke_time"][..] } else { &[] };
        let changed = ["organizations"].iter().chain(ended);
        entry.changed_fields = changed.map(|name| (*name).to_owned()).collect();
        self.audit(&transaction, &entry).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
