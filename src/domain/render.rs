//! Makes the HTTP request of one attempt: an event in the shape of its
//! subscription's profile.
//!
//! The payload's bytes go through untouched, whatever stands around them, but for values
//! that the subscription masks; and the signature covers exactly the bytes that are sent.
//! Pure; rendered anew for each attempt.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::header::USER_AGENT;

use super::event::Event;
use super::event::Payload;
use super::json::masked;
use super::json_object;
use super::json_pointer::JsonPointer;
use super::payload_mode::PayloadMode;
use super::profile::AbsentPayload;
use super::profile::BodyKind;
use super::profile::BodyRule;
use super::profile::IdOnlyBody;
use super::profile::Member;
use super::profile::PayloadShape;
use super::profile::Profile;
use super::profile::Source;
use super::signature::SignedRequest;
use super::signature::SigningKey;
use super::subscription::SubscriptionSpec;
use super::subscription_rules::organization_code;
use super::time_format::TimeFormat;
use super::timestamp::Timestamp;

/// Media type of raw payloads whose publisher named none (RFC 9110, section 8.3).
const UNNAMED_CONTENT: &str = "application/octet-stream";

static NULL: Bytes = Bytes::from_static(b"null");

/// The ids that a request carries beside the event's.
#[derive(Clone, Copy, Debug)]
pub struct RenderIds<'a> {
    /// `dlv_…`; the same on every attempt of the delivery.
    pub delivery_id: &'a str,
}

/// A request, but for its target. `Debug` prints neither values nor the body.
#[derive(Clone)]
pub struct Rendered {
    /// Every header but those of the connection; no name twice.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is sent, and what is signed.
    pub body: Bytes,
}

/// Why an event cannot take the shape of a profile. The words are shown to people
/// and stored, so they hold nothing of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotSendable {
    /// The profile needs a payload.
    #[error("the event has no payload, and the profile needs one")]
    PayloadMissing,
    /// The profile needs a JSON object.
    #[error("the payload is not a JSON object, and the profile needs one")]
    PayloadNotObject,
    /// The profile needs JSON.
    #[error("the payload is not JSON, and the profile sends nothing else")]
    RawPayload,
    /// What is masked is named by its place in a JSON text, and this is none.
    #[error("the payload is not JSON, and the subscription masks parts of it")]
    NotMaskable,
    /// The profile has no body without the payload.
    #[error("the subscription takes ids only, but its profile has no body without the payload")]
    IdOnlyUnsupported,
    /// The publisher's content type cannot be a header.
    #[error("the payload's content type is not a valid header value")]
    ContentTypeInvalid,
    /// The body has a member where the organization's code would go.
    #[error("the payload already has a member with the organization code's key")]
    OrganizationCodeTaken,
    /// There is no code to send.
    #[error("the subscription sends an organization code, but its attributes hold none")]
    OrganizationCodeMissing,
    /// The profile has no place for it.
    #[error("the subscription sends an organization code, but its profile has no place for it")]
    OrganizationCodeUnsupported,
    /// The request must be signed and there is no secret.
    #[error("the subscription signs its requests, but has no signing secret")]
    SecretMissing,
    /// The profile knows no signature.
    #[error("the subscription signs its requests, but its profile knows no signature")]
    SigningUnsupported,
    /// A header of the subscription cannot be sent.
    #[error("a custom header of the subscription is not a valid header")]
    HeaderInvalid,
}

/// Renders the request for `event` as `subscription` asks for it.
///
/// `keys` are those that must sign now: all live ones where the profile
/// [signs with every secret](Profile::signs_with_every_secret), else exactly one.
/// They are not used when signing is off. `now` is the time of the attempt.
///
/// # Errors
///
/// [`NotSendable`]: trying again cannot help until the subscription changes.
///
/// # Panics
///
/// When the delivery's id is not one that this server made: those are letters and
/// digits.
pub fn render(
    profile: &Profile,
    event: &Event,
    subscription: &SubscriptionSpec,
    keys: &[SigningKey],
    ids: RenderIds<'_>,
    now: Timestamp,
) -> Result<Rendered, NotSendable> {
    let payload = shown(profile.body(), event, &subscription.payload_mode)?;
    let body = body(profile, event, &payload, subscription, ids)?;
    let own = 5 + profile.fixed_headers().len();
    let mut headers = Vec::with_capacity(own + subscription.headers.len());
    headers.push((CONTENT_TYPE, content_type(profile, event, &payload)?));
    headers.push((USER_AGENT, profile.user_agent().clone()));
    let id = match profile.id_header() {
        Some(name) => {
            let value = HeaderValue::from_str(ids.delivery_id).expect("ids are letters and digits");
            headers.push((name.clone(), value));
            ids.delivery_id
        }
        None => "",
    };
    let timestamp = profile.timestamp_header().map(|name| (name, HeaderValue::from(now.secs())));
    if subscription.signing_enabled {
        let rule = profile.signature().ok_or(NotSendable::SigningUnsupported)?;
        if keys.is_empty() {
            return Err(NotSendable::SecretMissing);
        }
        let timestamp = timestamp.as_ref().map_or("", |(_, value)| value.to_str().expect("digits"));
        let value = rule.sign(keys, SignedRequest { id, timestamp, body: &body });
        headers.push((rule.header.clone(), value));
    }
    headers.extend(timestamp.map(|(name, value)| (name.clone(), value)));
    headers.extend_from_slice(profile.fixed_headers());
    add_custom(profile, subscription, &mut headers)?;
    Ok(Rendered { headers, body })
}

