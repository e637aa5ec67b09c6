//! Wire profiles: what the request to a receiver looks like, as data.
//!
//! A profile is one TOML file that says everything about the request: body,
//! headers, signature, which answers count as success. Header names and values
//! and the constant parts of bodies are prepared here once, so that rendering a
//! request only puts them together.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;

use super::invalid::InvalidField;
use super::ownership::OwnershipRule;
use super::payload_mode::PayloadMode;
use super::secret::SecretRule;
use super::signature::SignatureRule;
use super::subscription::SubscriptionSpec;
use super::subscription_rules::organization_code;
use super::time_format::TimeFormat;

mod file;
mod parse;
mod registry;

pub use registry::BUILT_IN_NAMES;
pub use registry::ProfileError;
pub use registry::Profiles;

/// The profile of a subscription whose owner names none.
pub const DEFAULT_PROFILE: &str = "standard";

/// One receiver-facing request format.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    description: String,
    content_type: HeaderValue,
    user_agent: HeaderValue,
    fixed_headers: Vec<(HeaderName, HeaderValue)>,
    reserved: Vec<HeaderName>,
    id_header: Option<HeaderName>,
    timestamp_header: Option<HeaderName>,
    body: BodyRule,
    signature: Option<SignatureRule>,
    success: Statuses,
    service_patterns: bool,
    operational_events: bool,
    ping: Option<Ping>,
    ownership: Option<OwnershipRule>,
    omit_trace_context: bool,
}

/// How a body is made of an event.
#[derive(Clone, Debug)]
pub struct BodyRule {
    /// What stands around the payload.
    pub kind: BodyKind,
    /// Which payloads fit.
    pub payload: PayloadShape,
    /// What to do when there is none.
    pub absent_payload: AbsentPayload,
    /// The body for receivers that get no payload.
    pub id_only: IdOnlyBody,
    /// `"key":` of the organization code, where the profile knows how to send it.
    pub organization_code: Option<Member>,
}

/// What stands around the payload.
#[derive(Clone, Debug)]
pub enum BodyKind {
    /// Nothing: the payload is the body.
    Payload,
    /// An object with these members, in this order.
    Envelope(Vec<(Member, Source)>),
}

/// The key of an object's member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key.
    pub key: String,
    /// `"key":`, escaped.
    pub opening: Box<[u8]>,
}

/// Where an envelope's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The event's id.
    EventId,
    /// The event's type.
    EventType,
    /// When it happened.
    OccurTime(TimeFormat),
    /// The payload's bytes.
    Payload,
    /// The account it is about; the member is left out when there is none.
    AccountId,
    /// Whose event it is.
    OrganizationId,
    /// The delivery's id.
    DeliveryId,
}

/// Which payloads a profile can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadShape {
    /// A JSON object.
    Object,
    /// Any JSON value.
    Json,
    /// Any JSON value; and raw bytes, which are the whole body, under their own
    /// content type.
    Any,
}

/// What happens to an event without a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbsentPayload {
    /// Its member is left out.
    Omit,
    /// Its member is `null`.
    Null,
    /// It cannot be sent.
    #[default]
    Refuse,
}

/// What a receiver gets that is to have the event's id and no payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdOnlyBody {
    /// The body of an event without a payload: it names the id.
    Absent,
    /// `{"id":"…"}` in the payload's place.
    Id,
    /// Its platform knows no such body.
    #[default]
    Refuse,
}

/// Which statuses mean that the receiver has the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    /// Bit n: status 200 + n.
    bits: u128,
}

/// The event that `PingSubscription` sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Its type.
    pub event_type: String,
    /// Its payload, a JSON text.
    pub payload: Option<Bytes>,
}

