//! One request as people read it.

use std::fmt::Display;
use std::io;
use std::io::Write;

use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::cli::receiver::Received;
use crate::cli::terminal::Paint;
use crate::cli::terminal::visible;
use crate::cli::verifier::Verdict;
use crate::domain::headers::HIDDEN;
use crate::domain::headers::is_credential;
use crate::domain::profile::BodyKind;
use crate::domain::profile::Profile;
use crate::domain::profile::Source;

use super::body;

/// Headers of every request, which tell nobody anything.
const DULL: [&str; 5] = ["accept", "connection", "content-length", "host", "transfer-encoding"];
/// Members that hold the event's type where the profile has no envelope, by platform:
/// `TelegraMD`, Azodha.
const TYPE_MEMBERS: [&str; 2] = ["eventType", "eventName"];
/// Longest value that is shown of a header.
const VALUE_CHARS_MAX: usize = 120;

/// What is shown of one request.
pub(super) struct Block<'a> {
    /// From 1.
    pub(super) number: u64,
    pub(super) received: &'a Received,
    /// Says where ids and types are.
    pub(super) profile: &'a Profile,
    pub(super) verdict: &'a Verdict,
    pub(super) show_body: bool,
}

/// What a request says about its event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    event_type: Option<String>,
    event_id: Option<String>,
}

impl Block<'_> {
    /// Writes the block and an empty line after it.
    pub(super) fn write(&self, paint: Paint, out: &mut impl Write) -> io::Result<()> {
        let received = self.received;
        writeln!(
            out,
            "{}  {} {}  {} {}  {}",
            paint.quiet(clock(received.at)),
            paint.strong(visible(&received.method)),
            paint.strong(visible(&received.path)),
            paint.quiet("→"),
            paint.status(received.answer),
            paint.quiet(format!("#{}", self.number)),
        )?;
        let told = Told::by(self.profile, received);
        let delivery = self.profile.id_header().and_then(|name| received.header(name.as_str()));
        let ids = [
            ("event", told.event_type.as_deref()),
            ("event id", told.event_id.as_deref()),
            ("delivery", delivery),
        ];
        for (label, value) in ids {
            if let Some(value) = value {
                line(label, visible(value), out)?;
            }
        }
        let verdict = match self.verdict {
            Verdict::Verified(header) => paint.good(format!("✓ verified ({header})")),
            Verdict::NotChecked(why) => paint.notice(format!("- {why}")),
            Verdict::Refused(why) => paint.bad(format!("✗ {why}")),
        };
        line("signature", verdict, out)?;
        self.write_headers(paint, out)?;
        self.write_body(paint, out)?;
        writeln!(out)
    }

    fn write_headers(&self, paint: Paint, out: &mut impl Write) -> io::Result<()> {
        let telling = |name: &str| !DULL.contains(&name);
        let headers = self.received.headers.iter();
        let mut label = "headers";
        for (name, value) in headers.filter(|(name, _)| telling(name.as_str())) {
            let value = if is_credential(name.as_str()) {
                HIDDEN.to_owned()
            } else {
                shortened(&visible(&String::from_utf8_lossy(value.as_bytes())))
            };
            line(label, format_args!("{} {value}", paint.quiet(format!("{name}:"))), out)?;
            label = "";
        }
        Ok(())
    }

    fn write_body(&self, paint: Paint, out: &mut impl Write) -> io::Result<()> {
        let Some(bytes) = &self.received.body else {
            return line("body", paint.bad("too long; refused"), out);
        };
        line("body", format_args!("{} bytes", bytes.len()), out)?;
        if self.show_body {
            for text in body::lines(bytes) {
                writeln!(out, "    {text}")?;
            }
        }
        Ok(())
    }
}

