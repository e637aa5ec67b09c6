//! Rows of `attempt`.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::attempt::{Attempt, AttemptResult, Fault};
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::timestamp::{Timestamp, micros};
use crate::keyring::{Column, DataKey, Place};
use crate::store::StoreError;
use crate::store::entity::attempt;
use crate::store::vault::{Form, Vault};

/// A recorded attempt of the organization. A response body that cannot be decrypted is
/// left out.
pub(in crate::store) fn attempt(
    vault: &Vault,
    organization: &OrganizationId,
    row: attempt::Model,
) -> Result<Attempt, StoreError> {
    let form = Form { key_id: row.response_key_id, version: row.response_version };
    let delivery = DeliveryKey {
        event: EventKey(row.event_key),
        subscription: SubscriptionKey(row.subscription_key),
    };
    let response_body = if row.response_body.is_empty() {
        Bytes::new()
    } else {
        let place = |column| attempt_place(column, organization, delivery, row.number);
        let body = vault.open(form, Column::AttemptResponseBody, place, row.response_body);
        body.unwrap_or_default().into()
    };
    Ok(Attempt {
        number: u32::try_from(row.number).map_err(|_| StoreError::Corrupt("number"))?,
        result: AttemptResult::stored(row.result).ok_or(StoreError::Corrupt("result"))?,
        http_status: u16::try_from(row.http_status).ok().filter(|status| *status != 0),
        error: row.error,
        response_body,
        start_time: Timestamp(row.start_time),
        duration: Duration::from_micros(u64::try_from(row.duration_us).unwrap_or(0)),
        trace_id: row.trace_id.try_into().unwrap_or_default(),
        fault: if row.ours { Fault::Ours } else { Fault::Receiver },
    })
}

/// The values of one `attempt` row, but for the delivery's key; the body sealed where there
/// is a key.
pub(in crate::store) fn attempt_row(
    attempt: &Attempt,
    delivery: DeliveryKey,
    organization: &OrganizationId,
    key: Option<&DataKey>,
) -> AttemptRow {
    let number = i16::try_from(attempt.number).unwrap_or(i16::MAX);
    let body = &attempt.response_body;
    let (response_body, form) = match key.filter(|_| !body.is_empty()) {
        Some(key) => {
            let place = attempt_place(Column::AttemptResponseBody, organization, delivery, number);
            (key.seal(&place, body), Form::of(key))
        }
        None => (body.to_vec(), Form::PLAIN),
    };
    AttemptRow {
        number,
        result: attempt.result as i16,
        http_status: attempt.http_status.map_or(0, |status| i16::try_from(status).unwrap_or(0)),
        start_time: attempt.start_time.0,
        duration_us: micros(attempt.duration),
        error: attempt.error.clone(),
        response_body,
        response_key_id: form.key_id,
        response_version: form.version,
        trace_id: if attempt.trace_id == [0; 16] { Vec::new() } else { attempt.trace_id.to_vec() },
        ours: attempt.fault == Fault::Ours,
    }
}

/// The place of a column of an attempt.
pub(in crate::store) fn attempt_place(
    column: Column,
    organization: &OrganizationId,
    delivery: DeliveryKey,
    number: i16,
) -> Place {
    let keys = [delivery.subscription.0, delivery.event.0, number.into()];
    Place::keyed(column, organization, keys)
}

/// An attempt in the columns' types.
pub(in crate::store) struct AttemptRow {
    pub(in crate::store) number: i16,
    pub(in crate::store) result: i16,
    pub(in crate::store) http_status: i16,
    pub(in crate::store) start_time: i64,
    pub(in crate::store) duration_us: i64,
    pub(in crate::store) error: String,
    pub(in crate::store) response_body: Vec<u8>,
    pub(in crate::store) response_key_id: i32,
    pub(in crate::store) response_version: i16,
    pub(in crate::store) trace_id: Vec<u8>,
    pub(in crate::store) ours: bool,
}
