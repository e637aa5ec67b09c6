//! One attempt: render, sign, send, decide. Cannot fail: whatever happens is a
//! settlement.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tracing::Instrument;

use super::Parts;
use super::circuit;
use super::gone;
use super::queue::Turn;
use super::settler::Settled;
use crate::domain::attempt::{Attempt, AttemptResult, Fault, Outcome};
use crate::domain::canary;
use crate::domain::delivery::DeadReason;
use crate::domain::failure_streak::{self as streak, Mark};
use crate::domain::profile::Profile;
use crate::domain::render::{RenderIds, Rendered, render};
use crate::domain::retry::{self, Ended, Verdict};
use crate::domain::timestamp::Timestamp;
use crate::egress::{Sent, SignedRequest, Target};
use crate::permits::Sign;
use crate::routing::{Route, Standing};
use crate::store::{Claim, Next};
use crate::trace;

/// Replicas that may die with a delivery before it is given up: it may be what
/// kills them.
const TAKEOVERS_MAX: u32 = 5;
/// How long a worker waits for the database before it looks again.
const DOUBT_PAUSE: Duration = Duration::from_millis(50);

/// Attempts a delivery. `None`: the claim is no longer this process's, so that
/// nothing is to be recorded.
pub(super) async fn attempt(parts: &Parts, turn: Turn, stopping: &AtomicBool) -> Option<Settled> {
    let Turn { claim, waited } = turn;
    loop {
        if claim.fence != parts.lease.fence() {
            return None;
        }
        // Both say whether the database was heard lately: without it this process
        // cannot know of a pause, or that another one has taken over.
        if parts.lease.is_trusted() && parts.routing.is_fresh() {
            break;
        }
        if stopping.load(Ordering::SeqCst) {
            return Some(Settled::untried(&claim, Next::Release));
        }
        tokio::time::sleep(DOUBT_PAUSE).await;
    }
    let Some(route) = parts.routing.route(claim.subscription) else {
        return Some(Settled::untried(&claim, Next::Cancelled));
    };
    match route.standing() {
        Standing::Sendable => {}
        Standing::Held => {
            if !route.is_unusable() {
                parts.holds.note(claim.subscription, parts.lease.now());
            }
            return Some(Settled::untried(&claim, Next::Release));
        }
        Standing::Over(None) => return Some(Settled::untried(&claim, Next::Cancelled)),
        Standing::Over(Some(reason)) => {
            return Some(Settled::untried(&claim, Next::Dead(reason)));
        }
    }
    if TAKEOVERS_MAX <= claim.takeovers {
        return Some(Settled::untried(&claim, Next::Dead(DeadReason::TakeoversExhausted)));
    }
    let now = parts.lease.now();
    if claim.event.summary.expire_time.is_some_and(|expire_time| expire_time <= now) {
        return Some(Settled::untried(&claim, Next::Dead(DeadReason::Expired)));
    }
    // Last, so that what ends here anyway does not wait for a receiver that is down.
    let endpoint = circuit::endpoint(&route);
    let Some(pass) = parts.circuits.admit(endpoint) else {
        parts.holds.note(claim.subscription, now);
        return Some(Settled::untried(&claim, Next::Release));
    };
    let number = claim.attempts + 1;
    let in_queue = claim.since.elapsed();
    parts.metrics.queue_wait(in_queue);
    let span = trace::attempt_span(&claim.event.summary, number, in_queue, now);
    let began = Instant::now();
    let made = AssertUnwindSafe(make(parts, &route, &claim, number, now).instrument(span.clone()));
    let made = made.catch_unwind().await.unwrap_or_else(|_| {
        // The payload's place in our own fault is unknown: it counts as a failure, so
        // that a delivery that always panics comes to an end.
        let outcome = Outcome::NoResponse(crate::domain::attempt::Failure::Protocol);
        let attempt =
            record(AttemptResult::NotSent, &outcome, (Fault::Ours, "internal error"), number, now);
        let next = next(follow(parts, &route, &claim, number, &outcome, false));
        Made { attempt: Some(attempt), next, sign: Sign::Nothing, mark: Mark::Nothing }
    });
    let is_canary = canary::owns(&claim.event.summary.organization);
    let Made { attempt, next, sign, mark } = if is_canary { made.of_canary() } else { made };
    circuit::heed(parts, endpoint, pass.record(sign));
    let Some(mut attempt) = attempt else {
        parts.metrics.not_asked();
        return Some(Settled::untried(&claim, next));
    };
    attempt.duration = began.elapsed();
    attempt.trace_id = trace::record_attempt(&span, &claim.event.summary, &attempt);
    if !is_canary {
        report(parts, &claim, waited, &attempt, next);
    }
    let settled = Settled::tried(&claim, attempt, next, mark, endpoint.version);
    Some(settled.in_trace(trace::origin(&span)))
}

/// What came of a request.
struct Made {
    /// `None`: nobody was asked, so that there is nothing to record.
    attempt: Option<Attempt>,
    next: Next,
    /// What it tells of the endpoint.
    sign: Sign,
    /// What it adds to the endpoint's failures.
    mark: Mark,
}

impl Made {
    /// No circuit opens for the canary and nothing switches it off: it is to fail for as
    /// long as something is wrong, and its publisher tells.
    fn of_canary(self) -> Made {
        Made { sign: Sign::Nothing, mark: Mark::Nothing, ..self }
    }
}

