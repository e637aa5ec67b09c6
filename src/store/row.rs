//! Between rows and the domain's nouns.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sea_orm::Value;

use super::engine::PostgresQuery;
use super::entity::{attempt, event, signing_secret, subscription, subscription_tls};
use super::{NewEventRow, StoreError};
use crate::domain::attempt::{Attempt, AttemptResult};
use crate::domain::event::{Event, EventSummary, Payload, TraceContext};
use crate::domain::id::{AccountId, EventKey, IdCodec, OrganizationId, SecretKey, SubscriptionKey};
use crate::domain::receiver_tls::{ClientCertificate, PrivateKey, ReceiverTls};
use crate::domain::subscription::{
    SigningSecret, Subscription, SubscriptionSpec, SubscriptionState,
};
use crate::domain::timestamp::{Timestamp, micros};

/// Numbers of `event.payload_kind`.
const PAYLOAD_NONE: i16 = 0;
const PAYLOAD_JSON: i16 = 1;
const PAYLOAD_RAW: i16 = 2;

/// The values of one `event` row, in the order of the insert's columns.
pub(super) fn event_values(row: &NewEventRow) -> Vec<Value> {
    let summary = &row.event.summary;
    vec![
        summary.key.0.into(),
        summary.organization.as_str().into(),
        account(summary.account.as_ref()).into(),
        public_id(row).into(),
        summary.event_type.as_str().into(),
        summary.occur_time.0.into(),
        summary.publish_time.0.into(),
        time(summary.expire_time).into(),
        summary.content_type.as_str().into(),
        payload_kind(&row.event.payload).into(),
        payload_bytes(summary).into(),
        row.event.payload.bytes().to_vec().into(),
        map_text(&summary.attributes).into(),
        summary.subject.as_str().into(),
        summary.trace.traceparent.as_str().into(),
        summary.trace.tracestate.as_str().into(),
        pack(&row.targets).into(),
    ]
}

/// The same, as one array a column: texts and payloads are borrowed up to the
/// connection's write buffer.
pub(super) struct EventColumns<'a> {
    key: Vec<i64>,
    organization_id: Vec<&'a str>,
    account_id: Vec<&'a str>,
    event_id: Vec<&'a str>,
    event_type: Vec<&'a str>,
    occur_time: Vec<i64>,
    publish_time: Vec<i64>,
    expire_time: Vec<i64>,
    content_type: Vec<&'a str>,
    payload_kind: Vec<i16>,
    payload_bytes: Vec<i32>,
    payload: Vec<&'a [u8]>,
    attributes: Vec<String>,
    subject: Vec<&'a str>,
    traceparent: Vec<&'a str>,
    tracestate: Vec<&'a str>,
    targets: Vec<Vec<u8>>,
}

impl<'a> EventColumns<'a> {
    pub(super) fn of(rows: &'a [NewEventRow]) -> EventColumns<'a> {
        fn each<'a, T>(
            rows: &'a [NewEventRow],
            of: impl Fn(&'a NewEventRow, &'a EventSummary) -> T,
        ) -> Vec<T> {
            rows.iter().map(|row| of(row, &row.event.summary)).collect()
        }
        EventColumns {
            key: each(rows, |_, summary| summary.key.0),
            organization_id: each(rows, |_, summary| summary.organization.as_str()),
            account_id: each(rows, |_, summary| account(summary.account.as_ref())),
            event_id: each(rows, |row, _| public_id(row)),
            event_type: each(rows, |_, summary| summary.event_type.as_str()),
            occur_time: each(rows, |_, summary| summary.occur_time.0),
            publish_time: each(rows, |_, summary| summary.publish_time.0),
            expire_time: each(rows, |_, summary| time(summary.expire_time)),
            content_type: each(rows, |_, summary| summary.content_type.as_str()),
            payload_kind: each(rows, |row, _| payload_kind(&row.event.payload)),
            payload_bytes: each(rows, |_, summary| payload_bytes(summary)),
            payload: each(rows, |row, _| &row.event.payload.bytes()[..]),
            attributes: each(rows, |_, summary| map_text(&summary.attributes)),
            subject: each(rows, |_, summary| summary.subject.as_str()),
            traceparent: each(rows, |_, summary| summary.trace.traceparent.as_str()),
            tracestate: each(rows, |_, summary| summary.trace.tracestate.as_str()),
            targets: each(rows, |row, _| pack(&row.targets)),
        }
    }

