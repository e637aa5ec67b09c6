//! Between rows and the domain's nouns.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sea_orm::Value;

use super::entity::{attempt, event, signing_secret, subscription};
use super::{NewEventRow, StoreError};
use crate::domain::attempt::{Attempt, AttemptResult};
use crate::domain::event::{Event, EventSummary, Payload, TraceContext};
use crate::domain::id::{AccountId, EventKey, IdCodec, OrganizationId, SecretKey, SubscriptionKey};
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

/// The same, as one array a column.
pub(super) fn event_arrays(rows: &[NewEventRow]) -> [Value; 17] {
    fn text(rows: &[NewEventRow], of: impl Fn(&NewEventRow) -> String) -> Value {
        rows.iter().map(of).collect::<Vec<String>>().into()
    }
    fn number(rows: &[NewEventRow], of: impl Fn(&NewEventRow) -> i64) -> Value {
        rows.iter().map(of).collect::<Vec<i64>>().into()
    }
    fn blob(rows: &[NewEventRow], of: impl Fn(&NewEventRow) -> Vec<u8>) -> Value {
        rows.iter().map(of).collect::<Vec<Vec<u8>>>().into()
    }
    let kinds: Vec<i16> = rows.iter().map(|row| payload_kind(&row.event.payload)).collect();
    let sizes: Vec<i32> = rows.iter().map(|row| payload_bytes(&row.event.summary)).collect();
    [
        number(rows, |row| row.event.summary.key.0),
        text(rows, |row| row.event.summary.organization.as_str().to_owned()),
        text(rows, |row| account(row.event.summary.account.as_ref())),
        text(rows, public_id),
        text(rows, |row| row.event.summary.event_type.clone()),
        number(rows, |row| row.event.summary.occur_time.0),
        number(rows, |row| row.event.summary.publish_time.0),
        number(rows, |row| time(row.event.summary.expire_time)),
        text(rows, |row| row.event.summary.content_type.clone()),
        kinds.into(),
        sizes.into(),
        blob(rows, |row| row.event.payload.bytes().to_vec()),
        text(rows, |row| map_text(&row.event.summary.attributes)),
        text(rows, |row| row.event.summary.subject.clone()),
        text(rows, |row| row.event.summary.trace.traceparent.clone()),
        text(rows, |row| row.event.summary.trace.tracestate.clone()),
        blob(rows, |row| pack(&row.targets)),
    ]
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
pub(super) fn subscription(found: subscription::Model) -> Result<Subscription, StoreError> {
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
        account_id: account(spec.account.as_ref()),
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
fn public_id(row: &NewEventRow) -> String {
    row.content_hash.map_or_else(String::new, |_| row.event.summary.id.clone())
}

pub(super) fn account(account: Option<&AccountId>) -> String {
    account.map_or_else(String::new, |account| account.as_str().to_owned())
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