async fn make(parts: &Parts, route: &Route, claim: &Claim, number: u32, now: Timestamp) -> Made {
    let (Some(profile), Some(target)) = (&route.profile, &route.target) else {
        return not_sent("the subscription's profile or URL is not usable any more", number, now);
    };
    let delivery_id = parts.store.ids().delivery(claim.delivery());
    let keys = route.signing_keys(now);
    let ids = RenderIds { delivery_id: &delivery_id };
    let spec = &route.subscription.spec;
    let mut rendered = match render(profile, &claim.event, spec, &keys, ids, now) {
        Ok(rendered) => rendered,
        Err(why) => return not_sent(&why.to_string(), number, now),
    };
    // Ids of traces lead into our systems: the profile and the subscription may each keep
    // them from the receiver. The attempt's own span is exported all the same.
    if !profile.omits_trace_context() && !spec.omit_trace_context {
        trace::send_context(&claim.event.summary.trace, &mut rendered.headers);
    }
    let sent = send(parts, route, target, rendered).await;
    trace::record_timing(sent.timing);
    judge(parts, route, profile, claim, number, now, &sent)
}

async fn send(
    parts: &Parts,
    route: &Route,
    target: &std::sync::Arc<Target>,
    rendered: Rendered,
) -> Sent {
    let request = SignedRequest {
        subscription: route.key(),
        target: std::sync::Arc::clone(target),
        headers: rendered.headers,
        body: rendered.body,
        timeout: route.subscription.spec.attempt_timeout,
    };
    parts.egress.send(request).await
}

fn judge(
    parts: &Parts,
    route: &Route,
    profile: &Profile,
    claim: &Claim,
    number: u32,
    now: Timestamp,
    sent: &Sent,
) -> Made {
    let success = match &sent.outcome {
        Outcome::Responded { status, .. } => profile.is_success(*status),
        Outcome::NoResponse(_) | Outcome::NotAsked { .. } => false,
    };
    let result = match &sent.outcome {
        Outcome::Responded { .. } if success => Some(AttemptResult::Succeeded),
        Outcome::Responded { .. } => Some(AttemptResult::HttpStatus),
        Outcome::NoResponse(failure) => Some(AttemptResult::from(*failure)),
        Outcome::NotAsked { .. } => None,
    };
    let verdict = follow(parts, route, claim, number, &sent.outcome, success);
    if verdict == Verdict::Dead(DeadReason::Gone) {
        gone::disable(parts, route);
    }
    let last_chance = claim.last_chance;
    let mark = |result| {
        Mark::of(streak::Ended { result, fault: sent.fault, number, last_chance, verdict })
    };
    let mark = result.map_or(Mark::Nothing, mark);
    let why = (sent.fault, sent.detail);
    let attempt = result.map(|result| record(result, &sent.outcome, why, number, now));
    Made { attempt, next: next(verdict), sign: Sign::of(&sent.outcome, success), mark }
}

/// What follows from an outcome.
fn follow(
    parts: &Parts,
    route: &Route,
    claim: &Claim,
    number: u32,
    outcome: &Outcome,
    success: bool,
) -> Verdict {
    let now = parts.lease.now();
    let until_expiry = claim.event.summary.expire_time.map(|expire_time| expire_time.since(now));
    let ended = Ended {
        waits: &route.subscription.spec.retry_waits,
        number,
        last_chance: claim.last_chance,
        until_expiry,
    };
    retry::verdict(ended, outcome, success, fastrand::f64())
}

/// Where the delivery goes.
fn next(verdict: Verdict) -> Next {
    match verdict {
        Verdict::Delivered => Next::Succeeded,
        Verdict::RetryIn(wait) => Next::RetryIn(wait),
        Verdict::Dead(reason) => Next::Dead(reason),
    }
}

fn record(
    result: AttemptResult,
    outcome: &Outcome,
    (fault, detail): (Fault, &str),
    number: u32,
    start_time: Timestamp,
) -> Attempt {
    let (http_status, response_body) = match outcome {
        Outcome::Responded { status, body, .. } => (Some(*status), body.clone()),
        Outcome::NoResponse(_) | Outcome::NotAsked { .. } => (None, bytes::Bytes::new()),
    };
    let kept = result != AttemptResult::Succeeded;
    Attempt {
        number,
        result,
        http_status,
        error: detail.to_owned(),
        response_body: if kept { response_body } else { bytes::Bytes::new() },
        start_time,
        duration: Duration::ZERO,
        trace_id: [0; 16],
        fault,
    }
}

fn not_sent(why: &str, number: u32, now: Timestamp) -> Made {
    let outcome = Outcome::NoResponse(crate::domain::attempt::Failure::Protocol);
    let attempt = record(AttemptResult::NotSent, &outcome, (Fault::Ours, why), number, now);
    let next = Next::Dead(DeadReason::NotSendable);
    Made { attempt: Some(attempt), next, sign: Sign::Nothing, mark: Mark::Nothing }
}

fn report(parts: &Parts, claim: &Claim, waited: bool, attempt: &Attempt, next: Next) {
    let published = claim.event.summary.publish_time;
    parts.metrics.attempt(attempt.result, attempt.duration);
    if attempt.number == 1 {
        let held = waited || parts.holds.held(claim.subscription, published);
        parts.metrics.first_attempt_delay(published, attempt.start_time, held, attempt.trace_id);
    }
    if next == Next::Succeeded {
        parts.metrics.delivered_delay(published, parts.lease.now(), attempt.trace_id);
    }
}
