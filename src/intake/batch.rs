//! One batch: which events of which requests are stored, and what each request is
//! answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{DELIVERIES_MAX, Job, PublishError, PublishedEvent};
use crate::domain::canary;
use crate::domain::event::{Event, EventSummary, NewEvent};
use crate::domain::id::{DeliveryKey, EventKey, IdCodec, OrganizationId, SubscriptionKey};
use crate::domain::timestamp::Timestamp;
use crate::permits::{Admission, Circuits, Endpoint, QueueSlots};
use crate::routing::{Route, Standing, Table};
use crate::store::{Claim, Fence, NewEventRow, Published};

/// Requests that are committed together.
#[derive(Debug)]
pub(super) struct Batch {
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    job: Job,
    fates: Vec<Fate>,
}

/// What becomes of one event.
#[derive(Clone, Debug)]
enum Fate {
    /// It is stored, as this row of the batch.
    Stored(usize),
    /// Another event of the batch has its id and content.
    SameAs(usize),
    /// It was stored before.
    Known(Published),
}

/// The rows of a batch, matched; each target that is not parked has a place in the queues.
#[derive(Debug, Default)]
pub(super) struct Matched {
    pub(super) rows: Vec<NewEventRow>,
}

/// Where deliveries can be sent from at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    pub(super) slots: &'a QueueSlots,
    pub(super) circuits: &'a Circuits,
}

impl Places<'_> {
    /// Takes a place for a delivery of `bytes`; `false`: it waits in `due`.
    fn take(self, route: &Route, bytes: usize) -> bool {
        let version = route.subscription.version;
        let endpoint = Endpoint { subscription: route.key(), version };
        route.standing() == Standing::Sendable
            && self.circuits.look(endpoint) == Admission::Free
            && self.slots.take(&route.subscription.organization, route.key(), bytes)
    }
}

