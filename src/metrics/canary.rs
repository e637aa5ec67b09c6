//! How the probes of the canary end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Metrics, add};
use crate::domain::timestamp::Timestamp;

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ProbeResult {
    /// Its receiver has it, as the database tells.
    Delivered,
    /// Nobody has delivered it in time.
    Late,
    /// It could not be published.
    Refused,
    /// Its delivery has ended without success.
    Failed,
}

impl ProbeResult {
    pub(super) const ALL: [ProbeResult; 4] =
        [ProbeResult::Delivered, ProbeResult::Late, ProbeResult::Refused, ProbeResult::Failed];

    /// As the metric's label and the log have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ProbeResult::Delivered => "delivered",
            ProbeResult::Late => "late",
            ProbeResult::Refused => "refused",
            ProbeResult::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Probes begin now, which counts as a success until there is one.
    pub fn probes_begin(&self, now: Timestamp) {
        self.values().canary_success_secs.store(now.secs(), Ordering::Relaxed);
    }

    /// A probe has ended, at that time and so long after it was published.
    pub fn probe(&self, result: ProbeResult, now: Timestamp, elapsed: Duration) {
        add(&self.values().probes[result as usize], 1);
        if result == ProbeResult::Delivered {
            self.values().canary_success_secs.store(now.secs(), Ordering::Relaxed);
            self.inner.times.canary.record(elapsed.as_secs_f64(), &[]);
        }
    }
}
