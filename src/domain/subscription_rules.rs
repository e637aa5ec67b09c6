//! What a subscription must be to be stored. Gives a [`SubscriptionSpec`].

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use super::address::AddressRules;
use super::attributes::check_attributes;
use super::attributes::is_plain_text;
use super::endpoint_url::EndpointUrl;
use super::endpoint_url::Scheme;
use super::headers::check_headers;
use super::headers::merge_hidden;
use super::id::AccountId;
use super::invalid::InvalidField;
use super::pattern::EventPattern;
use super::payload_mode::PayloadMode;
use super::payload_mode::PayloadModeKind;
use super::receiver_tls::ReceiverTls;
use super::receiver_tls::TlsInput;
use super::retry::DEFAULT_WAITS;
use super::subscription::ATTEMPT_TIMEOUT_DEFAULT;
use super::subscription::MAX_IN_FLIGHT_DEFAULT;
use super::subscription::MAX_IN_FLIGHT_MAX;
use super::subscription::SubscriptionSpec;

const NAME_CHARS_MAX: usize = 256;
/// Keys and values together: every replica has each subscription in memory.
const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;
const PATTERNS_MAX: usize = 100;
const WAITS_MAX: usize = 49;
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_hours(24);
const WAITS_SUM_MAX: Duration = Duration::from_hours(8 * 24);
const ATTEMPT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What these rules need to know of a wire profile.
#[expect(clippy::struct_excessive_bools, reason = "facts of a profile, each by itself")]
#[derive(Clone, Debug)]
pub struct ProfileRules {
    /// Its name.
    pub name: String,
    /// Whether requests are signed where the subscription does not say.
    pub signed_by_default: bool,
    /// What it sends as `Content-Type`.
    pub content_type: String,
    /// The signature headers of every profile in this deployment.
    pub signature_headers: Vec<String>,
    /// Whether patterns may be service names, and verbs have aliases.
    pub service_patterns: bool,
    /// Whether it can put an organization code into the body.
    pub organization_code: bool,
    /// Whether it sends the service's own events.
    pub operational_events: bool,
}

/// A subscription as its owner sent it. An empty text is one that was left out.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionInput {
    /// Only events of this account.
    pub account_id: String,
    /// Free text for people.
    pub name: String,
    /// The receiver.
    pub url: String,
    /// Which event types it gets.
    pub event_patterns: Vec<String>,
    /// Left out: as the profile says.
    pub signing_enabled: Option<bool>,
    /// Extra request headers; `***` keeps a stored value.
    pub headers: BTreeMap<String, String>,
    /// Metadata of the integration.
    pub attributes: BTreeMap<String, String>,
    /// Put the organization code into the body.
    pub send_organization_code: bool,
    /// Left out: the default policy. Empty: one attempt only.
    pub retry_waits: Option<Vec<Duration>>,
    /// Left out: 15 s.
    pub attempt_timeout: Option<Duration>,
    /// 0: 16.
    pub max_in_flight: u32,
    /// Certificates towards the receiver; `***` keeps the stored key.
    pub tls: TlsInput,
    /// How much of an event the receiver gets.
    pub payload_mode: PayloadModeKind,
    /// JSON pointers to what is masked.
    pub masked_pointers: Vec<String>,
    /// Tell the receiver nothing of traces.
    pub omit_trace_context: bool,
}

impl SubscriptionInput {
    /// Checks the subscription. `stored` is what it is now, from which hidden values are
    /// kept; `None` when it is being created.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule, with its path inside the subscription.
    pub fn check(
        self,
        profile: &ProfileRules,
        addresses: AddressRules<'_>,
        stored: Option<&SubscriptionSpec>,
    ) -> Result<SubscriptionSpec, InvalidField> {
        let account = match self.account_id.as_str() {
            "" => None,
            id => Some(AccountId::parse(id)?),
        };
        if !is_plain_text(&self.name, NAME_CHARS_MAX) {
            let why = "at most 256 characters, no control characters";
            return Err(InvalidField::new("name", "INVALID_NAME", why));
        }
        let url = EndpointUrl::parse(&self.url, addresses)?;
        check_patterns(&self.event_patterns, profile)?;
        let none = BTreeMap::new();
        let headers = merge_hidden(self.headers, stored.map_or(&none, |spec| &spec.headers))?;
        let signature_headers: Vec<&str> =
            profile.signature_headers.iter().map(String::as_str).collect();
        check_headers(&headers, &signature_headers, &profile.content_type)?;
        check_attributes(&self.attributes)?;
        check_attributes_size(&self.attributes)?;
        if self.send_organization_code {
            check_organization_code(profile, &self.attributes)?;
        }
        let tls = check_tls(&self.tls, stored, url.scheme())?;
        let retry_waits = self.retry_waits.unwrap_or_else(|| DEFAULT_WAITS.to_vec());
        check_waits(&retry_waits)?;
        Ok(SubscriptionSpec {
            account,
            name: self.name,
            url: url.as_str().to_owned(),
            event_patterns: self.event_patterns,
            profile: profile.name.clone(),
            signing_enabled: self.signing_enabled.unwrap_or(profile.signed_by_default),
            headers,
            attributes: self.attributes,
            send_organization_code: self.send_organization_code,
            retry_waits,
            attempt_timeout: check_timeout(self.attempt_timeout)?,
            max_in_flight: check_in_flight(self.max_in_flight)?,
            tls,
            payload_mode: PayloadMode::check(self.payload_mode, &self.masked_pointers)?,
            omit_trace_context: self.omit_trace_context,
        })
    }
}

