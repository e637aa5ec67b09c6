//! The canary: events that the service publishes to itself, so that somebody notices when
//! webhooks do not arrive although nobody sends any. What is reserved for it is named here,
//! and what its receiver makes of a request is decided in [`check`].
//!
//! Its organization has a name that is no organization's ([`OrganizationId::parse`] refuses
//! it), so nobody who must spell one can reach what is stored under it: no caller, no key,
//! no token, no command.

mod check;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::check::check;

use super::event::{NewEvent, Payload, TraceContext};
use super::id::{OrganizationId, SecretKey, SubscriptionKey};
use super::payload_mode::PayloadMode;
use super::receiver_tls::ReceiverTls;
use super::subscription::SubscriptionSpec;
use super::timestamp::Timestamp;

/// The name under which everything of it is stored. The slash is in no organization's.
pub const ORGANIZATION: &str = "hookward/canary";
/// Where its events go: each process that sends listens for itself, and calls itself for
/// this name. Nobody else can be called so (RFC 2606, section 2).
pub const URL: &str = "http://canary.hookward.invalid/";
/// The host of [`URL`]: subscriptions of others may not name it.
pub const HOST: &str = "canary.hookward.invalid";
/// The one subscription, made by whichever process needs it first. All others are larger:
/// they begin with a time.
pub const SUBSCRIPTION: SubscriptionKey = SubscriptionKey(1);
/// Its secret.
pub const SECRET: SecretKey = SecretKey(1);
/// Its wire profile, which no operator can take away.
pub const PROFILE: &str = "standard";
/// How long an event is kept after its delivery has ended.
pub const KEPT: Duration = Duration::from_mins(1);

const EVENT_TYPE: &str = "hookward.canary";
const CONTENT_TYPE: &str = "application/json";
/// A receiver on loopback that needs longer is in trouble.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// One for each replica that may be claimed by the same one.
const IN_FLIGHT: u32 = 16;
/// Under which the service stands as a publisher.
const PUBLISHER: &str = "hookward";

/// Whose everything of the canary is.
#[must_use]
pub fn organization() -> OrganizationId {
    OrganizationId::stored(ORGANIZATION)
}

/// Whether this is the canary's organization, and nobody's business.
#[must_use]
pub fn owns(organization: &OrganizationId) -> bool {
    organization.as_str() == ORGANIZATION
}

/// How its subscription is to be. One attempt: what would need a second is what it is there
/// to find.
#[must_use]
pub fn spec() -> SubscriptionSpec {
    SubscriptionSpec {
        account: None,
        name: "canary".to_owned(),
        url: URL.to_owned(),
        event_patterns: vec![EVENT_TYPE.to_owned()],
        profile: PROFILE.to_owned(),
        signing_enabled: true,
        headers: BTreeMap::new(),
        attributes: BTreeMap::new(),
        send_organization_code: false,
        retry_waits: Vec::new(),
        attempt_timeout: ATTEMPT_TIMEOUT,
        max_in_flight: IN_FLIGHT,
        tls: ReceiverTls::default(),
        payload_mode: PayloadMode::Full,
        omit_trace_context: false,
    }
}

/// The event of a probe, by its id. It is not sent after `expire_time`.
#[must_use]
pub fn event(probe: &str, expire_time: Timestamp) -> NewEvent {
    NewEvent {
        organization: organization(),
        account: None,
        id: Some(probe.to_owned()),
        event_type: EVENT_TYPE.to_owned(),
        occur_time: None,
        expire_time: Some(expire_time),
        payload: Payload::Json(payload(probe).into()),
        content_type: CONTENT_TYPE.to_owned(),
        attributes: BTreeMap::new(),
        subject: String::new(),
        target: None,
        trace: TraceContext::default(),
        publisher: PUBLISHER.into(),
    }
}

/// What it carries: the receiver can make the same from the id, and tells whether a byte is
/// another. Spellings that a parser and a writer between would change are among them.
fn payload(probe: &str) -> String {
    format!(r#"{{"probe":"{probe}", "as_published":["\u00e9","é","\/",1.0,1e3,null]}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::endpoint_url::{EndpointUrl, Host};
    use crate::domain::event_rules::content_hash;
    use crate::domain::json::check_json;
    use crate::domain::operational_event::is_operational;
    use crate::domain::pattern::EventPattern;

    #[test]
    fn what_is_reserved_can_be_named_by_nobody_and_used_by_us() {
        assert!(OrganizationId::parse(ORGANIZATION).is_err());
        assert!(owns(&organization()));
        assert!(!owns(&OrganizationId::stored("hookward")));
        assert!(is_operational(EVENT_TYPE), "nobody else may publish it");
        let pattern = EventPattern::stored(EVENT_TYPE, false, true).expect("a pattern");
        assert!(pattern.matches(EVENT_TYPE));
        let url = EndpointUrl::stored(URL).expect("a URL");
        assert_eq!((url.as_str(), url.host()), (URL, &Host::Name(HOST.to_owned())));
    }

    #[test]
    fn each_probe_is_an_event_of_its_own() {
        let [one, other] = ["probe-1", "probe-2"].map(|probe| event(probe, Timestamp(1)));
        assert_ne!(content_hash(&one), content_hash(&other));
        assert_eq!(content_hash(&one), content_hash(&event("probe-1", Timestamp(1))));
        assert!(check_json(one.payload.bytes()).is_ok());
    }
}
