//! What is counted and timed, and the page that shows it.
//!
//! Every metric is made by OpenTelemetry and read by its Prometheus exporter, also where
//! metrics are pushed to a collector as well. Counts and levels are plain atomics that are
//! read only when somebody looks, so that counting costs the hot path a few nanoseconds;
//! times and sizes are histograms.
//!
//! Labels are closed sets, never ids or text of callers: no organization can grow the
//! page or be recognised on it. Names are written out here as they appear, so that a
//! search for one finds its source; `docs/METRICS.md` lists them and a test compares.

mod authentication;
mod canary;
mod configuration;
mod database;
mod delays;
mod exemplars;
mod instruments;
mod open_metrics;
mod reader;
mod readiness;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use prometheus::{Registry, TextEncoder};

pub use self::authentication::{AuthenticationRefusal, CredentialSource};
pub use self::canary::ProbeResult;
pub use self::database::Pool;
use self::database::Pools;
use self::delays::Delays;
use self::reader::Reader;
use self::readiness::Readiness;

use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::DeliveryState;
use crate::domain::operational_event::OperationalType;
use crate::domain::ownership::CheckResult;
use crate::domain::retention::Stage;
use crate::domain::timestamp::Timestamp;

/// Why a publish was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// Too much waits to be committed.
    QueueFull,
    /// Its organization publishes more than it may.
    RateExceeded,
    /// Its organization has as many open deliveries as it may.
    BacklogFull,
}

impl Refusal {
    const ALL: [Refusal; 3] = [Refusal::QueueFull, Refusal::RateExceeded, Refusal::BacklogFull];

    fn label(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue_full",
            Refusal::RateExceeded => "rate_exceeded",
            Refusal::BacklogFull => "backlog_full",
        }
    }
}

/// What became of an endpoint's circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum CircuitChange {
    /// It was closed and is open.
    Opened,
    /// It stays open after a probe that failed.
    Reopened,
    /// The receiver works again.
    Closed,
}

impl CircuitChange {
    const ALL: [CircuitChange; 3] =
        [CircuitChange::Opened, CircuitChange::Reopened, CircuitChange::Closed];

    fn label(self) -> &'static str {
        match self {
            CircuitChange::Opened => "opened",
            CircuitChange::Reopened => "reopened",
            CircuitChange::Closed => "closed",
        }
    }
}

/// What the server switched a subscription off for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Disabled {
    /// Its receiver answered 410 Gone.
    Gone,
    /// Its receiver kept failing.
    Failing,
}

impl Disabled {
    const ALL: [Disabled; 2] = [Disabled::Gone, Disabled::Failing];

    fn label(self) -> &'static str {
        match self {
            Disabled::Gone => "gone",
            Disabled::Failing => "failing",
        }
    }
}

/// The ends of a delivery, as labels.
const ENDS: [(DeliveryState, &str); 3] = [
    (DeliveryState::Succeeded, "succeeded"),
    (DeliveryState::Dead, "dead"),
    (DeliveryState::Cancelled, "cancelled"),
];

/// What was purged, as labels.
const STAGES: [(Stage, &str); 2] = [(Stage::Payload, "payload"), (Stage::Metadata, "metadata")];

/// Counts, levels and times of one process. Made once; clones share it.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    values: Arc<Values>,
    times: Times,
    registry: Registry,
    reader: Reader,
    /// Holds the instruments; nothing is counted after it is dropped.
    _provider: SdkMeterProvider,
}

/// What is read at each look.
#[derive(Debug, Default)]
struct Values {
    events_accepted: AtomicU64,
    events_duplicate: AtomicU64,
    publish_refused: [AtomicU64; Refusal::ALL.len()],
    deliveries_ended: [AtomicU64; ENDS.len()],
    deliveries_claimed: AtomicU64,
    deliveries_taken_over: AtomicU64,
    deliveries_released: AtomicU64,
    claims_lapsed: AtomicU64,
    pools: Pools,
    not_asked: AtomicU64,
    circuit_changes: [AtomicU64; CircuitChange::ALL.len()],
    ownership_checks: [AtomicU64; CheckResult::ALL.len()],
    subscriptions_disabled: [AtomicU64; Disabled::ALL.len()],
    operational_events: [AtomicU64; OperationalType::ALL.len()],
    events_purged: [AtomicU64; STAGES.len()],
    refused_calls_counted: AtomicU64,
    audit_write_failures: AtomicU64,
    routing_reloads: AtomicU64,
    routing_changes: AtomicU64,
    ready: Readiness,
    clock_skew_micros: AtomicI64,
    decrypt_failures: AtomicU64,
    queued: AtomicU64,
    in_flight: AtomicU64,
    unsettled: AtomicU64,
    circuits_open: AtomicU64,
    endpoints_unproven: AtomicU64,
    due_oldest_age_micros: AtomicU64,
    purge_late_micros: AtomicU64,
    subscriptions: AtomicU64,
    subscriptions_failing: AtomicU64,
    backlogs_full: AtomicU64,
    authentication_refusals: [AtomicU64; AuthenticationRefusal::ALL.len()],
    authentication_limited: AtomicU64,
    credential_reload_failures: [AtomicU64; CredentialSource::ALL.len()],
    /// In seconds since 1970; 0 where there is none.
    tls_certificate_expiry_secs: AtomicI64,
    token_keys_oldest_age_micros: AtomicU64,
    /// Taken up, and refused.
    configuration_reloads: [AtomicU64; 2],
    configuration_current: AtomicU64,
    probes: [AtomicU64; ProbeResult::ALL.len()],
    /// In seconds since 1970; 0 where nobody probes.
    canary_success_secs: AtomicI64,
}

