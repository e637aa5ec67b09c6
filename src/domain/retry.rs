//! What follows an attempt: delivered, again later, or dead.
//!
//! Promises: no input panics or overflows; a wait is never shorter than the policy's
//! and, for a policy within its limits, never longer than a day and a tenth.

use std::time::Duration;
use std::time::UNIX_EPOCH;

use super::attempt::Outcome;
use super::delivery::DeadReason;
use super::timestamp::Timestamp;

/// Waits between attempts where a subscription names none: 12 attempts in about three
/// days.
pub const DEFAULT_WAITS: [Duration; 11] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
    Duration::from_hours(12),
    Duration::from_hours(24),
    Duration::from_hours(24),
];

/// The longest wait that a receiver may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// What must follow an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// The next attempt is due after this wait.
    RetryIn(Duration),
    /// There is no next attempt. With [`DeadReason::Gone`] the caller disables the
    /// subscription too.
    Dead(DeadReason),
}

/// The attempt that has ended, and what is left to its delivery.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The policy's waits between attempts.
    pub waits: &'a [Duration],
    /// 1 for the first attempt.
    pub number: u32,
    /// An attempt granted after death, by `RetryDelivery`: it has no successor.
    pub last_chance: bool,
    /// Time until the event's expire time; `None` when it never expires.
    pub until_expiry: Option<Duration>,
}

/// Decides what follows.
///
/// `is_success` is the profile's word on the status. `jitter` from 0 to 1 stretches the
/// wait by up to a tenth, so that deliveries that failed together do not come back
/// together. `Retry-After` lengthens a wait, up to [`RETRY_AFTER_MAX`], and never
/// shortens it. `410 Gone` is final in every profile. A retry that would not come before
/// the event expires is not waited for. What was not asked is tried again, however many
/// attempts there were: it is none.
#[must_use]
pub fn verdict(ended: Ended<'_>, outcome: &Outcome, is_success: bool, jitter: f64) -> Verdict {
    if is_success {
        return Verdict::Delivered;
    }
    let asked = match outcome {
        Outcome::Responded { status: 410, .. } => return Verdict::Dead(DeadReason::Gone),
        Outcome::Responded { retry_after, .. } => retry_after.unwrap_or_default(),
        Outcome::NoResponse(_) => Duration::ZERO,
        Outcome::NotAsked { wait } => return later(ended, stretched(*wait, jitter)),
    };
    let place = usize::try_from(ended.number.saturating_sub(1)).unwrap_or(usize::MAX);
    let wait = match ended.waits.get(place) {
        Some(&wait) if !ended.last_chance => wait,
        Some(_) | None => return Verdict::Dead(DeadReason::AttemptsExhausted),
    };
    later(ended, stretched(wait.max(asked.min(RETRY_AFTER_MAX)), jitter))
}

fn later(ended: Ended<'_>, wait: Duration) -> Verdict {
    match ended.until_expiry {
        Some(left) if left <= wait => Verdict::Dead(DeadReason::Expired),
        Some(_) | None => Verdict::RetryIn(wait),
    }
}

/// A wait, longer by up to a tenth: `jitter` goes from 0 to 1.
#[must_use]
pub fn stretched(wait: Duration, jitter: f64) -> Duration {
    // A NaN stays NaN under clamp, and is refused by the conversion.
    let extra = wait.as_secs_f64() * jitter.clamp(0.0, 1.0) / 10.0;
    wait.saturating_add(Duration::try_from_secs_f64(extra).unwrap_or_default())
}

