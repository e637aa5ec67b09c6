//! Questions to the ledger about a stretch of time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ledger::{Book, CallAnswer, Request};
use crate::target::Purpose;
use crate::world::World;

/// How far back deliveries of a dead replica are looked for.
const LOOK_BACK: Duration = Duration::from_secs(3);

impl World {
    /// For everything that the replica of this slot had under way at `at` and had
    /// acknowledged and not sent: how long after that another request for it came. What
    /// never came counts until now. Of healthy receivers only.
    pub(crate) fn take_over_times(&self, slot: usize, at: Instant) -> Vec<Duration> {
        let now = Instant::now();
        let steady = self.steady();
        let book = self.ledger.book();
        let since = at.checked_sub(LOOK_BACK).unwrap_or(at);
        // What is left of each delivery: `Some`, if it must come again.
        let mut waits: HashMap<(usize, usize), Option<Instant>> = HashMap::new();
        for (number, event) in book.events.iter().enumerate() {
            let Some((when, by)) = event.acknowledged else { continue };
            if by != slot || !(since..at).contains(&when) {
                continue;
            }
            let of =
                steady.iter().filter(|(_, organization, _)| *organization == event.organization);
            for (target, _, matches) in of {
                if matches(&event.kind) {
                    waits.insert((*target, number), None);
                }
            }
        }
        for request in &book.requests {
            let Some(event) = request.event else { continue };
            let key = (request.target, event);
            if request.at < at {
                let by_slot = request.slot == Some(slot) && since < request.at;
                let open = request.answered.is_none_or(|answered| at < answered);
                if by_slot && open && steady.iter().any(|(target, ..)| *target == request.target) {
                    waits.insert(key, None);
                } else {
                    waits.remove(&key);
                }
            } else if let Some(wait) = waits.get_mut(&key) {
                wait.get_or_insert(request.at);
            }
        }
        waits.into_values().map(|came| came.unwrap_or(now) - at).collect()
    }

    /// Number, organization and match of each healthy receiver that can tell who sends.
    #[expect(clippy::type_complexity, reason = "a row that nobody else needs")]
    fn steady(&self) -> Vec<(usize, usize, Box<dyn Fn(&str) -> bool>)> {
        let steady = self
            .targets
            .all()
            .into_iter()
            .filter(|target| target.plan.purpose == Purpose::Steady && target.plan.secure);
        steady
            .map(|target| -> (usize, usize, Box<dyn Fn(&str) -> bool>) {
                (
                    target.number,
                    target.plan.organization,
                    Box::new(move |kind| target.matches(kind)),
                )
            })
            .collect()
    }

    /// From acknowledgement to arrival at healthy receivers, of events that were
    /// acknowledged in the stretch. What never came counts until now.
    pub(crate) fn latencies(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let now = Instant::now();
        let steady = self.steady();
        let book = self.ledger.book();
        let mut waits: HashMap<(usize, usize), (Instant, Option<Instant>)> = HashMap::new();
        for (number, event) in book.events.iter().enumerate() {
            let Some((when, _)) = event.acknowledged else { continue };
            if !(from..to).contains(&when) {
                continue;
            }
            for (target, organization, matches) in &steady {
                if *organization == event.organization && matches(&event.kind) {
                    waits.insert((*target, number), (when, None));
                }
            }
        }
        for request in &book.requests {
            let key = request.event.map(|event| (request.target, event));
            if let Some((_, came)) = key.and_then(|key| waits.get_mut(&key)) {
                came.get_or_insert(request.at);
            }
        }
        let waits = waits.into_values();
        waits.map(|(when, came)| came.unwrap_or(now).saturating_duration_since(when)).collect()
    }

    /// From a moment to the end of the first call that was answered OK after it and had
    /// begun after `begun`; at one replica, or at any. Until now, if there was none.
    pub(crate) fn first_ok(&self, after: Instant, slot: Option<usize>) -> Duration {
        let book = self.ledger.book();
        let ok = book.calls.iter().filter(|call| {
            call.answer == CallAnswer::Ok
                && after <= call.ended
                && slot.is_none_or(|slot| slot == call.slot)
        });
        ok.map(|call| call.ended - after).min().unwrap_or_else(|| after.elapsed())
    }

    /// From a moment to the first request after it that holds. Until now, if none did.
    pub(crate) fn first_request(
        &self,
        after: Instant,
        holds: impl Fn(&Book, &Request) -> bool,
    ) -> Duration {
        let book = self.ledger.book();
        let mut later = book.requests.iter().filter(|request| after <= request.at);
        let first = later.find(|request| holds(&book, request)).map(|request| request.at - after);
        first.unwrap_or_else(|| after.elapsed())
    }

    /// Requests that the replica of this slot sent in a stretch.
    pub(crate) fn sent_by(&self, slot: usize, from: Instant, to: Instant) -> Vec<Request> {
        let book = self.ledger.book();
        let sent = book
            .requests
            .iter()
            .filter(|request| request.slot == Some(slot) && (from..to).contains(&request.at));
        sent.cloned().collect()
    }

    /// How long calls took that began in the stretch, at one replica or any, and had one
    /// of these answers.
    pub(crate) fn call_times(
        &self,
        slot: Option<usize>,
        from: Instant,
        to: Instant,
        wanted: impl Fn(CallAnswer) -> bool,
    ) -> Vec<Duration> {
        let book = self.ledger.book();
        let calls = book.calls.iter().filter(|call| {
            slot.is_none_or(|slot| slot == call.slot)
                && (from..to).contains(&call.begun)
                && wanted(call.answer)
        });
        calls.map(|call| call.ended - call.begun).collect()
    }
}