    /// Binds the columns, in the order of the insert's.
    pub(super) fn bind<'q>(&'q self, query: PostgresQuery<'q>) -> PostgresQuery<'q> {
        query
            .bind(&self.key)
            .bind(&self.organization_id)
            .bind(&self.account_id)
            .bind(&self.event_id)
            .bind(&self.event_type)
            .bind(&self.occur_time)
            .bind(&self.publish_time)
            .bind(&self.expire_time)
            .bind(&self.content_type)
            .bind(&self.payload_kind)
            .bind(&self.payload_bytes)
            .bind(&self.payload)
            .bind(&self.attributes)
            .bind(&self.subject)
            .bind(&self.traceparent)
            .bind(&self.tracestate)
            .bind(&self.targets)
    }
}

/// A stored event; its payload as stored, or nothing where it was not selected.
pub(super) fn event(ids: &IdCodec, row: event::Model) -> Result<Event, StoreError> {
    let bytes = Bytes::from(row.payload.unwrap_or_default());
    let payload = match row.payload_kind {
        PAYLOAD_NONE => Payload::None,
        PAYLOAD_JSON => Payload::Json(bytes),
        PAYLOAD_RAW => Payload::Raw(bytes),
        _ => return Err(StoreError::Corrupt("payload_kind")),
    };
    let key = EventKey(row.key);
    let id = if row.event_id.is_empty() { ids.event(key) } else { row.event_id };
    let summary = EventSummary {
        key,
        id,
        organization: OrganizationId::stored(&row.organization_id),
        account: optional_account(&row.account_id),
        event_type: row.event_type,
        occur_time: Timestamp(row.occur_time),
        publish_time: Timestamp(row.publish_time),
        expire_time: optional_time(row.expire_time),
        content_type: row.content_type,
        payload_bytes: u64::try_from(row.payload_bytes).unwrap_or(0),
        attributes: map(&row.attributes)?,
        subject: row.subject,
        trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
    };
    Ok(Event { summary, payload })
}

/// A recorded attempt.
pub(super) fn attempt(row: attempt::Model) -> Result<Attempt, StoreError> {
    Ok(Attempt {
        number: u32::try_from(row.number).map_err(|_| StoreError::Corrupt("number"))?,
        result: AttemptResult::stored(row.result).ok_or(StoreError::Corrupt("result"))?,
        http_status: u16::try_from(row.http_status).ok().filter(|status| *status != 0),
        error: row.error,
        response_body: row.response_body.into(),
        start_time: Timestamp(row.start_time),
        duration: Duration::from_micros(u64::try_from(row.duration_us).unwrap_or(0)),
        trace_id: row.trace_id.try_into().unwrap_or_default(),
    })
}

/// The values of one `attempt` row, in the order of the insert's columns.
pub(super) fn attempt_row(attempt: &Attempt) -> AttemptRow {
    AttemptRow {
        number: i16::try_from(attempt.number).unwrap_or(i16::MAX),
        result: attempt.result as i16,
        http_status: attempt.http_status.map_or(0, |status| i16::try_from(status).unwrap_or(0)),
        start_time: attempt.start_time.0,
        duration_us: micros(attempt.duration),
        error: attempt.error.clone(),
        response_body: attempt.response_body.to_vec(),
        trace_id: if attempt.trace_id == [0; 16] { Vec::new() } else { attempt.trace_id.to_vec() },
    }
}

/// An attempt in the columns' types.
pub(super) struct AttemptRow {
    pub(super) number: i16,
    pub(super) result: i16,
    pub(super) http_status: i16,
    pub(super) start_time: i64,
    pub(super) duration_us: i64,
    pub(super) error: String,
    pub(super) response_body: Vec<u8>,
    pub(super) trace_id: Vec<u8>,
}

/// A subscription, deleted or not.
pub(super) fn subscription(
    found: subscription::Model,
    tls: ReceiverTls,
) -> Result<Subscription, StoreError> {
    let number = |number: i32, name| u32::try_from(number).map_err(|_| StoreError::Corrupt(name));
    let waits: Vec<u64> =
        serde_json::from_str(&found.retry_waits).map_err(|_| StoreError::Corrupt("retry_waits"))?;
    let spec = SubscriptionSpec {
        account: optional_account(&found.account_id),
        name: found.name,
        url: found.url,
        event_patterns: serde_json::from_str(&found.event_patterns)
            .map_err(|_| StoreError::Corrupt("event_patterns"))?,
        profile: found.profile,
        signing_enabled: found.signing_enabled,
        headers: map(&found.headers)?,
        attributes: map(&found.attributes)?,
        send_organization_code: found.send_organization_code,
        retry_waits: waits.into_iter().map(Duration::from_millis).collect(),
        attempt_timeout: Duration::from_millis(
            number(found.attempt_timeout_ms, "attempt_timeout_ms")?.into(),
        ),
        max_in_flight: number(found.max_in_flight, "max_in_flight")?,
        tls,
    };
    Ok(Subscription {
        key: SubscriptionKey(found.key),
        organization: OrganizationId::stored(&found.organization_id),
        spec,
        state: SubscriptionState::stored(found.state).ok_or(StoreError::Corrupt("state"))?,
        state_reason: found.state_reason,
        version: found.routing_version,
        create_time: Timestamp(found.create_time),
        update_time: Timestamp(found.update_time),
    })
}

