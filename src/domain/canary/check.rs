//! What the canary's receiver asks of a request: what a careful receiver would, and that the
//! payload is byte for byte what was published.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CONTENT_TYPE, EVENT_TYPE, HOST, payload};
use crate::domain::profile::Profile;
use crate::domain::signature::{SignedRequest, SigningKey};
use crate::domain::timestamp::Timestamp;

/// How far a signed time may be from the receiver's, as the libraries of Standard Webhooks
/// have it.
const TOLERANCE: Duration = Duration::from_mins(5);

#[derive(Deserialize)]
struct Envelope<'a> {
    r#type: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Data {
    probe: String,
}

/// Whether this is a probe's delivery, whole and signed with one of `keys`.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn check(
    profile: &Profile,
    keys: &[SigningKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), &'static str> {
    if one(headers, Some(&header::HOST))? != HOST {
        return Err("it is for another host");
    }
    if one(headers, Some(&header::CONTENT_TYPE))? != CONTENT_TYPE {
        return Err("the media type is another one");
    }
    let rule = profile.signature().ok_or("the profile does not sign")?;
    let (id, timestamp) =
        (one(headers, profile.id_header())?, one(headers, profile.timestamp_header())?);
    let signature = one(headers, Some(&rule.header))?;
    let signed = SignedRequest { id, timestamp, body };
    if !keys.iter().any(|key| rule.verify(key, signed, signature)) {
        return Err("the signature is wrong");
    }
    let at: i64 = timestamp.parse().map_err(|_| "the signed time is no number")?;
    if TOLERANCE.as_secs() < now.secs().abs_diff(at) {
        return Err("the signed time is not now");
    }
    is_whole(body)
}

fn is_whole(body: &[u8]) -> Result<(), &'static str> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|_| "the body is no envelope")?;
    if envelope.r#type != EVENT_TYPE {
        return Err("the event is of another type");
    }
    let data = envelope.data.get();
    let probe = serde_json::from_str::<Data>(data).map_err(|_| "the payload names no probe")?;
    if data == payload(&probe.probe) { Ok(()) } else { Err("the payload was changed") }
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: Option<&HeaderName>) -> Result<&'a str, &'static str> {
    let mut values = headers.get_all(name.ok_or("the profile lacks a header")?).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.and_then(|value| value.to_str().ok()).ok_or("a header is missing, or there twice")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::domain::canary::PROFILE;
    use crate::domain::profile::Profiles;

    const NOW: Timestamp = Timestamp(1_750_000_000_000_000);

    struct Sent {
        headers: HeaderMap,
        body: String,
    }

    fn body(kind: &str, data: &str) -> String {
        format!(r#"{{"type":"{kind}","timestamp":"2025-06-15T12:00:00Z","data":{data}}}"#)
    }

    /// As it should be, but for what `spoil` makes of it: before it is signed.
    fn sent(secret: &[u8], spoil: impl FnOnce(&mut Sent)) -> Sent {
        let profiles = Profiles::built_in();
        let profile = profiles.get(PROFILE).expect("it is built in");
        let mut sent =
            Sent { headers: HeaderMap::new(), body: body(EVENT_TYPE, &payload("probe-1")) };
        for (name, value) in [
            ("host", HOST),
            ("content-type", "application/json"),
            ("webhook-id", "dlv_1"),
            ("webhook-timestamp", "1750000000"),
        ] {
            sent.headers.insert(name, HeaderValue::from_static(value));
        }
        spoil(&mut sent);
        let text = |name: &str| sent.headers[name].to_str().expect("text").to_owned();
        let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
        let signed = SignedRequest { id: &id, timestamp: &timestamp, body: sent.body.as_bytes() };
        let rule = profile.signature().expect("it signs");
        let value = rule.sign(&[SigningKey::new(secret)], signed);
        sent.headers.insert("webhook-signature", value);
        sent
    }

    fn judged(sent: &Sent) -> Result<(), &'static str> {
        let profiles = Profiles::built_in();
        let profile = profiles.get(PROFILE).expect("it is built in");
        let keys = [SigningKey::new(b"other"), SigningKey::new(b"secret")];
        check(profile, &keys, &sent.headers, sent.body.as_bytes(), NOW)
    }

    #[test]
    fn what_is_as_it_should_be_is_taken() {
        assert_eq!(judged(&sent(b"secret", |_| {})), Ok(()));
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        let set = |name: &'static str, value: &'static str| {
            move |sent: &mut Sent| {
                sent.headers.insert(name, HeaderValue::from_static(value));
            }
        };
        let with = |text: String| move |sent: &mut Sent| sent.body = text;
        let reordered = payload("probe-1").replace(", ", ",");
        let rewritten = payload("probe-1").replace("1.0", "1");
        for (wrong, why) in [
            (sent(b"secret", set("host", "127.0.0.1")), "it is for another host"),
            (sent(b"secret", set("content-type", "text/plain")), "the media type is another one"),
            (sent(b"guess", |_| {}), "the signature is wrong"),
            (sent(b"secret", set("webhook-timestamp", "1749999699")), "the signed time is not now"),
            (sent(b"secret", set("webhook-timestamp", "soon")), "the signed time is no number"),
            (sent(b"secret", with("{}".to_owned())), "the body is no envelope"),
            (sent(b"secret", with(body("ping", "{}"))), "the event is of another type"),
            (sent(b"secret", with(body(EVENT_TYPE, "{}"))), "the payload names no probe"),
            (sent(b"secret", with(body(EVENT_TYPE, &reordered))), "the payload was changed"),
            (sent(b"secret", with(body(EVENT_TYPE, &rewritten))), "the payload was changed"),
        ] {
            assert_eq!(judged(&wrong), Err(why));
        }
        let mut twice = sent(b"secret", |_| {});
        twice.headers.append("webhook-id", HeaderValue::from_static("dlv_2"));
        assert_eq!(judged(&twice), Err("a header is missing, or there twice"));
        let mut unsigned = sent(b"secret", |_| {});
        unsigned.headers.remove("webhook-signature");
        assert_eq!(judged(&unsigned), Err("a header is missing, or there twice"));
    }
}
