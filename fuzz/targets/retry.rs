//! What follows an attempt: for every policy that the API takes and every attempt there
//! can be, a wait within its bounds, or the right end.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use hookward::domain::address::AddressPolicy;
use hookward::domain::attempt::{Failure, Outcome};
use hookward::domain::delivery::DeadReason;
use hookward::domain::retry::{Ended, RETRY_AFTER_MAX, Verdict, verdict};
use hookward::domain::subscription_rules::{ProfileRules, SubscriptionInput};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    waits: Option<Vec<Duration>>,
    number: u32,
    last_chance: bool,
    until_expiry: Option<Duration>,
    status: Option<u16>,
    retry_after: Option<Duration>,
    is_success: bool,
    jitter: f64,
}

fuzz_target!(|input: Input| {
    let Some(waits) = accepted(input.waits) else { return };
    assert!(waits.len() <= 49);
    let outcome = match input.status {
        Some(status) => {
            let (retry_after, body) = (input.retry_after, bytes::Bytes::new());
            Outcome::Responded { status, retry_after, body }
        }
        None => Outcome::NoResponse(Failure::Timeout),
    };
    let ended = Ended {
        waits: &waits,
        number: input.number,
        last_chance: input.last_chance,
        until_expiry: input.until_expiry,
    };
    let verdict = verdict(ended, &outcome, input.is_success, input.jitter);
    let place = input.number.max(1) as usize - 1;
    let base = if input.last_chance { None } else { waits.get(place).copied() };
    match (verdict, base) {
        (Verdict::Delivered, _) => assert!(input.is_success),
        (_, _) if input.is_success => panic!("a success is delivered: {verdict:?}"),
        (Verdict::Dead(DeadReason::Gone), _) => assert_eq!(input.status, Some(410)),
        (_, _) if input.status == Some(410) => panic!("410 is final: {verdict:?}"),
        (Verdict::Dead(DeadReason::AttemptsExhausted), base) => assert_eq!(base, None),
        (_, None) => panic!("there is no attempt left: {verdict:?}"),
        (Verdict::RetryIn(wait), Some(base)) => {
            let (floor, ceiling) = bounds(base, &outcome);
            assert!((floor..=ceiling).contains(&wait), "{floor:?} {wait:?} {ceiling:?}");
            assert!(input.until_expiry.is_none_or(|left| wait < left));
        }
        (Verdict::Dead(DeadReason::Expired), Some(base)) => {
            let (_, ceiling) = bounds(base, &outcome);
            assert!(input.until_expiry.is_some_and(|left| left <= ceiling));
        }
        (Verdict::Dead(reason), Some(_)) => panic!("{reason:?} is not this rule's"),
    }
});

/// The waits that a subscription with these would have, if the API takes them.
fn accepted(waits: Option<Vec<Duration>>) -> Option<Vec<Duration>> {
    let profile = ProfileRules {
        name: "standard".to_owned(),
        signed_by_default: false,
        content_type: "application/json".to_owned(),
        signature_headers: Vec::new(),
        service_patterns: false,
        organization_code: false,
        operational_events: true,
    };
    let input = SubscriptionInput {
        url: "https://example.com/".to_owned(),
        event_patterns: vec!["*".to_owned()],
        retry_waits: waits,
        ..SubscriptionInput::default()
    };
    let spec = input.check(&profile, AddressPolicy::default().rules(None), None);
    Some(spec.ok()?.retry_waits)
}

/// The shortest and the longest wait, the latter with a nanosecond for rounding.
fn bounds(base: Duration, outcome: &Outcome) -> (Duration, Duration) {
    let asked = match outcome {
        Outcome::Responded { retry_after, .. } => retry_after.unwrap_or_default(),
        Outcome::NoResponse(_) | Outcome::NotAsked { .. } => Duration::ZERO,
    };
    let floor = base.max(asked.min(RETRY_AFTER_MAX));
    (floor, floor + floor / 10 + Duration::from_nanos(1))
}
