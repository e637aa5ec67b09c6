//! Between rows and the domain's nouns.

mod attempt;
mod event;
mod ownership;
mod subscription;

use std::collections::BTreeMap;

pub(super) use self::attempt::{AttemptRow, attempt, attempt_place, attempt_row};
pub(super) use self::event::{
    EventColumns, PAYLOAD_NONE, StoredEvent, event, seal_details, subject_digest, unpack,
};
pub(super) use self::ownership::ownership;
pub(super) use self::subscription::{
    secret, secret_place, subscription, subscription_model, tls, tls_place,
};

use super::StoreError;
use crate::domain::id::AccountId;
use crate::domain::timestamp::Timestamp;

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