impl Profile {
    /// Its name, as subscriptions say it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line for people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Content type of every body but raw payloads.
    #[must_use]
    pub fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }

    /// The `User-Agent` of its requests.
    #[must_use]
    pub fn user_agent(&self) -> &HeaderValue {
        &self.user_agent
    }

    /// Headers that every request of this profile has, in order of their names.
    #[must_use]
    pub fn fixed_headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fixed_headers
    }

    /// Header that carries the delivery's id, signed or not.
    #[must_use]
    pub fn id_header(&self) -> Option<&HeaderName> {
        self.id_header.as_ref()
    }

    /// Header that carries the attempt's time in UNIX seconds, signed or not.
    #[must_use]
    pub fn timestamp_header(&self) -> Option<&HeaderName> {
        self.timestamp_header.as_ref()
    }

    /// Headers that a subscription may not set because this profile does: the
    /// signature's, the delivery's id and time, and the fixed ones, the origin of a
    /// handshake among them. `Content-Type` and `User-Agent` are not.
    #[must_use]
    pub fn signature_header_names(&self) -> &[HeaderName] {
        &self.reserved
    }

    /// How its bodies are made.
    #[must_use]
    pub fn body(&self) -> &BodyRule {
        &self.body
    }

    /// How its requests are signed; `None` when it knows no signature.
    #[must_use]
    pub fn signature(&self) -> Option<&SignatureRule> {
        self.signature.as_ref()
    }

    /// Which secrets sign; `None` when it knows no signature.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretRule> {
        self.signature.as_ref().map(|rule| &rule.secret)
    }

    /// Whether requests are signed when the subscription's owner does not say.
    #[must_use]
    pub fn signed_by_default(&self) -> bool {
        self.signature.as_ref().is_some_and(|rule| rule.signed_by_default)
    }

    /// Whether every live secret signs, so that a rotation overlaps without a
    /// moment at which the receiver must switch.
    #[must_use]
    pub fn signs_with_every_secret(&self) -> bool {
        self.signature.as_ref().is_some_and(|rule| rule.multiple)
    }

    /// Whether an answer with this status means that the receiver has the event.
    #[must_use]
    pub fn is_success(&self, status: u16) -> bool {
        self.success.contains(status)
    }

    /// Whether event patterns may be bare service names and use verb aliases.
    #[must_use]
    pub fn service_patterns(&self) -> bool {
        self.service_patterns
    }

    /// Whether a receiver can be told of an event without its payload.
    #[must_use]
    pub fn sends_ids_only(&self) -> bool {
        self.body.id_only != IdOnlyBody::Refuse
    }

    /// Whether its subscriptions may ask for the service's own events: not where the
    /// requests are what a platform documents.
    #[must_use]
    pub fn operational_events(&self) -> bool {
        self.operational_events
    }

    /// The event that a ping sends; `None` when the platform has none.
    #[must_use]
    pub fn ping(&self) -> Option<&Ping> {
        self.ping.as_ref()
    }

    /// How endpoints are asked for their consent before the first event; `None` when they
    /// are not.
    #[must_use]
    pub fn ownership(&self) -> Option<&OwnershipRule> {
        self.ownership.as_ref()
    }

    /// Whether no receiver is told which trace a request belongs to, whatever its subscription
    /// says.
    #[must_use]
    pub fn omits_trace_context(&self) -> bool {
        self.omit_trace_context
    }

    /// What of a subscription does not go with its profile. Field paths start at
    /// the subscription.
    #[must_use]
    pub fn check_spec(&self, spec: &SubscriptionSpec) -> Vec<InvalidField> {
        let mut wrong = Vec::new();
        if spec.signing_enabled && self.signature.is_none() {
            let why = format!("profile {} knows no signature", self.name);
            wrong.push(InvalidField::new("signing_enabled", "SIGNING_UNSUPPORTED", why));
        }
        if spec.payload_mode == PayloadMode::IdOnly && !self.sends_ids_only() {
            let why = format!("profile {} has no body without the payload", self.name);
            let reason = "PAYLOAD_MODE_UNSUPPORTED";
            wrong.push(InvalidField::new("payload_mode", reason, why));
        }
        if spec.send_organization_code {
            if self.body.organization_code.is_none() {
                let why = format!("profile {} has no place for an organization code", self.name);
                let reason = "ORGANIZATION_CODE_UNSUPPORTED";
                wrong.push(InvalidField::new("send_organization_code", reason, why));
            } else if organization_code(&spec.attributes).is_none() {
                let why = "must hold `organizationCode`, which send_organization_code asks for";
                wrong.push(InvalidField::new("attributes", "ORGANIZATION_CODE_MISSING", why));
            }
        }
        wrong
    }
}

impl Statuses {
    /// Every status from 200 to 299.
    pub const SUCCESSFUL: Statuses = Statuses { bits: (1 << 100) - 1 };

    /// These; `None` when one is not from 200 to 299.
    #[must_use]
    pub fn of(statuses: &[u16]) -> Option<Statuses> {
        let bit = |status: &u16| (200..300).contains(status).then(|| 1_u128 << (status - 200));
        let bits = statuses.iter().map(bit).try_fold(0, |bits, bit| Some(bits | bit?))?;
        Some(Statuses { bits })
    }

    /// Whether `status` is one of them.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        (200..300).contains(&status) && self.bits >> (status - 200) & 1 == 1
    }
}

impl Member {
    /// The member named `key`.
    ///
    /// # Panics
    ///
    /// Never: every string can be written as JSON.
    #[must_use]
    pub fn new(key: &str) -> Member {
        let mut opening = serde_json::to_vec(key).expect("a string is JSON");
        opening.push(b':');
        Member { key: key.to_owned(), opening: opening.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_alone_and_the_whole_class_are_told_apart() {
        let only = Statuses::of(&[200]).expect("a success");
        for (status, any, exactly_200) in [
            (199, false, false),
            (200, true, true),
            (201, true, false),
            (299, true, false),
            (300, false, false),
            (410, false, false),
            (u16::MAX, false, false),
        ] {
            assert_eq!(Statuses::SUCCESSFUL.contains(status), any, "{status}");
            assert_eq!(only.contains(status), exactly_200, "{status}");
        }
        assert_eq!(Statuses::of(&[200, 304]), None);
    }

    #[test]
    fn every_built_in_profile_is_as_its_platform_says() {
        let profiles = Profiles::built_in();
        let row = |name: &str| {
            let profile = profiles.get(name).expect("built in");
            let reserved = profile.signature_header_names();
            (
                profile.user_agent().to_str().expect("ASCII"),
                reserved.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(" "),
                profile.signed_by_default(),
                profile.is_success(204),
                profile.service_patterns(),
                profile.operational_events(),
                profile.ping().is_some(),
                profile.sends_ids_only(),
            )
        };
        let ours = concat!("Hookward/", env!("CARGO_PKG_VERSION"));
        let ids = "webhook-id webhook-signature webhook-timestamp";
        let of = str::to_owned;
        assert_eq!(row("standard"), (ours, of(ids), true, true, false, true, true, true));
        let signature = of("telegramd-signature");
        assert_eq!(
            row("telegramd"),
            ("TelegraMD Webhooks", signature, false, true, false, false, false, false)
        );
        let signature = of("x-azodha-signature");
        assert_eq!(row("azodha"), (ours, signature, true, true, false, false, true, false));
        let signature = of("x-signature");
        assert_eq!(row("meetinglawyers"), (ours, signature, true, true, false, false, true, false));
        let signature = of("x-hapihub-signature");
        assert_eq!(row("hapihub"), (ours, signature, false, false, true, false, true, true));
    }
}
