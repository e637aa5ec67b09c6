//! The task that commits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::admission::Answered;
use super::batch::{Batch, Matched, Places};
use super::queue::{Gathered, Queue};
use super::{HandOver, Jobs, PublishError};
use crate::domain::id::EventKey;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::permits::{Circuits, QueueSlots};
use crate::routing::Routing;
use crate::store::{Commit, Committed, Fence, Published, Stale, Store, StoreError};
use crate::trace;

/// Commits under way at once on PostgreSQL: while one waits for the disk, or for a standby,
/// the next is made ready, sent and executed. SQLite writes one transaction at a time.
const COMMITS_MAX: usize = 2;
/// Fewer events than this wait for the commit under way: a transaction costs the same for
/// few as for many.
const WORTHWHILE: usize = 32;
/// A commit of more events than this is not joined by another: it keeps the database busy
/// by itself, and publishers would only outrun the sending.
const JOINED_MAX: usize = 64;
/// For so long an organization's events are matched again whenever its subscriptions change.
/// It takes a slow link for somebody to change them so often.
const MOVING_MAX: Duration = Duration::from_secs(1);
/// So many commits at once may do so without taking the place of others.
const MOVING_COMMITS_MAX: usize = 4;
/// Time between two tries to learn what became of a commit.
const RECOVERY_PAUSE: Duration = Duration::from_millis(250);

/// Commits what was published, in batches.
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
    /// The same, since subscriptions have changed after this version. They have been read.
    Moved(Batch, i64),
    /// Its requests are refused, and what became of it is not known.
    Lost(Lost),
}

/// A commit whose answer was lost.
struct Lost {
    fence: Fence,
    keys: Vec<EventKey>,
    matched: Matched,
}

/// What of a batch is tried at once.
struct Part {
    batch: Batch,
    /// What is stored already under ids that its publishers chose.
    known: Vec<Published>,
    /// Changes of others count at the first try only.
    stale: Stale,
    /// When it was set apart, since its own organizations go on changing.
    apart: Option<Instant>,
}

impl Part {
    fn new(batch: Batch) -> Part {
        let stale = Stale::ByAnyChange;
        Part { batch, known: Vec::new(), stale, apart: None }
    }
}

/// The commits that take longer than a commit takes.
struct Trouble {
    /// Their answers were lost, and what became of them is not known yet. Until it is,
    /// nothing else is committed and publishers are told to come again.
    recovering: AtomicUsize,
    /// They wait for organizations to leave their subscriptions alone, and hold nobody up
    /// meanwhile.
    moving: AtomicUsize,
    began: Notify,
    stop: CancellationToken,
}

impl Trouble {
    fn is_outage(&self) -> bool {
        self.recovering.load(Ordering::Acquire) != 0
    }

    fn moving(&self) -> usize {
        self.moving.load(Ordering::Acquire).min(MOVING_COMMITS_MAX)
    }

    fn moves(&self) -> Moving<'_> {
        self.moving.fetch_add(1, Ordering::AcqRel);
        self.began.notify_one();
        Moving(self)
    }
}

/// A commit that counts as one that waits, until this is dropped.
struct Moving<'a>(&'a Trouble);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.moving.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Batcher {
    /// Serves the queue until `stop`, then what is left in it.
    pub async fn run(self, jobs: Jobs, stop: CancellationToken) {
        let mut queue = Queue::new(jobs, stop.clone());
        let (recovering, moving) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let trouble = Trouble { recovering, moving, began: Notify::new(), stop };
        let mut under_way = FuturesUnordered::new();
        let commits_max = if self.store.is_shared() { COMMITS_MAX } else { 1 };
        let mut joinable = true;
        loop {
            let moving = trouble.moving();
            let idle = under_way.len() <= moving;
            let joins = joinable && under_way.len() < commits_max + moving;
            if trouble.is_outage() {
                queue.refuse_waiting();
                tokio::select! {
                    Some(answered) = under_way.next() => queue.learn(answered),
                    () = queue.refuse_coming() => {}
                }
                continue;
            }
            let least = if idle { 1 } else { WORTHWHILE };
            tokio::select! {
                biased;
                Some(answered) = under_way.next() => queue.learn(answered),
                () = trouble.began.notified() => {}
                gathered = queue.gather(least), if idle || joins => {
                    match gathered {
                        Some(gathered) => {
                            joinable = gathered.events <= JOINED_MAX;
                            under_way.push(self.serve(gathered, &trouble));
                        }
                        None if under_way.is_empty() => return,
                        // The end, once those are answered.
                        None => while let Some(answered) = under_way.next().await {
                            queue.learn(answered);
                        },
                    }
                }
            }
        }
    }

