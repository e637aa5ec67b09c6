//! One check of an endpoint: the request, and which answers are consent.
//!
//! It carries nothing of an event, nor the headers that the profile or the subscription's
//! owner has fixed: they may be credentials, and nobody knows yet who listens.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header::CONTENT_TYPE;
use http::header::USER_AGENT;

use super::OwnershipRule;
use super::challenge::Challenge;
use super::lasts;
use crate::domain::attempt::Fault;
use crate::domain::attempt::Outcome;
use crate::domain::profile::Profile;
use crate::domain::render::NotSendable;
use crate::domain::signature::SignedRequest;
use crate::domain::signature::SigningKey;
use crate::domain::subscription::SubscriptionSpec;
use crate::domain::timestamp::Timestamp;

/// Header in which a sender asks for consent, and goes on naming itself in each delivery.
pub const REQUEST_ORIGIN: &str = "webhook-request-origin";
/// Header in which an endpoint says who may send.
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
/// How long an endpoint is left alone that could not be asked by a fault of this side, ...
const OUR_FAULT_WAIT: Duration = Duration::from_secs(30);
/// ... and at most: it may be the endpoint's owner who has chosen name servers that never
/// answer.
const OUR_FAULT_WAIT_MAX: Duration = Duration::from_mins(15);

/// A request to be made, and what it is to be answered with. `Debug` prints neither values
/// nor the body.
pub struct Check {
    /// OPTIONS or POST.
    pub method: Method,
    /// Every header but those of the connection; no name twice.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is sent; may be empty.
    pub body: Bytes,
    consent: Consent,
    /// Until the next try, should this one fail by a fault of this side.
    our_fault_wait: Duration,
}

/// What a check is made from.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// Whose wire profile says what requests look like.
    pub profile: &'a Profile,
    /// Whose endpoint is asked.
    pub subscription: &'a SubscriptionSpec,
    /// `sub_…`
    pub subscription_id: &'a str,
    /// The keys that sign now.
    pub keys: &'a [SigningKey],
    /// The key that seals challenges.
    pub seal_key: &'a [u8],
    /// How often in a row this process has tried in vain, by faults of this side.
    pub put_offs: u32,
    /// By the database's clock.
    pub now: Timestamp,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In a word.
    pub result: CheckResult,
    /// Why it is no consent, for people: nothing of the answer but its status. Empty when
    /// it is.
    pub reason: String,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Duration,
    /// Whether it asked for that for ever (410 Gone).
    pub gone: bool,
    /// Set when nobody was asked since our own way out, this machine or its name servers do
    /// not work: how long to wait. That is no fault of the endpoint's, and counts as no check.
    pub put_off: Option<Duration>,
}

/// How a check ended. Closed: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum CheckResult {
    /// The endpoint has consented.
    Proven,
    /// It has answered otherwise.
    Refused,
    /// It has not answered.
    NoAnswer,
    /// It was not asked, by a fault of this side or the subscription's.
    NotSent,
}

/// What an answer must hold.
enum Consent {
    /// Everybody, or this sender.
    Origin(HeaderValue),
    /// The challenge.
    Repeated(Challenge),
}

impl CheckResult {
    /// Every result, in the order of the numbers.
    pub const ALL: [CheckResult; 4] =
        [CheckResult::Proven, CheckResult::Refused, CheckResult::NoAnswer, CheckResult::NotSent];

    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CheckResult::Proven => "proven",
            CheckResult::Refused => "refused",
            CheckResult::NoAnswer => "no_answer",
            CheckResult::NotSent => "not_sent",
        }
    }
}

impl Check {
    /// The request that asks as `rule` says.
    ///
    /// # Errors
    ///
    /// When it must be signed and cannot.
    pub fn new(rule: &OwnershipRule, asking: &Asking<'_>) -> Result<Check, NotSendable> {
        let user_agent = (USER_AGENT, asking.profile.user_agent().clone());
        match rule {
            OwnershipRule::Handshake { origin } => Ok(Check {
                method: Method::OPTIONS,
                headers: vec![
                    user_agent,
                    (HeaderName::from_static(REQUEST_ORIGIN), origin.clone()),
                ],
                body: Bytes::new(),
                consent: Consent::Origin(origin.clone()),
                our_fault_wait: our_fault_wait(asking.put_offs),
            }),
            OwnershipRule::Challenge => challenge(user_agent, asking),
        }
    }

