//! Reads a profile's TOML file and prepares it. Strict: unknown keys, and keys
//! that contradict each other, are errors that name the file and the key.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use serde_json::value::RawValue;

use super::AbsentPayload;
use super::BodyKind;
use super::BodyRule;
use super::IdOnlyBody;
use super::Member;
use super::PayloadShape;
use super::Ping;
use super::Profile;
use super::ProfileError;
use super::Source;
use super::Statuses;
use super::file::BodyName;
use super::file::BodyTable;
use super::file::ClassName;
use super::file::MessageName;
use super::file::OwnershipName;
use super::file::OwnershipTable;
use super::file::PingTable;
use super::file::ProfileFile;
use super::file::SecretTable;
use super::file::SignatureTable;
use super::file::SourceName;
use super::file::StatusesValue;
use super::file::SuccessTable;
use crate::domain::event_type::is_event_type;
use crate::domain::json_object;
use crate::domain::operational_event::is_operational;
use crate::domain::ownership::OwnershipRule;
use crate::domain::ownership::REQUEST_ORIGIN;
use crate::domain::secret::SecretRule;
use crate::domain::signature::SignatureFormat;
use crate::domain::signature::SignatureRule;
use crate::domain::signature::SignedMessage;
use crate::domain::time_format::TimeFormat;

const NAME_CHARS_MAX: usize = 64;
/// Decision 26: secrets of platforms have 8 to 256 characters.
const SECRET_CHARS_MIN: usize = 8;
const SECRET_CHARS_MAX: usize = 256;
/// 16 letters of 62 are 95 bits.
const GENERATED_CHARS_MIN: usize = 16;

/// Headers that the connection, the body, the event's trace or another key of the file decides.
const NOT_FIXED: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// A key and what is wrong with it.
struct Wrong(String, String);

impl Profile {
    /// Reads the text of one profile file.
    pub(super) fn parse(file: &str, text: &str) -> Result<Profile, ProfileError> {
        let named = |key: String, why: String| ProfileError { file: file.to_owned(), key, why };
        let read: ProfileFile = toml::from_str(text).map_err(|error| {
            let (key, why) = place(text, &error);
            named(key, why)
        })?;
        prepare(read).map_err(|Wrong(key, why)| named(key, why))
    }
}

/// Where the error is, without the snippet that the library's own words would show.
fn place(text: &str, error: &toml::de::Error) -> (String, String) {
    let Some(span) = error.span() else {
        return ("the file".to_owned(), error.message().to_owned());
    };
    let before = text.get(..span.start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let place = match line.split_once('=') {
        Some((key, _)) => format!("line {number}, `{}`", key.trim()),
        None => format!("line {number}"),
    };
    (place, error.message().to_owned())
}

fn prepare(file: ProfileFile) -> Result<Profile, Wrong> {
    check_name(&file.name)?;
    let id_header = optional_name("delivery_headers.id", file.delivery_headers.id.as_deref())?;
    let timestamp = file.delivery_headers.timestamp.as_deref();
    let timestamp_header = optional_name("delivery_headers.timestamp", timestamp)?;
    let signature = file.signature.as_ref().map(signature).transpose()?;
    if signature.as_ref().is_some_and(|rule| rule.message == SignedMessage::Standard)
        && (id_header.is_none() || timestamp_header.is_none())
    {
        let why = "\"standard\" signs the delivery's id and time: name both in delivery_headers";
        return wrong("signature.message", why);
    }
    let ownership = file.ownership.as_ref().map(ownership).transpose()?;
    let fixed_headers = fixed_headers(&file.headers, ownership.as_ref())?;
    let reserved = reserved(
        signature.iter().map(|rule| &rule.header).chain(&id_header).chain(&timestamp_header),
        &fixed_headers,
    )?;
    let body = body(&file.body)?;
    let ping = file.ping.map(|table| ping(table, &body)).transpose()?;
    Ok(Profile {
        name: file.name,
        description: file.description,
        content_type: value("content_type", &file.content_type)?,
        user_agent: value("user_agent", &file.user_agent)?,
        fixed_headers,
        reserved,
        id_header,
        timestamp_header,
        body,
        signature,
        success: success(file.success)?,
        service_patterns: file.patterns.service,
        operational_events: file.patterns.operational,
        ping,
        ownership,
        omit_trace_context: file.omit_trace_context,
    })
}

fn check_name(name: &str) -> Result<(), Wrong> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let plain = name.bytes().all(|byte| letter(byte) || byte == b'-' || byte == b'_');
    if plain && (1..=NAME_CHARS_MAX).contains(&name.len()) {
        return Ok(());
    }
    wrong("name", &format!("must be 1 to {NAME_CHARS_MAX} of a to z, 0 to 9, - and _"))
}