impl fmt::Debug for Rendered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Rendered")
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The subscription's headers, except where the profile has the say.
fn add_custom(
    profile: &Profile,
    subscription: &SubscriptionSpec,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<(), NotSendable> {
    for (name, value) in &subscription.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| NotSendable::HeaderInvalid)?;
        // Also when this request is unsigned: nobody forges what a signed one would carry.
        let ours = headers.iter().any(|(set, _)| *set == name)
            || profile.signature_header_names().contains(&name);
        if !ours {
            let mut value = HeaderValue::from_str(value).map_err(|_| NotSendable::HeaderInvalid)?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
    }
    Ok(())
}

/// What the receiver gets in the payload's place.
fn shown(rule: &BodyRule, event: &Event, mode: &PayloadMode) -> Result<Payload, NotSendable> {
    match (mode, &event.payload) {
        (PayloadMode::IdOnly, _) => match rule.id_only {
            IdOnlyBody::Absent => Ok(Payload::None),
            IdOnlyBody::Id => Ok(Payload::Json(id_alone(&event.summary.id))),
            IdOnlyBody::Refuse => Err(NotSendable::IdOnlyUnsupported),
        },
        (PayloadMode::Masked(pointers), Payload::Json(text)) => mask(text, pointers),
        (PayloadMode::Masked(_), Payload::Raw(_)) => Err(NotSendable::NotMaskable),
        (PayloadMode::Full, payload) | (PayloadMode::Masked(_), payload @ Payload::None) => {
            Ok(payload.clone())
        }
    }
}

fn mask(text: &Bytes, pointers: &[JsonPointer]) -> Result<Payload, NotSendable> {
    match masked(text, pointers) {
        Ok(Cow::Borrowed(_)) => Ok(Payload::Json(text.clone())),
        Ok(Cow::Owned(text)) => Ok(Payload::Json(Bytes::from(text))),
        // It was checked when it was taken in. What is not understood is not sent.
        Err(_) => Err(NotSendable::NotMaskable),
    }
}

/// `{"id":"…"}`
fn id_alone(id: &str) -> Bytes {
    let member = Member::new("id");
    let mut text = Vec::with_capacity(member.opening.len() + id.len() + 4);
    text.push(b'{');
    text.extend_from_slice(&member.opening);
    write_string(id, &mut text);
    text.push(b'}');
    Bytes::from(text)
}

fn content_type(
    profile: &Profile,
    event: &Event,
    payload: &Payload,
) -> Result<HeaderValue, NotSendable> {
    match payload {
        Payload::None | Payload::Json(_) => Ok(profile.content_type().clone()),
        Payload::Raw(_) if event.summary.content_type.is_empty() => {
            Ok(HeaderValue::from_static(UNNAMED_CONTENT))
        }
        Payload::Raw(_) => HeaderValue::from_str(&event.summary.content_type)
            .map_err(|_| NotSendable::ContentTypeInvalid),
    }
}

