//! Takes events in: gathers what callers publish and commits it in groups.
//!
//! One task commits, two batches at once. What arrives while it does gathers in a bounded
//! queue and is the next batch; nothing waits for a timer. A full queue refuses at once, before
//! anything is stored; how much fills it depends on what the store gets done
//! (`admission`).

mod admission;
mod announcer;
mod backlog;
mod batch;
mod batcher;
mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::admission::Admission;
pub use self::announcer::announce;
pub use self::backlog::Backlogs;
pub use self::batcher::Batcher;

use crate::domain::event::NewEvent;
use crate::domain::event_rules::content_hash;
use crate::domain::id::{EventKey, OrganizationId};
use crate::domain::rate::Rate;
use crate::metrics::{Metrics, Refusal};
use crate::permits::{QueueSlots, RateLimiter};
use crate::store::Claim;

/// Most deliveries that one request may make.
pub const DELIVERIES_MAX: usize = 20_000;
/// The n-th part of the bytes that may wait to be committed may wait to join them
/// ([`QueueSlots::delay`]). Who finds no room there joins at once.
const HELD_BACK: u32 = 4;
/// What an event takes there besides its payload, and more: empty ones fill memory too.
const HELD_EVENT_BYTES: usize = 1024;
/// How long a caller should wait before it tries again after a refusal.
const RETRY_IN: Duration = Duration::from_millis(200);
/// The same where its organization has too much open: that takes a while to change.
const BACKLOG_RETRY_IN: Duration = Duration::from_secs(10);

/// How much may wait to be committed, and how much is taken at all.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most events that wait: see `admission`. More lets larger bursts in where
    /// the store is fast, and costs memory.
    pub queue_events: u32,
    /// Payload bytes that wait.
    pub queue_bytes: u32,
    /// Events of one organization; `None`: as many as can be stored.
    pub rate: Option<Rate>,
    /// Deliveries that an organization may have open; `None`: any number.
    pub open_deliveries: Option<u32>,
}

impl Settings {
    /// The same; where nobody publishes, what is open is for others to count.
    #[must_use]
    pub fn where_calls_are_taken(self, taken: bool) -> Settings {
        Settings { open_deliveries: self.open_deliveries.filter(|_| taken), ..self }
    }
}

/// The door for publishers. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Intake {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Payload bytes that wait to join the queue.
    held_back: Arc<Semaphore>,
    admission: Arc<Admission>,
    limiter: RateLimiter,
    backlogs: Option<Backlogs>,
    jobs: mpsc::UnboundedSender<Job>,
    slots: QueueSlots,
    metrics: Metrics,
    settings: Settings,
}

/// Where the work goes once it is committed.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// Deliveries claimed by their commit. Their queue places were taken before,
    /// which bounds what this channel can hold.
    pub claims: mpsc::UnboundedSender<Vec<Claim>>,
    /// Told when due rows were added.
    pub due: Arc<Notify>,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedEvent {
    /// Its public id.
    pub id: String,
    /// Its key.
    pub key: EventKey,
    /// Subscriptions it goes to; for a duplicate, those of the stored event.
    pub delivery_count: u32,
    /// Whether it was there already.
    pub duplicate: bool,
}

/// Why nothing of a request was stored.
#[derive(Debug)]
pub enum PublishError {
    /// Too much waits to be committed.
    QueueFull {
        /// When to try again.
        retry_in: Duration,
    },
    /// The organization publishes more than it may.
    RateExceeded {
        /// When to try again.
        retry_in: Duration,
    },
    /// The organization has as many open deliveries as it may.
    BacklogFull {
        /// When to try again.
        retry_in: Duration,
    },
    /// The request would make more than [`DELIVERIES_MAX`] deliveries.
    TooManyDeliveries,
    /// The id of the event at `index` names an event with other content.
    IdConflict {
        /// Place in the request.
        index: usize,
    },
    /// The database refused a value of the request.
    Rejected,
    /// No space left in the database.
    StorageFull,
    /// The database is away, or this replica has just been taken over. The events
    /// may or may not be stored: publishing them again under the same ids is safe.
    Unavailable,
    /// The service is about to stop.
    ShuttingDown,
}

/// One request on its way to a commit.
#[derive(Debug)]
struct Job {
    events: Vec<NewEvent>,
    /// Of the events whose publisher chose an id.
    hashes: Vec<Option<[u8; 32]>>,
    answer: oneshot::Sender<Result<Vec<PublishedEvent>, PublishError>>,
    came: Instant,
    span: tracing::Span,
    _places: [OwnedSemaphorePermit; 2],
}