/// Reads a `Retry-After` (RFC 9110, 10.2.3): 1 to 9 digits of seconds, or an HTTP date.
/// At most [`RETRY_AFTER_MAX`]; zero for a date that has passed; `None` for anything else.
#[must_use]
pub fn parse_retry_after(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    if (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().ok()?).min(RETRY_AFTER_MAX));
    }
    // The longest form, of RFC 850, has 33 characters.
    if 40 < text.len() {
        return None;
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(0).plus(since_epoch).since(now).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::attempt::Failure;
    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> Outcome {
        let retry_after = retry_after.map(Duration::from_secs);
        Outcome::Responded { status, retry_after, body: Bytes::new() }
    }

    fn after(number: u32) -> Ended<'static> {
        Ended { waits: &DEFAULT_WAITS, number, last_chance: false, until_expiry: None }
    }

    fn secs(secs: u64) -> Verdict {
        Verdict::RetryIn(Duration::from_secs(secs))
    }

    #[test]
    fn the_default_gives_twelve_attempts_in_about_three_days() {
        let waits = [5, 30, 120, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 86_400];
        for (number, wait) in (1..).zip(waits) {
            let verdict = verdict(after(number), &Outcome::NoResponse(Failure::Dns), false, 0.0);
            assert_eq!(verdict, secs(wait), "attempt {number}");
        }
        let last = verdict(after(12), &status(500, Some(5)), false, 0.0);
        assert_eq!(last, Verdict::Dead(DeadReason::AttemptsExhausted));
    }

    #[test]
    fn the_profile_says_what_success_is() {
        assert_eq!(verdict(after(1), &status(200, None), true, 0.0), Verdict::Delivered);
        assert_eq!(verdict(after(12), &status(202, None), true, 0.0), Verdict::Delivered);
        assert_eq!(verdict(after(1), &status(202, None), false, 0.0), secs(5));
        assert_eq!(verdict(after(1), &status(302, None), false, 0.0), secs(5));
    }

    #[test]
    fn gone_is_final_on_the_first_attempt() {
        let gone = verdict(after(1), &status(410, Some(5)), false, 0.5);
        assert_eq!(gone, Verdict::Dead(DeadReason::Gone));
    }

    #[test]
    fn retry_after_lengthens_a_wait_but_never_shortens_it() {
        for (asked, wait) in [(0, 5), (4, 5), (6, 6), (86_400, 86_400), (999_999_999, 86_400)] {
            let verdict = verdict(after(1), &status(503, Some(asked)), false, 0.0);
            assert_eq!(verdict, secs(wait), "asked for {asked} s");
        }
    }

    #[test]
    fn jitter_adds_up_to_a_tenth() {
        let wait = |jitter| verdict(after(3), &status(500, None), false, jitter);
        assert_eq!(wait(0.0), secs(120));
        assert_eq!(wait(0.5), secs(126));
        assert_eq!(wait(1.0), secs(132));
        assert_eq!(wait(f64::NAN), secs(120));
        assert_eq!(wait(-9.0), secs(120));
        assert_eq!(wait(f64::INFINITY), secs(132));
    }

    #[test]
    fn no_retry_is_planned_for_when_the_event_has_expired() {
        let expiring = |left| Ended { until_expiry: Some(Duration::from_secs(left)), ..after(1) };
        let failed = status(500, None);
        assert_eq!(verdict(expiring(6), &failed, false, 0.0), secs(5));
        for left in [0, 5] {
            let verdict = verdict(expiring(left), &failed, false, 0.0);
            assert_eq!(verdict, Verdict::Dead(DeadReason::Expired), "{left} s left");
        }
    }

    #[test]
    fn a_last_chance_has_no_successor() {
        let chance = Ended { last_chance: true, ..after(1) };
        let failed = verdict(chance, &status(500, None), false, 0.0);
        assert_eq!(failed, Verdict::Dead(DeadReason::AttemptsExhausted));
        assert_eq!(verdict(chance, &status(200, None), true, 0.0), Verdict::Delivered);
    }

    #[test]
    fn what_was_not_asked_waits_and_spends_no_attempt() {
        let not_asked = Outcome::NotAsked { wait: Duration::from_secs(7) };
        for ended in [after(1), after(12), Ended { last_chance: true, ..after(1) }] {
            assert_eq!(verdict(ended, &not_asked, false, 0.0), secs(7), "{ended:?}");
        }
        let expiring = Ended { until_expiry: Some(Duration::from_secs(7)), ..after(1) };
        let late = verdict(expiring, &not_asked, false, 0.0);
        assert_eq!(late, Verdict::Dead(DeadReason::Expired));
    }

    #[test]
    fn retry_after_is_read_in_its_documented_forms_only() {
        // 1994-11-06T08:49:27Z, ten seconds before the example date of RFC 9110.
        let now = Timestamp(784_111_767_000_000);
        let cases: [(&str, Option<u64>); 20] = [
            ("0", Some(0)),
            ("120", Some(120)),
            ("000000007", Some(7)),
            ("999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(10)),
            ("Sun Nov  6 08:49:37 1994", Some(10)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
            ("", None),
            (" 5", None),
            ("5 ", None),
            ("+5", None),
            ("-5", None),
            ("1e300", None),
            ("NaN", None),
            ("inf", None),
            ("0x10", None),
            ("12345678901234567890", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(parse_retry_after(text.as_bytes(), now), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_wait_out_of_range(
            value: Vec<u8>, text in "[A-Za-z0-9 ,:-]{0,36}", now: i64,
        ) {
            for value in [&value[..], text.as_bytes()] {
                if let Some(wait) = parse_retry_after(value, Timestamp(now)) {
                    prop_assert!(wait <= RETRY_AFTER_MAX);
                }
            }
        }

        #[test]
        fn no_policy_attempt_or_answer_panics(
            waits: Vec<Duration>, number: u32, asked: Option<Duration>, left: Option<Duration>,
            jitter in prop::num::f64::ANY, status: u16, last_chance: bool,
        ) {
            let ended = Ended { waits: &waits, number, last_chance, until_expiry: left };
            let outcome = Outcome::Responded { status, retry_after: asked, body: Bytes::new() };
            if let Verdict::RetryIn(wait) = verdict(ended, &outcome, false, jitter) {
                let place = usize::try_from(number.saturating_sub(1)).expect("32 bits");
                prop_assert!(waits[place] <= wait);
                prop_assert!(left.is_none_or(|left| wait < left));
            }
        }

        /// Every policy that the API takes, and every attempt that there can be.
        #[test]
        fn a_wait_is_the_policys_and_at_most_a_tenth_more(
            waits in prop::collection::vec(100_u64..=86_400_000, 0..50),
            number in prop_oneof![4 => 0_u32..52, 1 => (u32::MAX - 9)..=u32::MAX],
            asked in prop::option::of(0_u64..200_000), jitter in prop::num::f64::ANY,
        ) {
            let waits: Vec<Duration> = waits.into_iter().map(Duration::from_millis).collect();
            let ended = Ended { waits: &waits, ..after(number) };
            let verdict = verdict(ended, &status(503, asked), false, jitter);
            let place = usize::try_from(number.max(1) - 1).expect("32 bits");
            let Some(base) = waits.get(place) else {
                prop_assert_eq!(verdict, Verdict::Dead(DeadReason::AttemptsExhausted));
                return Ok(());
            };
            let Verdict::RetryIn(wait) = verdict else { panic!("{verdict:?}") };
            let floor = RETRY_AFTER_MAX.min(Duration::from_secs(asked.unwrap_or(0))).max(*base);
            // A nanosecond for what rounding makes of the tenth.
            let longest = floor + floor / 10 + Duration::from_nanos(1);
            prop_assert!((floor..=longest).contains(&wait), "{floor:?} {wait:?}");
        }
    }
}
