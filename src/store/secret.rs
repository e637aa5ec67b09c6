//! Signing secrets: added, given an end, revoked. Each change raises the routing
//! version of their subscription, so that every replica reads them anew.

use std::time::Duration;

use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter,
};

use super::entity::signing_secret;
use super::link::Transaction;
use super::request_log::{Answer, RequestRecord};
use super::subscription::Tick;
use super::vault::Form;
use super::{Store, StoreError, row};
use crate::domain::audit::NewAuditEntry;
use crate::domain::id::{OrganizationId, SecretKey, SubscriptionKey};
use crate::domain::subscription::SigningSecret;
use crate::domain::timestamp::{Timestamp, micros};
use crate::keyring::DataKey;

/// A secret to be added.
pub struct NewSecret {
    /// Made by the caller.
    pub key: SecretKey,
    /// The secret.
    pub secret: String,
    /// How long those before it go on signing.
    pub overlap: Duration,
}

/// Most secrets that sign at once, the new one counted.
const LIVE_MAX: usize = 5;
/// How long an expired secret stays listed.
const EXPIRED_KEPT: Duration = Duration::from_hours(30 * 24);
/// Most of them: each is read with its subscription, by every replica, for a while.
const EXPIRED_MAX: usize = 10;

const LIST: &str = "
    SELECT * FROM signing_secret
    WHERE subscription_key = $1 AND (expire_time = 0 OR expire_time > {now} - $2)
    ORDER BY create_time, key";
/// Gives the live secrets an end, where they have none that comes sooner.
const END: &str = "
    UPDATE signing_secret SET expire_time = $2
    WHERE subscription_key = $1 AND (expire_time = 0 OR expire_time > $2)";
/// Deletes the expired secrets that are not listed any more.
const FORGET: &str = "
    DELETE FROM signing_secret
    WHERE subscription_key = $1 AND expire_time <> 0 AND expire_time <= $2
      AND (expire_time <= $3 OR key NOT IN (
          SELECT key FROM signing_secret
          WHERE subscription_key = $1 AND expire_time <> 0 AND expire_time <= $2
          ORDER BY expire_time DESC, create_time DESC, key DESC LIMIT $4))";

impl Store {
    /// A subscription's secrets, oldest first; of the expired ones the last ten, and not
    /// those that expired more than 30 days ago.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`].
    pub async fn secrets(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
    ) -> Result<Vec<SigningSecret>, StoreError> {
        let reading = self.reading(organization).await?;
        self.live(&reading, organization, key).await?;
        self.secrets_of(&reading, organization, key).await
    }

    /// Adds a secret; the live ones before it end after its overlap, or sooner where
    /// they would anyway. `respond` encodes the answer without the secret.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::WrongState`] when five would be live,
    /// [`StoreError::RequestIdReused`].
    pub async fn rotate_secret(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        new: NewSecret,
        request: Option<RequestRecord>,
        entry: &NewAuditEntry,
        respond: impl Fn(&SigningSecret) -> Vec<u8>,
    ) -> Result<Answer<SigningSecret>, StoreError> {
        let request = request.as_ref();
        let made = self.try_rotate(organization, key, new, request, entry, respond).await;
        self.or_twin(organization, request, made).await
    }

    async fn try_rotate(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        new: NewSecret,
        request: Option<&RequestRecord>,
        entry: &NewAuditEntry,
        respond: impl Fn(&SigningSecret) -> Vec<u8>,
    ) -> Result<Answer<SigningSecret>, StoreError> {
        let transaction = self.begin_for(organization).await?;
        let tick = self.raise(&transaction).await?;
        if let Some(before) = self.answered(&transaction, organization, request).await? {
            return Ok(before);
        }
        self.live(&transaction, organization, key).await?;
        let end = tick.now.plus(new.overlap);
        self.end_secrets(&transaction, key, end).await?;
        self.forget_expired(&transaction, key, tick.now).await?;
        let secrets = self.secrets_of(&transaction, organization, key).await?;
        let live = secrets.iter().filter(|secret| is_live(secret, tick.now)).count();
        if LIVE_MAX <= live {
            return Err(StoreError::WrongState("at most 5 secrets may be live: revoke one"));
        }
        let sealing = self.sealing_key_within(&transaction, organization).await?;
        let sealing = sealing.as_ref();
        let (place, secret) = ((organization, key), (new.key, new.secret));
        let secret = self.add_secret(&transaction, place, secret, tick.now, sealing).await?;
        self.touch(&transaction, key, tick).await?;
        let response = respond(&secret);
        self.remember(&transaction, organization, request, response, Some(&secret)).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(Answer::Now(secret))
    }

