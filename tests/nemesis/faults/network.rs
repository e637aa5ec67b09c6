//! Faults of links: to the database, and of names.

use std::time::Instant;

use super::process::SETTLE;
use super::{Scene, millis, pause, secs};
use crate::figure::percentile;
use crate::ledger::CallAnswer;
use crate::relay::Mode;
use crate::world::NameMood;

impl Scene<'_> {
    pub(super) async fn cut(&mut self) -> Result<(), String> {
        let slot = self.any_slot();
        let replica = &self.world.replicas[slot];
        let window = self.world.ledger.disturb(self.fault, Some(slot));
        let span = millis(self.rng.u64(12_500..15_000));
        let at = Instant::now();
        replica.database.set(Mode::Cut);
        let mut unready = None;
        let mut asked = 0;
        while at.elapsed() < span {
            if unready.is_none() && !replica.ready().await {
                unready = Some(at.elapsed());
            }
            // Most callers keep away from it: some must not.
            if usize::try_from(at.elapsed().as_secs()).unwrap_or(asked) > asked {
                asked += 1;
                self.ask(slot, asked).await;
            }
            pause(millis(20)).await;
        }
        let healed = Instant::now();
        if self.rng.bool() {
            // Else what was held arrives late: writes of a process that is out of the race.
            replica.database.reset();
        }
        replica.database.set(Mode::Pass);
        let ready = self.world.all_ready(secs(20)).await;
        self.time("not ready after", unready.unwrap_or(span), secs(5), at);
        let failed = |answer| answer != CallAnswer::Ok;
        let errors = self.world.call_times(Some(slot), at, healed, failed);
        if let Some(longest) = errors.into_iter().max() {
            self.time("error to callers", longest, secs(2), at);
        }
        let sent = self.world.sent_by(slot, at, healed);
        let last = sent.iter().map(|request| request.at - at).max().unwrap_or_default();
        self.time("last request sent", last, secs(10), at);
        if !ready {
            return Err("a replica that was cut off does not get ready again".into());
        }
        self.time("ready again", healed.elapsed(), secs(3), healed);
        self.world.ledger.calm(window, SETTLE + secs(7));
        Ok(())
    }

    pub(super) async fn half_open(&mut self) -> Result<(), String> {
        let slot = self.any_slot();
        let window = self.world.ledger.disturb(self.fault, Some(slot));
        let at = Instant::now();
        self.world.replicas[slot].database.swallow();
        for number in 0..20 {
            self.ask(slot, number).await;
            pause(millis(self.rng.u64(100..400))).await;
            if secs(10) < at.elapsed() {
                break;
            }
        }
        let to = Instant::now();
        let times = self.world.call_times(Some(slot), at, to, |_| true);
        if let Some(p99) = percentile(times, 99) {
            self.time("calls, p99", p99, millis(1500), at);
        }
        let healthy = loop {
            let ok = self.world.first_ok(at, Some(slot));
            if self.world.replicas[slot].ready().await && ok + millis(100) < at.elapsed() {
                break at.elapsed();
            }
            if secs(30) < at.elapsed() {
                // Nothing but a new process helps any more; the figure tells.
                self.world.replicas[slot].database.reset();
                break at.elapsed();
            }
            self.ask(slot, 0).await;
        };
        self.time("all healthy", healthy, secs(10), at);
        self.world.ledger.calm(window, SETTLE + secs(7));
        Ok(())
    }

    pub(super) async fn slow_link(&mut self) -> Result<(), String> {
        let slot = self.any_slot();
        let at = Instant::now();
        let delay = millis(self.rng.u64(20..100));
        self.world.replicas[slot].database.set(Mode::Delay(delay));
        self.last(4000..6000).await;
        self.world.replicas[slot].database.set(Mode::Pass);
        let times = self.world.call_times(Some(slot), at, Instant::now(), |_| true);
        if let Some(p99) = percentile(times, 99) {
            self.time("calls, p99", p99, secs(2), at);
        }
        Ok(())
    }

    pub(super) async fn names(&mut self) -> Result<(), String> {
        let mood = if self.rng.bool() { NameMood::Missing } else { NameMood::Forbidden };
        // Connections that are kept need no name.
        self.world.targets.close_connections(true);
        self.world.names.set(mood);
        self.last(4000..6000).await;
        self.world.names.set(NameMood::Well);
        let at = Instant::now();
        let steady = self.cast.slow[0].number;
        let first = loop {
            let first = self.world.first_request(at, |_, request| request.target == steady);
            if first + millis(50) < at.elapsed() || secs(15) < at.elapsed() {
                break first;
            }
            pause(millis(20)).await;
        };
        self.world.targets.close_connections(false);
        self.time("first request by name", first, secs(2), at);
        Ok(())
    }

    /// Publishes one event at one replica, whatever becomes of it.
    pub(super) async fn ask(&mut self, slot: usize, number: usize) {
        let id = format!("ask-{}-{number}-{}", self.number, self.rng.u32(..));
        let batch = self.world.draft(0, vec![(id, "invoice.paid".to_owned(), 100)]);
        let answer = self.world.api.publish(slot, 0, batch.events.clone()).await;
        if let Ok(results) = answer {
            self.world.acknowledged(&batch, slot, &results);
        }
    }
}