/// The organization code in a subscription's attributes (contracts A20), if there is one.
#[must_use]
pub fn organization_code(attributes: &BTreeMap<String, String>) -> Option<&str> {
    let code = |key| attributes.get(key).map(String::as_str).filter(|code| !code.is_empty());
    code("organizationCode").or_else(|| code("organization_code"))
}

fn check_patterns(patterns: &[String], profile: &ProfileRules) -> Result<(), InvalidField> {
    if !(1..=PATTERNS_MAX).contains(&patterns.len()) {
        let why = "1 to 100 patterns";
        return Err(InvalidField::new("event_patterns", "EVENT_PATTERNS_COUNT", why));
    }
    let mut seen = HashSet::new();
    for (place, pattern) in patterns.iter().enumerate() {
        let field = format!("event_patterns[{place}]");
        let read = EventPattern::parse(pattern, profile.service_patterns);
        let read = read.map_err(|invalid| invalid.within(&field))?;
        if read.names_operational() && !profile.operational_events {
            let why = "this profile sends what its platform documents, not the server's own events";
            return Err(InvalidField::new(field, "OPERATIONAL_EVENTS_UNSUPPORTED", why));
        }
        if !seen.insert(pattern) {
            let why = "this pattern stands earlier in the list";
            return Err(InvalidField::new(field, "DUPLICATE_EVENT_PATTERN", why));
        }
    }
    Ok(())
}

fn check_attributes_size(attributes: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    let bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes <= ATTRIBUTES_BYTES_MAX {
        return Ok(());
    }
    let why = "at most 16 KiB in all";
    Err(InvalidField::new("attributes", "ATTRIBUTES_TOO_LARGE", why))
}

fn check_organization_code(
    profile: &ProfileRules,
    attributes: &BTreeMap<String, String>,
) -> Result<(), InvalidField> {
    let field = "send_organization_code";
    if !profile.organization_code {
        let why = "this profile has no place for an organization code";
        return Err(InvalidField::new(field, "ORGANIZATION_CODE_UNSUPPORTED", why));
    }
    if organization_code(attributes).is_none() {
        let why = "needs attributes[\"organizationCode\"]";
        return Err(InvalidField::new(field, "ORGANIZATION_CODE_MISSING", why));
    }
    Ok(())
}

fn check_tls(
    sent: &TlsInput,
    stored: Option<&SubscriptionSpec>,
    scheme: Scheme,
) -> Result<ReceiverTls, InvalidField> {
    let none = ReceiverTls::default();
    let tls = sent.check(stored.map_or(&none, |spec| &spec.tls))?;
    if scheme == Scheme::Http && !tls.is_default() {
        let why = "only where the URL is https";
        return Err(InvalidField::new("tls", "TLS_NEEDS_HTTPS", why));
    }
    Ok(tls)
}

fn check_waits(waits: &[Duration]) -> Result<(), InvalidField> {
    let invalid = |field: String, why| Err(InvalidField::new(field, "INVALID_RETRY_POLICY", why));
    let all = || "retry_policy.waits".to_owned();
    if WAITS_MAX < waits.len() {
        return invalid(all(), "at most 49 waits");
    }
    let out_of_range = waits.iter().position(|wait| !(WAIT_MIN..=WAIT_MAX).contains(wait));
    if let Some(place) = out_of_range {
        return invalid(format!("{}[{place}]", all()), "from 100 ms to 24 h");
    }
    if WAITS_SUM_MAX < waits.iter().sum::<Duration>() {
        return invalid(all(), "at most 8 days together");
    }
    Ok(())
}

fn check_timeout(given: Option<Duration>) -> Result<Duration, InvalidField> {
    let timeout = given.unwrap_or(ATTEMPT_TIMEOUT_DEFAULT);
    if (ATTEMPT_TIMEOUT_MIN..=ATTEMPT_TIMEOUT_MAX).contains(&timeout) {
        return Ok(timeout);
    }
    Err(InvalidField::new("attempt_timeout", "INVALID_ATTEMPT_TIMEOUT", "from 1 s to 30 s"))
}

fn check_in_flight(given: u32) -> Result<u32, InvalidField> {
    match given {
        0 => Ok(MAX_IN_FLIGHT_DEFAULT),
        1..=MAX_IN_FLIGHT_MAX => Ok(given),
        _ => {
            let why = "1 to 256, or 0 for the default";
            Err(InvalidField::new("max_in_flight", "INVALID_MAX_IN_FLIGHT", why))
        }
    }
}

#[cfg(test)]
mod tests;
