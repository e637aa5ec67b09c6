//! Fair queues: one per endpoint, served in turn.
//!
//! An endpoint with work, a free permit of its own and of its organization is
//! *ready*; ready endpoints are served round-robin, one request a turn. So a long
//! queue delays itself only, and a slow endpoint holds at most its own permits.
//! Pure: no clock, no I/O.

use std::collections::{HashMap, VecDeque};

use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::permits::{InFlight, InFlightLimits, Start};
use crate::store::Claim;

/// Deliveries that wait for their turn, and the count of those under way.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: HashMap<SubscriptionKey, Lane>,
    ready: VecDeque<SubscriptionKey>,
    /// Lanes that have all but a permit of their organization.
    held_up: HashMap<OrganizationId, VecDeque<SubscriptionKey>>,
    in_flight: InFlight,
    waiting: usize,
}

#[derive(Debug)]
struct Lane {
    organization: OrganizationId,
    waiting: VecDeque<Claim>,
    in_flight: u32,
    in_flight_max: u32,
    /// Whether it stands in `ready` or `held_up`.
    listed: bool,
}

impl Queue {
    pub(super) fn new(limits: InFlightLimits) -> Self {
        Queue {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held_up: HashMap::new(),
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
        });
        lane.in_flight_max = in_flight_max.max(1);
        lane.waiting.push_back(claim);
        self.waiting += 1;
        self.list(key);
    }

    /// The next delivery to attempt; takes its permits. [`Queue::finished`] gives
    /// them back.
    pub(super) fn next(&mut self) -> Option<Claim> {
        while let Some(key) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            if lane.in_flight_max <= lane.in_flight {
                lane.listed = false;
                continue;
            }
            match self.in_flight.start(&lane.organization) {
                Start::ReplicaFull => {
                    self.ready.push_front(key);
                    return None;
                }
                Start::OrganizationFull => {
                    self.held_up.entry(lane.organization.clone()).or_default().push_back(key);
                }
                Start::Started => {
                    lane.listed = false;
                    let Some(claim) = lane.waiting.pop_front() else {
                        self.in_flight.finish(&lane.organization);
                        continue;
                    };
                    lane.in_flight += 1;
                    self.waiting -= 1;
                    self.list(key);
                    return Some(claim);
                }
            }
        }
        None
    }

    /// An attempt to `key` is over. `in_flight_max`: what its subscription says now.
    pub(super) fn finished(&mut self, key: SubscriptionKey, in_flight_max: Option<u32>) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        lane.in_flight_max = in_flight_max.unwrap_or(lane.in_flight_max).max(1);
        lane.in_flight = lane.in_flight.saturating_sub(1);
        self.in_flight.finish(&lane.organization);
        if let Some(held_up) = self.held_up.get_mut(&lane.organization) {
            self.ready.extend(held_up.pop_front());
            if held_up.is_empty() {
                self.held_up.remove(&lane.organization);
            }
        }
        if lane.in_flight == 0 && lane.waiting.is_empty() && !lane.listed {
            self.lanes.remove(&key);
        } else {
            self.list(key);
        }
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> Vec<Claim> {
        self.ready.clear();
        self.held_up.clear();
        self.waiting = 0;
        let mut drained = Vec::new();
        for lane in self.lanes.values_mut() {
            lane.listed = false;
            drained.extend(lane.waiting.drain(..));
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
