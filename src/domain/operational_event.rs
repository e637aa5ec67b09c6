//! What the service itself has to tell: the types of its events, and what they carry.
//!
//! Ids that this service made, counts and times, and nothing that a publisher chose: who
//! asks for these events need not be allowed to see any other.

use serde::Serialize;

use super::delivery::DeadReason;
use super::failure_streak::{DisableReason, FailureStreak, Stage};
use super::id::AccountId;
use super::time_format::TimeFormat;
use super::timestamp::Timestamp;

/// What their types begin with. Nobody else may publish such an event, and no pattern
/// matches one that does not begin with it too.
pub const PREFIX: &str = "hookward.";

/// Whether events of this type are the service's own.
#[must_use]
pub fn is_operational(event_type: &str) -> bool {
    event_type.starts_with(PREFIX)
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum OperationalType {
    /// A subscription was switched off by the server.
    SubscriptionDisabled,
    /// One is on its way there.
    SubscriptionFailing,
    /// One that was told of as failing has had a success.
    SubscriptionRecovered,
    /// A delivery was given up.
    DeliveryDead,
}

impl OperationalType {
    /// Every type.
    pub const ALL: [OperationalType; 4] = [
        OperationalType::SubscriptionDisabled,
        OperationalType::SubscriptionFailing,
        OperationalType::SubscriptionRecovered,
        OperationalType::DeliveryDead,
    ];

    /// The event type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OperationalType::SubscriptionDisabled => "hookward.subscription.disabled",
            OperationalType::SubscriptionFailing => "hookward.subscription.failing",
            OperationalType::SubscriptionRecovered => "hookward.subscription.recovered",
            OperationalType::DeliveryDead => "hookward.delivery.dead",
        }
    }
}

/// Those whom an operational event is for, where anybody asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The account of the subscription that it is about: subscriptions of another account
    /// do not get it.
    pub account: Option<AccountId>,
}

/// An event to be, without whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationalEvent {
    /// Its type.
    pub kind: OperationalType,
    /// What it carries, as JSON.
    pub payload: String,
}

/// What the events carry, each a part of it. Names and values are those of the API.
#[derive(Default, Serialize)]
struct Payload<'a> {
    subscription_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exhausted_deliveries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
}

