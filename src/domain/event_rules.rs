//! What an event must be to be taken in. Gives a [`NewEvent`] that nobody need check again.

use std::collections::BTreeMap;

use sha2::Digest;
use sha2::Sha256;

use super::attributes::check_attributes;
use super::attributes::is_plain_text;
use super::event::NewEvent;
use super::event::Payload;
use super::event_type::is_event_type;
use super::id::AccountId;
use super::id::OrganizationId;
use super::invalid::InvalidField;
use super::json::JsonFault;
use super::json::check_json;
use super::media_type::is_json;
use super::media_type::is_media_type;
use super::operational_event::is_operational;
use super::timestamp::Timestamp;
use super::trace_context::parse_trace_context;

/// Largest payload, unless the operator says otherwise.
pub const PAYLOAD_BYTES_DEFAULT: usize = 256 * 1024;
/// What the operator may say at most.
pub const PAYLOAD_BYTES_CEILING: usize = 1024 * 1024;

const ID_CHARS_MAX: usize = 128;
const SUBJECT_CHARS_MAX: usize = 256;

/// An event as its publisher sent it. An empty text is one that was left out.
#[derive(Clone, Debug)]
pub struct EventInput {
    /// Whose: the request's, already known to be the caller's.
    pub organization: OrganizationId,
    /// About which account.
    pub account_id: String,
    /// The publisher's id.
    pub id: String,
    /// The event type.
    pub event_type: String,
    /// When it happened.
    pub occur_time: Option<Timestamp>,
    /// Give up by then.
    pub expire_time: Option<Timestamp>,
    /// As sent; JSON is not checked yet.
    pub payload: Payload,
    /// Media type of the payload.
    pub content_type: String,
    /// The publisher's attributes.
    pub attributes: BTreeMap<String, String>,
    /// Reference to the person this is about.
    pub subject: String,
    /// Trace headers of the call; ignored when they are not valid.
    pub traceparent: String,
    /// See `traceparent`.
    pub tracestate: String,
}

impl EventInput {
    /// Checks the event; `now` is what its expire time is compared with.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule, with its path inside the event.
    pub fn check(self, payload_bytes_max: usize, now: Timestamp) -> Result<NewEvent, InvalidField> {
        let account = match self.account_id.as_str() {
            "" => None,
            id => Some(AccountId::parse(id)?),
        };
        check_id(&self.id)?;
        if !is_event_type(&self.event_type) {
            let why = "1 to 128 characters of A-Z, a-z, 0-9, '_', '.', ':', '/' and '-', \
                       without empty segments between full stops";
            return Err(InvalidField::new("type", "INVALID_EVENT_TYPE", why));
        }
        if is_operational(&self.event_type) {
            let why = "types beginning with hookward. are the server's own";
            return Err(InvalidField::new("type", "RESERVED_EVENT_TYPE", why));
        }
        check_times(self.occur_time, self.expire_time)?;
        check_future(&self.id, self.expire_time, now)?;
        check_payload(&self.payload, payload_bytes_max)?;
        let content_type = check_content_type(&self.payload, self.content_type)?;
        check_attributes(&self.attributes)?;
        check_subject(&self.subject)?;
        Ok(NewEvent {
            organization: self.organization,
            account,
            id: (!self.id.is_empty()).then_some(self.id),
            event_type: self.event_type,
            occur_time: self.occur_time,
            expire_time: self.expire_time,
            payload: self.payload,
            content_type,
            attributes: self.attributes,
            subject: self.subject,
            target: None,
            trace: parse_trace_context(&self.traceparent, &self.tracestate),
            publisher: "".into(),
        })
    }
}

/// Checks an event's subject, which may be empty.
///
/// # Errors
///
/// For `subject`.
pub fn check_subject(subject: &str) -> Result<(), InvalidField> {
    if is_plain_text(subject, SUBJECT_CHARS_MAX) {
        return Ok(());
    }
    let why = "at most 256 characters, no control characters";
    Err(InvalidField::new("subject", "INVALID_SUBJECT", why))
}

