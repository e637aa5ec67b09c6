//! The task that commits.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::admission::Answered;
use super::batch::{Batch, Matched, Places};
use super::{HandOver, Job, Jobs, PublishError};
use crate::domain::event::NewEvent;
use crate::domain::id::EventKey;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::permits::{Circuits, QueueSlots};
use crate::routing::Routing;
use crate::store::{Commit, Committed, Fence, Store, StoreError};
use crate::trace;

/// Most events of a batch, unless one request has more: past this the database gains
/// little, and callers wait for each other.
const BATCH_EVENTS: usize = 512;
/// Most payload bytes of a batch, unless one request has more.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Time between two tries to learn what became of a commit.
const RECOVERY_PAUSE: Duration = Duration::from_millis(250);

/// Commits what was published, one batch after the other.
#[derive(Debug)]
pub struct Batcher {
    /// Where events are stored.
    pub store: Store,
    /// Who commits.
    pub lease: Lease,
    /// Who gets what.
    pub routing: Routing,
    /// Places in the dispatcher's queues.
    pub slots: QueueSlots,
    /// Which endpoints are left alone for a while.
    pub circuits: Circuits,
    /// Where the deliveries go.
    pub hand_over: HandOver,
    /// Counts.
    pub metrics: Metrics,
}

/// What became of one try.
enum Tried {
    Done,
    Again(Batch),
}

impl Batcher {
    /// Serves the queue until `stop`, then what is left in it.
    pub async fn run(self, jobs: Jobs, stop: CancellationToken) {
        let mut queue = Queue { jobs, first: None, stop };
        while let Some(gathered) = queue.gather().await {
            let answered = queue.begins(&gathered);
            self.commit(Batch::new(gathered), &mut queue).await;
            queue.jobs.admission.learn(answered());
        }
    }

    /// Commits a batch, in as many tries and parts as it takes.
    async fn commit(&self, batch: Batch, queue: &mut Queue) {
        let mut parts = vec![batch];
        while let Some(mut batch) = parts.pop() {
            let mut known = Vec::new();
            loop {
                let span = tracing::debug_span!(
                    target: trace::TARGET,
                    parent: batch.span().cloned().unwrap_or_else(tracing::Span::none),
                    "commit", requests = batch.len()
                );
                match self.attempt(batch, &known, queue).instrument(span).await {
                    Ok(Tried::Done) => break,
                    Ok(Tried::Again(again)) => batch = again,
                    Err((again, Obstacle::IdTaken)) => {
                        batch = again;
                        match self.store.published(&batch.ids()).await {
                            Ok(published) => known = published,
                            Err(error) => {
                                batch.refuse(|| refusal(&error));
                                break;
                            }
                        }
                    }
                    Err((rejected, Obstacle::Rejected)) if rejected.len() == 1 => {
                        rejected.refuse(|| PublishError::Rejected);
                        break;
                    }
                    Err((rejected, Obstacle::Rejected)) => {
                        let (first, second) = rejected.split();
                        parts.extend([second, first]);
                        break;
                    }
                }
            }
        }
    }

    async fn attempt(
        &self,
        mut batch: Batch,
        known: &[crate::store::Published],
        queue: &mut Queue,
    ) -> Result<Tried, (Batch, Obstacle)> {
        let fence = self.lease.fence();
        let count = batch.decide(known);
        if batch.is_empty() {
            return Ok(Tried::Done);
        }
        if count == 0 {
            self.metrics.events_duplicate(batch.answer(&[]) as u64);
            return Ok(Tried::Done);
        }
        let keys = self.lease.begin_events(fence, count);
        let (routing_version, matched) = {
            let table = self.routing.table();
            let now = self.lease.now();
            let ids = self.store.ids();
            let places = Places { slots: &self.slots, circuits: &self.circuits };
            (table.version(), batch.matched(&table, &keys, now, ids, places))
        };
        let Some(matched) = matched else {
            self.lease.ledger().committed(fence, &keys, std::iter::empty());
            return Ok(Tried::Again(batch));
        };
        let commit = Commit { fence, routing_version, events: &matched.rows };
        let began = Instant::now();
        let committed = self.store.commit(&commit).await;
        self.metrics.commit(count, began.elapsed());
        let abandon = |matched: Matched| {
            self.lease.ledger().committed(fence, &keys, std::iter::empty());
            matched.give_places_back(&self.slots);
        };
        match committed {
            Ok(Committed::Stored) => self.hand_over(batch, &matched, &keys, fence),
            Ok(Committed::RoutingMoved) => {
                abandon(matched);
                if let Err(error) = self.routing.refresh().await {
                    batch.refuse(|| refusal(&error));
                    return Ok(Tried::Done);
                }
                return Ok(Tried::Again(batch));
            }
            Ok(Committed::IdTaken) => {
                abandon(matched);
                return Err((batch, Obstacle::IdTaken));
            }
            Err(StoreError::Rejected(_)) => {
                abandon(matched);
                return Err((batch, Obstacle::Rejected));
            }
            Err(StoreError::Unavailable(why)) => {
                tracing::warn!(why, "commit not answered");
                batch.refuse(|| PublishError::Unavailable);
                if self.recover(fence, &matched, queue).await {
                    abandon(matched);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "commit failed");
                abandon(matched);
                batch.refuse(|| refusal(&error));
            }
        }
        Ok(Tried::Done)
    }