impl<'a> Payload<'a> {
    fn of(subscription_id: &'a str) -> Payload<'a> {
        Payload { subscription_id, ..Payload::default() }
    }

    fn of_streak(subscription_id: &'a str, streak: &FailureStreak) -> Payload<'a> {
        Payload {
            failing_since: Some(written(streak.begin_time)),
            exhausted_deliveries: Some(streak.exhausted),
            ..Payload::of(subscription_id)
        }
    }

    fn event(&self, kind: OperationalType) -> OperationalEvent {
        let payload = serde_json::to_string(self).expect("texts and numbers are JSON");
        OperationalEvent { kind, payload }
    }
}

impl OperationalEvent {
    /// A subscription was switched off.
    #[must_use]
    pub fn disabled(subscription_id: &str, reason: &DisableReason) -> OperationalEvent {
        let payload = match reason {
            DisableReason::Gone => Payload { reason: Some("GONE"), ..Payload::of(subscription_id) },
            DisableReason::Failing(streak) => {
                Payload { reason: Some("FAILING"), ..Payload::of_streak(subscription_id, streak) }
            }
        };
        payload.event(OperationalType::SubscriptionDisabled)
    }

    /// A subscription is on its way to be switched off.
    #[must_use]
    pub fn failing(
        subscription_id: &str,
        streak: &FailureStreak,
        stage: Stage,
    ) -> OperationalEvent {
        let payload = Payload {
            percent: Some(stage.percent()),
            ..Payload::of_streak(subscription_id, streak)
        };
        payload.event(OperationalType::SubscriptionFailing)
    }

    /// A subscription that was told of as failing works again.
    #[must_use]
    pub fn recovered(subscription_id: &str, streak: &FailureStreak) -> OperationalEvent {
        let payload = Payload::of_streak(subscription_id, streak);
        payload.event(OperationalType::SubscriptionRecovered)
    }

    /// A delivery was given up after so many attempts.
    #[must_use]
    pub fn dead(
        subscription_id: &str,
        delivery_id: &str,
        reason: DeadReason,
        attempts: u32,
    ) -> OperationalEvent {
        let payload = Payload {
            delivery_id: Some(delivery_id),
            dead_reason: Some(dead_reason_name(reason)),
            attempt_count: Some(attempts),
            ..Payload::of(subscription_id)
        };
        payload.event(OperationalType::DeliveryDead)
    }
}

/// Whether the end of a delivery is an event. Those that end with their subscription are
/// not told one by one: they may be a million, and the subscription's end is told.
#[must_use]
pub fn is_told(reason: DeadReason) -> bool {
    match reason {
        DeadReason::AttemptsExhausted
        | DeadReason::Expired
        | DeadReason::Gone
        | DeadReason::NotSendable
        | DeadReason::TakeoversExhausted => true,
        DeadReason::SubscriptionDisabled => false,
    }
}

/// As the API spells it.
#[must_use]
pub fn dead_reason_name(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::AttemptsExhausted => "DEAD_REASON_ATTEMPTS_EXHAUSTED",
        DeadReason::Expired => "DEAD_REASON_EXPIRED",
        DeadReason::Gone => "DEAD_REASON_GONE",
        DeadReason::NotSendable => "DEAD_REASON_NOT_SENDABLE",
        DeadReason::SubscriptionDisabled => "DEAD_REASON_SUBSCRIPTION_DISABLED",
        DeadReason::TakeoversExhausted => "DEAD_REASON_TAKEOVERS_EXHAUSTED",
    }
}

/// RFC 3339, as the times of the `standard` profile are.
fn written(time: Timestamp) -> String {
    let mut text = Vec::new();
    TimeFormat::Rfc3339MicrosZ.write(time, &mut text);
    String::from_utf8_lossy(&text).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::event_type::is_event_type;

    #[test]
    fn types_are_event_types_of_the_services_own() {
        for kind in OperationalType::ALL {
            let name = kind.as_str();
            assert!(is_event_type(name) && is_operational(name), "{name}");
            // A pattern that names a service (HapiHub) has one segment before the method.
            assert_eq!(name.split('.').count(), 3, "{name}");
            assert_eq!(OperationalType::ALL[kind as usize], kind);
        }
        for other in ["hookward", "hookwards.subscription.disabled", "a.hookward.b", ""] {
            assert!(!is_operational(other), "{other}");
        }
    }

    #[test]
    fn payloads_are_ids_counts_and_times() {
        let streak = FailureStreak {
            begin_time: Timestamp(1_772_637_631_412_000),
            failing: Duration::from_hours(120),
            exhausted: 12,
            told: 75,
        };
        let since = r#""failing_since":"2026-03-04T15:20:31.412000Z","exhausted_deliveries":12"#;
        let expected = [
            (
                OperationalEvent::disabled("sub_1", &DisableReason::Gone),
                r#"{"subscription_id":"sub_1","reason":"GONE"}"#.to_owned(),
            ),
            (
                OperationalEvent::disabled("sub_1", &DisableReason::Failing(streak)),
                format!(r#"{{"subscription_id":"sub_1","reason":"FAILING",{since}}}"#),
            ),
            (
                OperationalEvent::failing("sub_1", &streak, Stage::Half),
                format!(r#"{{"subscription_id":"sub_1",{since},"percent":50}}"#),
            ),
            (
                OperationalEvent::recovered("sub_1", &streak),
                format!(r#"{{"subscription_id":"sub_1",{since}}}"#),
            ),
            (
                OperationalEvent::dead("sub_1", "dlv_1", DeadReason::AttemptsExhausted, 12),
                concat!(
                    r#"{"subscription_id":"sub_1","delivery_id":"dlv_1","#,
                    r#""dead_reason":"DEAD_REASON_ATTEMPTS_EXHAUSTED","attempt_count":12}"#
                )
                .to_owned(),
            ),
        ];
        for (event, payload) in expected {
            assert_eq!(event.payload, payload);
        }
    }

    #[test]
    fn ends_with_a_subscription_are_not_told_one_by_one() {
        let silent = DeadReason::ALL.into_iter().filter(|reason| !is_told(*reason));
        assert_eq!(silent.collect::<Vec<_>>(), [DeadReason::SubscriptionDisabled]);
    }
}
