//! Whether an endpoint has consented to the events that it is to get.
//!
//! A profile may demand it ([`OwnershipRule`]). Then the endpoint is asked before the
//! first event ([`Check`]), and gets none until it has consented. What is remembered
//! ([`OwnershipRecord`]) is about one URL and one rule, told by their [`Fingerprint`]:
//! under any other nothing is proven, whoever made the change, and at once.
//!
//! Pure but for the nonce of a new challenge: others ask, and pass in what came of it.

use std::time::Duration;

use http::HeaderValue;
use sha2::Digest;
use sha2::Sha256;

use super::retry::stretched;
use super::timestamp::Timestamp;

mod challenge;
mod check;

pub use check::Asking;
pub use check::Check;
pub use check::CheckResult;
pub use check::Finding;
pub use check::REQUEST_ORIGIN;

/// Waits after checks that failed: eight checks in about five hours, then none until
/// somebody asks for one.
pub const WAITS: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
];
/// Least time between the starts of two checks of one subscription, whatever its owner
/// does meanwhile: who is asked may be somebody who never wanted to be.
pub const GAP: Duration = Duration::from_secs(5);

/// The longest wait that an endpoint may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// What a check may take beyond its request.
const MARGIN: Duration = Duration::from_secs(5);
/// A DNS name has at most so many characters, and each of its labels (RFC 1035, 2.3.4).
const NAME_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// How a profile has endpoints asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnershipRule {
    /// The validation handshake of "HTTP 1.1 Web Hooks for Event Delivery" 1.0.2, section
    /// 4, of `CloudEvents`: OPTIONS, answered by naming who may send.
    Handshake {
        /// The DNS name that this sender goes by.
        origin: HeaderValue,
    },
    /// A signed POST with a challenge, which the answer must repeat.
    Challenge,
}

impl OwnershipRule {
    /// The handshake of a sender of this name; `None` when it is no DNS name.
    #[must_use]
    pub fn handshake(origin: &str) -> Option<OwnershipRule> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let label = |label: &str| {
            (1..=LABEL_CHARS_MAX).contains(&label.len())
                && label.bytes().all(letter)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_name = origin.len() <= NAME_CHARS_MAX && origin.split('.').all(label);
        let origin = HeaderValue::from_str(origin).ok().filter(|_| is_name)?;
        Some(OwnershipRule::Handshake { origin })
    }

    /// Its name in profile files and in the API.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            OwnershipRule::Handshake { .. } => "handshake",
            OwnershipRule::Challenge => "challenge",
        }
    }

    /// What an endpoint at `url` consents to under this rule.
    #[must_use]
    pub fn fingerprint(&self, url: &str) -> Fingerprint {
        let origin = match self {
            OwnershipRule::Handshake { origin } => origin.as_bytes(),
            OwnershipRule::Challenge => b"",
        };
        let mut digest = Sha256::new();
        // None of the parts has a line feed.
        for part in [self.as_str().as_bytes(), b"\n", origin, b"\n", url.as_bytes()] {
            digest.update(part);
        }
        Fingerprint(digest.finalize().into())
    }
}

/// SHA-256 of a rule and a URL: what a proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// How far an endpoint has come. The numbers are those of the column and of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum OwnershipState {
    /// It is asked, at first at once, then after a while.
    Pending = 1,
    /// It has consented.
    Proven = 2,
    /// It is not asked any more, until somebody says so.
    Failed = 3,
}

impl OwnershipState {
    /// Every state, in the order of the numbers.
    pub const ALL: [OwnershipState; 3] =
        [OwnershipState::Pending, OwnershipState::Proven, OwnershipState::Failed];

    /// The state stored as `number`.
    #[must_use]
    pub fn stored(number: i16) -> Option<OwnershipState> {
        OwnershipState::ALL.into_iter().find(|state| *state as i16 == number)
    }
}

/// What is remembered of the checks of one subscription's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipRecord {
    /// What was asked.
    pub asked: Fingerprint,
    /// What came of it.
    pub state: OwnershipState,
    /// Checks that have failed since the first one, or since somebody had it asked anew.
    pub failures: u32,
    /// Why the last of them failed, for people; empty once it has consented.
    pub reason: String,
    /// When the last check ended; `None` before that.
    pub check_time: Option<Timestamp>,
    /// When the next one may begin, while pending.
    pub due_time: Timestamp,
}

/// What is to be recorded of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckEnd {
    /// What came of it.
    pub state: OwnershipState,
    /// Checks that have failed, this one included.
    pub failures: u32,
    /// Why it failed, for people; empty when it did not.
    pub reason: String,
    /// Until the next one, while pending.
    pub wait: Duration,
}

