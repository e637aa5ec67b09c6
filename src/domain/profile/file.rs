//! The keys that a profile's file may have, and their closed sets of values. What
//! they mean together is for [`super::parse`] to judge.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::AbsentPayload;
use super::IdOnlyBody;
use super::PayloadShape;
use crate::domain::time_format::TimeFormat;

const USER_AGENT: &str = concat!("Hookward/", env!("CARGO_PKG_VERSION"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileFile {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) content_type: String,
    #[serde(default = "default_user_agent")]
    pub(super) user_agent: String,
    #[serde(default)]
    pub(super) omit_trace_context: bool,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, toml::Value>,
    #[serde(default)]
    pub(super) delivery_headers: DeliveryHeadersTable,
    pub(super) body: BodyTable,
    pub(super) signature: Option<SignatureTable>,
    #[serde(default)]
    pub(super) success: SuccessTable,
    #[serde(default)]
    pub(super) patterns: PatternsTable,
    pub(super) ping: Option<PingTable>,
    pub(super) ownership: Option<OwnershipTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveryHeadersTable {
    pub(super) id: Option<String>,
    pub(super) timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BodyTable {
    pub(super) kind: BodyName,
    #[serde(default)]
    pub(super) fields: Vec<(String, SourceName)>,
    pub(super) time_format: Option<TimeFormat>,
    pub(super) payload: PayloadShape,
    #[serde(default)]
    pub(super) absent_payload: AbsentPayload,
    #[serde(default)]
    pub(super) id_only: IdOnlyBody,
    pub(super) organization_code_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BodyName {
    Payload,
    Envelope,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) enum SourceName {
    #[serde(rename = "event.id")]
    EventId,
    #[serde(rename = "event.type")]
    EventType,
    #[serde(rename = "event.occur_time")]
    OccurTime,
    #[serde(rename = "event.payload")]
    Payload,
    #[serde(rename = "event.account_id")]
    AccountId,
    #[serde(rename = "event.organization_id")]
    OrganizationId,
    #[serde(rename = "delivery.id")]
    DeliveryId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignatureTable {
    pub(super) header: String,
    /// Read so that files say it, and so that another name is refused.
    #[serde(rename = "algorithm")]
    pub(super) _algorithm: AlgorithmName,
    pub(super) message: MessageName,
    pub(super) format: String,
    #[serde(default)]
    pub(super) multiple: bool,
    pub(super) signed_by_default: bool,
    pub(super) secret: SecretTable,
}

#[derive(Deserialize)]
pub(super) enum AlgorithmName {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MessageName {
    Body,
    Standard,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum SecretTable {
    Standard {},
    Text { generate_chars: usize, accept_chars: (usize, usize) },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SuccessTable {
    pub(super) statuses: StatusesValue,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be \"2xx\" or a list of statuses")]
pub(super) enum StatusesValue {
    Class(ClassName),
    List(Vec<u16>),
}

#[derive(Deserialize)]
pub(super) enum ClassName {
    #[serde(rename = "2xx")]
    Successful,
}

impl Default for StatusesValue {
    fn default() -> Self {
        StatusesValue::Class(ClassName::Successful)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatternsTable {
    #[serde(default)]
    pub(super) service: bool,
    #[serde(default)]
    pub(super) operational: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PingTable {
    pub(super) event_type: String,
    pub(super) payload: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnershipTable {
    pub(super) kind: OwnershipName,
    pub(super) origin: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OwnershipName {
    Handshake,
    Challenge,
}

fn default_user_agent() -> String {
    USER_AGENT.to_owned()
}