struct Times {
    attempt: Histogram<f64>,
    /// The label of each result, in the order of [`AttemptResult::ALL`].
    attempt_labels: [[KeyValue; 1]; AttemptResult::ALL.len()],
    delays: Delays,
    publish_held_back: Histogram<f64>,
    commit: Histogram<f64>,
    commit_events: Histogram<u64>,
    settle: Histogram<f64>,
    settle_deliveries: Histogram<u64>,
    canary: Histogram<f64>,
}

impl Metrics {
    /// All at zero, of nobody in particular.
    #[must_use]
    pub fn new() -> Self {
        Metrics::of(Resource::builder_empty().build())
    }

    /// All at zero. The page does not say whose they are; where they are pushed this is said.
    #[must_use]
    pub fn of(process: Resource) -> Self {
        let registry = Registry::new();
        let reader = Reader::of(&registry);
        let provider = SdkMeterProvider::builder().with_resource(process);
        let provider = provider.with_reader(reader.clone()).build();
        let meter = provider.meter("hookward");
        // What a process starts with is what is there.
        let current = AtomicU64::new(1);
        let values = Arc::new(Values { configuration_current: current, ..Values::default() });
        instruments::observe(&meter, &values);
        let times = Times::new(&meter);
        Metrics { inner: Arc::new(Inner { values, times, registry, reader, _provider: provider }) }
    }

