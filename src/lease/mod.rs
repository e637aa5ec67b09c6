//! This process's place among the replicas: its number, how long it may trust its
//! claims, the clock that it shares with the database, and what it holds.
//!
//! The lease lasts [`LEASE`] by the database's clock and is renewed every
//! [`HEARTBEAT`]. Here it is trusted only for [`TRUST`], by the monotonic clock,
//! counted from *before* the renewal was sent: so this process stops sending before
//! another one may take its claims over.

mod heartbeat;
mod ledger;
#[cfg(test)]
mod ledger_traces;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use self::heartbeat::keep;
pub use self::ledger::Ledger;

use crate::domain::id::{EventKey, KeyMaker};
use crate::domain::timestamp::{Timestamp, micros};
use crate::store::{Fence, Registered, Store, StoreError};

/// How long a silent replica keeps its claims.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often the lease is renewed where others watch: often enough for a crash to be
/// noticed within two seconds.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// The same on SQLite, where nobody watches.
pub const HEARTBEAT_ALONE: Duration = Duration::from_secs(2);
/// How long after a renewal was sent the claims are still trusted.
pub const TRUST: Duration = Duration::from_secs(9);

/// This process's lease. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Lease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    held: Mutex<Held>,
    /// When this process began, by a clock that nobody sets.
    began: Instant,
    /// The database's time at `began`, in microseconds, as the last answer tells.
    began_at: AtomicI64,
    keys: KeyMaker,
    ledger: Ledger,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    fence: Fence,
    /// When the last renewal that succeeded was sent.
    renewed: Instant,
}

impl Lease {
    /// Registers this process with the store.
    ///
    /// # Errors
    ///
    /// As [`Store::register`].
    pub async fn take(store: &Store) -> Result<Lease, StoreError> {
        let sent = Instant::now();
        let Registered { fence, now, newest } = store.register().await?;
        let keys = KeyMaker::new(now);
        keys.pass(newest);
        let inner = Inner {
            held: Mutex::new(Held { fence, renewed: sent }),
            began: sent,
            began_at: AtomicI64::new(now.0 - micros(sent.elapsed())),
            keys,
            ledger: Ledger::new(fence),
        };
        Ok(Lease { inner: Arc::new(inner) })
    }

    /// What every write of this process carries.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.held().fence
    }

    /// Whether this process may still act on its claims.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.held().renewed.elapsed() < TRUST
    }

    /// The time by the database's clock, as far as this process can tell: what the clock
    /// said last, and the time since. A step of this machine's own clock is not seen.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let since = micros(self.inner.began.elapsed());
        Timestamp(self.inner.began_at.load(Ordering::Relaxed) + since)
    }

    /// How far the database's clock is ahead of this machine's, in microseconds.
    #[must_use]
    pub fn clock_skew_micros(&self) -> i64 {
        self.now().0 - machine_clock()
    }

    /// A new ascending key.
    #[must_use]
    pub fn next_key(&self) -> i64 {
        self.inner.keys.next(self.fence().replica, self.now())
    }

    /// What this process holds.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Keys for events that are about to be committed under `fence`. The watermark
    /// stays below them until [`Ledger::committed`] is told of each.
    #[must_use]
    pub fn begin_events(&self, fence: Fence, count: usize) -> Vec<EventKey> {
        let now = self.now();
        let make = || EventKey(self.inner.keys.next(fence.replica, now));
        self.inner.ledger.begin(count, make)
    }

    /// The smallest key of an event that may still need this process's memory.
    fn low_key(&self) -> EventKey {
        self.inner.ledger.low_key(|| EventKey(self.next_key()))
    }

    fn renewed(&self, sent: Instant, now: Timestamp) {
        self.held().renewed = sent;
        self.set_clock(now);
    }

    /// Starts over under a new fence: what was held is another replica's now.
    /// Tells how many deliveries are lost with what it was.
    fn replaced(&self, sent: Instant, registered: Registered) -> usize {
        let Registered { fence, now, newest } = registered;
        // Its number may be another one now, whose last holder had a clock ahead.
        self.inner.keys.pass(newest);
        let lost = self.inner.ledger.start_over(fence);
        *self.held() = Held { fence, renewed: sent };
        self.set_clock(now);
        lost
    }

    fn set_clock(&self, now: Timestamp) {
        let began_at = now.0 - micros(self.inner.began.elapsed());
        self.inner.began_at.store(began_at, Ordering::Relaxed);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Two plain words cannot be left half-written by a panic.
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This machine's wall clock, in microseconds since 1970.
fn machine_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
