//! Writes the audit entries that stand in no change's transaction: of reads, before they are
//! answered, and of refused calls, soon after.
//!
//! One task writes. What gathers meanwhile is one transaction, so that readers of one
//! organization do not wait for each other's. Changes write their entries themselves
//! (`store/audit.rs`).

mod refusals;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::refusals::Refusals;
use crate::domain::audit::NewAuditEntry;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// Reads that may wait to be recorded; more wait to be let in.
const READS_MAX: usize = 256;
/// Entries in one transaction.
const BATCH: usize = 256;
/// How often it is looked whether a window of refused calls is over, and tried again what
/// could not be written.
const RHYTHM: Duration = Duration::from_secs(1);
/// How often what is left may be tried at the end.
const LAST_TRIES: usize = 2;

/// An entry, and who waits for it.
type Read = (NewAuditEntry, oneshot::Sender<()>);

/// Takes entries. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Auditor {
    reads: mpsc::Sender<Read>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    refusals: Mutex<Refusals>,
    /// Some refused call waits to be written.
    waits: Notify,
    metrics: Metrics,
}

/// An entry that could not be written: what it tells of must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritten;

/// Writes the entries.
pub struct Writer {
    store: Store,
    reads: mpsc::Receiver<Read>,
    shared: Arc<Shared>,
}

impl Auditor {
    /// An auditor and its writer, which must run.
    #[must_use]
    pub fn new(store: Store, metrics: Metrics) -> (Auditor, Writer) {
        let (sender, reads) = mpsc::channel(READS_MAX);
        let refusals = Mutex::new(Refusals::new(Instant::now()));
        let shared = Arc::new(Shared { refusals, waits: Notify::new(), metrics });
        let auditor = Auditor { reads: sender, shared: Arc::clone(&shared) };
        (auditor, Writer { store, reads, shared })
    }

    /// Writes the entry of a read, and returns once it is on disk.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]: the read must not be answered.
    pub async fn record(&self, entry: NewAuditEntry) -> Result<(), Unwritten> {
        let (written, told) = oneshot::channel();
        self.reads.send((entry, written)).await.map_err(|_| Unwritten)?;
        told.await.map_err(|_| Unwritten)
    }

    /// Notes a refused call. Never waits; it is written soon, or counted with others.
    pub fn refused(&self, entry: NewAuditEntry) {
        if self.shared.refusals().note(entry, Instant::now()) {
            self.shared.waits.notify_one();
        } else {
            self.shared.metrics.refused_call_counted();
        }
    }
}

impl Shared {
    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // Counts and a queue: a panic leaves nothing half-written that matters.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes until `stop`, then what is left, if the database takes it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(RHYTHM);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        let mut reads = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = self.reads.recv_many(&mut reads, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.write_reads(std::mem::take(&mut reads)).await;
                }
                () = shared.waits.notified() => self.write_refused().await,
                _ = rhythm.tick() => {
                    shared.refusals().turn(Instant::now());
                    self.write_refused().await;
                }
            }
        }
        while let Ok(read) = self.reads.try_recv() {
            reads.push(read);
        }
        self.write_reads(reads).await;
        for _ in 0..LAST_TRIES {
            shared.refusals().close(Instant::now());
            self.write_refused().await;
        }
    }

    async fn write_reads(&self, reads: Vec<Read>) {
        let (entries, waiting): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
        if entries.is_empty() || self.write(&entries).await.is_err() {
            // Whoever waits sees that nobody will tell him.
            return;
        }
        for written in waiting {
            // A caller that went away does not want to know.
            let _ = written.send(());
        }
    }

    /// Writes what waits, until nothing does or the database does not take it.
    async fn write_refused(&self) {
        loop {
            let entries = self.shared.refusals().take(BATCH);
            if entries.is_empty() {
                return;
            }
            match self.write(&entries).await {
                Ok(()) => {}
                // What is never taken must not keep the others from it.
                Err(StoreError::Rejected(_)) => return,
                Err(_) => return self.shared.refusals().put_back(entries),
            }
        }
    }

    async fn write(&self, entries: &[NewAuditEntry]) -> Result<(), StoreError> {
        let written = self.store.audit_all(entries).await;
        if let Err(error) = &written {
            self.shared.metrics.audit_write_failed();
            let count = entries.len();
            if let StoreError::Rejected(_) = error {
                tracing::error!(%error, count, "audit entries that can never be stored");
            } else {
                tracing::warn!(%error, count, "audit entries cannot be written now");
            }
        }
        written
    }
}
