//! When a receiver that keeps failing is switched off: by time and by volume, both.
//!
//! Pure: what happened comes in, a decision goes out. A streak begins with a failure that
//! no success followed, and is over with the next success or change of its subscription.
//! It lasts from there to the last delivery that was exhausted, and not until now: an
//! endpoint to which nothing was sent meanwhile may have been well for days.
//!
//! Only what a receiver itself does counts. What was not sent, or not let out, or failed
//! on this machine, says nothing of it.

use std::fmt;
use std::time::Duration;

use super::attempt::{AttemptResult, Fault};
use super::delivery::DeadReason;
use super::retry::Verdict;
use super::timestamp::Timestamp;

/// What must come together before a subscription is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// So long without one success.
    pub after: Duration,
    /// So many deliveries that have spent their attempts meanwhile.
    pub exhausted: u32,
}

impl Default for Rule {
    /// What holds where the operator says nothing.
    fn default() -> Self {
        Rule { after: Duration::from_hours(5 * 24), exhausted: 10 }
    }
}

/// Failures of one endpoint, without a success in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureStreak {
    /// When the first of them was recorded.
    pub begin_time: Timestamp,
    /// From then to the last delivery that was exhausted; while nobody sent, it stood still.
    pub failing: Duration,
    /// Deliveries that have spent their attempts.
    pub exhausted: u32,
    /// How far it was, in per cent of the time, when its owner was warned last; 0: never.
    pub told: u8,
}

/// How much of the time has passed when an owner is warned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Half of it.
    Half = 50,
    /// Three quarters.
    ThreeQuarters = 75,
}

impl Stage {
    /// As a number.
    #[must_use]
    pub fn percent(self) -> u8 {
        self as u8
    }
}

/// What follows from a streak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing yet.
    Wait,
    /// The owner is to be warned; once for each stage.
    Warn(Stage),
    /// The subscription is to be switched off.
    Disable,
}

impl Rule {
    /// Judges a streak.
    #[must_use]
    pub fn judge(&self, streak: &FailureStreak) -> Judgement {
        if self.after <= streak.failing && self.exhausted <= streak.exhausted {
            return Judgement::Disable;
        }
        let reached = if self.after * 3 / 4 <= streak.failing {
            Some(Stage::ThreeQuarters)
        } else if self.after / 2 <= streak.failing {
            Some(Stage::Half)
        } else {
            None
        };
        match reached {
            Some(stage) if streak.told < stage.percent() => Judgement::Warn(stage),
            Some(_) | None => Judgement::Wait,
        }
    }
}

/// What an attempt adds to the streak of its endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: the receiver was not asked, or its failure may be over with the first retry.
    #[default]
    Nothing,
    /// The receiver has it: the streak is over.
    Success,
    /// One failure.
    Failure,
    /// One failure, by which its delivery has spent its attempts.
    Exhausted,
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub result: AttemptResult,
    /// Whose fault it is, if it failed.
    pub fault: Fault,
    /// 1 for the first of its delivery.
    pub number: u32,
    /// Whether a person had asked for it after the delivery's end.
    pub last_chance: bool,
    /// What follows for the delivery.
    pub verdict: Verdict,
}

impl Mark {
    /// What an attempt adds.
    #[must_use]
    pub fn of(ended: Ended) -> Mark {
        match ended.result {
            AttemptResult::Succeeded => return Mark::Success,
            AttemptResult::NotSent | AttemptResult::BlockedAddress => return Mark::Nothing,
            AttemptResult::HttpStatus
            | AttemptResult::DnsError
            | AttemptResult::ConnectError
            | AttemptResult::TlsError
            | AttemptResult::Timeout
            | AttemptResult::ProtocolError => {}
        }
        if ended.fault == Fault::Ours {
            return Mark::Nothing;
        }
        match ended.verdict {
            Verdict::Delivered => Mark::Success,
            // That alone switches the subscription off.
            Verdict::Dead(DeadReason::Gone) => Mark::Nothing,
            // Whoever tries a dead letter ten times does not make ten of it.
            Verdict::Dead(_) if ended.last_chance => Mark::Failure,
            Verdict::Dead(_) => Mark::Exhausted,
            // So a failure that its first retry mends is not even written down.
            Verdict::RetryIn(_) if ended.number < 2 => Mark::Nothing,
            Verdict::RetryIn(_) => Mark::Failure,
        }
    }
}

/// Why the server switches a subscription off. As text, the subscription's state reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableReason {
    /// Its receiver answered 410 Gone.
    Gone,
    /// Its receiver kept failing.
    Failing(FailureStreak),
}

impl fmt::Display for DisableReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DisableReason::Gone => formatter.write_str("the receiver answered 410 Gone"),
            DisableReason::Failing(streak) => write!(
                formatter,
                "no delivery succeeded for {}, and {} were given up after their last attempt",
                span(streak.failing),
                streak.exhausted
            ),
        }
    }
}

