//! Faults of receivers: hanging, failing, down, and events that none of them can get.

use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::{DeadReason, State};

use super::{Scene, millis, pause, secs};
use crate::api::ORGANIZATIONS;
use crate::figure::percentile;
use crate::ledger::{Event, Fate, Known, digest};
use crate::target::Mood;

const FLOOD_EVENTS: usize = 80;
const BACKLOG_EVENTS: usize = 1500;
const BATCH: usize = 100;
const FLOODED: usize = 3;
const BACKLOGGED: usize = 4;
const POISONED: usize = 5;
/// A publication of these faults is tried so often.
const TRIES: usize = 20;

impl Scene<'_> {
    pub(super) async fn flood(&mut self) -> Result<(), String> {
        self.cast.flooded.iter().for_each(|target| target.set(Mood::Hanging));
        let at = Instant::now();
        let drafts = (0..FLOOD_EVENTS)
            .map(|event| (format!("flood-{}-{event}", self.number), "flood.rose".to_owned(), 400));
        let drafts: Vec<_> = drafts.collect();
        for draft in drafts {
            self.publish(FLOODED, vec![draft]).await;
            pause(millis(40)).await;
        }
        pause(secs(1)).await;
        self.cast.flooded.iter().for_each(|target| target.set(Mood::Well));
        let until = Instant::now().checked_sub(secs(1)).unwrap_or(at);
        if self.world.ledger.book().is_calm(at)
            && let Some(p99) = percentile(self.world.latencies(at, until), 99)
        {
            self.time("others, OK to arrival, p99", p99, secs(1), at);
        }
        Ok(())
    }

    pub(super) async fn failing(&mut self) -> Result<(), String> {
        let status = [500, 503, 429, 301, 404][self.rng.usize(0..5)];
        self.cast.failing.set(Mood::Failing(status));
        self.last(4000..8000).await;
        self.cast.failing.set(Mood::Well);
        Ok(())
    }

    pub(super) async fn backlog(&mut self) -> Result<(), String> {
        let target = &self.cast.backlogged;
        target.set(Mood::Failing(503));
        let before = Instant::now();
        let mut drafts: Vec<_> = (0..BACKLOG_EVENTS)
            .map(|event| (format!("backlog-{}-{event}", self.number), "pile.up".to_owned(), 400))
            .collect();
        while !drafts.is_empty() {
            let rest = drafts.split_off(BATCH.min(drafts.len()));
            self.publish(BACKLOGGED, std::mem::replace(&mut drafts, rest)).await;
        }
        self.last(1000..3000).await;
        self.cast.backlogged.set(Mood::Well);
        let at = Instant::now();
        while self.has_backlog() && at.elapsed() < secs(40) {
            pause(millis(200)).await;
        }
        if self.world.ledger.book().is_calm(before) {
            self.time("drained", at.elapsed(), secs(10), at);
            let until = Instant::now().checked_sub(secs(1)).unwrap_or(at);
            if let Some(p99) = percentile(self.world.latencies(at, until), 99) {
                self.time("others, OK to arrival, p99", p99, secs(2), at);
            }
        }
        Ok(())
    }

    /// Whether an event of the backlog was acknowledged and has not succeeded.
    fn has_backlog(&self) -> bool {
        let prefix = format!("backlog-{}-", self.number);
        let book = self.world.ledger.book();
        let mut open: std::collections::HashSet<usize> = book
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.known == Known::Ok && event.id.starts_with(&prefix))
            .map(|(number, _)| number)
            .collect();
        for request in book.requests.iter().filter(|request| request.succeeded()) {
            if let Some(event) = request.event {
                open.remove(&event);
            }
        }
        !open.is_empty()
    }

    pub(super) async fn poison(&mut self) -> Result<(), String> {
        let id = format!("poison-{}", self.number);
        let raw = vec![0_u8; self.rng.usize(0..1000)];
        let number = self.world.ledger.register(Event {
            id: id.clone(),
            organization: POISONED,
            kind: "poison.raw".to_owned(),
            digest: digest(&raw),
            fate: Fate::NotSendable,
            begun: Instant::now(),
            known: Known::Unknown,
            acknowledged: None,
        });
        let event = pb::Event {
            id: id.clone(),
            r#type: "poison.raw".to_owned(),
            payload: Some(pb::event::Payload::Raw(raw.into())),
            content_type: "application/octet-stream".to_owned(),
            ..pb::Event::default()
        };
        let mut taken = false;
        for _ in 0..TRIES {
            let slot = self.any_slot();
            if self.world.api.publish(slot, POISONED, vec![event.clone()]).await.is_ok() {
                self.world.ledger.acknowledge(number, slot);
                taken = true;
                break;
            }
            pause(millis(200)).await;
        }
        if taken {
            self.dies(&id).await;
        }
        Ok(())
    }

    /// Waits until the event's delivery is dead for the right reason.
    async fn dies(&self, id: &str) {
        let at = Instant::now();
        loop {
            let filter = pb::ListDeliveriesRequest {
                organization_id: ORGANIZATIONS[POISONED].to_owned(),
                event_id: id.to_owned(),
                ..pb::ListDeliveriesRequest::default()
            };
            let Some(found) = self.world.api.list(filter).await else { break };
            let ended = found.iter().all(|one| {
                one.state() == State::Dead && one.dead_reason() == DeadReason::NotSendable
            });
            if ended && !found.is_empty() {
                break;
            }
            if secs(40) < at.elapsed() {
                self.world.ledger.broken(format!("{id} is not dead: {found:?}"));
                break;
            }
            pause(millis(100)).await;
        }
    }

    /// Publishes until it is taken, or gives up.
    async fn publish(&mut self, organization: usize, drafts: Vec<(String, String, usize)>) {
        let batch = self.world.draft(organization, drafts);
        for _ in 0..TRIES {
            let slot = self.any_slot();
            let events = batch.events.clone();
            if let Ok(results) = self.world.api.publish(slot, organization, events).await {
                self.world.acknowledged(&batch, slot, &results);
                return;
            }
            pause(Duration::from_millis(200)).await;
        }
    }
}
