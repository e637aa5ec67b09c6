//! Sealing what was stored before there were keys.
//!
//! Each table is walked along its primary key: [`WALK`] rows are looked at, and those of
//! them that are plaintext are sealed, [`BATCH`] in a transaction. A row is written only if
//! it is as it was read.

use std::sync::Arc;
use std::time::Instant;

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SecretKey, SubscriptionKey};
use crate::keyring::{Column, DataKey, Digested, Locked, Place};
use crate::store::engine::column;
use crate::store::row::{
    PAYLOAD_NONE, attempt_place, map, map_text, seal_details, secret_place, subject_digest,
    tls_place,
};
use crate::store::vault::{Form, seal_text};
use crate::store::{Store, StoreError};

/// Rows looked at by one statement, without their large columns.
const WALK: i64 = 2000;
/// Rows sealed in one transaction, which has their payloads in memory.
const BATCH: usize = 32;

const EVENTS: &str = "SELECT key, payload_version FROM event WHERE key > $1 ORDER BY key LIMIT $2";
const EVENT: &str = "
    SELECT organization_id, payload_kind, payload, attributes, subject FROM event
    WHERE key = $1 AND payload_version = 0";
/// Nothing is sealed under a key that was destroyed meanwhile: it stays as it is, for the
/// next run and the organization's next key.
const SEAL_EVENT: &str = "
    UPDATE event SET payload = $1, attributes = $2, subject = $3, payload_key_id = $4,
        payload_version = $5
    WHERE key = $6 AND payload_version = 0 AND payload IS NOT NULL
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $4 AND routing_version = 0)";

const EVENT_KEYS: &str = "
    SELECT organization_id, event_id, content_hash, hash_key_id = 0 AS is_plain FROM event_key
    WHERE (organization_id, event_id) > ($1, $2)
    ORDER BY organization_id, event_id LIMIT $3";
const SEAL_EVENT_KEY: &str = "
    UPDATE event_key SET content_hash = $1, hash_key_id = $2
    WHERE organization_id = $3 AND event_id = $4 AND hash_key_id = 0 AND content_hash = $5
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $2 AND routing_version = 0)";

const ANSWERS: &str = "
    SELECT organization_id, request_id, request_hash, response,
        response_version = 0 AS is_plain
    FROM request_log WHERE (organization_id, request_id) > ($1, $2)
    ORDER BY organization_id, request_id LIMIT $3";
const SEAL_ANSWER: &str = "
    UPDATE request_log SET request_hash = $1, response = $2, response_key_id = $3,
        response_version = $4
    WHERE organization_id = $5 AND request_id = $6 AND response_version = 0 AND request_hash = $7
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $3 AND routing_version = 0)";

/// Bodies of failed attempts have at most 4 KiB.
const ATTEMPTS: &str = "
    SELECT subscription_key, event_key, number, response_version,
        CASE WHEN response_version = 0 THEN response_body END AS response_body
    FROM attempt WHERE (subscription_key, event_key, number) > ($1, $2, $3)
    ORDER BY subscription_key, event_key, number LIMIT $4";
const OWNER: &str = "SELECT organization_id FROM subscription WHERE key = $1";
const SEAL_ATTEMPT: &str = "
    UPDATE attempt SET response_body = $1, response_key_id = $2, response_version = $3
    WHERE subscription_key = $4 AND event_key = $5 AND number = $6 AND response_version = 0
      AND length(response_body) > 0
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $2 AND routing_version = 0)";

const SECRETS: &str = "
    SELECT s.key, s.subscription_key, s.secret, o.organization_id
    FROM signing_secret s JOIN subscription o ON o.key = s.subscription_key
    WHERE s.key > $1 AND s.secret_version = 0 ORDER BY s.key LIMIT $2";
const SEAL_SECRET: &str = "
    UPDATE signing_secret SET secret = $1, secret_key_id = $2, secret_version = $3
    WHERE key = $4 AND secret_version = 0
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $2 AND routing_version = 0)";

