//! The circuits of all endpoints, as this process sees them.
//!
//! Only endpoints in trouble have an entry, so that nothing is kept for the others and
//! asking about them costs one load. Replicas do not tell each other: each finds out by
//! itself, at the price of a few requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::breaker::{Admission, Breaker, Change, CircuitState, Sign};
use crate::domain::id::SubscriptionKey;

/// Which endpoint: a subscription as its owner last changed it. A change of any kind
/// starts over with a closed circuit, since it may have mended what was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose.
    pub subscription: SubscriptionKey,
    /// [`Subscription::version`](crate::domain::subscription::Subscription::version).
    pub version: i64,
}

/// A circuit, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Its state.
    pub state: CircuitState,
    /// Failures since the last sign of life.
    pub failures: u32,
    /// When the last of them ended.
    pub last_failure: Option<Instant>,
}

/// All circuits. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Circuits {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Number of `entries`, so that nobody locks while all is well.
    count: AtomicUsize,
    entries: Mutex<HashMap<SubscriptionKey, Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: i64,
    breaker: Breaker,
}

/// The right to start one request. Dropped without [`Pass::record`] it tells nothing of
/// the endpoint.
#[derive(Debug)]
pub struct Pass {
    circuits: Circuits,
    endpoint: Endpoint,
    admission: Admission,
}

impl Circuits {
    /// Asks for a request to start; `None`: not now.
    #[must_use]
    pub fn admit(&self, endpoint: Endpoint) -> Option<Pass> {
        let admission = match self.entries() {
            None => Admission::Free,
            Some(mut entries) => of(&mut entries, endpoint)
                .map_or(Admission::Free, |breaker| breaker.admit(Instant::now())),
        };
        let pass = || Pass { circuits: self.clone(), endpoint, admission };
        (admission != Admission::Refused).then(pass)
    }

    /// What [`Circuits::admit`] would find.
    #[must_use]
    pub fn look(&self, endpoint: Endpoint) -> Admission {
        let Some(mut entries) = self.entries() else { return Admission::Free };
        of(&mut entries, endpoint).map_or(Admission::Free, |breaker| breaker.look(Instant::now()))
    }

    /// The circuit to show.
    #[must_use]
    pub fn circuit(&self, endpoint: Endpoint) -> Circuit {
        let breaker = self.entries().and_then(|mut entries| of(&mut entries, endpoint).copied());
        let breaker = breaker.unwrap_or_default();
        Circuit {
            state: breaker.state(Instant::now()),
            failures: breaker.failures(),
            last_failure: breaker.last_failure(),
        }
    }

    /// Circuits that are open or half-open.
    #[must_use]
    pub fn open(&self) -> usize {
        let open = |entry: &&Entry| entry.breaker.is_open();
        self.entries().map_or(0, |entries| entries.values().filter(open).count())
    }

    /// Forgets the endpoints that are not `known` any more.
    pub fn retain(&self, known: impl Fn(Endpoint) -> bool) {
        if let Some(mut entries) = self.entries() {
            entries.retain(|key, entry| {
                known(Endpoint { subscription: *key, version: entry.version })
            });
            self.counted(&entries);
        }
    }

    fn record(&self, endpoint: Endpoint, admission: Admission, sign: Sign) -> Change {
        let mut entries = match sign {
            Sign::Failing { .. } => self.lock(),
            Sign::Alive | Sign::Nothing => match self.entries() {
                Some(entries) => entries,
                None => return Change::Same,
            },
        };
        let new = Entry { version: endpoint.version, breaker: Breaker::default() };
        let entry = entries.entry(endpoint.subscription).or_insert(new);
        if entry.version < endpoint.version {
            *entry = new;
        }
        let mut change = Change::Same;
        // News of what the endpoint was before a change are none.
        if entry.version == endpoint.version {
            change = entry.breaker.record(admission, sign, Instant::now(), fastrand::f64());
        }
        if entry.breaker.is_blank() {
            entries.remove(&endpoint.subscription);
        }
        self.counted(&entries);
        change
    }

    /// `None` while every endpoint is well. Whoever looks at the moment when the first
    /// one fails may still see that: as if it had looked just before.
    fn entries(&self) -> Option<MutexGuard<'_, HashMap<SubscriptionKey, Entry>>> {
        (self.inner.count.load(Ordering::Relaxed) != 0).then(|| self.lock())
    }

    fn counted(&self, entries: &HashMap<SubscriptionKey, Entry>) {
        self.inner.count.store(entries.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SubscriptionKey, Entry>> {
        // Each operation leaves an entry whole; none runs foreign code but `retain`,
        // which changes no entry.
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The breaker of an endpoint, unless what is known of it is of before a change.
fn of(entries: &mut HashMap<SubscriptionKey, Entry>, endpoint: Endpoint) -> Option<&mut Breaker> {
    let entry = entries.get_mut(&endpoint.subscription)?;
    (entry.version == endpoint.version).then_some(&mut entry.breaker)
}

impl Pass {
    /// Tells what came of the request, and what follows from it.
    #[must_use]
    pub fn record(mut self, sign: Sign) -> Change {
        let admission = std::mem::replace(&mut self.admission, Admission::Free);
        self.circuits.record(self.endpoint, admission, sign)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if matches!(self.admission, Admission::Probe(_)) {
            self.circuits.record(self.endpoint, self.admission, Sign::Nothing);
        }
    }
}

impl Circuit {
    /// How long until the next request may start; `None` unless it is open.
    #[must_use]
    pub fn opens_in(&self, now: Instant) -> Option<Duration> {
        match self.state {
            CircuitState::Open(until) => Some(until.saturating_duration_since(now)),
            CircuitState::Closed | CircuitState::HalfOpen => None,
        }
    }
}