/// Tells a repeated event from another one under the same id: SHA-256 of everything that
/// the publisher chose, but not of the organization and the id, under which it is looked
/// up, nor of the trace, which differs from call to call.
#[must_use]
pub fn content_hash(event: &NewEvent) -> [u8; 32] {
    let mut digest = Sha256::new();
    // Each part with its length, so that no two events write the same bytes.
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    let payload_kind: &[u8] = match event.payload {
        Payload::None => b"none",
        Payload::Json(_) => b"json",
        Payload::Raw(_) => b"raw",
    };
    part(event.account.as_ref().map_or("", AccountId::as_str).as_bytes());
    part(event.event_type.as_bytes());
    for time in [event.occur_time, event.expire_time] {
        part(time.map(|time| time.0.to_le_bytes()).as_ref().map_or(&[][..], |bytes| bytes));
    }
    part(event.target.map(|key| key.0.to_le_bytes()).as_ref().map_or(&[][..], |bytes| bytes));
    part(payload_kind);
    part(event.payload.bytes());
    part(event.content_type.as_bytes());
    part(event.subject.as_bytes());
    for (key, value) in &event.attributes {
        part(key.as_bytes());
        part(value.as_bytes());
    }
    digest.finalize().into()
}

fn check_id(id: &str) -> Result<(), InvalidField> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b"_:-".contains(&b);
    if ID_CHARS_MAX < id.len() || !id.bytes().all(alphabet) {
        let why = "at most 128 characters of A-Z, a-z, 0-9, '_', ':' and '-'";
        return Err(InvalidField::new("id", "INVALID_ID", why));
    }
    if id.starts_with("evt_") {
        let why = "ids beginning with evt_ are made by the server; leave it out to get one";
        return Err(InvalidField::new("id", "INVALID_ID", why));
    }
    Ok(())
}

fn check_times(
    occur_time: Option<Timestamp>,
    expire_time: Option<Timestamp>,
) -> Result<(), InvalidField> {
    for (field, time) in [("occur_time", occur_time), ("expire_time", expire_time)] {
        if time.is_some_and(|time| !(Timestamp::MIN..=Timestamp::MAX).contains(&time)) {
            return Err(InvalidField::new(field, "INVALID_TIME", "a time from 1970 to 9999"));
        }
    }
    Ok(())
}

/// An event with an id of the publisher's passes: it may repeat one that was stored before
/// it expired. If it is new after all, its deliveries end dead.
fn check_future(
    id: &str,
    expire_time: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), InvalidField> {
    if id.is_empty() && expire_time.is_some_and(|time| time <= now) {
        let why = "a time in the future: nothing could be delivered before it";
        return Err(InvalidField::new("expire_time", "EXPIRED", why));
    }
    Ok(())
}

fn check_payload(payload: &Payload, bytes_max: usize) -> Result<(), InvalidField> {
    let field = match payload {
        Payload::None => return Ok(()),
        Payload::Json(_) => "json",
        Payload::Raw(_) => "raw",
    };
    if bytes_max < payload.bytes().len() {
        let why = format!("at most {bytes_max} bytes");
        return Err(InvalidField::new(field, "PAYLOAD_TOO_LARGE", why));
    }
    let Payload::Json(text) = payload else { return Ok(()) };
    check_json(text).map_err(|fault| {
        let reason = match fault {
            JsonFault::NotUtf8 | JsonFault::Syntax(_) => "INVALID_JSON",
            JsonFault::TooDeep => "JSON_TOO_DEEP",
        };
        InvalidField::new("json", reason, fault.to_string())
    })
}

fn check_content_type(payload: &Payload, given: String) -> Result<String, InvalidField> {
    let invalid = |why| Err(InvalidField::new("content_type", "INVALID_CONTENT_TYPE", why));
    if given.is_empty() {
        return match payload {
            Payload::Json(_) => Ok("application/json".to_owned()),
            Payload::None => Ok(String::new()),
            Payload::Raw(_) => invalid("required with raw: nothing else tells what the bytes are"),
        };
    }
    if !is_media_type(&given) {
        return invalid("a media type of at most 255 characters, such as text/plain");
    }
    if matches!(payload, Payload::Json(_)) && !is_json(&given) {
        return invalid("with json: application/json or a type that ends in +json");
    }
    Ok(given)
}

#[cfg(test)]
mod tests;
