//! Circuits, told as stories, and under random answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::breaker::{
    ASKED_MAX, Admission, Breaker, Change, CircuitState, FAILURES_MIN, OPEN_MAX, OPEN_MIN,
    SPAN_MIN, Sign,
};
use super::circuits::{Circuits, Endpoint};
use crate::domain::attempt::{Failure, Outcome};
use crate::domain::id::SubscriptionKey;

const FAILING: Sign = Sign::Failing { asked: Duration::ZERO };
const SECOND: Duration = Duration::from_secs(1);

fn fail(breaker: &mut Breaker, now: Instant) -> Change {
    breaker.record(Admission::Free, FAILING, now, 0.0)
}

/// One that has just opened, and when.
fn open() -> (Breaker, Instant) {
    let (mut breaker, start) = (Breaker::default(), Instant::now());
    for _ in 1..FAILURES_MIN {
        assert_eq!(fail(&mut breaker, start), Change::Same);
    }
    let now = start + SPAN_MIN;
    assert_eq!(fail(&mut breaker, now), Change::Opened(OPEN_MIN));
    (breaker, now)
}

#[test]
fn it_takes_many_failures_over_a_while_to_open() {
    let start = Instant::now();
    let mut many_at_once = Breaker::default();
    for _ in 0..1000 {
        assert_eq!(fail(&mut many_at_once, start), Change::Same, "in one instant");
    }
    let mut few = Breaker::default();
    for number in 1..FAILURES_MIN {
        assert_eq!(fail(&mut few, start + SPAN_MIN * number), Change::Same, "few, but for long");
    }
    assert_eq!(few.look(start + SPAN_MIN * 100), Admission::Free);
    open();
}

#[test]
fn an_answer_in_between_starts_the_count_anew() {
    let (mut breaker, start) = (Breaker::default(), Instant::now());
    for number in 0..100 {
        let sign = if number % FAILURES_MIN == 0 { Sign::Alive } else { FAILING };
        let change = breaker.record(Admission::Free, sign, start + SPAN_MIN * number, 0.0);
        assert_eq!(change, Change::Same, "{number}");
    }
    assert!(breaker.failures() < FAILURES_MIN);
}

#[test]
fn an_open_circuit_lets_one_probe_through_when_its_time_has_come() {
    let (mut breaker, now) = open();
    assert_eq!(breaker.state(now), CircuitState::Open(now + OPEN_MIN));
    assert_eq!(breaker.admit(now + SECOND), Admission::Refused);
    let later = now + OPEN_MIN;
    let probe = Admission::Probe(later);
    assert_eq!(breaker.look(later), probe);
    assert_eq!(breaker.admit(later), probe);
    assert_eq!(breaker.state(later), CircuitState::HalfOpen);
    assert_eq!(breaker.admit(later + SECOND * 100), Admission::Refused, "one at a time");

    let change = breaker.record(probe, Sign::Alive, later + SECOND, 0.0);

    assert_eq!(change, Change::Closed);
    assert_eq!(breaker.admit(later + SECOND), Admission::Free);
    assert!(breaker.is_blank(), "nothing is kept of endpoints that are well");
}

#[test]
fn each_probe_that_fails_doubles_the_wait_up_to_its_bound() {
    let (mut breaker, mut now) = open();
    let mut wait = OPEN_MIN;
    for seconds in [10, 20, 40, 80, 160, 300, 300, 300] {
        now += wait;
        let probe = breaker.admit(now);
        assert_eq!(probe, Admission::Probe(now));
        wait = Duration::from_secs(seconds);
        let change = breaker.record(probe, FAILING, now, 0.0);
        assert_eq!(change, Change::Reopened(wait));
    }
}

#[test]
fn a_probe_that_came_to_nothing_is_followed_by_another() {
    let (mut breaker, now) = open();
    let later = now + OPEN_MIN;
    let probe = breaker.admit(later);
    assert_eq!(breaker.admit(later), Admission::Refused);
    assert_eq!(breaker.record(probe, Sign::Nothing, later, 0.0), Change::Same);
    assert_eq!(breaker.admit(later), Admission::Probe(later));
}