    /// Ends a live secret now; not the only live one of a subscription that signs. When
    /// only secrets remain whose end has been set, the newest of them stays: the rotation
    /// is undone.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] also when the secret is not live;
    /// [`StoreError::WrongState`] when it is the only live one and signing is on.
    pub async fn revoke_secret(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        secret: SecretKey,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        let transaction = self.begin_for(organization).await?;
        let tick = self.raise(&transaction).await?;
        let subscription = self.live(&transaction, organization, key).await?;
        let mut live = self.secrets_of(&transaction, organization, key).await?;
        live.retain(|secret| is_live(secret, tick.now));
        if !live.iter().any(|one| one.key == secret) {
            return Err(StoreError::NotFound);
        }
        if subscription.spec.signing_enabled && live.len() == 1 {
            return Err(StoreError::WrongState("the only live secret: rotate first"));
        }
        let sql = "UPDATE signing_secret SET expire_time = $1 WHERE key = $2";
        let values = vec![tick.now.0.into(), secret.0.into()];
        transaction.execute_raw(self.statement(sql, values)).await?;
        live.retain(|one| one.key != secret);
        if let Some(newest) =
            live.last().filter(|_| live.iter().all(|one| one.expire_time.is_some()))
        {
            // The rotation that gave it an end is undone.
            let sql = "UPDATE signing_secret SET expire_time = 0 WHERE key = $1";
            transaction.execute_raw(self.statement(sql, vec![newest.key.0.into()])).await?;
        }
        self.touch(&transaction, key, tick).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Inserts a secret without an end; sealed, if there is a key for it.
    pub(super) async fn add_secret(
        &self,
        transaction: &Transaction,
        (organization, subscription): (&OrganizationId, SubscriptionKey),
        (key, secret): (SecretKey, String),
        now: Timestamp,
        sealing: Option<&DataKey>,
    ) -> Result<SigningSecret, StoreError> {
        let (bytes, form) = match sealing {
            Some(sealing) => {
                let place = row::secret_place(organization, key);
                (sealing.seal(&place, secret.as_bytes()), Form::of(sealing))
            }
            None => (secret.clone().into_bytes(), Form::PLAIN),
        };
        let row = signing_secret::ActiveModel {
            key: ActiveValue::Set(key.0),
            subscription_key: ActiveValue::Set(subscription.0),
            secret: ActiveValue::Set(bytes),
            secret_key_id: ActiveValue::Set(form.key_id),
            secret_version: ActiveValue::Set(form.version),
            create_time: ActiveValue::Set(now.0),
            expire_time: ActiveValue::Set(0),
        };
        signing_secret::Entity::insert(row).exec_without_returning(transaction).await?;
        Ok(SigningSecret { key, secret: Some(secret), create_time: now, expire_time: None })
    }

    /// One secret of the organization, if it signs at `now`.
    pub(super) async fn live_secret(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        key: SecretKey,
        now: Timestamp,
    ) -> Result<Option<SigningSecret>, StoreError> {
        let select = signing_secret::Entity::find().filter(signing_secret::Column::Key.eq(key.0));
        let Some(found) = select.one(connection).await? else { return Ok(None) };
        self.learn_keys(connection, [found.secret_key_id]).await?;
        let secret = row::secret(&self.inner.vault, organization, found)?;
        Ok(Some(secret).filter(|secret| is_live(secret, now)))
    }

    async fn secrets_of(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        key: SubscriptionKey,
    ) -> Result<Vec<SigningSecret>, StoreError> {
        let values = vec![key.0.into(), micros(EXPIRED_KEPT).into()];
        let rows = connection.query_all_raw(self.statement(LIST, values)).await?;
        self.learn_keys_of(connection, &rows, "secret_key_id").await?;
        let secret = |row| {
            let found = signing_secret::Model::from_query_result(row, "")?;
            row::secret(&self.inner.vault, organization, found)
        };
        rows.iter().map(secret).collect()
    }

    async fn end_secrets(
        &self,
        transaction: &Transaction,
        key: SubscriptionKey,
        end: Timestamp,
    ) -> Result<(), StoreError> {
        let statement = self.statement(END, vec![key.0.into(), end.0.into()]);
        transaction.execute_raw(statement).await?;
        Ok(())
    }

    async fn forget_expired(
        &self,
        transaction: &Transaction,
        key: SubscriptionKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let most = i64::try_from(EXPIRED_MAX).unwrap_or(i64::MAX);
        let values =
            vec![key.0.into(), now.0.into(), now.minus(EXPIRED_KEPT).0.into(), most.into()];
        transaction.execute_raw(self.statement(FORGET, values)).await?;
        Ok(())
    }

    /// Makes the change one of the subscription: its version and its update time.
    async fn touch(
        &self,
        transaction: &Transaction,
        key: SubscriptionKey,
        tick: Tick,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE subscription SET routing_version = $1, update_time = $2 WHERE key = $3";
        let values = vec![tick.version.into(), tick.now.0.into(), key.0.into()];
        transaction.execute_raw(self.statement(sql, values)).await?;
        Ok(())
    }
}

fn is_live(secret: &SigningSecret, now: Timestamp) -> bool {
    secret.expire_time.is_none_or(|end| now < end)
}
