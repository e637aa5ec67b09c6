//! Faults of processes: killed, frozen, asked to end.

use std::time::{Duration, Instant};

use super::{Scene, millis, pause, secs};
use crate::figure::percentile;
use crate::ledger::CallAnswer;
use crate::target::Mood;
use crate::world::START_LIMIT;

/// What was under way when an outcome could be lost may come in for so long.
pub(super) const SETTLE: Duration = Duration::from_secs(3);
/// Most that an orderly end may take: the grace period of the run's replicas, and 5 s.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Answers are slow for so long, so that there is something under way.
const SLOW: Duration = Duration::from_millis(800);

impl Scene<'_> {
    pub(super) async fn kill(&mut self) -> Result<(), String> {
        let slot = self.any_slot();
        self.gather(millis(1000)).await;
        let window = self.world.ledger.disturb(self.fault, Some(slot));
        let at = Instant::now();
        self.world.replicas[slot].kill();
        self.release();
        self.last(2800..4000).await;
        self.world.replicas[slot].start(&[], START_LIMIT).await?;
        self.world.ledger.calm(window, Duration::ZERO);
        let times = self.world.take_over_times(slot, at);
        if let Some(p99) = percentile(times, 99) {
            self.time("taken over, p99", p99, secs(2), at);
        }
        Ok(())
    }

    pub(super) async fn kill_all(&mut self) -> Result<(), String> {
        self.gather(millis(700)).await;
        let window = self.world.ledger.disturb(self.fault, None);
        for replica in &self.world.replicas {
            replica.kill();
        }
        self.release();
        self.last(100..1500).await;
        // One alone first, then the others.
        let from = self.world.replicas[0].start(&[], START_LIMIT).await?;
        let first = loop {
            let first = self.world.first_request(from, |_, request| request.slot == Some(0));
            if first + millis(50) < from.elapsed() || secs(10) < from.elapsed() {
                break first;
            }
            pause(millis(50)).await;
        };
        self.time("first request after the start", first, secs(3), from);
        for replica in &self.world.replicas[1..] {
            replica.start(&[], START_LIMIT).await?;
        }
        self.world.ledger.calm(window, Duration::ZERO);
        Ok(())
    }

    pub(super) async fn freeze(&mut self) -> Result<(), String> {
        let slot = self.any_slot();
        self.gather(millis(700)).await;
        let window = self.world.ledger.disturb(self.fault, Some(slot));
        let at = Instant::now();
        self.world.replicas[slot].signal("STOP");
        self.release();
        self.last(12_500..15_000).await;
        let is_shared = self.world.cluster.is_some();
        let times = self.world.take_over_times(slot, at);
        if let Some(p99) = percentile(times, 99).filter(|_| is_shared) {
            self.time("taken over, p99", p99, secs(12), at);
        }
        let thawed = Instant::now();
        self.world.replicas[slot].signal("CONT");
        if !self.world.all_ready(secs(20)).await {
            return Err("a replica that was frozen does not get ready".into());
        }
        self.time("ready after the thaw", thawed.elapsed(), secs(3), thawed);
        self.world.ledger.calm(window, SETTLE);
        Ok(())
    }

    pub(super) async fn roll(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        for replica in &self.world.replicas {
            // Its clients hear of it a moment later, as from a load balancer.
            replica.signal("TERM");
            let asked = Instant::now();
            match replica.ends(END_LIMIT + secs(5)).await {
                Some(status) if status.success() => longest = longest.max(asked.elapsed()),
                Some(status) => {
                    let what = format!("replica {}, asked to end: {status}", replica.slot);
                    self.world.ledger.broken(what);
                }
                None => {
                    self.world.ledger.broken(format!("replica {} does not end", replica.slot));
                    replica.kill();
                }
            }
            replica.start(&[], START_LIMIT).await?;
        }
        self.time("end after SIGTERM", longest, END_LIMIT, begun);
        let silent = |answer| answer == CallAnswer::Silent;
        let silent = self.world.call_times(None, begun, Instant::now(), silent).len();
        self.count("calls without an answer", silent, 0, begun);
        Ok(())
    }

    pub(super) async fn stop_without_database(&mut self) -> Result<(), String> {
        let Some(cluster) = &self.world.cluster else { return Ok(()) };
        let window = self.world.ledger.disturb(self.fault, None);
        let node = cluster.primary();
        cluster.crash(node).await?;
        self.last(200..1200).await;
        let (first, second) = (&self.world.replicas[0], &self.world.replicas[1]);
        let asked = Instant::now();
        first.signal("TERM");
        second.signal("TERM");
        pause(millis(300)).await;
        second.signal("TERM");
        let ended = second.ends(secs(10)).await;
        let after_second = asked.elapsed().saturating_sub(millis(300));
        match ended {
            Some(status) if status.code() == Some(130) || status.success() => {}
            Some(status) => self.world.ledger.broken(format!("after a second SIGTERM: {status}")),
            None => {
                self.world.ledger.broken("a second SIGTERM does not end it");
                second.kill();
            }
        }
        if first.ends(secs(35)).await.is_none() {
            self.world.ledger.broken("SIGTERM while the database is away does not end it");
            first.kill();
        }
        let took = asked.elapsed();
        cluster.revive(node).await?;
        for slot in 0..2 {
            self.world.replicas[slot].start(&[], START_LIMIT).await?;
        }
        self.time("end after SIGTERM", took, secs(25), asked);
        self.time("end after the second SIGTERM", after_second, secs(1), asked);
        self.world.ledger.calm(window, SETTLE + secs(7));
        Ok(())
    }

    /// Has receivers take their time, so that requests are under way when it happens.
    async fn gather(&mut self, span: Duration) {
        self.cast.slow.iter().for_each(|target| target.set(Mood::Slow(SLOW)));
        pause(span).await;
    }

    fn release(&mut self) {
        self.cast.slow.iter().for_each(|target| target.set(target.plan.usual));
    }
}