/// A subscription's found. Lists are JSON; waits and the time limit keep whole
/// milliseconds.
pub(super) fn subscription_model(subscription: &Subscription) -> subscription::Model {
    let spec = &subscription.spec;
    let millis = |wait: &Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let waits: Vec<u64> = spec.retry_waits.iter().map(millis).collect();
    subscription::Model {
        key: subscription.key.0,
        organization_id: subscription.organization.as_str().to_owned(),
        account_id: account(spec.account.as_ref()).to_owned(),
        name: spec.name.clone(),
        url: spec.url.clone(),
        event_patterns: serde_json::to_string(&spec.event_patterns).expect("strings are JSON"),
        profile: spec.profile.clone(),
        signing_enabled: spec.signing_enabled,
        headers: map_text(&spec.headers),
        attributes: map_text(&spec.attributes),
        send_organization_code: spec.send_organization_code,
        retry_waits: serde_json::to_string(&waits).expect("numbers are JSON"),
        attempt_timeout_ms: i32::try_from(spec.attempt_timeout.as_millis()).unwrap_or(i32::MAX),
        max_in_flight: i32::try_from(spec.max_in_flight).unwrap_or(i32::MAX),
        state: subscription.state as i16,
        state_reason: subscription.state_reason.clone(),
        routing_version: subscription.version,
        create_time: subscription.create_time.0,
        update_time: subscription.update_time.0,
        deleted: false,
    }
}

/// Certificates of a subscription. A private key in a form that is not known here is
/// there and cannot be read, so that this subscription is not sent to and the others are.
pub(super) fn tls(found: subscription_tls::Model) -> ReceiverTls {
    let key = match (found.secret_version, String::from_utf8(found.secret)) {
        (0, Ok(pem)) => PrivateKey::stored(pem),
        (_, _) => PrivateKey::unreadable(),
    };
    let chain = found.certificate;
    let client = (!chain.is_empty()).then_some(ClientCertificate { chain, key });
    ReceiverTls { client, authorities: found.authorities }
}

/// A signing secret; only plaintext ones exist so far.
pub(super) fn secret(found: signing_secret::Model) -> Result<SigningSecret, StoreError> {
    if found.secret_version != 0 {
        return Err(StoreError::Corrupt("secret_version"));
    }
    Ok(SigningSecret {
        key: SecretKey(found.key),
        secret: String::from_utf8(found.secret).map_err(|_| StoreError::Corrupt("secret"))?,
        create_time: Timestamp(found.create_time),
        expire_time: optional_time(found.expire_time),
    })
}

fn payload_kind(payload: &Payload) -> i16 {
    match payload {
        Payload::None => PAYLOAD_NONE,
        Payload::Json(_) => PAYLOAD_JSON,
        Payload::Raw(_) => PAYLOAD_RAW,
    }
}

fn payload_bytes(summary: &EventSummary) -> i32 {
    i32::try_from(summary.payload_bytes).unwrap_or(i32::MAX)
}

/// The publisher's id; empty for one that the server made, since it follows from the key.
fn public_id(row: &NewEventRow) -> &str {
    row.content_hash.map_or("", |_| row.event.summary.id.as_str())
}

pub(super) fn account(account: Option<&AccountId>) -> &str {
    account.map_or("", AccountId::as_str)
}

pub(super) fn optional_account(text: &str) -> Option<AccountId> {
    (!text.is_empty()).then(|| AccountId::stored(text))
}

/// 0 is no time: 1970 is before this product's first event.
pub(super) fn time(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |time| time.0.max(1))
}

pub(super) fn optional_time(time: i64) -> Option<Timestamp> {
    (time != 0).then_some(Timestamp(time))
}

pub(super) fn map_text(map: &BTreeMap<String, String>) -> String {
    if map.is_empty() {
        return String::new();
    }
    serde_json::to_string(map).expect("a map of strings is JSON")
}

pub(super) fn map(text: &str) -> Result<BTreeMap<String, String>, StoreError> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("map"))
}

/// Subscription keys as `event.targets` holds them.
fn pack(targets: &[SubscriptionKey]) -> Vec<u8> {
    targets.iter().flat_map(|key| key.0.to_be_bytes()).collect()
}

pub(super) fn unpack(targets: &[u8]) -> Vec<SubscriptionKey> {
    let key = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes).map(SubscriptionKey);
    targets.chunks_exact(8).filter_map(key).collect()
}
