//! Rows of `event`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sea_orm::Value;

use super::{account, map, map_text, optional_account, optional_time, time};
use crate::domain::event::{Event, EventSummary, Payload, TraceContext};
use crate::domain::id::{EventKey, IdCodec, OrganizationId, SubscriptionKey};
use crate::domain::timestamp::Timestamp;
use crate::keyring::{Column, DataKey, Digested, Place};
use crate::store::data_key::SealingKeys;
use crate::store::engine::PostgresQuery;
use crate::store::entity::event;
use crate::store::vault::{Form, Vault, seal_text};
use crate::store::{NewEventRow, StoreError};

/// Numbers of `event.payload_kind`.
pub(in crate::store) const PAYLOAD_NONE: i16 = 0;
const PAYLOAD_JSON: i16 = 1;
const PAYLOAD_RAW: i16 = 2;

/// An event as it is stored: what may be patient data, sealed where there is a key.
pub(in crate::store) struct StoredEvent<'a> {
    row: &'a NewEventRow,
    payload: Cow<'a, [u8]>,
    /// Attributes as JSON; sealed, together with the subject.
    attributes: String,
    /// Sealed, its digest: one person's events can still be found.
    subject: Cow<'a, str>,
    form: Form,
}

impl<'a> StoredEvent<'a> {
    fn new(row: &'a NewEventRow, key: Option<&DataKey>) -> StoredEvent<'a> {
        let Event { summary, payload } = &*row.event;
        let bytes = &payload.bytes()[..];
        let Some(key) = key else {
            return StoredEvent {
                row,
                payload: Cow::Borrowed(bytes),
                attributes: map_text(&summary.attributes),
                subject: Cow::Borrowed(&summary.subject),
                form: Form::PLAIN,
            };
        };
        let place = |column| Place::keyed(column, &summary.organization, [summary.key.0]);
        let payload = match payload {
            Payload::None => Cow::Borrowed(bytes),
            Payload::Json(_) | Payload::Raw(_) => {
                Cow::Owned(key.seal(&place(Column::EventPayload), bytes))
            }
        };
        let place = place(Column::EventDetails);
        StoredEvent {
            row,
            payload,
            attributes: seal_details(key, &place, &summary.subject, &summary.attributes),
            subject: Cow::Owned(subject_digest(key, &summary.subject)),
            form: Form::of(key),
        }
    }

    /// Those of a batch, each with the key of its organization.
    pub(in crate::store) fn all(
        rows: &'a [NewEventRow],
        keys: &SealingKeys,
    ) -> Vec<StoredEvent<'a>> {
        let key = |row: &NewEventRow| keys.of(&row.event.summary.organization);
        rows.iter().map(|row| StoredEvent::new(row, key(row))).collect()
    }

    /// The values of its row, in the order of the insert's columns.
    pub(in crate::store) fn values(self) -> Vec<Value> {
        let row = self.row;
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
            self.payload.into_owned().into(),
            self.form.key_id.into(),
            self.form.version.into(),
            self.attributes.into(),
            self.subject.into_owned().into(),
            summary.trace.traceparent.as_str().into(),
            summary.trace.tracestate.as_str().into(),
            pack(&row.targets).into(),
            (&*summary.publisher).into(),
        ]
    }
}

/// Subject and attributes, as they are sealed together.
type Details = (String, BTreeMap<String, String>);

/// Attributes and subject, sealed; nothing for none.
pub(in crate::store) fn seal_details(
    key: &DataKey,
    place: &Place,
    subject: &str,
    attributes: &BTreeMap<String, String>,
) -> String {
    if attributes.is_empty() && subject.is_empty() {
        return String::new();
    }
    let details = serde_json::to_string(&(subject, attributes)).expect("texts are JSON");
    seal_text(key, place, &details)
}

/// What stands for a subject in a row that is sealed; nothing for none.
pub(in crate::store) fn subject_digest(key: &DataKey, subject: &str) -> String {
    if subject.is_empty() {
        return String::new();
    }
    // 128 bits: enough to tell the people of one organization apart.
    STANDARD_NO_PAD.encode(&key.digest(Digested::EventSubject, subject.as_bytes())[..16])
}

/// The same, as one array a column: texts and payloads are borrowed up to the
/// connection's write buffer.
pub(in crate::store) struct EventColumns<'a> {
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
    payload_key_id: Vec<i32>,
    payload_version: Vec<i16>,
    attributes: Vec<&'a str>,
    subject: Vec<&'a str>,
    traceparent: Vec<&'a str>,
    tracestate: Vec<&'a str>,
    targets: Vec<Vec<u8>>,
    publisher: Vec<&'a str>,
}