impl Intake {
    /// A door and the queue behind it; [`Batcher::run`] serves the queue.
    #[must_use]
    pub fn new(settings: Settings, slots: QueueSlots, metrics: Metrics) -> (Intake, Jobs) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let admission = Arc::new(Admission::new(settings.queue_events as usize));
        let intake = Intake {
            events: Arc::new(Semaphore::new(settings.queue_events as usize)),
            bytes: Arc::new(Semaphore::new(settings.queue_bytes as usize)),
            held_back: Arc::new(Semaphore::new((settings.queue_bytes / HELD_BACK) as usize)),
            admission: Arc::clone(&admission),
            limiter: RateLimiter::new(settings.rate),
            backlogs: settings.open_deliveries.map(Backlogs::new),
            jobs,
            slots,
            metrics,
            settings,
        };
        (intake, Jobs { queue, admission })
    }

    /// Refuses a request of so many events, if it would be now: cheaper than reading them
    /// first. What is let in counts for the organization's rate, whatever becomes of it.
    ///
    /// # Errors
    ///
    /// [`PublishError::QueueFull`], [`PublishError::BacklogFull`],
    /// [`PublishError::RateExceeded`].
    pub fn admit(&self, organization: &OrganizationId, events: usize) -> Result<(), PublishError> {
        self.has_room(events)?;
        if self.backlogs.as_ref().is_some_and(|backlogs| backlogs.is_full(organization)) {
            self.metrics.publish_refused(Refusal::BacklogFull);
            return Err(PublishError::BacklogFull { retry_in: BACKLOG_RETRY_IN });
        }
        let count = u32::try_from(events).unwrap_or(u32::MAX);
        self.limiter.take(organization, count).map_err(|retry_in| {
            self.metrics.publish_refused(Refusal::RateExceeded);
            PublishError::RateExceeded { retry_in }
        })
    }

    /// From now on an organization may publish so many events; `None`: as many as can be
    /// stored.
    pub fn set_rate(&self, rate: Option<Rate>) {
        self.limiter.set(rate);
    }

    /// What is to be counted, where there is a limit.
    #[must_use]
    pub fn backlogs(&self) -> Option<Backlogs> {
        self.backlogs.clone()
    }

    fn has_room(&self, events: usize) -> Result<(), PublishError> {
        let free = self.events.available_permits();
        let waiting = (self.settings.queue_events as usize).saturating_sub(free);
        if self.admission.admits(waiting, events) { Ok(()) } else { Err(self.full()) }
    }

    /// Stores the events of one request and everything that follows from them, all or
    /// none. OK means on disk.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]; but for [`PublishError::Unavailable`], nothing was stored.
    pub async fn publish(
        &self,
        events: Vec<NewEvent>,
    ) -> Result<Vec<PublishedEvent>, PublishError> {
        let bytes: usize = events.iter().map(NewEvent::weight).sum();
        if let Some(first) = events.first() {
            let bytes = bytes + HELD_EVENT_BYTES * events.len();
            self.hold_back(&first.organization, bytes).await;
        }
        let places = self.take_places(events.len(), bytes)?;
        let hash = |event: &NewEvent| event.id.as_ref().map(|_| content_hash(event));
        let hashes = events.iter().map(hash).collect();
        let (answer, answered) = oneshot::channel();
        let span = tracing::Span::current();
        let came = Instant::now();
        let job = Job { events, hashes, answer, came, span, _places: places };
        self.jobs.send(job).map_err(|_| PublishError::ShuttingDown)?;
        answered.await.unwrap_or(Err(PublishError::ShuttingDown))
    }

    /// Lets an organization's publishers come later, while they outrun its receivers.
    async fn hold_back(&self, organization: &OrganizationId, bytes: usize) {
        let Some(delay) = self.slots.delay(organization) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Without room it is let in at once: nothing waits here without a bound.
        if let Ok(_room) = self.held_back.try_acquire_many(bytes) {
            self.metrics.publish_held_back(delay);
            tokio::time::sleep(delay).await;
        }
    }

    fn take_places(
        &self,
        events: usize,
        bytes: usize,
    ) -> Result<[OwnedSemaphorePermit; 2], PublishError> {
        self.has_room(events)?;
        let full = |_| self.full();
        // A request larger than the whole queue may have all of it.
        let count = |wanted: usize, all: u32| u32::try_from(wanted).unwrap_or(all).min(all);
        let events = count(events, self.settings.queue_events);
        let events = Arc::clone(&self.events).try_acquire_many_owned(events).map_err(full)?;
        let bytes = count(bytes, self.settings.queue_bytes);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).map_err(full)?;
        Ok([events, bytes])
    }

    fn full(&self) -> PublishError {
        self.metrics.publish_refused(Refusal::QueueFull);
        PublishError::QueueFull { retry_in: RETRY_IN }
    }
}

/// The queue behind the door.
#[derive(Debug)]
pub struct Jobs {
    queue: mpsc::UnboundedReceiver<Job>,
    /// Told how long the answers took.
    admission: Arc<Admission>,
}
