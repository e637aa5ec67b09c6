//! How long deliveries take, with the trace of one that took so long.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

use super::Metrics;
use super::exemplars::Exemplars;
use super::instruments::{label, seconds};
use crate::domain::timestamp::Timestamp;

const FIRST_ATTEMPT: &str = "hookward_first_attempt_delay_seconds";
const DELIVERED: &str = "hookward_delivered_delay_seconds";
/// Seconds from publish to delivery: retries stretch it to days.
const BOUNDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
    3600.0, 21_600.0, 86_400.0,
];

/// The histograms of what deliveries take.
pub(super) struct Delays {
    first_attempt: Histogram<f64>,
    held_labels: [[KeyValue; 1]; 2],
    delivered: Histogram<f64>,
    queue: Histogram<f64>,
    first_attempt_exemplars: Exemplars,
    delivered_exemplars: Exemplars,
}

impl Delays {
    pub(super) fn new(meter: &Meter) -> Delays {
        let first_attempt =
            "Time from publish to the start of the first attempt, by whether it was held up";
        let held = &["held=\"false\",", "held=\"true\","];
        Delays {
            first_attempt: seconds(meter, FIRST_ATTEMPT, first_attempt, &BOUNDS),
            held_labels: ["false", "true"].map(|held| [label("held", held)]),
            delivered: seconds(
                meter,
                DELIVERED,
                "Time from publish to the receiver's success",
                &BOUNDS,
            ),
            queue: seconds(
                meter,
                "hookward_queue_wait_seconds",
                "Time that deliveries waited in memory for an attempt",
                &BOUNDS,
            ),
            first_attempt_exemplars: Exemplars::new(FIRST_ATTEMPT, held, &BOUNDS),
            delivered_exemplars: Exemplars::new(DELIVERED, &[""], &BOUNDS),
        }
    }

    pub(super) fn exemplars(&self) -> [&Exemplars; 2] {
        [&self.first_attempt_exemplars, &self.delivered_exemplars]
    }
}

impl Metrics {
    /// Time from publish to the start of a delivery's first attempt, whether its endpoint
    /// or its subscription's owner held it up, and the trace to read of it, all zero where
    /// there is none.
    pub fn first_attempt_delay(
        &self,
        published: Timestamp,
        began: Timestamp,
        held: bool,
        trace_id: [u8; 16],
    ) {
        let (delays, series) = (&self.inner.times.delays, usize::from(held));
        let delay = began.since(published);
        delays.first_attempt.record(delay.as_secs_f64(), &delays.held_labels[series]);
        delays.first_attempt_exemplars.keep(series, delay, trace_id);
    }

    /// Time that a delivery waited in this process's memory for an attempt.
    pub fn queue_wait(&self, waited: Duration) {
        self.inner.times.delays.queue.record(waited.as_secs_f64(), &[]);
    }

    /// Time from publish to the receiver's success, and the trace to read of it.
    pub fn delivered_delay(&self, published: Timestamp, ended: Timestamp, trace_id: [u8; 16]) {
        let delays = &self.inner.times.delays;
        let delay = ended.since(published);
        delays.delivered.record(delay.as_secs_f64(), &[]);
        delays.delivered_exemplars.keep(0, delay, trace_id);
    }
}
