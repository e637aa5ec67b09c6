//! What must be empty at the end, whatever happened: judged from the ledger alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::faults::Fault;
use crate::figure::{Figure, Value};
use crate::ledger::{Book, Event, Fate, Known, Request, Window};
use crate::target::{Target, Targets};

/// Outcomes that a replica may not have recorded yet: 512 requests under way, 1024
/// settlements in line, and a group of 512 that is being written.
const UNRECORDED_MAX: usize = 512 + 1024 + 512;
/// An outcome is recorded within this, while nothing is wrong.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);
/// After the OK of a pause or deletion, requests may start for so long, and then take a
/// moment to arrive.
const QUIET_AFTER: Duration = Duration::from_millis(1100);
/// Receivers' and senders' clocks may be this far apart in what is a wait.
const WAIT_SLACK: Duration = Duration::from_millis(5);
/// What a process wrote before it was killed is read by then; nothing starts again sooner.
const IN_TRANSIT: Duration = Duration::from_millis(100);

/// What the ledger says.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) published: usize,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) refused: usize,
    pub(crate) deliveries: usize,
    pub(crate) requests: usize,
    pub(crate) duplicates: usize,
    pub(crate) lost: Vec<String>,
    pub(crate) unexpected: Vec<String>,
    pub(crate) wrong: Vec<String>,
    /// Duplicates that no fault explains.
    pub(crate) unexplained: Vec<String>,
    /// The same by event and target.
    pub(crate) unexplained_of: Vec<(usize, usize)>,
    /// Requests after a pause, a deletion, or before their time.
    pub(crate) untimely: Vec<String>,
    /// Duplicates for each fault that may cause some.
    pub(crate) again: Vec<Again>,
}

/// What was sent twice because of a fault.
pub(crate) struct Again {
    pub(crate) window: Window,
    pub(crate) count: usize,
    /// The most that there may be.
    pub(crate) most: usize,
    /// How long before the fault the oldest of them had succeeded.
    pub(crate) oldest: Duration,
}

/// Judges everything.
pub(crate) fn check(book: &Book, targets: &Targets, replicas: usize) -> Findings {
    let targets = targets.all();
    let mut findings = Findings { published: book.events.len(), ..Findings::default() };
    for event in &book.events {
        match event.known {
            Known::Ok => findings.acknowledged += 1,
            Known::Unknown => findings.unknown += 1,
            Known::Failed => findings.refused += 1,
        }
    }
    findings.requests = book.requests.len();
    let deliveries = by_delivery(book);
    lost(book, &targets, &deliveries, &mut findings);
    strangers(book, &targets, &mut findings);
    duplicates(book, &deliveries, replicas, &mut findings);
    untimely(book, &targets, &deliveries, &mut findings);
    findings
}

/// Whether the target must get the event: it was there from before the call to after the
/// OK, and stayed.
pub(crate) fn must_get(target: &Target, event: &Event) -> bool {
    let Some((acknowledged, _)) = event.acknowledged else { return false };
    let state = target.state();
    target.plan.organization == event.organization
        && target.matches(&event.kind)
        && state.since.is_some_and(|since| since <= event.begun)
        && state.leaving.is_none_or(|leaving| acknowledged <= leaving)
}

type Deliveries<'a> = HashMap<(usize, usize), Vec<&'a Request>>;

/// The requests of each delivery, in order.
fn by_delivery(book: &Book) -> Deliveries<'_> {
    let mut deliveries: Deliveries<'_> = HashMap::new();
    for request in &book.requests {
        if let Some(event) = request.event {
            deliveries.entry((request.target, event)).or_default().push(request);
        }
    }
    for requests in deliveries.values_mut() {
        requests.sort_by_key(|request| request.at);
    }
    deliveries
}