/// A probe can last for the attempt timeout: long enough for the circuit to be closed by
/// an older request, to open again, and to send another probe.
#[test]
fn the_probe_of_an_earlier_opening_counts_like_any_request() {
    let (mut breaker, now) = open();
    let old = breaker.admit(now + OPEN_MIN);
    breaker.record(Admission::Free, Sign::Alive, now + OPEN_MIN, 0.0);
    for _ in 1..FAILURES_MIN {
        fail(&mut breaker, now + OPEN_MIN);
    }
    let again = now + OPEN_MIN + SPAN_MIN;
    assert_eq!(fail(&mut breaker, again), Change::Opened(OPEN_MIN));
    let new = breaker.admit(again + OPEN_MIN);
    assert_eq!(breaker.record(old, FAILING, again + OPEN_MIN, 0.0), Change::Same);
    assert_eq!(breaker.admit(again + OPEN_MIN), Admission::Refused, "the new one is under way");
    let change = breaker.record(new, FAILING, again + OPEN_MIN, 0.0);
    assert_eq!(change, Change::Reopened(OPEN_MIN * 2));
}

#[test]
fn what_was_under_way_when_it_opened_can_close_it_but_not_keep_it_open() {
    let (mut breaker, now) = open();
    for _ in 0..300 {
        assert_eq!(fail(&mut breaker, now + SECOND), Change::Same);
    }
    assert_eq!(breaker.state(now), CircuitState::Open(now + OPEN_MIN), "as long as before");
    let late = breaker.record(Admission::Free, Sign::Alive, now + SECOND, 0.0);
    assert_eq!(late, Change::Closed);
}

#[test]
fn retry_after_lengthens_the_wait_up_to_its_bound_and_never_shortens_it() {
    let asking = |seconds| Sign::Failing { asked: Duration::from_secs(seconds) };
    for (asked, expected) in [(0, 5), (4, 5), (60, 60), (900, 900), (86_400, 3600)] {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES_MIN {
            fail(&mut breaker, start);
        }
        let change = breaker.record(Admission::Free, asking(asked), start + SPAN_MIN, 0.0);
        assert_eq!(change, Change::Opened(Duration::from_secs(expected)), "asked for {asked} s");
    }
    let (mut breaker, now) = open();
    let later = now + OPEN_MIN;
    let probe = breaker.admit(later);
    let change = breaker.record(probe, asking(120), later, 0.0);
    assert_eq!(change, Change::Reopened(Duration::from_mins(2)));
    assert_eq!(breaker.admit(later + Duration::from_secs(119)), Admission::Refused);
}

#[test]
fn jitter_adds_up_to_a_tenth() {
    for (jitter, expected) in [(0.0, 5.0), (0.5, 5.25), (1.0, 5.5), (f64::NAN, 5.0)] {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES_MIN {
            fail(&mut breaker, start);
        }
        let change = breaker.record(Admission::Free, FAILING, start + SPAN_MIN, jitter);
        assert_eq!(change, Change::Opened(Duration::from_secs_f64(expected)));
    }
}

#[test]
fn what_an_outcome_tells_of_the_endpoint() {
    let answered = |status, retry_after: Option<u64>| {
        let retry_after = retry_after.map(Duration::from_secs);
        Outcome::Responded { status, retry_after, body: Bytes::new() }
    };
    for status in [200, 204, 301, 400, 401, 404, 408, 410, 422, 499] {
        assert_eq!(Sign::of(&answered(status, Some(9)), false), Sign::Alive, "{status}");
    }
    for status in [429, 500, 502, 503, 599] {
        let asked = Duration::from_secs(9);
        assert_eq!(Sign::of(&answered(status, Some(9)), false), Sign::Failing { asked });
        assert_eq!(Sign::of(&answered(status, None), false), FAILING, "{status}");
        assert_eq!(Sign::of(&answered(status, None), true), Sign::Alive, "the profile's word");
    }
    for failure in [
        Failure::Dns,
        Failure::Connect,
        Failure::Tls,
        Failure::Timeout,
        Failure::Protocol,
        Failure::BlockedAddress,
    ] {
        assert_eq!(Sign::of(&Outcome::NoResponse(failure), false), FAILING, "{failure:?}");
    }
    let not_asked = Outcome::NotAsked { wait: Duration::from_secs(5) };
    assert_eq!(Sign::of(&not_asked, false), Sign::Nothing, "it is not the receiver's fault");
}