impl Told {
    /// Reads the members of the profile's envelope; of a body that is the payload, those
    /// that platforms use.
    fn by(profile: &Profile, received: &Received) -> Told {
        let body = received.body.as_deref().unwrap_or_default();
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            return Told::default();
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        match &profile.body().kind {
            BodyKind::Payload => {
                Told { event_type: TYPE_MEMBERS.into_iter().find_map(text), event_id: None }
            }
            BodyKind::Envelope(fields) => {
                let member = |wanted: Source| {
                    let mut fields = fields.iter();
                    fields
                        .find(|(_, source)| *source == wanted)
                        .and_then(|(member, _)| text(&member.key))
                };
                Told { event_type: member(Source::EventType), event_id: member(Source::EventId) }
            }
        }
    }
}

fn line(label: &str, value: impl Display, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  {label:<10}{value}")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Time of day in UTC, which the machine's own zone cannot make ambiguous.
fn clock(at: OffsetDateTime) -> String {
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]Z");
    at.format(&format).expect("the format asks for nothing that a time lacks")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderName;
    use http::HeaderValue;
    use time::macros::datetime;

    use crate::domain::profile::Profiles;

    use super::*;

    fn received(headers: &[(&'static str, &str)], body: &'static str) -> Received {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("text"))
        };
        Received {
            at: datetime!(2026-03-04 15:20:31.412 UTC),
            method: "POST".to_owned(),
            path: "/hook".to_owned(),
            headers: headers.iter().map(header).collect(),
            body: Some(Bytes::from_static(body.as_bytes())),
            answer: 503,
        }
    }

    fn shown(received: &Received, profile: &str, verdict: &Verdict, show_body: bool) -> String {
        let profiles = Profiles::built_in();
        let profile = profiles.get(profile).expect("built in");
        let block = Block { number: 3, received, profile, verdict, show_body };
        let mut out = Vec::new();
        block.write(Paint::plain(), &mut out).expect("written");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_block_shows_what_matters_and_no_credential() {
        let headers = [
            ("host", "127.0.0.1:9000"),
            ("content-type", "application/json"),
            ("webhook-id", "dlv_1"),
            ("x-api-key", "hunter2"),
        ];
        let received = received(&headers, r#"{"type":"order.paid","data":{"n":1}}"#);
        let verdict = Verdict::Verified("webhook-signature".to_owned());
        let expected = "\
15:20:31.412Z  POST /hook  → 503  #3
  event     order.paid
  delivery  dlv_1
  signature ✓ verified (webhook-signature)
  headers   content-type: application/json
            webhook-id: dlv_1
            x-api-key: ***
  body      36 bytes
    {
      \"type\": \"order.paid\",
      \"data\": {
        \"n\": 1
      }
    }

";
        assert_eq!(shown(&received, "standard", &verdict, true), expected);
        assert!(!shown(&received, "standard", &verdict, false).contains("\"n\""));
    }

    #[test]
    fn every_built_in_profile_tells_its_event() {
        for (profile, body, event_type, event_id) in [
            ("azodha", r#"{"eventName":"OpenTele"}"#, Some("OpenTele"), None),
            ("hapihub", r#"{"id":"e1","event":"a.create"}"#, Some("a.create"), Some("e1")),
            ("meetinglawyers", r#"{"type":"app_opened"}"#, Some("app_opened"), None),
            ("standard", r#"{"type":"a","id":"data"}"#, Some("a"), None),
            ("telegramd", r#"{"eventType":"order_created"}"#, Some("order_created"), None),
            ("standard", "[1]", None, None),
        ] {
            let profiles = Profiles::built_in();
            let told = Told::by(profiles.get(profile).expect("built in"), &received(&[], body));
            let of = |text: Option<&str>| text.map(str::to_owned);
            let expected = Told { event_type: of(event_type), event_id: of(event_id) };
            assert_eq!(told, expected, "{profile}");
        }
    }

    #[test]
    fn a_strangers_request_does_not_act_on_the_terminal() {
        let mut received = received(&[], "\u{1b}[2J");
        received.headers.push((
            HeaderName::from_static("x-evil"),
            HeaderValue::from_bytes(b"\xc2\x9b2J").expect("obsolete text"),
        ));
        let verdict = Verdict::Refused("there is no webhook-signature header".to_owned());
        let text = shown(&received, "standard", &verdict, true);
        assert!(text.contains("✗ there is no webhook-signature header"));
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    }
}