fn lost(
    book: &Book,
    targets: &[Arc<Target>],
    deliveries: &Deliveries<'_>,
    findings: &mut Findings,
) {
    for (number, event) in book.events.iter().enumerate() {
        if event.known != Known::Ok || event.fate != Fate::Arrives {
            continue;
        }
        for target in targets.iter().filter(|target| must_get(target, event)) {
            findings.deliveries += 1;
            // Deletion cancels what is open.
            let may_be_cancelled = target.state().leaving.is_some();
            let requests = deliveries.get(&(target.number, number));
            let arrived = requests.is_some_and(|all| all.iter().any(|one| one.succeeded()));
            if !arrived && !may_be_cancelled {
                findings.lost.push(format!("{} never reached target {}", event.id, target.number));
            }
        }
    }
}

/// Requests that should not have been made at all, or not like this.
fn strangers(book: &Book, targets: &[Arc<Target>], findings: &mut Findings) {
    for request in &book.requests {
        let target = &targets[request.target];
        let Some(event) = request.event.map(|event| &book.events[event]) else {
            findings.unexpected.push(format!("target {} got an unknown event", target.number));
            continue;
        };
        let about = || format!("{} at target {}", event.id, target.number);
        if event.known == Known::Failed || event.fate == Fate::NotSendable {
            findings.unexpected.push(format!("{}: it was refused", about()));
        }
        let late = event.acknowledged.zip(target.state().since);
        let after_ok = late.is_some_and(|((acknowledged, _), _)| {
            // The OK of a subscription can come later than its first events, but an event
            // that had its OK before the subscription was asked for is none of its.
            acknowledged < target.born
        });
        if !target.matches(&event.kind) || after_ok {
            findings.unexpected.push(format!("{}: it does not match", about()));
        }
        if target.plan.organization != event.organization {
            findings.wrong.push(format!("{}: another organization's", about()));
        }
        if request.digest != event.digest || !request.genuine {
            findings.wrong.push(format!("{}: body or signature is wrong", about()));
        }
        // When the clock goes back, secrets that had ended sign once more.
        let clock_is_off = book.windows.iter().any(|window| {
            !window.loses
                && window.from <= request.at
                && window.to.is_none_or(|to| request.at <= to)
        });
        if request.outdated && !clock_is_off {
            findings.wrong.push(format!("{}: the secret had ended", about()));
        }
    }
}

fn duplicates(book: &Book, deliveries: &Deliveries<'_>, replicas: usize, findings: &mut Findings) {
    let mut counts = vec![(0, Duration::ZERO); book.windows.len()];
    for ((target, event), requests) in deliveries {
        let Some(first) = requests.iter().find(|request| request.succeeded()) else { continue };
        let answered = first.answered.expect("it succeeded");
        for again in requests.iter().filter(|request| answered < request.at) {
            findings.duplicates += 1;
            // It was sent again because of what began before the repetition, and whoever
            // sent it first had not recorded the outcome by then.
            let explains = |window: &Window| {
                // One that thaws goes on with the request that it was about to write, which
                // another has sent in the meantime.
                let thawed = window.fault == Fault::Freeze && window.slot == again.slot;
                let concerned = window.slot.is_none()
                    || first.slot.is_none()
                    || window.slot == first.slot
                    || thawed;
                // A slow receiver answers a process that is dead, maybe after all is well again.
                let was_killed = matches!(window.fault, Fault::Kill | Fault::KillAll)
                    && first.at <= window.from + IN_TRANSIT
                    && window.from <= answered;
                let in_time = was_killed || window.to.is_none_or(|to| answered <= to);
                window.loses && concerned && in_time && window.from <= again.at
            };
            // Of several, the one that the outcome was lost in, or next to.
            let age = |window: usize| book.windows[window].from.saturating_duration_since(answered);
            let explaining =
                (0..book.windows.len()).rev().filter(|window| explains(&book.windows[*window]));
            if let Some(window) = explaining.min_by_key(|window| age(*window)) {
                counts[window].0 += 1;
                counts[window].1 = age(window).max(counts[window].1);
                continue;
            }
            findings.unexplained_of.push((*event, *target));
            findings.unexplained.push(format!(
                "{} at target {target}: answered by {:?} after {:?}, again by {:?} {:?} later; {}",
                book.events[*event].id,
                first.slot,
                answered - first.at,
                again.slot,
                again.at - answered,
                nearest(&book.windows, first.at),
            ));
        }
    }
    for (window, (count, oldest)) in book.windows.iter().zip(counts) {
        let concerned = if window.slot.is_some() { 1 } else { replicas };
        let again =
            Again { window: window.clone(), count, most: UNRECORDED_MAX * concerned, oldest };
        findings.again.push(again);
    }
}

