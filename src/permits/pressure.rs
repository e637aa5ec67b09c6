//! When publishers outrun a receiver that keeps up, and how much later they come.
//!
//! Where a receiver is slow, deliveries wait in the database, and nobody is held up. One
//! that takes whatever it is sent at once, at a high rate, is outrun only because this
//! process is at its limit; then every delivery that waits in the database makes the next
//! one dearer. Its organization's publishers wait until its line is short again, as long as
//! they want about as much as leaves it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::id::OrganizationId;

/// An endpoint to which so many are sent a second is quick.
const QUICK: f64 = 500.0;
/// A line is watched for this time before anything is told of it, and anew when nobody has
/// looked for the other.
const WATCHED: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(1);

/// Watches the line of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    flow: Flow,
    /// Since when, and what had been by then.
    since: Option<(Instant, Flow)>,
    /// Deliveries a second, while the endpoint is quick, and yet outrun.
    outrun_at: Option<f64>,
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

    /// How long a line of which `excess` deliveries are too many takes to be short again, if
    /// the endpoint is quick, and yet outrun. To be asked while its line is long: a backlog
    /// that drains makes a long line as well, and is no reason to hold anybody up.
    pub(super) fn outrun_for(&mut self, excess: usize, now: Instant) -> Option<Duration> {
        let (since, before) = *self.since.get_or_insert((now, self.flow));
        let watched = now.duration_since(since);
        if WATCHED[1] <= watched {
            self.outrun_at = None;
            self.since = Some((now, self.flow));
        } else if WATCHED[0] <= watched {
            let left = self.flow.left - before.left;
            let wanted = self.flow.wanted - before.wanted;
            let rate = rows(left) / watched.as_secs_f64();
            // Not only what is more than leaves: a line that is long by now would stay so.
            let is_outrun = QUICK <= rate && 3 * left <= 4 * wanted;
            self.outrun_at = is_outrun.then_some(rate);
            self.since = Some((now, self.flow));
        }
        self.outrun_at.map(|rate| Duration::from_secs_f64(rows(excess) / rate))
    }
}

#[expect(clippy::cast_precision_loss, reason = "lines are far shorter than 2 to the 52nd")]
fn rows(count: usize) -> f64 {
    count as f64
}

/// Until when the publishers of organizations wait.
#[derive(Debug, Default)]
pub(super) struct Delays(HashMap<OrganizationId, Instant>);

impl Delays {
    /// Those of `organization` wait until then, or longer if that was said before.
    pub(super) fn extend(&mut self, organization: &OrganizationId, length: Duration, now: Instant) {
        let until = now + length.min(LONGEST);
        if let Some(end) = self.0.get_mut(organization) {
            *end = until.max(*end);
        } else {
            // Those of whoever publishes no more would be kept for ever.
            self.0.retain(|_, end| now < *end);
            self.0.insert(organization.clone(), until);
        }
    }

    /// How long those of `organization` wait from now on, if at all; a second at most.
    pub(super) fn of(&self, organization: &OrganizationId, now: Instant) -> Option<Duration> {
        let left = self.0.get(organization)?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a line of 60 too many takes, from which so many leave, and for which
    /// publishers want so many places, in each of ten looks, 20 ms apart.
    fn outrun_for(leaving: usize, wanted: usize) -> Option<Duration> {
        let mut watch = Watch::default();
        let begun = Instant::now();
        let looks = (0..10).map(|look| {
            let now = begun + Duration::from_millis(20 * look);
            let outrun = watch.outrun_for(60, now);
            (0..leaving).for_each(|_| watch.leave());
            (0..wanted).for_each(|_| watch.want());
            outrun
        });
        looks.last().expect("ten looks")
    }

    #[test]
    fn only_a_quick_receiver_is_outrun_and_only_by_publishers() {
        let of_600_a_second = Some(Duration::from_millis(100));
        assert_eq!(outrun_for(12, 12), of_600_a_second);
        assert_eq!(outrun_for(8, 40), None, "it takes no more than 400 a second");
        assert_eq!(outrun_for(0, 40), None, "it hangs");
        assert_eq!(outrun_for(40, 12), None, "it drains");
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
        assert_eq!(watch.outrun_for(9, begun), None);
        flow(&mut watch);
        assert!(watch.outrun_for(9, begun + WATCHED[0]).is_some());
        flow(&mut watch);
        assert_eq!(watch.outrun_for(9, begun + WATCHED[0] + WATCHED[1]), None);
    }

    #[test]
    fn publishers_wait_until_the_line_is_short_and_a_second_at_most() {
        let [clinic, lab] = ["clinic", "lab"].map(OrganizationId::stored);
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut delays = Delays::default();
        delays.extend(&clinic, Duration::from_millis(300), begun);
        delays.extend(&clinic, Duration::from_millis(100), begun);
        assert_eq!(delays.of(&clinic, at(200)), Some(Duration::from_millis(100)));
        assert_eq!((delays.of(&clinic, at(300)), delays.of(&lab, at(200))), (None, None));
        delays.extend(&clinic, Duration::from_mins(1), at(300));
        assert_eq!(delays.of(&clinic, at(300)), Some(LONGEST));
        delays.extend(&lab, LONGEST, at(2000));
        assert_eq!(delays.0.len(), 1, "nothing is kept of whoever publishes no more");
    }
}