/// Without a certificate there is no private key.
const TLS: &str = "
    SELECT t.subscription_key AS key, t.secret, o.organization_id
    FROM subscription_tls t JOIN subscription o ON o.key = t.subscription_key
    WHERE t.subscription_key > $1 AND t.secret_version = 0 AND t.certificate <> ''
    ORDER BY t.subscription_key LIMIT $2";
const SEAL_TLS: &str = "
    UPDATE subscription_tls SET secret = $1, secret_key_id = $2, secret_version = $3
    WHERE subscription_key = $4 AND secret_version = 0 AND secret = $5
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $2 AND routing_version = 0)";

const HEADERS: &str = "
    SELECT key, organization_id, headers FROM subscription
    WHERE key > $1 AND headers_version = 0 AND headers <> '' ORDER BY key LIMIT $2";
const SEAL_HEADERS: &str = "
    UPDATE subscription SET headers = $1, headers_key_id = $2, headers_version = $3
    WHERE key = $4 AND headers_version = 0 AND headers = $5
      AND EXISTS (SELECT 1 FROM data_key WHERE id = $2 AND routing_version = 0)";

impl Store {
    /// Payloads, attributes and subjects.
    pub(super) async fn seal_events(&self) -> Result<u64, StoreError> {
        let (mut after, mut count) = (i64::MIN, 0);
        loop {
            let began = Instant::now();
            let walk = self.statement(EVENTS, vec![after.into(), WALK.into()]);
            let rows = self.read().query_all_raw(walk).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = column(last, "key")?;
            let mut plain = Vec::new();
            for row in &rows {
                if column::<i16>(row, "payload_version")? == 0 {
                    plain.push(column::<i64>(row, "key")?);
                }
            }
            rest(began).await;
            for keys in plain.chunks(BATCH) {
                let began = Instant::now();
                let mut writes = Vec::with_capacity(keys.len());
                for key in keys {
                    let row = self.statement(EVENT, vec![(*key).into()]);
                    if let Some(row) = self.read().query_one_raw(row).await? {
                        writes.extend(self.sealed_event(*key, &row).await?);
                    }
                }
                count += self.write_all(writes).await?;
                rest(began).await;
            }
        }
    }

    /// What seals an event; `None` where there is nothing to be sealed, as in one that was
    /// purged.
    async fn sealed_event(
        &self,
        key: i64,
        row: &QueryResult,
    ) -> Result<Option<Statement>, StoreError> {
        let organization = organization(row)?;
        let Some(payload): Option<Vec<u8>> = column(row, "payload")? else { return Ok(None) };
        let has_payload = column::<i16>(row, "payload_kind")? != PAYLOAD_NONE;
        let attributes: String = column(row, "attributes")?;
        let subject: String = column(row, "subject")?;
        if attributes.is_empty() && subject.is_empty() && !has_payload {
            return Ok(None);
        }
        let sealing = self.key_of(&organization).await?;
        let form = Form::of(&sealing);
        let place = |column| Place::keyed(column, &organization, [key]);
        let details = place(Column::EventDetails);
        let details = seal_details(&sealing, &details, &subject, &map(&attributes)?);
        let payload = if has_payload {
            sealing.seal(&place(Column::EventPayload), &payload)
        } else {
            payload
        };
        let values = vec![
            payload.into(),
            details.into(),
            subject_digest(&sealing, &subject).into(),
            form.key_id.into(),
            form.version.into(),
            key.into(),
        ];
        Ok(Some(self.statement(SEAL_EVENT, values)))
    }

    /// Content hashes: digests of them take their place.
    pub(super) async fn seal_event_keys(&self) -> Result<u64, StoreError> {
        self.seal_named(EVENT_KEYS, "event_id", |sealing, organization, id, row| {
            let hash: Vec<u8> = column(row, "content_hash")?;
            let digest = sealing.digest(Digested::EventContent, &hash).to_vec();
            let (organization, key) = (organization.as_str().into(), sealing.id().into());
            let values = vec![digest.into(), key, organization, id.into(), hash.into()];
            Ok(self.statement(SEAL_EVENT_KEY, values))
        })
        .await
    }