fn body(
    profile: &Profile,
    event: &Event,
    payload: &Payload,
    subscription: &SubscriptionSpec,
    ids: RenderIds<'_>,
) -> Result<Bytes, NotSendable> {
    let rule = profile.body();
    let code = if subscription.send_organization_code {
        let member =
            rule.organization_code.as_ref().ok_or(NotSendable::OrganizationCodeUnsupported)?;
        Some((
            member,
            organization_code(&subscription.attributes)
                .ok_or(NotSendable::OrganizationCodeMissing)?,
        ))
    } else {
        None
    };
    let payload = match (payload, rule.payload, rule.absent_payload) {
        (Payload::Json(bytes), PayloadShape::Object, _) if !json_object::is_object(bytes) => {
            return Err(NotSendable::PayloadNotObject);
        }
        (Payload::Json(bytes), ..) => Some(bytes),
        (Payload::Raw(bytes), PayloadShape::Any, _) => return Ok(bytes.clone()),
        (Payload::Raw(_), PayloadShape::Object | PayloadShape::Json, _) => {
            return Err(NotSendable::RawPayload);
        }
        (Payload::None, _, AbsentPayload::Refuse) => return Err(NotSendable::PayloadMissing),
        (Payload::None, _, AbsentPayload::Null) => Some(&NULL),
        (Payload::None, _, AbsentPayload::Omit) => None,
    };
    match &rule.kind {
        BodyKind::Payload => {
            let payload = payload.ok_or(NotSendable::PayloadMissing)?;
            match code {
                None => Ok(payload.clone()),
                Some((member, code)) => with_code(payload, member, code),
            }
        }
        BodyKind::Envelope(fields) => {
            let envelope = Envelope { fields, event, payload, ids, code };
            Ok(Bytes::from(envelope.write()))
        }
    }
}

fn with_code(payload: &Bytes, member: &Member, code: &str) -> Result<Bytes, NotSendable> {
    match json_object::has_member(payload, &member.key) {
        Some(true) => return Err(NotSendable::OrganizationCodeTaken),
        Some(false) => {}
        None => return Err(NotSendable::PayloadNotObject),
    }
    let mut text = Vec::with_capacity(member.opening.len() + code.len() + 2);
    text.extend_from_slice(&member.opening);
    write_string(code, &mut text);
    let whole = json_object::with_last_member(payload, &text);
    whole.map(Bytes::from).ok_or(NotSendable::PayloadNotObject)
}

/// What an envelope is written from.
struct Envelope<'a> {
    fields: &'a [(Member, Source)],
    event: &'a Event,
    payload: Option<&'a Bytes>,
    ids: RenderIds<'a>,
    code: Option<(&'a Member, &'a str)>,
}

/// One value of an envelope.
enum Value<'a> {
    Text(&'a str),
    Time(TimeFormat, Timestamp),
    Json(&'a [u8]),
}

impl<'a> Envelope<'a> {
    /// The body, in one allocation of its exact size: when no text needs escaping,
    /// which ids and types never do.
    fn write(&self) -> Vec<u8> {
        let members = || {
            let fields = self.fields.iter();
            let fields = fields.filter_map(|(member, source)| Some((member, self.value(*source)?)));
            fields.chain(self.code.map(|(member, code)| (member, Value::Text(code))))
        };
        // Each member has a comma or, the first, the opening brace before it.
        let size = |(member, value): (&Member, Value<'_>)| 1 + member.opening.len() + value.len();
        let mut body = Vec::with_capacity(members().map(size).sum::<usize>().max(1) + 1);
        for (member, value) in members() {
            body.push(if body.is_empty() { b'{' } else { b',' });
            body.extend_from_slice(&member.opening);
            value.write(&mut body);
        }
        if body.is_empty() {
            body.push(b'{');
        }
        body.push(b'}');
        body
    }

    /// `None`: the member is left out.
    fn value(&self, source: Source) -> Option<Value<'a>> {
        let summary = &self.event.summary;
        match source {
            Source::EventId => Some(Value::Text(&summary.id)),
            Source::EventType => Some(Value::Text(&summary.event_type)),
            Source::OccurTime(format) => Some(Value::Time(format, summary.occur_time)),
            Source::Payload => self.payload.map(|bytes| Value::Json(bytes)),
            Source::AccountId => summary.account.as_ref().map(|id| Value::Text(id.as_str())),
            Source::OrganizationId => Some(Value::Text(summary.organization.as_str())),
            Source::DeliveryId => Some(Value::Text(self.ids.delivery_id)),
        }
    }
}

impl Value<'_> {
    fn len(&self) -> usize {
        match self {
            Value::Text(text) => text.len() + 2,
            Value::Time(format, time) => format.len(*time),
            Value::Json(bytes) => bytes.len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Text(text) => write_string(text, out),
            Value::Time(format, time) => format.write(*time, out),
            Value::Json(bytes) => out.extend_from_slice(bytes),
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is JSON and a Vec takes it");
}

#[cfg(test)]
mod tests;
