//! How long what an event carries is kept, and what is known of it. Both times count from
//! the moment when the last of the event's deliveries has ended.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::id::OrganizationId;
use super::timestamp::Timestamp;

/// How long payloads may be kept.
pub const PAYLOAD_BOUNDS: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(31 * 24);
/// How long the rest may be: to ten years.
pub const METADATA_BOUNDS: RangeInclusive<Duration> =
    Duration::from_hours(24)..=Duration::from_hours(3653 * 24);

/// What goes in one piece. The numbers are those of the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Stage {
    /// The payload, the attributes and the subject; what receivers answered.
    Payload = 1,
    /// The event, its deliveries and their attempts: everything.
    Metadata = 2,
}

impl Stage {
    /// Both, in the order of the numbers.
    pub const ALL: [Stage; 2] = [Stage::Payload, Stage::Metadata];
}

/// How long an organization's events are kept; `None`: as everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What they carry.
    pub payload: Option<Duration>,
    /// All the rest, and at the latest what they carry.
    pub metadata: Option<Duration>,
}

impl Kept {
    /// The time of one stage.
    #[must_use]
    pub fn of(self, stage: Stage) -> Option<Duration> {
        match stage {
            Stage::Payload => self.payload,
            Stage::Metadata => self.metadata,
        }
    }
}

/// How long everybody's events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What they carry, where the organization says nothing.
    pub payload: Duration,
    /// All the rest, where the organization says nothing.
    pub metadata: Duration,
    /// Organizations that say something, or have said so once.
    pub own: BTreeMap<OrganizationId, Kept>,
}

impl Retention {
    /// How long what goes in this stage is kept of this organization's events; for `None`
    /// of those of all organizations that say nothing.
    #[must_use]
    pub fn of(&self, organization: Option<&OrganizationId>, stage: Stage) -> Duration {
        let own = organization.and_then(|organization| self.own.get(organization));
        own.and_then(|kept| kept.of(stage)).unwrap_or(match stage {
            Stage::Payload => self.payload,
            Stage::Metadata => self.metadata,
        })
    }
}

/// How the deliveries of an event stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Whether one has not ended.
    pub open: bool,
    /// When the last one ended, of those that have; of an event without deliveries, when
    /// it was taken in.
    pub last: Timestamp,
}

/// What a purge does with an event that it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Purge,
    /// It stays until the time is over, counted from then. Not before that is it worth a
    /// look again: one that is open now ends now at the earliest.
    KeepFrom(Timestamp),
}

impl Ends {
    /// What to do at `now` with an event that is kept for `keep`.
    #[must_use]
    pub fn verdict(self, keep: Duration, now: Timestamp) -> Verdict {
        if self.open {
            return Verdict::KeepFrom(now);
        }
        // A database's clock that was set back tells of ends to come.
        if self.last.plus(keep) <= now { Verdict::Purge } else { Verdict::KeepFrom(self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn what_an_organization_does_not_say_is_as_everybodys() {
        let [own, other] = ["own", "other"].map(OrganizationId::stored);
        let kept = Kept { payload: Some(DAY), metadata: None };
        let own_only = BTreeMap::from([(own.clone(), kept)]);
        let retention = Retention { payload: 7 * DAY, metadata: 90 * DAY, own: own_only };
        let of = |organization| Stage::ALL.map(|stage| retention.of(organization, stage));
        assert_eq!(of(Some(&own)), [DAY, 90 * DAY]);
        assert_eq!(of(Some(&other)), [7 * DAY, 90 * DAY]);
        assert_eq!(of(None), [7 * DAY, 90 * DAY]);
    }

    #[test]
    fn the_time_counts_from_the_last_end_and_not_before_it() {
        let noon = Timestamp(1_750_000_000_000_000);
        let ended = Ends { open: false, last: noon };
        let almost = noon.plus(DAY).minus(Duration::from_micros(1));
        assert_eq!(ended.verdict(DAY, almost), Verdict::KeepFrom(noon));
        assert_eq!(ended.verdict(DAY, noon.plus(DAY)), Verdict::Purge);
        assert_eq!(ended.verdict(DAY, noon.minus(DAY)), Verdict::KeepFrom(noon));
        let open = Ends { open: true, ..ended };
        assert_eq!(open.verdict(DAY, noon.plus(9 * DAY)), Verdict::KeepFrom(noon.plus(9 * DAY)));
    }
}
