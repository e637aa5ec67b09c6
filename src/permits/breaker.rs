//! A circuit breaker: whether one endpoint is to be left alone for a while.
//!
//! Pure: the time and the randomness come in as arguments.
//!
//! ```text
//!            10 failures in a row, over 10 s or more
//!   closed ------------------------------------------> open <--+
//!     ^                                                 | time |
//!     |  any answer of a working endpoint               v      | the probe fails:
//!     +-------------------------------------------- half-open -+ twice as long
//! ```
//!
//! Promises: while it is open nothing is admitted; while it is half-open one request at
//! a time; it is never open for longer than [`OPEN_MAX`] and a tenth, or than the
//! receiver asked for, [`ASKED_MAX`] at most.

use std::time::{Duration, Instant};

use crate::domain::attempt::Outcome;
use crate::domain::retry::stretched;

/// Failures in a row before a circuit opens. Fewer say little: that many requests can
/// be under way at once and fall into the same restart of a receiver.
pub const FAILURES_MIN: u32 = 10;
/// From the first to the last of them at least this long, whatever their number: a
/// restart or a short break of the network is the retry schedule's business.
pub const SPAN_MIN: Duration = Duration::from_secs(10);
/// How long it is open at first; twice as long after each probe that fails.
pub const OPEN_MIN: Duration = Duration::from_secs(5);
/// Longest that it is open, unless the receiver asks for more.
pub const OPEN_MAX: Duration = Duration::from_mins(5);
/// Longest that it is open because the receiver asks for it (`Retry-After`). The
/// delivery that got that answer waits by its own schedule; this is about the others.
pub const ASKED_MAX: Duration = Duration::from_hours(1);

/// What an attempt tells of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works, whatever it thinks of this one event.
    Alive,
    /// It does not work.
    Failing {
        /// How long it asked to be left alone.
        asked: Duration,
    },
    /// Nothing: it was not asked.
    Nothing,
}

impl Sign {
    /// What an outcome tells. `is_success` is the profile's word on the status. An
    /// answer counts as life unless it says that the endpoint itself is in trouble
    /// (5xx) or wants fewer requests (429); so a 4xx about one event does not hold up
    /// the others.
    #[must_use]
    pub fn of(outcome: &Outcome, is_success: bool) -> Sign {
        match outcome {
            Outcome::Responded { .. } if is_success => Sign::Alive,
            Outcome::Responded { status: 429 | 500..=599, retry_after, .. } => {
                Sign::Failing { asked: retry_after.unwrap_or_default() }
            }
            Outcome::Responded { .. } => Sign::Alive,
            Outcome::NoResponse(_) => Sign::Failing { asked: Duration::ZERO },
            Outcome::NotAsked { .. } => Sign::Nothing,
        }
    }
}

/// Whether a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Free,
    /// It may, and no other until [`Breaker::record`] tells what came of it. Probes are
    /// told apart by when they were admitted.
    Probe(Instant),
    /// Not now.
    Refused,
}

/// What a [`Sign`] has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters to others.
    Same,
    /// It was closed and is open, for this long.
    Opened(Duration),
    /// Its probe failed: it is open again, for this long.
    Reopened(Duration),
    /// It is closed.
    Closed,
}

/// A state, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests start as they come.
    Closed,
    /// None does before this time.
    Open(Instant),
    /// One may, or is under way.
    HalfOpen,
}

/// One endpoint's circuit, as one process sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    /// In a row.
    failures: u32,
    first_failure: Option<Instant>,
    last_failure: Option<Instant>,
    /// The latest time before which the receiver wanted no request.
    asked_until: Option<Instant>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Instant,
    /// How long it is open next time, without jitter.
    next: Duration,
    /// The one request of the half-open state, while it is under way.
    probe: Option<Instant>,
}

impl Breaker {
    /// Asks for a request to start; counts it as the probe where that is needed.
    pub fn admit(&mut self, now: Instant) -> Admission {
        let admission = self.look(now);
        if let (Admission::Probe(probe), Some(open)) = (admission, &mut self.open) {
            open.probe = Some(probe);
        }
        admission
    }

    /// What [`Breaker::admit`] would say.
    #[must_use]
    pub fn look(&self, now: Instant) -> Admission {
        match self.open {
            None => Admission::Free,
            Some(open) if open.probe.is_some() || now < open.until => Admission::Refused,
            Some(_) => Admission::Probe(now),
        }
    }

    /// Heeds what came of a request that [`Breaker::admit`] let start as `admission`.
    /// `jitter` from 0 to 1 stretches the time that it is open by up to a tenth, so that
    /// endpoints that failed together are not tried together.
    pub fn record(
        &mut self,
        admission: Admission,
        sign: Sign,
        now: Instant,
        jitter: f64,
    ) -> Change {
        // Not the probe of an earlier opening, which another answer has ended since.
        let is_probe = |open: &Open| open.probe.map(Admission::Probe) == Some(admission);
        let mut probed = None;
        if let Some(open) = self.open.as_mut().filter(|open| is_probe(open)) {
            open.probe = None;
            probed = Some(open.next);
        }
        let asked = match sign {
            Sign::Nothing => return Change::Same,
            // Also a request from before it opened: its answer is the latest news.
            Sign::Alive => {
                let was_open = self.open.is_some();
                *self = Breaker::default();
                return if was_open { Change::Closed } else { Change::Same };
            }
            Sign::Failing { asked } => asked,
        };
        self.failures = self.failures.saturating_add(1);
        let first = *self.first_failure.get_or_insert(now);
        self.last_failure = Some(now);
        self.asked_until = self.asked_until.max(now.checked_add(asked.min(ASKED_MAX)));
        if let Some(span) = probed {
            return Change::Reopened(self.open_for(span, now, jitter));
        }
        let lasts = FAILURES_MIN <= self.failures && SPAN_MIN <= now.duration_since(first);
        // What was under way when it opened says nothing new.
        if lasts && self.open.is_none() {
            return Change::Opened(self.open_for(OPEN_MIN, now, jitter));
        }
        Change::Same
    }

    fn open_for(&mut self, span: Duration, now: Instant, jitter: f64) -> Duration {
        let asked = self.asked_until.map(|until| until.saturating_duration_since(now));
        let wait = stretched(span, jitter).max(asked.unwrap_or_default());
        let next = (span * 2).min(OPEN_MAX);
        self.open = Some(Open { until: now + wait, next, probe: None });
        wait
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.failures == 0 && self.open.is_none()
    }

    /// Whether it is open or half-open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The state to show.
    #[must_use]
    pub fn state(&self, now: Instant) -> CircuitState {
        match self.open {
            None => CircuitState::Closed,
            Some(open) if now < open.until => CircuitState::Open(open.until),
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// Failures since the last sign of life.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the last of them ended.
    #[must_use]
    pub fn last_failure(&self) -> Option<Instant> {
        self.last_failure
    }
}