    fn hand_over(&self, batch: Batch, matched: &Matched, keys: &[EventKey], fence: Fence) {
        self.metrics.events_accepted(keys.len() as u64);
        self.lease.ledger().committed(fence, keys, matched.claimed());
        let claims = matched.claims(fence);
        if !claims.is_empty() {
            // A dispatcher that is gone has left its claims to the lease.
            let _ = self.hand_over.claims.send(claims);
        }
        if matched.parks() {
            self.hand_over.due.notify_one();
        }
        self.metrics.events_duplicate(batch.answer(&matched.rows) as u64);
    }

    /// A commit was not answered: it may be stored, as claimed by this process, which
    /// does not know of it, and it may yet be. Until the database tells, nothing else is
    /// committed and publishers are told to come again. `false`: it did not tell before
    /// the end of this process; then the keys stay noted, so that another one looks.
    async fn recover(&self, fence: Fence, matched: &Matched, queue: &mut Queue) -> bool {
        loop {
            // Above every key of the batch, below those of the next one.
            let floor = EventKey(self.lease.next_key());
            let recovered = self.store.recover_commit(fence, &matched.rows, floor);
            match queue.refuse_during(recovered).await {
                Ok(_) => {
                    self.hand_over.due.notify_one();
                    return true;
                }
                // Taken over: the other replica has found what was stored.
                Err(StoreError::Fenced) => return true,
                Err(_) if queue.stop.is_cancelled() => return false,
                Err(_) => {}
            }
            queue.refuse_during(tokio::time::sleep(RECOVERY_PAUSE)).await;
        }
    }
}

/// What waits to be committed.
struct Queue {
    jobs: Jobs,
    /// Taken out of `jobs`, and too large for the batch before.
    first: Option<Job>,
    stop: CancellationToken,
}

impl Queue {
    /// Everything that waits, up to the size of a batch; waits for something. `None`
    /// after `stop`, once nothing is left.
    async fn gather(&mut self) -> Option<Vec<Job>> {
        if self.first.is_none() {
            self.first = tokio::select! {
                biased;
                job = self.jobs.queue.recv() => job,
                () = self.stop.cancelled() => {
                    self.jobs.queue.close();
                    self.jobs.queue.recv().await
                }
            };
        }
        let mut gathered = vec![self.first.take()?];
        let size =
            |job: &Job| (job.events.len(), job.events.iter().map(NewEvent::weight).sum::<usize>());
        let (mut events, mut bytes) = size(&gathered[0]);
        while let Ok(job) = self.jobs.queue.try_recv() {
            let (more_events, more_bytes) = size(&job);
            if BATCH_EVENTS < events + more_events || BATCH_BYTES < bytes + more_bytes {
                self.first = Some(job);
                break;
            }
            (events, bytes) = (events + more_events, bytes + more_bytes);
            gathered.push(job);
        }
        Some(gathered)
    }

    /// What is to be learnt of a batch, once it is answered.
    fn begins(&self, gathered: &[Job]) -> impl FnOnce() -> Answered + use<> {
        let events: usize = gathered.iter().map(|job| job.events.len()).sum();
        let came = gathered.first().map_or_else(Instant::now, |job| job.came);
        // What was left behind did not fit.
        let room = if self.first.is_some() { events } else { BATCH_EVENTS };
        move || Answered { room, oldest: came.elapsed() }
    }

    /// Does `work`, which waits for a database that is away. Who publishes meanwhile is
    /// told at once to come again.
    async fn refuse_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(job) = self.first.take() {
            job.refuse(PublishError::Unavailable);
        }
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(job) = self.jobs.queue.recv() => job.refuse(PublishError::Unavailable),
            }
        }
    }
}

/// What the whole batch has to be redone for.
enum Obstacle {
    IdTaken,
    Rejected,
}

fn refusal(error: &StoreError) -> PublishError {
    match error {
        StoreError::StorageFull => PublishError::StorageFull,
        _ => PublishError::Unavailable,
    }
}