    /// Answers to request ids, and what was asked for: digests of it take its place.
    pub(super) async fn seal_answers(&self) -> Result<u64, StoreError> {
        self.seal_named(ANSWERS, "request_id", |sealing, organization, id, row| {
            let hash: Vec<u8> = column(row, "request_hash")?;
            let response: Vec<u8> = column(row, "response")?;
            let place = Place::named(Column::RequestLogResponse, organization, &id);
            let form = Form::of(sealing);
            let values = vec![
                sealing.digest(Digested::Request, &hash).to_vec().into(),
                sealing.seal(&place, &response).into(),
                form.key_id.into(),
                form.version.into(),
                organization.as_str().into(),
                id.into(),
                hash.into(),
            ];
            Ok(self.statement(SEAL_ANSWER, values))
        })
        .await
    }

    /// Goes over a table whose rows have names within their organization, in the column `id`;
    /// `seal` says what is to be written for one that is plaintext.
    async fn seal_named(
        &self,
        walk: &str,
        id: &'static str,
        seal: impl Fn(&DataKey, &OrganizationId, String, &QueryResult) -> Result<Statement, StoreError>,
    ) -> Result<u64, StoreError> {
        let (mut after, mut count) = ((String::new(), String::new()), 0);
        loop {
            let began = Instant::now();
            let values = vec![after.0.into(), after.1.into(), WALK.into()];
            let rows = self.read().query_all_raw(self.statement(walk, values)).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = (column(last, "organization_id")?, column(last, id)?);
            let mut writes = Vec::new();
            for row in &rows {
                if column(row, "is_plain")? {
                    let organization = organization(row)?;
                    let sealing = self.key_of(&organization).await?;
                    writes.push(seal(&sealing, &organization, column(row, id)?, row)?);
                }
            }
            count += self.write_in_batches(writes, began).await?;
        }
    }

    /// Response bodies.
    pub(super) async fn seal_attempts(&self) -> Result<u64, StoreError> {
        let (mut after, mut count) = ((i64::MIN, i64::MIN, 0_i16), 0);
        loop {
            let began = Instant::now();
            let values = vec![after.0.into(), after.1.into(), after.2.into(), WALK.into()];
            let rows = self.read().query_all_raw(self.statement(ATTEMPTS, values)).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = place_of(last)?;
            let mut writes = Vec::new();
            for row in &rows {
                let body: Option<Vec<u8>> = column(row, "response_body")?;
                if let Some(body) = body.filter(|body| !body.is_empty()) {
                    writes.extend(self.sealed_attempt(place_of(row)?, &body).await?);
                }
            }
            count += self.write_in_batches(writes, began).await?;
        }
    }

    async fn sealed_attempt(
        &self,
        (subscription, event, number): (i64, i64, i16),
        body: &[u8],
    ) -> Result<Option<Statement>, StoreError> {
        let owner = self.statement(OWNER, vec![subscription.into()]);
        let Some(owner) = self.read().query_one_raw(owner).await? else { return Ok(None) };
        let organization = organization(&owner)?;
        let sealing = self.key_of(&organization).await?;
        let delivery =
            DeliveryKey { event: EventKey(event), subscription: SubscriptionKey(subscription) };
        let place = attempt_place(Column::AttemptResponseBody, &organization, delivery, number);
        let form = Form::of(&sealing);
        let values = vec![
            sealing.seal(&place, body).into(),
            form.key_id.into(),
            form.version.into(),
            subscription.into(),
            event.into(),
            number.into(),
        ];
        Ok(Some(self.statement(SEAL_ATTEMPT, values)))
    }

    /// Signing secrets. Their subscriptions do not change: what signs is the same.
    pub(super) async fn seal_secrets(&self) -> Result<u64, StoreError> {
        self.seal_along(SECRETS, |sealing, organization, key, row| {
            let secret: Vec<u8> = column(row, "secret")?;
            let place = secret_place(organization, SecretKey(key));
            let values = sealed_values(sealing, sealing.seal(&place, &secret).into(), key);
            Ok(self.statement(SEAL_SECRET, values))
        })
        .await
    }