fn body(table: &BodyTable) -> Result<BodyRule, Wrong> {
    let kind = match table.kind {
        BodyName::Envelope => BodyKind::Envelope(envelope(table)?),
        BodyName::Payload => {
            if !table.fields.is_empty() || table.time_format.is_some() {
                return wrong("body.fields", "a body of kind \"payload\" has none, and no times");
            }
            if table.absent_payload != AbsentPayload::Refuse {
                let why = "a body of kind \"payload\" is nothing without it: \"refuse\"";
                return wrong("body.absent_payload", why);
            }
            BodyKind::Payload
        }
    };
    check_id_only(table, &kind)?;
    if table.organization_code_key.is_some() {
        let (object, taken) = match &kind {
            BodyKind::Payload => (table.payload == PayloadShape::Object, false),
            BodyKind::Envelope(fields) => (
                table.payload != PayloadShape::Any,
                fields
                    .iter()
                    .any(|(member, _)| Some(&member.key) == table.organization_code_key.as_ref()),
            ),
        };
        if !object {
            return wrong("body.organization_code_key", "the body is not always an object");
        }
        if taken {
            return wrong("body.organization_code_key", "is one of body.fields already");
        }
    }
    Ok(BodyRule {
        kind,
        payload: table.payload,
        absent_payload: table.absent_payload,
        id_only: table.id_only,
        organization_code: table.organization_code_key.as_deref().map(Member::new),
    })
}

/// A receiver that gets no payload gets the id, by which it can ask for the rest.
fn check_id_only(table: &BodyTable, kind: &BodyKind) -> Result<(), Wrong> {
    let key = "body.id_only";
    let fields = match (table.id_only, kind) {
        (IdOnlyBody::Refuse, _) | (IdOnlyBody::Id, BodyKind::Envelope(_)) => return Ok(()),
        (IdOnlyBody::Absent | IdOnlyBody::Id, BodyKind::Payload) => {
            return wrong(key, "a body of kind \"payload\" is nothing without it: \"refuse\"");
        }
        (IdOnlyBody::Absent, BodyKind::Envelope(fields)) => fields,
    };
    if table.absent_payload == AbsentPayload::Refuse {
        return wrong(key, "\"absent\" needs body.absent_payload \"omit\" or \"null\"");
    }
    if !fields.iter().any(|(_, source)| *source == Source::EventId) {
        return wrong(key, "\"absent\" needs event.id among body.fields");
    }
    Ok(())
}

fn envelope(table: &BodyTable) -> Result<Vec<(Member, Source)>, Wrong> {
    let mut fields: Vec<(Member, Source)> = Vec::with_capacity(table.fields.len());
    for (key, name) in &table.fields {
        if fields.iter().any(|(member, _)| member.key == *key) {
            return wrong("body.fields", &format!("`{key}` is there twice"));
        }
        fields.push((Member::new(key), source(*name, table.time_format)?));
    }
    let payloads = fields.iter().filter(|(_, source)| *source == Source::Payload).count();
    if payloads != 1 {
        return wrong("body.fields", "must name event.payload once");
    }
    Ok(fields)
}

fn source(name: SourceName, time_format: Option<TimeFormat>) -> Result<Source, Wrong> {
    Ok(match name {
        SourceName::EventId => Source::EventId,
        SourceName::EventType => Source::EventType,
        SourceName::OccurTime => match time_format {
            Some(format) => Source::OccurTime(format),
            None => return wrong("body.time_format", "is needed for event.occur_time"),
        },
        SourceName::Payload => Source::Payload,
        SourceName::AccountId => Source::AccountId,
        SourceName::OrganizationId => Source::OrganizationId,
        SourceName::DeliveryId => Source::DeliveryId,
    })
}

fn signature(table: &SignatureTable) -> Result<SignatureRule, Wrong> {
    let Some(format) = SignatureFormat::parse(&table.format) else {
        let why = "must be visible ASCII that ends in {hex} or {base64}";
        return wrong("signature.format", why);
    };
    Ok(SignatureRule {
        header: header_name("signature.header", &table.header)?,
        message: match table.message {
            MessageName::Body => SignedMessage::Body,
            MessageName::Standard => SignedMessage::Standard,
        },
        format,
        multiple: table.multiple,
        signed_by_default: table.signed_by_default,
        secret: match &table.secret {
            SecretTable::Standard {} => SecretRule::Standard,
            SecretTable::Text { generate_chars, accept_chars } => {
                text_secret(*generate_chars, *accept_chars)?
            }
        },
    })
}

fn text_secret(
    generate_chars: usize,
    (chars_min, chars_max): (usize, usize),
) -> Result<SecretRule, Wrong> {
    if chars_min < SECRET_CHARS_MIN || chars_max > SECRET_CHARS_MAX {
        let why = format!("must be from {SECRET_CHARS_MIN} to {SECRET_CHARS_MAX}");
        return wrong("signature.secret.accept_chars", &why);
    }
    if !(chars_min.max(GENERATED_CHARS_MIN)..=chars_max).contains(&generate_chars) {
        let why = format!("must be {GENERATED_CHARS_MIN} or more, and within accept_chars");
        return wrong("signature.secret.generate_chars", &why);
    }
    Ok(SecretRule::Text { generate_chars, chars_min, chars_max })
}