/// The last window that began before `at` or within two seconds of it, for people.
fn nearest(windows: &[Window], at: Instant) -> String {
    let about = at + Duration::from_secs(2);
    let Some(window) = windows.iter().rev().find(|window| window.loses && window.from <= about)
    else {
        return "no fault before it".into();
    };
    let relative = |time: Instant| match time.checked_duration_since(at) {
        Some(later) => format!("{later:?} after it was sent"),
        None => format!("{:?} before it was sent", at - time),
    };
    let to = window.to.map_or_else(|| "never".into(), relative);
    format!("{} began {} and ended {to}", window.fault.name(), relative(window.from))
}

/// Requests during a pause, after a deletion, and retries before their time.
fn untimely(
    book: &Book,
    targets: &[Arc<Target>],
    deliveries: &Deliveries<'_>,
    findings: &mut Findings,
) {
    for request in &book.requests {
        let state = targets[request.target].state();
        let during = |from: Instant, to: Option<Instant>| {
            from + QUIET_AFTER < request.at && to.is_none_or(|to| request.at < to)
        };
        if state.pauses.iter().any(|(from, to)| during(*from, *to)) {
            findings.untimely.push(format!("target {} was paused", request.target));
        }
        if state.left.is_some_and(|left| during(left, None)) {
            findings.untimely.push(format!("target {} was deleted", request.target));
        }
    }
    let mut seen = HashSet::new();
    for ((target, event), requests) in deliveries {
        let waits = targets[*target].plan.waits;
        let shortest = Duration::from_millis(waits.iter().copied().min().unwrap_or(0));
        for pair in requests.windows(2) {
            let Some(answered) = pair[0].answered.filter(|_| !pair[0].succeeded()) else {
                continue;
            };
            let wait = pair[1].at.saturating_duration_since(answered);
            // An outcome that was lost makes no wait.
            let disturbed = book.windows.iter().any(|window| {
                window.from.checked_sub(SETTLED_WITHIN).unwrap_or(window.from) <= answered
                    && window.to.is_none_or(|to| answered <= to)
            });
            if wait + WAIT_SLACK < shortest && !disturbed && seen.insert((*target, *event)) {
                let id = &book.events[*event].id;
                findings.untimely.push(format!("{id} at target {target}: again after {wait:?}"));
            }
        }
    }
}

impl Findings {
    /// How old the outcomes were that faults have lost.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let some = self.again.iter().filter(|again| 0 < again.count);
        let figure = |again: &Again| Figure {
            fault: again.window.fault,
            what: "oldest outcome lost",
            value: Value::Time(again.oldest, SETTLED_WITHIN),
            from: again.window.from.checked_sub(again.oldest).unwrap_or(again.window.from),
            to: again.window.from,
        };
        some.map(figure).collect()
    }

    /// What was found wrong, for people.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        let sets = [
            ("lost", &self.lost),
            ("unexpected", &self.unexpected),
            ("wrong", &self.wrong),
            ("duplicates that no fault explains", &self.unexplained),
            ("untimely", &self.untimely),
        ];
        for (name, set) in sets {
            if !set.is_empty() {
                let some: Vec<_> = set.iter().take(8).cloned().collect();
                wrongs.push(format!("{name}: {}\n      {}", set.len(), some.join("\n      ")));
            }
        }
        for Again { window, count, most, .. } in &self.again {
            if most < count {
                let fault = window.fault.name();
                wrongs.push(format!("{fault}: {count} duplicates where {most} can be open"));
            }
        }
        wrongs
    }
}
