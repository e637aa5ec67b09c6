//! A receiver's endpoint and the events it is to get.

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::{AccountId, OrganizationId, SecretKey, SubscriptionKey};
use super::payload_mode::PayloadMode;
use super::receiver_tls::ReceiverTls;
use super::timestamp::Timestamp;

/// Most requests under way at once to one endpoint, unless the subscription says otherwise.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 16;
/// What a subscription may say at most.
pub const MAX_IN_FLIGHT_MAX: u32 = 256;
/// Time for one attempt, from name resolution to the end of the response.
pub const ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// Lifecycle state. The numbers are those of the column and of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum SubscriptionState {
    /// Events are delivered.
    Active = 1,
    /// Deliveries go on being created and wait.
    Paused = 2,
    /// Switched off by its owner: no deliveries are created.
    Inactive = 3,
    /// Switched off by the server: the receiver answered 410 Gone.
    Disabled = 4,
}

impl SubscriptionState {
    /// Every state, in the order of the numbers.
    pub const ALL: [SubscriptionState; 4] = [
        SubscriptionState::Active,
        SubscriptionState::Paused,
        SubscriptionState::Inactive,
        SubscriptionState::Disabled,
    ];

    /// The state stored as `number`.
    #[must_use]
    pub fn stored(number: i16) -> Option<SubscriptionState> {
        SubscriptionState::ALL.into_iter().find(|state| *state as i16 == number)
    }

    /// Whether a matching event makes a delivery.
    #[must_use]
    pub fn takes_events(self) -> bool {
        matches!(self, SubscriptionState::Active | SubscriptionState::Paused)
    }
}

/// What its owner decides about a subscription; every rule already checked.
/// `Debug` prints of the headers their names only.
#[derive(Clone, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// Only events of this account; `None`: every event of the organization.
    /// Immutable.
    pub account: Option<AccountId>,
    /// Free text for people.
    pub name: String,
    /// The receiver, in canonical form.
    pub url: String,
    /// Which event types it gets, as written by the owner; at least one.
    pub event_patterns: Vec<String>,
    /// Name of the wire profile.
    pub profile: String,
    /// Whether requests are signed.
    pub signing_enabled: bool,
    /// Extra request headers, in the owner's spelling.
    pub headers: BTreeMap<String, String>,
    /// Metadata of the integration.
    pub attributes: BTreeMap<String, String>,
    /// Put `attributes["organizationCode"]` into the body where the profile knows how.
    pub send_organization_code: bool,
    /// Waits between attempts; one attempt more than there are waits.
    pub retry_waits: Vec<Duration>,
    /// Time for one attempt.
    pub attempt_timeout: Duration,
    /// Most requests under way at once, on each replica.
    pub max_in_flight: u32,
    /// Certificates towards the receiver.
    pub tls: ReceiverTls,
    /// How much of an event the receiver gets.
    pub payload_mode: PayloadMode,
    /// The receiver is told nothing of traces.
    pub omit_trace_context: bool,
}

impl std::fmt::Debug for SubscriptionSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SubscriptionSpec")
            .field("account", &self.account)
            .field("name", &self.name)
            .field("url", &self.url)
            .field("event_patterns", &self.event_patterns)
            .field("profile", &self.profile)
            .field("signing_enabled", &self.signing_enabled)
            .field("headers", &self.headers.keys())
            .field("attributes", &self.attributes)
            .field("send_organization_code", &self.send_organization_code)
            .field("retry_waits", &self.retry_waits)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("tls", &self.tls)
            .field("payload_mode", &self.payload_mode)
            .field("omit_trace_context", &self.omit_trace_context)
            .finish()
    }
}

/// A stored subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its key.
    pub key: SubscriptionKey,
    /// Whose.
    pub organization: OrganizationId,
    /// What its owner decided.
    pub spec: SubscriptionSpec,
    /// Lifecycle state.
    pub state: SubscriptionState,
    /// Why the server disabled it; empty otherwise.
    pub state_reason: String,
    /// Routing version of its last change: the etag.
    pub version: i64,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// It has headers that cannot be decrypted here: `spec` has none of them, and nothing
    /// is sent without them.
    pub headers_lost: bool,
}

/// A secret that signs requests. `Debug` does not print the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret {
    /// Its key.
    pub key: SecretKey,
    /// As its owner knows it: `whsec_…` or the platform's own text. `None`: it cannot be
    /// decrypted here.
    pub secret: Option<String>,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it stops signing; `None` while nothing ends it.
    pub expire_time: Option<Timestamp>,
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SigningSecret")
            .field("key", &self.key)
            .field("create_time", &self.create_time)
            .field("expire_time", &self.expire_time)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_not_printed() {
        let spec = SubscriptionSpec {
            account: None,
            name: String::new(),
            url: "https://example.com/".to_owned(),
            event_patterns: vec!["*".to_owned()],
            profile: "standard".to_owned(),
            signing_enabled: false,
            headers: BTreeMap::from([("X-Tenant".to_owned(), "hunter2".to_owned())]),
            attributes: BTreeMap::new(),
            send_organization_code: false,
            retry_waits: Vec::new(),
            attempt_timeout: ATTEMPT_TIMEOUT_DEFAULT,
            max_in_flight: 1,
            tls: ReceiverTls::default(),
            payload_mode: PayloadMode::Full,
            omit_trace_context: false,
        };
        let printed = format!("{spec:?}");
        assert!(printed.contains("X-Tenant") && !printed.contains("hunter2"), "{printed}");
    }
}