impl<'a> EventColumns<'a> {
    pub(in crate::store) fn of(events: &'a [StoredEvent<'a>]) -> EventColumns<'a> {
        fn each<'a, T>(
            events: &'a [StoredEvent<'a>],
            of: impl Fn(&'a StoredEvent<'a>, &'a EventSummary) -> T,
        ) -> Vec<T> {
            events.iter().map(|event| of(event, &event.row.event.summary)).collect()
        }
        EventColumns {
            key: each(events, |_, summary| summary.key.0),
            organization_id: each(events, |_, summary| summary.organization.as_str()),
            account_id: each(events, |_, summary| account(summary.account.as_ref())),
            event_id: each(events, |event, _| public_id(event.row)),
            event_type: each(events, |_, summary| summary.event_type.as_str()),
            occur_time: each(events, |_, summary| summary.occur_time.0),
            publish_time: each(events, |_, summary| summary.publish_time.0),
            expire_time: each(events, |_, summary| time(summary.expire_time)),
            content_type: each(events, |_, summary| summary.content_type.as_str()),
            payload_kind: each(events, |event, _| payload_kind(&event.row.event.payload)),
            payload_bytes: each(events, |_, summary| payload_bytes(summary)),
            payload: each(events, |event, _| &*event.payload),
            payload_key_id: each(events, |event, _| event.form.key_id),
            payload_version: each(events, |event, _| event.form.version),
            attributes: each(events, |event, _| event.attributes.as_str()),
            subject: each(events, |event, _| &*event.subject),
            traceparent: each(events, |_, summary| summary.trace.traceparent.as_str()),
            tracestate: each(events, |_, summary| summary.trace.tracestate.as_str()),
            targets: each(events, |event, _| pack(&event.row.targets)),
            publisher: each(events, |_, summary| &*summary.publisher),
        }
    }

    /// Binds the columns, in the order of the insert's.
    pub(in crate::store) fn bind<'q>(&'q self, query: PostgresQuery<'q>) -> PostgresQuery<'q> {
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
            .bind(&self.payload_key_id)
            .bind(&self.payload_version)
            .bind(&self.attributes)
            .bind(&self.subject)
            .bind(&self.traceparent)
            .bind(&self.tracestate)
            .bind(&self.targets)
            .bind(&self.publisher)
    }
}

/// A stored event; its payload as published, or nothing where it was not selected. Its
/// data key must have been looked for before.
///
/// # Errors
///
/// [`StoreError::Shredded`] and [`StoreError::Corrupt`] when the payload cannot be
/// decrypted. Of an event whose details alone cannot, they are left out.
pub(in crate::store) fn event(
    ids: &IdCodec,
    vault: &Vault,
    row: event::Model,
) -> Result<Event, StoreError> {
    let form = Form { key_id: row.payload_key_id, version: row.payload_version };
    let (key, organization) = (EventKey(row.key), OrganizationId::stored(&row.organization_id));
    let place = |column| Place::keyed(column, &organization, [key.0]);
    let bytes = match row.payload {
        Some(bytes) if row.payload_kind != PAYLOAD_NONE => {
            vault.open(form, Column::EventPayload, place, bytes)?
        }
        bytes => bytes.unwrap_or_default(),
    };
    let payload = match row.payload_kind {
        _ if row.purge_time != 0 => Payload::None,
        PAYLOAD_NONE => Payload::None,
        PAYLOAD_JSON => Payload::Json(bytes.into()),
        PAYLOAD_RAW => Payload::Raw(bytes.into()),
        _ => return Err(StoreError::Corrupt("payload_kind")),
    };
    let (subject, attributes) = if form.is_plain() {
        (row.subject, map(&row.attributes)?)
    } else if row.attributes.is_empty() {
        (String::new(), BTreeMap::new())
    } else {
        match vault.open_text(form, Column::EventDetails, place, row.attributes) {
            Ok(details) => {
                serde_json::from_str(&details).map_err(|_| StoreError::Corrupt("details"))?
            }
            // Told in the log; the rest of the event can be shown.
            Err(_) => Details::default(),
        }
    };
    let id = if row.event_id.is_empty() { ids.event(key) } else { row.event_id };
    let summary = EventSummary {
        key,
        id,
        organization,
        account: optional_account(&row.account_id),
        event_type: row.event_type,
        occur_time: Timestamp(row.occur_time),
        publish_time: Timestamp(row.publish_time),
        expire_time: optional_time(row.expire_time),
        content_type: row.content_type,
        payload_bytes: u64::try_from(row.payload_bytes).unwrap_or(0),
        attributes,
        subject,
        trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
        purge_time: optional_time(row.purge_time),
        publisher: row.publisher.into(),
    };
    Ok(Event { summary, payload })
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

/// Subscription keys as `event.targets` holds them.
fn pack(targets: &[SubscriptionKey]) -> Vec<u8> {
    targets.iter().flat_map(|key| key.0.to_be_bytes()).collect()
}

pub(in crate::store) fn unpack(targets: &[u8]) -> Vec<SubscriptionKey> {
    let key = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes).map(SubscriptionKey);
    targets.chunks_exact(8).filter_map(key).collect()
}