    /// The page, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.inner.registry.gather(), &mut page)
        {
            tracing::warn!(%error, "the metrics page is incomplete");
        }
        page
    }

    /// What the page would say now, as OpenTelemetry has it.
    #[must_use]
    pub fn collect(&self) -> ResourceMetrics {
        let mut collected = ResourceMetrics::default();
        if let Err(error) = self.inner.reader.collect(&mut collected) {
            tracing::warn!(%error, "the metrics are incomplete");
        }
        collected
    }

    /// Events committed.
    pub fn events_accepted(&self, count: u64) {
        add(&self.values().events_accepted, count);
    }

    /// Events published again under the same id, with the same content.
    pub fn events_duplicate(&self, count: u64) {
        add(&self.values().events_duplicate, count);
    }

    /// A request of which nothing was stored.
    pub fn publish_refused(&self, reason: Refusal) {
        add(&self.values().publish_refused[reason as usize], 1);
    }

    /// A request waited so long because its organization's publishers outrun a receiver.
    pub fn publish_held_back(&self, delay: Duration) {
        self.inner.times.publish_held_back.record(delay.as_secs_f64(), &[]);
    }

    /// One commit of the intake.
    pub fn commit(&self, batch_events: usize, elapsed: Duration) {
        let times = &self.inner.times;
        times.commit.record(elapsed.as_secs_f64(), &[]);
        times.commit_events.record(batch_events as u64, &[]);
    }

    /// One request to a receiver.
    pub fn attempt(&self, result: AttemptResult, elapsed: Duration) {
        let times = &self.inner.times;
        // The numbers count from 1, in the order of ALL.
        let label = &times.attempt_labels[result as usize - 1];
        times.attempt.record(elapsed.as_secs_f64(), label);
    }

    /// A delivery came to an end. States that are no ends are not counted.
    pub fn delivery_ended(&self, state: DeliveryState) {
        if let Some(index) = ENDS.iter().position(|(end, _)| *end == state) {
            add(&self.values().deliveries_ended[index], 1);
        }
    }

    /// One write of settled deliveries.
    pub fn settle(&self, batch: usize, elapsed: Duration) {
        let times = &self.inner.times;
        times.settle.record(elapsed.as_secs_f64(), &[]);
        times.settle_deliveries.record(batch as u64, &[]);
    }

    /// Due deliveries claimed by this process.
    pub fn claimed(&self, count: usize) {
        add(&self.values().deliveries_claimed, count as u64);
    }

    /// Deliveries of a replica that died, put back by this one.
    pub fn taken_over(&self, count: u64) {
        add(&self.values().deliveries_taken_over, count);
    }

    /// Claimed deliveries given back untried.
    pub fn released(&self, count: usize) {
        add(&self.values().deliveries_released, count as u64);
    }

    /// Deliveries that this process held when it was taken over.
    pub fn claims_lapsed(&self, count: usize) {
        add(&self.values().claims_lapsed, count as u64);
    }

    /// A request that was not made because our own way out does not work.
    pub fn not_asked(&self) {
        add(&self.values().not_asked, 1);
    }

    /// Events that this process has purged by age.
    pub fn purged(&self, stage: Stage, count: u64) {
        if let Some(index) = STAGES.iter().position(|(one, _)| *one == stage) {
            add(&self.values().events_purged[index], count);
        }
    }

    /// By how much the last purge of this process was late for what was longest over.
    pub fn purge_late(&self, late: Duration) {
        set_age(&self.values().purge_late_micros, late);
    }

    /// The one that is under way is so late, or later.
    pub fn purge_late_at_least(&self, late: Duration) {
        let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.values().purge_late_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// A receiver fell out, or came back.
    pub fn circuit_changed(&self, change: CircuitChange) {
        add(&self.values().circuit_changes[change as usize], 1);
    }

    /// A subscription was switched off.
    pub fn subscription_disabled(&self, reason: Disabled) {
        add(&self.values().subscriptions_disabled[reason as usize], 1);
    }

    /// An operational event was published.
    pub fn operational_event(&self, kind: OperationalType) {
        add(&self.values().operational_events[kind as usize], 1);
    }

    /// Subscriptions whose receivers have failed since their last success.
    pub fn subscriptions_failing(&self, count: usize) {
        set(&self.values().subscriptions_failing, count as u64);
    }

    /// Organizations that have as many open deliveries as they may.
    pub fn backlogs_full(&self, count: usize) {
        set(&self.values().backlogs_full, count as u64);
    }

    /// Endpoints that are left alone for a while.
    pub fn circuits_open(&self, count: usize) {
        set(&self.values().circuits_open, count as u64);
    }

    /// An endpoint was asked whether it wants events.
    pub fn ownership_check(&self, result: CheckResult) {
        add(&self.values().ownership_checks[result as usize], 1);
    }

    /// From now on `ask` says at each look whether calls can be served; before, they cannot.
    /// It must not block. The first that is named stays.
    pub fn ready_when(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        self.values().ready.ask(ask);
    }

    /// Endpoints that must consent before they get anything, and have not.
    pub fn endpoints_unproven(&self, count: usize) {
        set(&self.values().endpoints_unproven, count as u64);
    }

    /// A refused call that is counted in the audit log, without an entry of its own.
    pub fn refused_call_counted(&self) {
        add(&self.values().refused_calls_counted, 1);
    }

    /// Audit entries of reads or refused calls could not be written.
    pub fn audit_write_failed(&self) {
        add(&self.values().audit_write_failures, 1);
    }

    /// Subscription changes were read from the database.
    pub fn routing_reload(&self, changed: usize) {
        add(&self.values().routing_reloads, 1);
        add(&self.values().routing_changes, changed as u64);
    }

    /// How far the database's clock is ahead of this machine's, in microseconds.
    pub fn clock_skew(&self, micros: i64) {
        self.values().clock_skew_micros.store(micros, Ordering::Relaxed);
    }

    /// Stored values that could not be decrypted since the start.
    pub fn decrypt_failures(&self, count: u64) {
        set(&self.values().decrypt_failures, count);
    }

    /// Deliveries that wait in memory.
    pub fn queued(&self, count: usize) {
        set(&self.values().queued, count as u64);
    }

    /// Requests under way.
    pub fn in_flight(&self, count: usize) {
        set(&self.values().in_flight, count as u64);
    }

    /// Deliveries that this process holds and has not settled.
    pub fn unsettled(&self, count: usize) {
        set(&self.values().unsettled, count as u64);
    }

    /// How long the oldest due delivery has been waiting to be claimed.
    pub fn due_waiting_oldest_age(&self, age: Duration) {
        set_age(&self.values().due_oldest_age_micros, age);
    }

    /// Subscriptions that routing knows.
    pub fn subscriptions(&self, count: usize) {
        set(&self.values().subscriptions, count as u64);
    }

    /// A call was not let in, or a connection for its certificate.
    pub fn authentication_refused(&self, cause: AuthenticationRefusal) {
        add(&self.values().authentication_refusals[cause as usize], 1);
    }

    /// A call that was not let in was told to come back later: its address failed too often.
    pub fn authentication_limited(&self) {
        add(&self.values().authentication_limited, 1);
    }

    /// What says who is let in could not be read anew; what was read last goes on counting.
    pub fn credential_reload_failed(&self, source: CredentialSource) {
        add(&self.values().credential_reload_failures[source as usize], 1);
    }

    /// When the certificate that the server shows ends; `None` where that is not known.
    pub fn tls_certificate_expiry(&self, end: Option<Timestamp>) {
        let secs = end.map_or(0, Timestamp::secs);
        self.values().tls_certificate_expiry_secs.store(secs, Ordering::Relaxed);
    }

    /// How long the issuer of tokens whose keys were not read for longest is waiting for that.
    pub fn token_keys_oldest_age(&self, age: Duration) {
        set_age(&self.values().token_keys_oldest_age_micros, age);
    }

    fn values(&self) -> &Values {
        &self.inner.values
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Metrics").field(&self.inner.values).finish()
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn set(level: &AtomicU64, value: u64) {
    level.store(value, Ordering::Relaxed);
}

fn set_age(micros: &AtomicU64, age: Duration) {
    set(micros, u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests;
