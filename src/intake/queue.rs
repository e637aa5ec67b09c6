//! What waits to be committed, gathered into batches.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::admission::Answered;
use super::{Job, Jobs, PublishError};
use crate::domain::event::NewEvent;

/// Most events of a batch, unless one request has more: past this the database gains
/// little, and callers wait for each other.
const BATCH_EVENTS: usize = 512;
/// Most payload bytes of a batch, unless one request has more.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What waits. A wait for it that is given up loses nothing.
pub(super) struct Queue {
    jobs: Jobs,
    /// The next batch so far, with its events and payload bytes.
    gathered: Vec<Job>,
    events: usize,
    bytes: usize,
    /// Taken out of `jobs`, and too large for that batch.
    next: Option<Job>,
    stop: CancellationToken,
}

/// Requests that are committed together.
pub(super) struct Gathered {
    pub(super) jobs: Vec<Job>,
    pub(super) events: usize,
    /// Events that fit into one such batch.
    pub(super) room: usize,
    /// When the oldest of them came.
    pub(super) came: Instant,
}

impl Queue {
    /// Ends at `stop`, once nothing is left.
    pub(super) fn new(jobs: Jobs, stop: CancellationToken) -> Queue {
        Queue { jobs, gathered: Vec::new(), events: 0, bytes: 0, next: None, stop }
    }

    /// Everything that waits, up to the size of a batch, once it is as many events as
    /// `least` or fills one. `None` after the stop, when nothing is left.
    pub(super) async fn gather(&mut self, least: usize) -> Option<Gathered> {
        loop {
            let full = self.fill();
            let some = !self.gathered.is_empty();
            if full || (some && least <= self.events.max(1)) {
                return self.take();
            }
            let job = tokio::select! {
                biased;
                job = self.jobs.queue.recv() => job,
                () = self.stop.cancelled() => {
                    self.jobs.queue.close();
                    self.jobs.queue.recv().await
                }
            };
            match job {
                Some(job) => self.add(job),
                None => return self.take(),
            }
        }
    }

    /// Turns away what waits.
    pub(super) fn refuse_waiting(&mut self) {
        for job in self.gathered.drain(..).chain(self.next.take()) {
            job.refuse(PublishError::Unavailable);
        }
        (self.events, self.bytes) = (0, 0);
        while let Ok(job) = self.jobs.queue.try_recv() {
            job.refuse(PublishError::Unavailable);
        }
    }

    /// Turns away who comes, for as long as it is awaited.
    pub(super) async fn refuse_coming(&mut self) {
        while let Some(job) = self.jobs.queue.recv().await {
            job.refuse(PublishError::Unavailable);
        }
        std::future::pending::<()>().await;
    }

    pub(super) fn learn(&self, answered: Option<Answered>) {
        if let Some(answered) = answered {
            self.jobs.admission.learn(answered);
        }
    }

    /// Takes what is there; `true`: the batch is full.
    fn fill(&mut self) -> bool {
        while let Some(job) = self.next.take().or_else(|| self.jobs.queue.try_recv().ok()) {
            let (events, bytes) = size(&job);
            let fits = self.events + events <= BATCH_EVENTS && self.bytes + bytes <= BATCH_BYTES;
            if !fits && !self.gathered.is_empty() {
                self.next = Some(job);
                return true;
            }
            self.add(job);
        }
        false
    }

    fn add(&mut self, job: Job) {
        let (events, bytes) = size(&job);
        (self.events, self.bytes) = (self.events + events, self.bytes + bytes);
        self.gathered.push(job);
    }

    fn take(&mut self) -> Option<Gathered> {
        let (jobs, events) = (std::mem::take(&mut self.gathered), self.events);
        (self.events, self.bytes) = (0, 0);
        let came = jobs.first()?.came;
        // What was left behind did not fit.
        let room = if self.next.is_some() { events } else { BATCH_EVENTS };
        Some(Gathered { jobs, events, room, came })
    }
}

fn size(job: &Job) -> (usize, usize) {
    (job.events.len(), job.events.iter().map(NewEvent::weight).sum())
}