    /// Private keys of client certificates. Nor do their subscriptions change.
    pub(super) async fn seal_tls(&self) -> Result<u64, StoreError> {
        self.seal_along(TLS, |sealing, organization, key, row| {
            let secret: Vec<u8> = column(row, "secret")?;
            let place = tls_place(organization, SubscriptionKey(key));
            let mut values = sealed_values(sealing, sealing.seal(&place, &secret).into(), key);
            values.push(secret.into());
            Ok(self.statement(SEAL_TLS, values))
        })
        .await
    }

    /// Custom headers of subscriptions.
    pub(super) async fn seal_headers(&self) -> Result<u64, StoreError> {
        self.seal_along(HEADERS, |sealing, organization, key, row| {
            let headers: String = column(row, "headers")?;
            let place = Place::keyed(Column::SubscriptionHeaders, organization, [key]);
            // As `row::subscription_model` writes them.
            let sealed = seal_text(sealing, &place, &map_text(&map(&headers)?));
            let mut values = sealed_values(sealing, sealed.into(), key);
            values.push(headers.into());
            Ok(self.statement(SEAL_HEADERS, values))
        })
        .await
    }

    /// Goes over a table whose statement `walk` gives plaintext rows only, each with its
    /// `key` and its organization; `seal` says what is to be written for one.
    async fn seal_along(
        &self,
        walk: &str,
        seal: impl Fn(&DataKey, &OrganizationId, i64, &QueryResult) -> Result<Statement, StoreError>,
    ) -> Result<u64, StoreError> {
        let (mut after, mut count) = (i64::MIN, 0);
        loop {
            let began = Instant::now();
            let walk = self.statement(walk, vec![after.into(), WALK.into()]);
            let rows = self.read().query_all_raw(walk).await?;
            if rows.is_empty() {
                return Ok(count);
            }
            let mut writes = Vec::with_capacity(rows.len());
            for row in &rows {
                let organization = organization(row)?;
                let sealing = self.key_of(&organization).await?;
                after = column(row, "key")?;
                writes.push(seal(&sealing, &organization, after, row)?);
            }
            count += self.write_in_batches(writes, began).await?;
        }
    }

    async fn key_of(&self, organization: &OrganizationId) -> Result<Arc<DataKey>, StoreError> {
        let key = self.sealing_key(organization).await?;
        key.ok_or_else(|| StoreError::Locked(Locked::Missing("primary".to_owned())))
    }

    /// Writes what one walk found, after `began`; how many rows were as they were read.
    async fn write_in_batches(
        &self,
        mut writes: Vec<Statement>,
        began: Instant,
    ) -> Result<u64, StoreError> {
        rest(began).await;
        let mut count = 0;
        while !writes.is_empty() {
            let began = Instant::now();
            let left = writes.split_off(writes.len().min(BATCH));
            count += self.write_all(std::mem::replace(&mut writes, left)).await?;
            rest(began).await;
        }
        Ok(count)
    }

    /// All of them in one transaction; how many rows were as they were read.
    async fn write_all(&self, writes: Vec<Statement>) -> Result<u64, StoreError> {
        if writes.is_empty() {
            return Ok(0);
        }
        let mut count = 0;
        let transaction = self.begin().await?;
        for write in writes {
            count += transaction.execute_raw(write).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(count)
    }
}

/// Leaves the database to others for as long as it was kept busy.
async fn rest(began: Instant) {
    tokio::time::sleep(began.elapsed()).await;
}

fn organization(row: &QueryResult) -> Result<OrganizationId, StoreError> {
    Ok(OrganizationId::stored(&column::<String>(row, "organization_id")?))
}

/// The values with which the statements of [`Store::seal_along`] begin.
fn sealed_values(sealing: &DataKey, sealed: Value, key: i64) -> Vec<Value> {
    let form = Form::of(sealing);
    vec![sealed, form.key_id.into(), form.version.into(), key.into()]
}

/// Subscription, event and number of an attempt.
fn place_of(row: &QueryResult) -> Result<(i64, i64, i16), StoreError> {
    Ok((column(row, "subscription_key")?, column(row, "event_key")?, column(row, "number")?))
}