impl Batch {
    pub(super) fn new(jobs: Vec<Job>) -> Batch {
        let requests = jobs.into_iter().map(|job| Request { job, fates: Vec::new() });
        Batch { requests: requests.collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// How many events its requests have.
    pub(super) fn events(&self) -> usize {
        self.requests.iter().map(|request| request.job.events.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Two batches with half of the requests each.
    pub(super) fn split(mut self) -> (Batch, Batch) {
        let second = self.requests.split_off(self.requests.len() / 2);
        (self, Batch { requests: second })
    }

    /// The requests of organizations for which `holds`, and the others.
    pub(super) fn part(self, holds: impl Fn(&OrganizationId) -> bool) -> (Batch, Batch) {
        let of = |request: &Request| {
            request.job.events.first().is_some_and(|event| holds(&event.organization))
        };
        let (these, others) = self.requests.into_iter().partition(of);
        (Batch { requests: these }, Batch { requests: others })
    }

    /// The publishers' ids.
    pub(super) fn ids(&self) -> Vec<(OrganizationId, String)> {
        let id = |event: &NewEvent| event.id.clone().map(|id| (event.organization.clone(), id));
        let mut ids: Vec<_> =
            self.requests.iter().flat_map(|one| one.job.events.iter().filter_map(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Decides every event's fate, given what is stored already. Requests that
    /// conflict with it, or with an earlier request of this batch, are answered and
    /// leave. Tells how many events are to be stored.
    pub(super) fn decide(&mut self, known: &[Published]) -> usize {
        let known: HashMap<(&str, &str), &Published> = known
            .iter()
            .map(|one| ((one.organization.as_str(), one.event_id.as_str()), one))
            .collect();
        let mut first: HashMap<(OrganizationId, String), (usize, [u8; 32])> = HashMap::new();
        let mut rows = 0;
        let mut kept = Vec::with_capacity(self.requests.len());
        for mut request in self.requests.drain(..) {
            request.fates.clear();
            let mut own = Vec::new();
            let mut next = rows;
            let mut conflict = None;
            for (index, event) in request.job.events.iter().enumerate() {
                let hash = request.job.hashes[index];
                let (Some(id), Some(hash)) = (&event.id, hash) else {
                    request.fates.push(Fate::Stored(next));
                    next += 1;
                    continue;
                };
                let place = (event.organization.clone(), id.clone());
                let stored = known.get(&(place.0.as_str(), place.1.as_str()));
                let same = match (stored, first.get(&place)) {
                    (Some(stored), _) => {
                        request.fates.push(Fate::Known((*stored).clone()));
                        stored.content.is_of(&hash)
                    }
                    (None, Some((row, other))) => {
                        request.fates.push(Fate::SameAs(*row));
                        *other == hash
                    }
                    (None, None) => {
                        request.fates.push(Fate::Stored(next));
                        first.insert(place.clone(), (next, hash));
                        own.push(place);
                        next += 1;
                        true
                    }
                };
                if !same {
                    conflict = Some(index);
                    break;
                }
            }
            match conflict {
                None => {
                    rows = next;
                    kept.push(request);
                }
                Some(index) => {
                    for place in own {
                        first.remove(&place);
                    }
                    request.job.refuse(PublishError::IdConflict { index });
                }
            }
        }
        self.requests = kept;
        rows
    }

    /// Rows for the events to be stored, matched with `table`. Takes places in the
    /// queues for their deliveries. `keys`: as many as [`Batch::decide`] told.
    /// Requests that make too many deliveries are answered; then `None`: decide again.
    pub(super) fn matched(
        &mut self,
        table: &Table,
        keys: &[EventKey],
        now: Timestamp,
        ids: &IdCodec,
        places: Places<'_>,
    ) -> Option<Matched> {
        let mut matched = Matched::default();
        let mut too_many = Vec::new();
        for (place, request) in self.requests.iter().enumerate() {
            let mut deliveries = 0;
            for (index, fate) in request.fates.iter().enumerate() {
                if let Fate::Stored(row) = fate {
                    let event = &request.job.events[index];
                    let hash = request.job.hashes[index];
                    let event = (event, hash, keys[*row]);
                    deliveries += matched.add(table, event, now, ids, places);
                }
            }
            if DELIVERIES_MAX < deliveries {
                too_many.push(place);
            }
        }
        if too_many.is_empty() {
            return Some(matched);
        }
        matched.give_places_back(places.slots);
        for place in too_many.into_iter().rev() {
            self.requests.remove(place).job.refuse(PublishError::TooManyDeliveries);
        }
        None
    }

    /// Answers every request: its events are stored. Tells how many were duplicates.
    pub(super) fn answer(self, rows: &[NewEventRow]) -> usize {
        let mut duplicates = 0;
        for request in self.requests {
            let published = |fate: &Fate| match fate {
                Fate::Stored(row) => stored(&rows[*row], false),
                Fate::SameAs(row) => stored(&rows[*row], true),
                Fate::Known(known) => PublishedEvent {
                    id: known.event_id.clone(),
                    key: known.key,
                    delivery_count: known.delivery_count,
                    duplicate: true,
                },
            };
            let events: Vec<PublishedEvent> = request.fates.iter().map(published).collect();
            duplicates += events.iter().filter(|event| event.duplicate).count();
            // A caller that went away does not want its answer.
            let _ = request.job.answer.send(Ok(events));
        }
        duplicates
    }

    /// Answers every request: nothing is stored, or it is not known.
    pub(super) fn refuse(self, why: impl Fn() -> PublishError) {
        for request in self.requests {
            request.job.refuse(why());
        }
    }

    /// The spans of the requests.
    pub(super) fn spans(&self) -> impl Iterator<Item = &tracing::Span> {
        self.requests.iter().map(|request| &request.job.span)
    }
}

impl Job {
    pub(super) fn refuse(self, why: PublishError) {
        // A caller that went away does not want its answer.
        let _ = self.answer.send(Err(why));
    }
}

impl Matched {
    fn add(
        &mut self,
        table: &Table,
        (event, content_hash, key): (&NewEvent, Option<[u8; 32]>, EventKey),
        now: Timestamp,
        ids: &IdCodec,
        places: Places<'_>,
    ) -> usize {
        let routes = table.matching(event);
        let bytes = event.weight();
        let mut parked = Vec::new();
        for route in &routes {
            if !places.take(route, bytes) {
                parked.push(route.key());
            }
        }
        let targets: Vec<SubscriptionKey> = routes.iter().map(|route| route.key()).collect();
        let count = targets.len();
        let event = Arc::new(complete(event, key, now, ids));
        self.rows.push(NewEventRow { event, content_hash, targets, parked });
        count
    }

    /// Events that somebody has published: the canary's are not counted as such.
    pub(super) fn published(&self) -> u64 {
        let others = |row: &&NewEventRow| !canary::owns(&row.event.summary.organization);
        self.rows.iter().filter(others).count() as u64
    }

    /// Whether any delivery waits in `due`.
    pub(super) fn parks(&self) -> bool {
        self.rows.iter().any(|row| !row.parked.is_empty())
    }

    /// The deliveries that the commit claims.
    pub(super) fn claimed(&self) -> impl Iterator<Item = DeliveryKey> {
        self.rows.iter().flat_map(|row| {
            let event = row.event.summary.key;
            claimed_targets(row).map(move |subscription| DeliveryKey { event, subscription })
        })
    }

    /// The same, with what the dispatcher needs.
    pub(super) fn claims(&self, fence: Fence) -> Vec<Claim> {
        let since = Instant::now();
        let of = |row: &NewEventRow| {
            let event = Arc::clone(&row.event);
            let claim = move |subscription| Claim {
                event: Arc::clone(&event),
                subscription,
                fence,
                number: 0,
                attempts: 0,
                takeovers: 0,
                last_chance: false,
                since,
            };
            claimed_targets(row).map(claim).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of).collect()
    }

    /// Nothing came of it: others may have the places.
    pub(super) fn give_places_back(self, slots: &QueueSlots) {
        for row in &self.rows {
            for endpoint in claimed_targets(row) {
                slots.give_back(&row.event.summary.organization, endpoint, row.event.weight());
            }
        }
    }
}

/// Both lists ascend, and `parked` is part of `targets`.
fn claimed_targets(row: &NewEventRow) -> impl Iterator<Item = SubscriptionKey> {
    let waits = |key: &SubscriptionKey| row.parked.binary_search(key).is_err();
    row.targets.iter().copied().filter(waits)
}

fn stored(row: &NewEventRow, duplicate: bool) -> PublishedEvent {
    PublishedEvent {
        id: row.event.summary.id.clone(),
        key: row.event.summary.key,
        delivery_count: u32::try_from(row.targets.len()).unwrap_or(u32::MAX),
        duplicate,
    }
}

fn complete(event: &NewEvent, key: EventKey, now: Timestamp, ids: &IdCodec) -> Event {
    let summary = EventSummary {
        key,
        id: event.id.clone().unwrap_or_else(|| ids.event(key)),
        organization: event.organization.clone(),
        account: event.account.clone(),
        event_type: event.event_type.clone(),
        occur_time: event.occur_time.unwrap_or(now),
        publish_time: now,
        expire_time: event.expire_time,
        content_type: event.content_type.clone(),
        payload_bytes: event.payload.bytes().len() as u64,
        attributes: event.attributes.clone(),
        subject: event.subject.clone(),
        trace: event.trace.clone(),
        purge_time: None,
        publisher: Arc::clone(&event.publisher),
    };
    Event { summary, payload: event.payload.clone() }
}
