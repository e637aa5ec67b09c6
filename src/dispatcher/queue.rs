//! Fair queues: one per endpoint, served in turn.
//!
//! An endpoint with work, a free permit of its own and of its organization is
//! *ready*; ready endpoints are served round-robin, one request a turn. So a long
//! queue delays itself only, and a slow endpoint holds at most its own permits.
//! Pure: no clock, no I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::permits::{InFlight, InFlightLimits, Start};
use crate::store::Claim;

/// A delivery whose turn it is.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) claim: Claim,
    /// Whether requests to its endpoint had to end before it could start.
    pub(super) waited: bool,
}

/// Deliveries that wait for their turn, and the count of those under way.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: HashMap<SubscriptionKey, Lane>,
    ready: VecDeque<SubscriptionKey>,
    /// Lanes that have all but a permit of their organization, by their places in line.
    held_up: HashMap<OrganizationId, BTreeMap<u64, SubscriptionKey>>,
    /// Places given out.
    places: u64,
    in_flight: InFlight,
    waiting: usize,
}

#[derive(Debug)]
struct Lane {
    organization: OrganizationId,
    waiting: VecDeque<Turn>,
    in_flight: u32,
    in_flight_max: u32,
    /// Whether it stands in `ready` or `held_up`.
    listed: bool,
    /// Its place among those that wait for a permit of the organization. Kept until it is
    /// served: whoever finds the permit taken again does not begin at the end.
    place: Option<u64>,
}

impl Queue {
    pub(super) fn new(limits: InFlightLimits) -> Self {
        Queue {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held_up: HashMap::new(),
            places: 0,
            in_flight: InFlight::new(limits),
            waiting: 0,
        }
    }

    /// Puts a delivery at the end of its endpoint's queue. At most `in_flight_max`
    /// requests of that endpoint are under way at once.
    pub(super) fn push(&mut self, claim: Claim, in_flight_max: u32) {
        let key = claim.subscription;
        let lane = self.lanes.entry(key).or_insert_with(|| Lane {
            organization: claim.event.summary.organization.clone(),
            waiting: VecDeque::new(),
            in_flight: 0,
            in_flight_max,
            listed: false,
            place: None,
        });
        lane.in_flight_max = in_flight_max.max(1);
        let before = lane.waiting.len() + lane.in_flight as usize;
        let waited = lane.in_flight_max as usize <= before;
        lane.waiting.push_back(Turn { claim, waited });
        self.waiting += 1;
        self.list(key);
    }

    /// The next delivery to attempt; takes its permits. [`Queue::finished`] gives
    /// them back.
    pub(super) fn next(&mut self) -> Option<Turn> {
        while let Some(key) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            if lane.in_flight_max <= lane.in_flight {
                // Its limit was lowered while it stood here.
                (lane.listed, lane.place) = (false, None);
                if self.in_flight.has_room(&lane.organization) {
                    self.ready.extend(wake(&mut self.held_up, &lane.organization));
                }
                continue;
            }
            match self.in_flight.start(&lane.organization) {
                Start::ReplicaFull => {
                    self.ready.push_front(key);
                    return None;
                }
                Start::OrganizationFull => {
                    let next = || {
                        self.places += 1;
                        self.places
                    };
                    let place = *lane.place.get_or_insert_with(next);
                    let held_up = self.held_up.entry(lane.organization.clone()).or_default();
                    held_up.insert(place, key);
                }
                Start::Started => {
                    (lane.listed, lane.place) = (false, None);
                    let Some(turn) = lane.waiting.pop_front() else {
                        self.in_flight.finish(&lane.organization);
                        continue;
                    };
                    lane.in_flight += 1;
                    self.waiting -= 1;
                    self.list(key);
                    return Some(turn);
                }
            }
        }
        None
    }

    /// An attempt to `key` is over. `in_flight_max`: what its subscription says now. `true`:
    /// more than before, so that more than one may follow.
    pub(super) fn finished(&mut self, key: SubscriptionKey, in_flight_max: Option<u32>) -> bool {
        let Some(lane) = self.lanes.get_mut(&key) else { return false };
        let before = lane.in_flight_max;
        lane.in_flight_max = in_flight_max.unwrap_or(before).max(1);
        let raised = before < lane.in_flight_max;
        lane.in_flight = lane.in_flight.saturating_sub(1);
        self.in_flight.finish(&lane.organization);
        self.ready.extend(wake(&mut self.held_up, &lane.organization));
        if lane.in_flight == 0 && lane.waiting.is_empty() && !lane.listed {
            self.lanes.remove(&key);
        } else {
            self.list(key);
        }
        raised
    }

    /// From now on as many requests may be under way.
    pub(super) fn set_limits(&mut self, limits: InFlightLimits) {
        self.in_flight.set_limits(limits);
        // There may be room for several of an organization: each finds out for itself.
        for lanes in std::mem::take(&mut self.held_up).into_values() {
            self.ready.extend(lanes.into_values());
        }
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> Vec<Claim> {
        self.ready.clear();
        self.held_up.clear();
        self.waiting = 0;
        let mut drained = Vec::new();
        for lane in self.lanes.values_mut() {
            (lane.listed, lane.place) = (false, None);
            drained.extend(lane.waiting.drain(..).map(|turn| turn.claim));
        }
        self.lanes.retain(|_, lane| 0 < lane.in_flight);
        drained
    }

    /// Requests under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Deliveries that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn list(&mut self, key: SubscriptionKey) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        if !lane.listed && !lane.waiting.is_empty() && lane.in_flight < lane.in_flight_max {
            lane.listed = true;
            self.ready.push_back(key);
        }
    }
}

/// The lane that has waited longest for a permit of its organization, if one has.
fn wake(
    held_up: &mut HashMap<OrganizationId, BTreeMap<u64, SubscriptionKey>>,
    organization: &OrganizationId,
) -> Option<SubscriptionKey> {
    let lanes = held_up.get_mut(organization)?;
    let (_, next) = lanes.pop_first()?;
    if lanes.is_empty() {
        held_up.remove(organization);
    }
    Some(next)
}