impl CheckEnd {
    /// What follows a check, after `failures` that failed before it. `jitter` from 0 to 1
    /// stretches the wait by up to a tenth. An answer of 410 is final, as everywhere. Who was
    /// not asked has not failed.
    #[must_use]
    pub fn of(finding: Finding, failures: u32, jitter: f64) -> CheckEnd {
        if finding.result == CheckResult::Proven {
            let (state, wait) = (OwnershipState::Proven, Duration::ZERO);
            return CheckEnd { state, failures: 0, reason: String::new(), wait };
        }
        if let Some(wait) = finding.put_off {
            let (state, wait) = (OwnershipState::Pending, stretched(wait, jitter));
            return CheckEnd { state, failures, reason: finding.reason, wait };
        }
        let place = usize::try_from(failures).unwrap_or(usize::MAX);
        let (state, wait) = match WAITS.get(place) {
            Some(wait) if !finding.gone => {
                let wait = finding.retry_after.min(RETRY_AFTER_MAX).max(*wait);
                (OwnershipState::Pending, stretched(wait, jitter))
            }
            Some(_) | None => (OwnershipState::Failed, Duration::ZERO),
        };
        CheckEnd { state, failures: failures.saturating_add(1), reason: finding.reason, wait }
    }
}

/// How long a check is good for whose request may take `timeout`: then the endpoint may be
/// asked by another process, and an answer counts no more.
#[must_use]
pub fn lasts(timeout: Duration) -> Duration {
    timeout.saturating_add(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(retry_after: Duration, gone: bool) -> Finding {
        let (result, reason) = (CheckResult::Refused, "no".to_owned());
        Finding { result, reason, retry_after, gone, put_off: None }
    }

    fn after(failures: u32, finding: Finding) -> (OwnershipState, u32, Duration) {
        let end = CheckEnd::of(finding, failures, 0.0);
        assert_eq!(end.reason, "no");
        (end.state, end.failures, end.wait)
    }

    #[test]
    fn an_endpoint_is_asked_eight_times_ever_more_slowly() {
        for (failures, wait) in (0..).zip(WAITS) {
            let expected = (OwnershipState::Pending, failures + 1, wait);
            assert_eq!(after(failures, refused(Duration::ZERO, false)), expected);
        }
        for failures in [7, 8, u32::MAX] {
            let (state, ..) = after(failures, refused(Duration::ZERO, false));
            assert_eq!(state, OwnershipState::Failed, "{failures}");
        }
        assert!(WAITS.is_sorted() && GAP <= WAITS[0]);
    }

    /// As the schedule of deliveries: a floor, and bounded.
    #[test]
    fn retry_after_lengthens_a_wait_up_to_an_hour() {
        for (asked, wait) in [(1, 5), (60, 60), (3600, 3600), (86_400, 3600)] {
            let (state, _, waited) = after(0, refused(Duration::from_secs(asked), false));
            assert_eq!(state, OwnershipState::Pending);
            assert_eq!(waited, Duration::from_secs(wait), "asked for {asked} s");
        }
        let longest = CheckEnd::of(refused(Duration::ZERO, false), 0, 1.0).wait;
        assert_eq!(longest, Duration::from_millis(5500));
    }

    #[test]
    fn who_was_not_asked_waits_and_has_not_failed() {
        let put_off = Some(Duration::from_secs(40));
        for failures in [0, 7, 8] {
            let finding = Finding { put_off, ..refused(Duration::ZERO, false) };
            let expected = (OwnershipState::Pending, failures, Duration::from_secs(40));
            assert_eq!(after(failures, finding), expected);
        }
    }

    #[test]
    fn gone_is_final_and_consent_forgets_the_failures() {
        let gone = (OwnershipState::Failed, 1, Duration::ZERO);
        assert_eq!(after(0, refused(Duration::ZERO, true)), gone);
        let proven = CheckEnd::of(Finding::proven(), 5, 0.5);
        assert_eq!((proven.state, proven.failures), (OwnershipState::Proven, 0));
        assert_eq!(proven.reason, "");
    }

    #[test]
    fn a_sender_goes_by_a_dns_name() {
        let long = "a.".repeat(126) + "a";
        for good in ["hooks.example.com", "localhost", "a-b.1c", &long] {
            assert!(OwnershipRule::handshake(good).is_some(), "{good}");
        }
        let label = "a".repeat(64);
        let longer = format!("{long}.a");
        for wrong in
            ["", ".", "a..b", "a.", "-a.b", "a-.b", "*", "a b", "a\n", "é.example", &label, &longer]
        {
            assert_eq!(OwnershipRule::handshake(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn another_url_rule_or_origin_is_another_question() {
        let rule = |origin| OwnershipRule::handshake(origin).expect("a name");
        let (url, other) = ("https://a.example/", "https://b.example/");
        let asked = rule("one.example").fingerprint(url);
        assert_eq!(asked, rule("one.example").fingerprint(url));
        assert_ne!(asked, rule("one.example").fingerprint(other));
        assert_ne!(asked, rule("two.example").fingerprint(url));
        assert_ne!(asked, OwnershipRule::Challenge.fingerprint(url));
    }

    #[test]
    fn states_read_back() {
        for state in OwnershipState::ALL {
            assert_eq!(OwnershipState::stored(state as i16), Some(state));
        }
        assert_eq!(OwnershipState::stored(0), None);
    }
}
