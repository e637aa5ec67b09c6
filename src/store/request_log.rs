//! Request ids: the same request asked twice changes things once.
//!
//! The answer is stored in the transaction of the change it answers, and given
//! back for 24 hours. Secrets are not part of it: they are read where they live,
//! for 10 minutes.

use std::time::Duration;

use sea_orm::{ActiveValue, ConnectionTrait, EntityTrait};

use super::engine::column;
use super::entity::request_log;
use super::link::Transaction;
use super::vault::Form;
use super::{Store, StoreError};
use crate::domain::id::{OrganizationId, SecretKey};
use crate::domain::subscription::SigningSecret;
use crate::domain::timestamp::{Timestamp, micros};
use crate::keyring::{Column, Digested, Place};

/// How long an answer is given back.
const KEPT: Duration = Duration::from_hours(24);
/// How long its secret is.
const SECRET_SHOWN: Duration = Duration::from_mins(10);

/// A caller's request id and what it asked for.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Chosen by the caller.
    pub id: String,
    /// SHA-256 of the method and of everything asked for.
    pub hash: [u8; 32],
}

/// A change that was made now, or the answer to the same request made before.
#[derive(Debug)]
pub enum Answer<T> {
    /// Made by this call.
    Now(T),
    /// Made by an earlier call with the same request id. This one has left no audit entry.
    Before {
        /// As encoded then, without a secret.
        response: Vec<u8>,
        /// The secret that the first answer showed, if it is live and the answer
        /// is younger than 10 minutes.
        secret: Option<SigningSecret>,
    },
}

const LOOK_UP: &str = "
    SELECT request_hash, response, response_key_id, response_version, secret_key, create_time,
        {now} AS now
    FROM request_log WHERE organization_id = $1 AND request_id = $2";
const FORGET: &str = "DELETE FROM request_log WHERE organization_id = $1 AND request_id = $2";
/// The oldest answers that are older than `$1`, about `$2` of them: writes that last keep
/// others waiting.
const PURGE: &str = "
    DELETE FROM request_log WHERE create_time < {now} - $1 AND create_time <= (
        SELECT max(create_time) FROM (
            SELECT create_time FROM request_log ORDER BY create_time LIMIT $2) oldest)";
const PURGED_AT_ONCE: u32 = 1000;

impl Store {
    /// Deletes the answers that nobody can ask for any more; how many.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn purge_request_log(&self) -> Result<u64, StoreError> {
        let mut purged = 0;
        loop {
            let values = vec![micros(KEPT).into(), i64::from(PURGED_AT_ONCE).into()];
            let portion = self.write().execute_raw(self.statement(PURGE, values)).await?;
            purged += portion.rows_affected();
            if portion.rows_affected() < PURGED_AT_ONCE.into() {
                return Ok(purged);
            }
        }
    }

    /// The answer to `request` if it was made before. Forgets one that is too old, and one
    /// whose data key is gone.
    pub(super) async fn answered<T>(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        request: Option<&RequestRecord>,
    ) -> Result<Option<Answer<T>>, StoreError> {
        let Some(request) = request else { return Ok(None) };
        let key = || vec![organization.as_str().into(), request.id.as_str().into()];
        let row = connection.query_one_raw(self.statement(LOOK_UP, key())).await?;
        let Some(row) = row else { return Ok(None) };
        let now = Timestamp(column(&row, "now")?);
        let age = now.since(Timestamp(column(&row, "create_time")?));
        let form = Form {
            key_id: column(&row, "response_key_id")?,
            version: column(&row, "response_version")?,
        };
        self.learn_keys(connection, [form.key_id]).await?;
        let sealing = self.inner.vault.key(form.key_id);
        if KEPT <= age || (!form.is_plain() && sealing.is_none()) {
            connection.execute_raw(self.statement(FORGET, key())).await?;
            return Ok(None);
        }
        let hash = match &sealing {
            Some(key) => key.digest(Digested::Request, &request.hash),
            None => request.hash,
        };
        if column::<Vec<u8>>(&row, "request_hash")? != hash {
            return Err(StoreError::RequestIdReused);
        }
        let place = |column| Place::named(column, organization, &request.id);
        let response = column(&row, "response")?;
        let response = self.inner.vault.open(form, Column::RequestLogResponse, place, response)?;
        let secret = match SecretKey(column(&row, "secret_key")?) {
            SecretKey(0) => None,
            key if age < SECRET_SHOWN => {
                self.live_secret(connection, organization, key, now).await?
            }
            SecretKey(_) => None,
        };
        Ok(Some(Answer::Before { response, secret }))
    }

    /// Keeps the answer to `request`, in the transaction of its change.
    pub(super) async fn remember(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
        request: Option<&RequestRecord>,
        response: Vec<u8>,
        secret: Option<&SigningSecret>,
    ) -> Result<(), StoreError> {
        let Some(request) = request else { return Ok(()) };
        let sealing = self.sealing_key_within(transaction, organization).await?;
        let (hash, response, form) = match &sealing {
            Some(key) => {
                let place = Place::named(Column::RequestLogResponse, organization, &request.id);
                let hash = key.digest(Digested::Request, &request.hash);
                (hash, key.seal(&place, &response), Form::of(key))
            }
            None => (request.hash, response, Form::PLAIN),
        };
        let row = request_log::ActiveModel {
            organization_id: ActiveValue::Set(organization.as_str().to_owned()),
            request_id: ActiveValue::Set(request.id.clone()),
            request_hash: ActiveValue::Set(hash.to_vec()),
            response: ActiveValue::Set(response),
            response_key_id: ActiveValue::Set(form.key_id),
            response_version: ActiveValue::Set(form.version),
            secret_key: ActiveValue::Set(secret.map_or(0, |secret| secret.key.0)),
            create_time: ActiveValue::Set(self.clock(transaction).await?),
        };
        request_log::Entity::insert(row).exec_without_returning(transaction).await?;
        Ok(())
    }

    /// What to answer when a change failed because a twin of the request was
    /// stored while it ran: what the twin was answered.
    pub(super) async fn or_twin<T>(
        &self,
        organization: &OrganizationId,
        request: Option<&RequestRecord>,
        made: Result<Answer<T>, StoreError>,
    ) -> Result<Answer<T>, StoreError> {
        match made {
            Err(StoreError::Taken) => {
                let transaction = self.begin_for(organization).await?;
                let answered = self.answered(&transaction, organization, request).await?;
                transaction.commit().await?;
                answered.ok_or(StoreError::Taken)
            }
            made => made,
        }
    }
}
