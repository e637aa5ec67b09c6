//! When publishers outrun a receiver that keeps up, and how much later they come.
//!
//! Where a receiver is slow, deliveries wait in the database, and nobody is held up. One
//! that takes whatever it is sent at once, at a high rate, is outrun only because this
//! process is at its limit; then every delivery that waits in the database makes the next
//! one dearer. Its organization's publishers come later for a while: longer while their
//! line is long and they want about as much as leaves it, less when not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::id::OrganizationId;

/// An endpoint to which so many are sent a second is quick.
const QUICK: usize = 500;
/// A line is watched for this time before anything is told of it, and anew when nobody has
/// looked for the other.
const WATCHED: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// The publishers of an organization come so much later at first, and no later than the
/// other; below the first they are not held up at all.
const DELAY: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
/// After so long the delay doubles while a quick endpoint is outrun, and shrinks by a quarter
/// while none is.
const STEP: Duration = Duration::from_millis(100);

/// Watches the line of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    flow: Flow,
    /// Since when, and what had been by then.
    since: Option<(Instant, Flow)>,
    is_outrun: bool,
}

/// Deliveries since there is a line.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// For which publishers wanted a place.
    wanted: usize,
    /// That have left.
    left: usize,
}

impl Watch {
    /// Publishers want a place.
    pub(super) fn want(&mut self) {
        self.flow.wanted += 1;
    }

    /// A delivery has left.
    pub(super) fn leave(&mut self) {
        self.flow.left += 1;
    }

    /// Whether the endpoint is quick, and yet outrun. To be asked while its line is long: a
    /// backlog that drains makes a long line as well, and is no reason to hold anybody up.
    pub(super) fn is_outrun(&mut self, now: Instant) -> bool {
        let (since, before) = *self.since.get_or_insert((now, self.flow));
        let watched = now.duration_since(since);
        if WATCHED[1] <= watched {
            self.is_outrun = false;
            self.since = Some((now, self.flow));
        } else if WATCHED[0] <= watched {
            let left = self.flow.left - before.left;
            let wanted = self.flow.wanted - before.wanted;
            let is_quick = QUICK as u128 * watched.as_millis() <= left as u128 * 1000;
            // Not only what is more than leaves: a line that is long by now would stay so.
            self.is_outrun = is_quick && 3 * left <= 4 * wanted;
            self.since = Some((now, self.flow));
        }
        self.is_outrun
    }
}

/// How much later the publishers of organizations come.
#[derive(Debug, Default)]
pub(super) struct Delays(HashMap<OrganizationId, Delay>);

impl Delays {
    /// A quick endpoint of `organization` is outrun.
    pub(super) fn grow(&mut self, organization: &OrganizationId, now: Instant) {
        if let Some(delay) = self.0.get_mut(organization) {
            delay.grow(now);
        } else {
            // Those of whoever publishes no more would be kept for ever.
            self.0.retain(|_, delay| delay.rest(now).is_some());
            let delay = Delay { length: DELAY[0], grown: now, seen: now };
            self.0.insert(organization.clone(), delay);
        }
    }

    /// That of `organization`, if there is any: from 20 ms to a second.
    pub(super) fn of(&self, organization: &OrganizationId, now: Instant) -> Option<Duration> {
        self.0.get(organization)?.rest(now)
    }
}

#[derive(Clone, Copy, Debug)]
struct Delay {
    /// When it was last `seen` growing.
    length: Duration,
    seen: Instant,
    /// When it last doubled.
    grown: Instant,
}

impl Delay {
    fn grow(&mut self, now: Instant) {
        self.length = self.rest(now).unwrap_or(DELAY[0]);
        self.seen = now;
        if STEP <= now.duration_since(self.grown) {
            self.length = (self.length * 2).min(DELAY[1]);
            self.grown = now;
        }
    }

    /// What is left of it; `None`: too little to hold anybody up.
    fn rest(&self, now: Instant) -> Option<Duration> {
        let steps = now.duration_since(self.seen).as_millis() / STEP.as_millis();
        let steps = i32::try_from(steps).unwrap_or(i32::MAX);
        let rest = self.length.mul_f64(0.75_f64.powi(steps));
        (DELAY[0] <= rest).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line from which so many leave, and for which publishers want so many places, in each
    /// of ten looks, 20 ms apart.
    fn is_outrun(leaving: usize, wanted: usize) -> bool {
        let mut watch = Watch::default();
        let begun = Instant::now();
        let looks = (0..10).map(|look| {
            let is_outrun = watch.is_outrun(begun + Duration::from_millis(20 * look));
            (0..leaving).for_each(|_| watch.leave());
            (0..wanted).for_each(|_| watch.want());
            is_outrun
        });
        looks.last().expect("ten looks")
    }

    #[test]
    fn only_a_quick_receiver_is_outrun_and_only_by_publishers() {
        assert!(is_outrun(12, 12), "600 a second leave");
        assert!(!is_outrun(8, 40), "it takes no more than 400 a second");
        assert!(!is_outrun(0, 40), "it hangs");
        assert!(!is_outrun(40, 12), "it drains");
    }

    #[test]
    fn what_was_seen_long_ago_tells_nothing() {
        let mut watch = Watch::default();
        let begun = Instant::now();
        let flow = |watch: &mut Watch| {
            for _ in 0..9000 {
                watch.want();
                watch.leave();
            }
        };
        assert!(!watch.is_outrun(begun));
        flow(&mut watch);
        assert!(watch.is_outrun(begun + WATCHED[0]));
        flow(&mut watch);
        assert!(!watch.is_outrun(begun + WATCHED[0] + WATCHED[1]));
    }

    #[test]
    fn a_delay_grows_while_a_receiver_is_outrun_and_shrinks_afterwards() {
        let clinic = OrganizationId::stored("clinic");
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut delays = Delays::default();
        assert_eq!(delays.of(&clinic, begun), None);
        for look in 0..=100 {
            delays.grow(&clinic, at(10 * look));
        }
        assert_eq!(delays.of(&clinic, at(1000)), Some(DELAY[1]));
        assert_eq!(delays.of(&clinic, at(1200)), Some(DELAY[1].mul_f64(0.5625)));
        assert_eq!(delays.of(&clinic, at(4000)), None);
        assert_eq!(delays.of(&OrganizationId::stored("lab"), at(1000)), None);
        delays.grow(&OrganizationId::stored("lab"), at(4000));
        assert_eq!(delays.0.len(), 1, "nothing is kept of whoever publishes no more");
    }
}
