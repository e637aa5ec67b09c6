//! One immutable fact that a service published.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::id::{AccountId, EventKey, OrganizationId, SubscriptionKey};
use super::timestamp::Timestamp;

/// What the event carries, byte for byte as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: some events are their type alone (HapiHub's ping).
    None,
    /// A well-formed JSON text.
    Json(Bytes),
    /// Anything else; the event's content type says what.
    Raw(Bytes),
}

impl Payload {
    /// The bytes; empty when there is nothing.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match self {
            Payload::None => &NOTHING,
            Payload::Json(bytes) | Payload::Raw(bytes) => bytes,
        }
    }
}

/// W3C trace context (<https://www.w3.org/TR/trace-context/>) of the publisher's
/// call, as received: `traceparent` and, if given, `tracestate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`; empty when the caller sent none.
    pub traceparent: String,
    /// Vendor data; empty when the caller sent none. At most 512 bytes.
    pub tracestate: String,
}

/// An event that keeps every rule, not stored yet. Made by [`super::event_rules`]
/// checks in the API layer, so that whoever holds one need not check again.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Whose.
    pub organization: OrganizationId,
    /// About which account, if any.
    pub account: Option<AccountId>,
    /// Chosen by the publisher; `None` lets the server make one.
    pub id: Option<String>,
    /// Such as `medical-encounters.create`.
    pub event_type: String,
    /// When it happened; `None` means when it is taken in.
    pub occur_time: Option<Timestamp>,
    /// Give up when not delivered by then.
    pub expire_time: Option<Timestamp>,
    /// What it carries.
    pub payload: Payload,
    /// Media type of the payload.
    pub content_type: String,
    /// The publisher's own attributes; not sent to receivers.
    pub attributes: BTreeMap<String, String>,
    /// Opaque reference to the person this is about; never sent, never logged.
    pub subject: String,
    /// For the one subscription a ping goes to, whatever its patterns.
    pub target: Option<SubscriptionKey>,
    /// The publisher's trace.
    pub trace: TraceContext,
    /// Who publishes it: the name of a principal.
    pub publisher: Arc<str>,
}

impl NewEvent {
    /// Bytes that it takes up in memory, its small fixed parts left out.
    #[must_use]
    pub fn weight(&self) -> usize {
        weight(&self.payload, &self.attributes, &self.subject)
    }
}

impl Event {
    /// As [`NewEvent::weight`]: the same for the event that it became.
    #[must_use]
    pub fn weight(&self) -> usize {
        weight(&self.payload, &self.summary.attributes, &self.summary.subject)
    }
}

fn weight(payload: &Payload, attributes: &BTreeMap<String, String>, subject: &str) -> usize {
    let attributes = attributes.iter().map(|(key, value)| key.len() + value.len());
    payload.bytes().len() + subject.len() + attributes.sum::<usize>()
}

/// A stored event.
#[derive(Clone, Debug)]
pub struct Event {
    /// All but the payload.
    pub summary: EventSummary,
    /// What it carries.
    pub payload: Payload,
}

/// An event without its payload.
#[derive(Clone, Debug)]
pub struct EventSummary {
    /// Its key.
    pub key: EventKey,
    /// Its public id: the publisher's, or `evt_…`.
    pub id: String,
    /// Whose.
    pub organization: OrganizationId,
    /// About which account, if any.
    pub account: Option<AccountId>,
    /// Such as `medical-encounters.create`.
    pub event_type: String,
    /// When it happened.
    pub occur_time: Timestamp,
    /// When it was taken in, by the database's clock.
    pub publish_time: Timestamp,
    /// Give up when not delivered by then.
    pub expire_time: Option<Timestamp>,
    /// Media type of the payload.
    pub content_type: String,
    /// Size of the payload in bytes.
    pub payload_bytes: u64,
    /// The publisher's own attributes.
    pub attributes: BTreeMap<String, String>,
    /// Opaque reference to the person this is about.
    pub subject: String,
    /// The publisher's trace.
    pub trace: TraceContext,
    /// When the payload, the attributes and the subject were purged.
    pub purge_time: Option<Timestamp>,
    /// Who published it: the name of a principal; empty when that was not recorded yet.
    pub publisher: Arc<str>,
}