/// A time for people: in the largest unit of which it holds two.
fn span(time: Duration) -> String {
    let secs = time.as_secs();
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let fitting = units.into_iter().find(|(size, _)| 2 * size <= secs);
    let (size, unit) = fitting.unwrap_or((1, "seconds"));
    format!("{} {unit}", secs / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn streak(failing: Duration, exhausted: u32, told: u8) -> FailureStreak {
        FailureStreak { begin_time: Timestamp(0), failing, exhausted, told }
    }

    #[test]
    fn it_takes_both_the_time_and_the_volume() {
        let rule = Rule::default();
        assert_eq!(rule, Rule { after: 5 * DAY, exhausted: 10 });
        let almost = (5 * DAY).saturating_sub(Duration::from_micros(1));
        for (failing, exhausted, disabled) in [
            (5 * DAY, 10, true),
            (30 * DAY, 1000, true),
            (5 * DAY, 9, false),
            (almost, 10, false),
            (Duration::ZERO, 1_000_000, false),
            (300 * DAY, 1, false),
        ] {
            let judgement = rule.judge(&streak(failing, exhausted, 75));
            assert_eq!(judgement == Judgement::Disable, disabled, "{failing:?} {exhausted}");
        }
    }

    #[test]
    fn an_owner_is_warned_once_at_half_and_once_at_three_quarters() {
        let rule = Rule::default();
        let [half, most] = [Stage::Half, Stage::ThreeQuarters].map(Judgement::Warn);
        for (hours, told, expected) in [
            (59, 0, Judgement::Wait),
            (60, 0, half),
            (60, 50, Judgement::Wait),
            (89, 50, Judgement::Wait),
            (90, 50, most),
            (90, 0, most),
            (90, 75, Judgement::Wait),
            // Too few deliveries to switch it off: all that follows are these two.
            (1000, 0, most),
            (1000, 75, Judgement::Wait),
        ] {
            let streak = streak(Duration::from_hours(hours), 3, told);
            assert_eq!(rule.judge(&streak), expected, "{hours} h, told at {told} %");
        }
    }

    fn failed(result: AttemptResult) -> Ended {
        let verdict = Verdict::Dead(DeadReason::AttemptsExhausted);
        Ended { result, fault: Fault::Receiver, number: 12, last_chance: false, verdict }
    }

    #[test]
    fn our_own_faults_are_no_marks() {
        let later = Verdict::RetryIn(Duration::from_secs(5));
        for result in AttemptResult::ALL {
            let ours = [AttemptResult::NotSent, AttemptResult::BlockedAddress].contains(&result);
            let expected = match result {
                AttemptResult::Succeeded => Mark::Success,
                _ if ours => Mark::Nothing,
                _ => Mark::Exhausted,
            };
            assert_eq!(Mark::of(failed(result)), expected, "{result:?}");
            let on_this_side = Ended { fault: Fault::Ours, ..failed(result) };
            let expected = if expected == Mark::Success { expected } else { Mark::Nothing };
            for verdict in [on_this_side.verdict, later] {
                let mark = Mark::of(Ended { verdict, ..on_this_side });
                assert_eq!(mark, expected, "{result:?} {verdict:?}");
            }
        }
    }

    #[test]
    fn only_what_a_receiver_exhausts_by_itself_is_volume() {
        let status = failed(AttemptResult::HttpStatus);
        let later = Verdict::RetryIn(Duration::from_secs(5));
        for (ended, expected) in [
            (Ended { number: 1, ..status }, Mark::Exhausted),
            (Ended { verdict: Verdict::Dead(DeadReason::Expired), ..status }, Mark::Exhausted),
            (Ended { verdict: Verdict::Dead(DeadReason::Gone), ..status }, Mark::Nothing),
            (Ended { last_chance: true, ..status }, Mark::Failure),
            (Ended { number: 1, verdict: later, ..status }, Mark::Nothing),
            (Ended { number: 2, verdict: later, ..status }, Mark::Failure),
        ] {
            assert_eq!(Mark::of(ended), expected, "{ended:?}");
        }
    }

    #[test]
    fn reasons_are_sentences_with_times_in_round_units() {
        assert_eq!(DisableReason::Gone.to_string(), "the receiver answered 410 Gone");
        for (failing, expected) in [
            (5 * DAY, "5 days"),
            (Duration::from_hours(36), "36 hours"),
            (Duration::from_mins(2), "2 minutes"),
            (Duration::from_millis(3500), "3 seconds"),
        ] {
            let reason = DisableReason::Failing(streak(failing, 12, 75)).to_string();
            let expected = format!(
                "no delivery succeeded for {expected}, and 12 were given up after their last \
                 attempt"
            );
            assert_eq!(reason, expected);
        }
    }
}