fn success(table: SuccessTable) -> Result<Statuses, Wrong> {
    let statuses = match table.statuses {
        StatusesValue::Class(ClassName::Successful) => Some(Statuses::SUCCESSFUL),
        StatusesValue::List(list) if list.is_empty() => None,
        StatusesValue::List(list) => Statuses::of(&list),
    };
    let why = "must be one or more of 200 to 299";
    statuses.ok_or_else(|| Wrong("success.statuses".to_owned(), why.to_owned()))
}

fn ping(table: PingTable, body: &BodyRule) -> Result<Ping, Wrong> {
    if !is_event_type(&table.event_type) {
        let why =
            "must be 1 to 128 of A-Z a-z 0-9 _ . : / -, with no empty part between full stops";
        return wrong("ping.event_type", why);
    }
    if is_operational(&table.event_type) {
        return wrong("ping.event_type", "must not begin with hookward., as the server's own do");
    }
    match &table.payload {
        None if body.absent_payload == AbsentPayload::Refuse => {
            return wrong("ping.payload", "is needed: body.absent_payload is \"refuse\"");
        }
        None => {}
        Some(text) => {
            if serde_json::from_str::<&RawValue>(text).is_err() {
                return wrong("ping.payload", "must be a JSON text");
            }
            if body.payload == PayloadShape::Object && !json_object::is_object(text.as_bytes()) {
                return wrong("ping.payload", "must be a JSON object, as body.payload says");
            }
        }
    }
    Ok(Ping { event_type: table.event_type, payload: table.payload.map(Bytes::from) })
}

fn ownership(table: &OwnershipTable) -> Result<OwnershipRule, Wrong> {
    match (table.kind, table.origin.as_deref()) {
        (OwnershipName::Handshake, Some(origin)) => OwnershipRule::handshake(origin)
            .ok_or_else(|| Wrong("ownership.origin".to_owned(), "must be a DNS name".to_owned())),
        (OwnershipName::Handshake, None) => {
            wrong("ownership.origin", "is needed: the handshake says who asks")
        }
        (OwnershipName::Challenge, None) => Ok(OwnershipRule::Challenge),
        (OwnershipName::Challenge, Some(_)) => {
            wrong("ownership.origin", "is for kind \"handshake\"")
        }
    }
}

/// Those of the file, and the origin that an endpoint has consented to.
fn fixed_headers(
    table: &BTreeMap<String, toml::Value>,
    ownership: Option<&OwnershipRule>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Wrong> {
    let mut headers = Vec::with_capacity(table.len() + 1);
    if let Some(OwnershipRule::Handshake { origin }) = ownership {
        headers.push((HeaderName::from_static(REQUEST_ORIGIN), origin.clone()));
    }
    for (name, text) in table {
        let key = format!("headers.{name}");
        // Not read as text by serde, whose refusal would show the value.
        let mut value = value(&key, text.as_str().unwrap_or_default())?;
        // May be a credential: mediQuo's receivers check a fixed value.
        value.set_sensitive(true);
        headers.push((header_name(&key, name)?, value));
    }
    headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    Ok(headers)
}

/// Names that this profile sets, each by one key only, in order.
fn reserved<'a>(
    named: impl Iterator<Item = &'a HeaderName>,
    fixed: &'a [(HeaderName, HeaderValue)],
) -> Result<Vec<HeaderName>, Wrong> {
    let mut all: Vec<HeaderName> =
        named.chain(fixed.iter().map(|(name, _)| name)).cloned().collect();
    all.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => wrong("headers", &format!("`{}` is set twice", pair[0])),
        None => Ok(all),
    }
}

fn optional_name(key: &str, name: Option<&str>) -> Result<Option<HeaderName>, Wrong> {
    name.map(|name| header_name(key, name)).transpose()
}

fn header_name(key: &str, name: &str) -> Result<HeaderName, Wrong> {
    let Ok(parsed) = HeaderName::try_from(name) else {
        return wrong(key, "is not a header name (RFC 9110, section 5.1)");
    };
    if NOT_FIXED.contains(&parsed.as_str()) {
        return wrong(key, &format!("`{parsed}` is not for this key to set"));
    }
    Ok(parsed)
}

fn value(key: &str, text: &str) -> Result<HeaderValue, Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return wrong(key, "must be visible ASCII");
    }
    Ok(HeaderValue::from_str(text).expect("visible ASCII"))
}

fn wrong<T>(key: &str, why: &str) -> Result<T, Wrong> {
    Err(Wrong(key.to_owned(), why.to_owned()))
}

#[cfg(test)]
mod tests;