    /// `None`: what it took says nothing of the store.
    async fn serve(&self, gathered: Gathered, trouble: &Trouble) -> Option<Answered> {
        let Gathered { jobs, room, came, .. } = gathered;
        for job in &jobs {
            trace::record_intake_wait(&job.span, job.came.elapsed());
        }
        let moved = self.commit(Batch::new(jobs), trouble).await;
        (!moved).then(|| Answered { room, oldest: came.elapsed() })
    }

    /// Commits a batch, in as many tries and parts as it takes. Tells whether some of it had
    /// to wait for organizations that changed their subscriptions.
    async fn commit(&self, batch: Batch, trouble: &Trouble) -> bool {
        let mut parts = VecDeque::from([Part::new(batch)]);
        let mut moving = None;
        while let Some(part) = parts.pop_front() {
            let Part { batch, known, stale, apart } = part;
            let events = batch.events();
            let span = trace::commit_span(batch.spans(), events, self.store.system());
            match self.attempt(batch, &known, stale).instrument(span).await {
                Ok(Tried::Done) => {}
                Ok(Tried::Again(batch)) => {
                    parts.push_front(Part { batch, known, stale, apart });
                }
                Ok(Tried::Moved(batch, _)) if stale == Stale::ByAnyChange => {
                    let stale = Stale::ByOwnChange;
                    parts.push_front(Part { batch, known, stale, apart });
                }
                Ok(Tried::Moved(batch, version)) => {
                    let (moved, others) = self.part(batch, version);
                    if !others.is_empty() {
                        let known = known.clone();
                        parts.push_front(Part { batch: others, known, stale, apart });
                    }
                    let since = apart.unwrap_or_else(Instant::now);
                    if MOVING_MAX <= since.elapsed() {
                        moved.refuse(|| PublishError::Unavailable);
                    } else if !moved.is_empty() {
                        moving.get_or_insert_with(|| trouble.moves());
                        let apart = Some(since);
                        parts.push_back(Part { batch: moved, known, stale, apart });
                    }
                }
                Ok(Tried::Lost(lost)) => {
                    for part in parts.drain(..) {
                        part.batch.refuse(|| PublishError::Unavailable);
                    }
                    self.recover(lost, trouble).await;
                }
                Err((batch, Obstacle::IdTaken)) => match self.store.published(&batch.ids()).await {
                    Ok(known) => parts.push_front(Part { batch, known, stale, apart }),
                    Err(error) => batch.refuse(|| refusal(&error)),
                },
                Err((rejected, Obstacle::Rejected)) if rejected.len() == 1 => {
                    rejected.refuse(|| PublishError::Rejected);
                }
                Err((locked, Obstacle::Locked)) if locked.len() == 1 => {
                    locked.refuse(|| PublishError::Unavailable);
                }
                Err((rejected, Obstacle::Rejected | Obstacle::Locked)) => {
                    let (first, second) = rejected.split();
                    for batch in [second, first] {
                        parts.push_front(Part { batch, known: known.clone(), stale, apart });
                    }
                }
            }
        }
        moving.is_some()
    }