    /// What the outcome of the request shows. `headers` are the answer's; `fault` and
    /// `detail` say whose fault it is that there is none, and why.
    #[must_use]
    pub fn judge(
        &self,
        outcome: &Outcome,
        headers: &HeaderMap,
        (fault, detail): (Fault, &str),
        now: Timestamp,
    ) -> Finding {
        let (status, retry_after, body) = match outcome {
            Outcome::NoResponse(_) if fault == Fault::Ours => {
                return Finding::put_off(self.our_fault_wait, detail);
            }
            Outcome::NoResponse(_) => return Finding::without(CheckResult::NoAnswer, detail),
            Outcome::NotAsked { wait } => return Finding::put_off(*wait, detail),
            Outcome::Responded { status, retry_after, body } => (*status, *retry_after, body),
        };
        // A page of errors may hold anything, so that the status counts as well.
        let refusal = if (200..300).contains(&status) {
            self.consent.refusal(headers, body, now).map(str::to_owned)
        } else {
            Some(format!("The endpoint answered with status {status}."))
        };
        let Some(reason) = refusal else { return Finding::proven() };
        let retry_after = retry_after.unwrap_or_default();
        let gone = status == 410;
        Finding { result: CheckResult::Refused, reason, retry_after, gone, put_off: None }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Check")
            .field("method", &self.method)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

impl Consent {
    /// Why an answer is none; `None` when it is.
    fn refusal(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<&'static str> {
        match self {
            Consent::Origin(origin) => {
                let why = "The answer does not allow this sender in WebHook-Allowed-Origin.";
                (!allows(headers, origin)).then_some(why)
            }
            Consent::Repeated(challenge) => challenge.refusal(body, now),
        }
    }
}

impl Finding {
    /// Nothing was sent.
    #[must_use]
    pub fn not_sent(why: NotSendable) -> Finding {
        Finding::without(CheckResult::NotSent, &format!("Nothing was sent: {why}."))
    }

    /// Nobody was asked, and for a while nobody is.
    fn put_off(wait: Duration, why: &str) -> Finding {
        Finding { put_off: Some(wait), ..Finding::without(CheckResult::NotSent, why) }
    }

    pub(super) fn proven() -> Finding {
        Finding::without(CheckResult::Proven, "")
    }

    /// Without an answer that asks for anything.
    fn without(result: CheckResult, reason: &str) -> Finding {
        let reason = reason.to_owned();
        Finding { result, reason, retry_after: Duration::ZERO, gone: false, put_off: None }
    }
}

/// Twice as long each time.
fn our_fault_wait(put_offs: u32) -> Duration {
    let times = 1_u32.checked_shl(put_offs.min(16)).unwrap_or(u32::MAX);
    OUR_FAULT_WAIT.saturating_mul(times).min(OUR_FAULT_WAIT_MAX)
}

/// A POST that is signed as a delivery would be.
fn challenge(
    user_agent: (HeaderName, HeaderValue),
    asking: &Asking<'_>,
) -> Result<Check, NotSendable> {
    let Asking { profile, subscription, subscription_id, now, .. } = *asking;
    let expire_time = now.plus(lasts(subscription.attempt_timeout));
    let url = &subscription.url;
    let challenge = Challenge::new(asking.seal_key, subscription_id, url, expire_time);
    let body = challenge.body(subscription_id);
    let mut headers =
        vec![(CONTENT_TYPE, HeaderValue::from_static("application/json")), user_agent];
    let mut id = String::new();
    if let Some(name) = profile.id_header() {
        id = challenge.id();
        let value = HeaderValue::from_str(&id).expect("ids are visible ASCII");
        headers.push((name.clone(), value));
    }
    let mut timestamp = String::new();
    if let Some(name) = profile.timestamp_header() {
        timestamp = now.secs().to_string();
        headers.push((name.clone(), HeaderValue::from(now.secs())));
    }
    if subscription.signing_enabled {
        let rule = profile.signature().ok_or(NotSendable::SigningUnsupported)?;
        if asking.keys.is_empty() {
            return Err(NotSendable::SecretMissing);
        }
        let request = SignedRequest { id: &id, timestamp: &timestamp, body: &body };
        headers.push((rule.header.clone(), rule.sign(asking.keys, request)));
    }
    Ok(Check {
        method: Method::POST,
        headers,
        body: body.into(),
        consent: Consent::Repeated(challenge),
        our_fault_wait: our_fault_wait(asking.put_offs),
    })
}

/// Whether the answer names everybody or this sender, once (section 4.2.1). DNS names are
/// compared without case.
fn allows(headers: &HeaderMap, origin: &HeaderValue) -> bool {
    let mut values = headers.get_all(ALLOWED_ORIGIN).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let value = value.as_bytes().trim_ascii();
    value == b"*" || value.eq_ignore_ascii_case(origin.as_bytes())
}

#[cfg(test)]
mod tests;