fn endpoint(version: i64) -> Endpoint {
    Endpoint { subscription: SubscriptionKey(7), version }
}

#[test]
fn endpoints_that_are_well_cost_nothing_and_a_change_starts_over() {
    let circuits = Circuits::default();
    let (old, new) = (endpoint(1), endpoint(2));
    let other = Endpoint { subscription: SubscriptionKey(8), version: 1 };
    let fail = |endpoint| circuits.admit(endpoint).expect("closed").record(FAILING);
    fail(old);
    fail(old);
    assert_eq!(circuits.admit(other).expect("closed").record(Sign::Alive), Change::Same);
    let late = circuits.admit(old).expect("closed");
    assert_eq!([old, new, other].map(|one| circuits.circuit(one).failures), [2, 0, 0]);

    fail(new);
    assert_eq!(late.record(FAILING), Change::Same);
    assert_eq!([old, new].map(|one| circuits.circuit(one).failures), [0, 1], "old news is none");

    assert_eq!(circuits.admit(new).expect("closed").record(Sign::Alive), Change::Same);
    assert!(format!("{circuits:?}").contains("count: 0"), "{circuits:?}");
    fail(new);
    circuits.retain(|one| one != new);
    assert!(format!("{circuits:?}").contains("count: 0"), "{circuits:?}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes.
    Pass(u64),
    /// A request asks to start.
    Start,
    /// The oldest of those under way ends so.
    End(Sign),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asked = prop_oneof![Just(0), 0_u64..100_000].prop_map(Duration::from_secs);
    let sign = prop_oneof![
        1 => Just(Sign::Alive),
        1 => Just(Sign::Nothing),
        20 => asked.prop_map(|asked| Sign::Failing { asked }),
    ];
    let step =
        prop_oneof![(0_u64..30).prop_map(Step::Pass), Just(Step::Start), sign.prop_map(Step::End),];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Whatever receivers do: no request starts while it is open, one at a time while it
    /// is half-open, and it never stays shut for longer than its bound.
    #[test]
    fn an_open_circuit_keeps_its_rules(steps in steps(), jitter in 0.0..=1.0) {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut under_way = std::collections::VecDeque::new();
        let mut opened = now;
        for step in steps {
            match step {
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
                Step::Start => {
                    let state = breaker.state(now);
                    let probing = under_way.iter().any(|one|
                        matches!(one, Admission::Probe(admitted) if opened <= *admitted));
                    let admission = breaker.admit(now);
                    match state {
                        CircuitState::Closed => prop_assert_eq!(admission, Admission::Free),
                        CircuitState::Open(until) => {
                            prop_assert_eq!(admission, Admission::Refused);
                            prop_assert!(until <= now + (OPEN_MAX * 11 / 10).max(ASKED_MAX));
                        }
                        CircuitState::HalfOpen => {
                            prop_assert_eq!(admission == Admission::Refused, probing);
                        }
                    }
                    if admission != Admission::Refused {
                        under_way.push_back(admission);
                    }
                }
                Step::End(sign) => if let Some(admission) = under_way.pop_front() {
                    let before = breaker.state(now);
                    let change = breaker.record(admission, sign, now, jitter);
                    prop_assert_eq!(change == Change::Closed,
                        before != CircuitState::Closed && sign == Sign::Alive);
                    if let Change::Opened(wait) | Change::Reopened(wait) = change {
                        opened = now;
                        prop_assert!(OPEN_MIN <= wait);
                        prop_assert_eq!(breaker.state(now), CircuitState::Open(now + wait));
                    }
                }
            }
        }
    }
}