    /// The requests of organizations that have changed something after this version of the
    /// table, and the others, which are not to wait for them.
    fn part(&self, batch: Batch, version: i64) -> (Batch, Batch) {
        let table = self.routing.table();
        batch.part(|organization| table.has_changed(organization, version))
    }

    async fn attempt(
        &self,
        mut batch: Batch,
        known: &[Published],
        stale: Stale,
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
        let commit = Commit { fence, routing_version, stale, events: &matched.rows };
        let began = Instant::now();
        let committed = self.store.commit(&commit).await;
        self.metrics.commit(count, began.elapsed());
        match committed {
            Ok(Committed::Stored) => self.hand_over(batch, &matched, &keys, fence),
            Ok(Committed::RoutingMoved) => {
                self.abandon(fence, &keys, matched);
                if let Err(error) = self.routing.leave(routing_version).await {
                    batch.refuse(|| refusal(&error));
                    return Ok(Tried::Done);
                }
                return Ok(Tried::Moved(batch, routing_version));
            }
            Ok(Committed::IdTaken) => {
                self.abandon(fence, &keys, matched);
                return Err((batch, Obstacle::IdTaken));
            }
            Err(StoreError::Rejected(_)) => {
                self.abandon(fence, &keys, matched);
                return Err((batch, Obstacle::Rejected));
            }
            Err(StoreError::Locked(why)) => {
                tracing::error!(%why, "an organization's events cannot be stored");
                self.abandon(fence, &keys, matched);
                return Err((batch, Obstacle::Locked));
            }
            Err(StoreError::Unavailable(why)) => {
                tracing::warn!(why, "commit not answered");
                batch.refuse(|| PublishError::Unavailable);
                return Ok(Tried::Lost(Lost { fence, keys, matched }));
            }
            Err(error) => {
                tracing::warn!(%error, "commit failed");
                self.abandon(fence, &keys, matched);
                batch.refuse(|| refusal(&error));
            }
        }
        Ok(Tried::Done)
    }

    fn hand_over(&self, batch: Batch, matched: &Matched, keys: &[EventKey], fence: Fence) {
        self.metrics.events_accepted(matched.published());
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
    /// does not know of it, and it may yet be. Where the database does not tell before the
    /// end of this process, the keys stay noted, so that another one looks.
    async fn recover(&self, lost: Lost, trouble: &Trouble) {
        let Lost { fence, keys, matched } = lost;
        trouble.recovering.fetch_add(1, Ordering::AcqRel);
        trouble.began.notify_one();
        let known = self.until_known(fence, &matched, &trouble.stop).await;
        trouble.recovering.fetch_sub(1, Ordering::AcqRel);
        if known {
            self.abandon(fence, &keys, matched);
        }
    }

    /// Nothing comes of these keys: nothing was stored, or others see to it.
    fn abandon(&self, fence: Fence, keys: &[EventKey], matched: Matched) {
        self.lease.ledger().committed(fence, keys, std::iter::empty());
        matched.give_places_back(&self.slots);
    }

    async fn until_known(&self, fence: Fence, matched: &Matched, stop: &CancellationToken) -> bool {
        loop {
            // Above every key of the batch, below those of the next one.
            let floor = EventKey(self.lease.next_key());
            match self.store.recover_commit(fence, &matched.rows, floor).await {
                Ok(_) => {
                    self.hand_over.due.notify_one();
                    return true;
                }
                // Taken over: the other replica has found what was stored.
                Err(StoreError::Fenced) => return true,
                Err(_) if stop.is_cancelled() => return false,
                Err(_) => tokio::time::sleep(RECOVERY_PAUSE).await,
            }
        }
    }
}

/// What the whole batch has to be redone for.
enum Obstacle {
    IdTaken,
    /// The database refuses a value of one of the requests.
    Rejected,
    /// The data key of one of the organizations does not open.
    Locked,
}

fn refusal(error: &StoreError) -> PublishError {
    match error {
        StoreError::StorageFull => PublishError::StorageFull,
        _ => PublishError::Unavailable,
    }
}
