//! What is counted and timed. Labels are closed sets, never ids or text of callers.

use std::time::Duration;

use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::DeliveryState;

/// Placeholder.
#[derive(Clone, Debug, Default)]
pub struct Metrics;

/// Why a publish was refused.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// The queue is full.
    QueueFull,
}

#[expect(missing_docs, clippy::unused_self, reason = "placeholder")]
impl Metrics {
    pub fn new() -> Self {
        Metrics
    }
    pub fn events_accepted(&self, _: u64) {}
    pub fn events_duplicate(&self, _: u64) {}
    pub fn publish_refused(&self, _: Refusal) {}
    pub fn commit(&self, _: usize, _: Duration) {}
    pub fn attempt(&self, _: AttemptResult, _: Duration) {}
    pub fn delivery_ended(&self, _: DeliveryState) {}
    pub fn first_attempt_delay(&self, _: Duration) {}
    pub fn delivered_delay(&self, _: Duration) {}
    pub fn settle(&self, _: usize, _: Duration) {}
    pub fn claimed(&self, _: usize) {}
    pub fn taken_over(&self, _: u64) {}
    pub fn released(&self, _: usize) {}
    pub fn routing_reload(&self, _: usize) {}
    pub fn clock_skew(&self, _: i64) {}
    pub fn queued(&self, _: usize) {}
    pub fn in_flight(&self, _: usize) {}
    pub fn unsettled(&self, _: usize) {}
    pub fn due_waiting_oldest_age(&self, _: Duration) {}
    pub fn subscriptions(&self, _: usize) {}
}
