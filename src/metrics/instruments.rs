//! The instruments: names, help texts, units and buckets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

use super::{
    AuthenticationRefusal, CircuitChange, CredentialSource, Delays, Disabled, ENDS, ProbeResult,
    Refusal, STAGES, Times, Values, configuration, database,
};
use crate::domain::attempt::AttemptResult;
use crate::domain::operational_event::OperationalType;
use crate::domain::ownership::CheckResult;

/// Seconds: half a millisecond, which a local commit takes, to a minute, beyond which
/// an attempt cannot last.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// Rows written together.
const ROWS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// A gauge: name, help, conversion to its unit, and where its value is.
type Level = (&'static str, &'static str, fn(u64) -> f64, fn(&Values) -> &AtomicU64);

impl Times {
    pub(super) fn new(meter: &Meter) -> Times {
        let seconds = |name, help| seconds(meter, name, help, &SECONDS);
        let rows = |name, help| {
            let builder = meter.u64_histogram(name).with_description(help);
            builder.with_boundaries(ROWS.to_vec()).build()
        };
        Times {
            attempt: seconds(
                "hookward_attempt_duration_seconds",
                "Duration of requests to receivers, by how they ended",
            ),
            attempt_labels: AttemptResult::ALL.map(|result| [label("result", result.as_str())]),
            delays: Delays::new(meter),
            publish_held_back: seconds(
                "hookward_publish_held_back_seconds",
                "Time that publish requests waited because publishers outrun the sending",
            ),
            commit: seconds(
                "hookward_commit_duration_seconds",
                "Duration of the commits of published events",
            ),
            commit_events: rows("hookward_commit_events", "Events in one commit"),
            settle: seconds(
                "hookward_settle_duration_seconds",
                "Duration of the writes of settled deliveries",
            ),
            settle_deliveries: rows(
                "hookward_settle_deliveries",
                "Deliveries settled by one write",
            ),
            canary: seconds(
                "hookward_canary_seconds",
                "Time from publish to delivered of the canary's probes",
            ),
        }
    }
}

/// A histogram of times.
pub(super) fn seconds(
    meter: &Meter,
    name: &'static str,
    help: &'static str,
    bounds: &[f64],
) -> Histogram<f64> {
    let builder = meter.f64_histogram(name).with_description(help).with_unit("s");
    builder.with_boundaries(bounds.to_vec()).build()
}

/// Makes the counters and gauges, which read `values` at each look.
pub(super) fn observe(meter: &Meter, values: &Arc<Values>) {
    observe_publishing(meter, values);
    observe_deliveries(meter, values);
    observe_circuits(meter, values);
    observe_checks(meter, values);
    observe_operations(meter, values);
    observe_purges(meter, values);
    observe_audit(meter, values);
    observe_authentication(meter, values);
    observe_canary(meter, values);
    observe_levels(meter, values);
    observe_process(meter, values);
    configuration::observe(meter, values);
    database::observe(meter, values);
}

fn observe_publishing(meter: &Meter, values: &Arc<Values>) {
    count(meter, values, "hookward_events_accepted_total", "Events committed", |values| {
        &values.events_accepted
    });
    count(
        meter,
        values,
        "hookward_events_duplicate_total",
        "Events published again under the same id with the same content",
        |values| &values.events_duplicate,
    );
    let shared = Arc::clone(values);
    let labels = Refusal::ALL.map(|reason| [label("reason", reason.label())]);
    meter
        .u64_observable_counter("hookward_publish_refused_total")
        .with_description("Publish requests of which nothing was stored, by reason")
        .with_callback(move |observer| {
            for (value, labels) in shared.publish_refused.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
}

fn observe_deliveries(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = ENDS.map(|(_, state)| [label("state", state)]);
    meter
        .u64_observable_counter("hookward_deliveries_ended_total")
        .with_description("Deliveries that came to an end, by their final state")
        .with_callback(move |observer| {
            for (value, labels) in shared.deliveries_ended.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
    count(
        meter,
        values,
        "hookward_deliveries_claimed_total",
        "Due deliveries claimed by this process",
        |values| &values.deliveries_claimed,
    );
    count(
        meter,
        values,
        "hookward_deliveries_taken_over_total",
        "Deliveries of replicas that died, put back by this one",
        |values| &values.deliveries_taken_over,
    );
    count(
        meter,
        values,
        "hookward_deliveries_released_total",
        "Claimed deliveries given back untried",
        |values| &values.deliveries_released,
    );
    count(
        meter,
        values,
        "hookward_claims_lapsed_total",
        "Deliveries that this process held when another took it over",
        |values| &values.claims_lapsed,
    );
    count(
        meter,
        values,
        "hookward_egress_proxy_failures_total",
        "Requests put off because the egress proxy does not work",
        |values| &values.not_asked,
    );
    count(
        meter,
        values,
        "hookward_routing_reloads_total",
        "Times that subscription changes were read",
        |values| &values.routing_reloads,
    );
    count(meter, values, "hookward_routing_changes_total", "Subscription changes read", |values| {
        &values.routing_changes
    });
    count(
        meter,
        values,
        "hookward_decrypt_failures_total",
        "Stored values that could not be decrypted",
        |values| &values.decrypt_failures,
    );
}

fn observe_circuits(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = CircuitChange::ALL.map(|change| [label("change", change.label())]);
    meter
        .u64_observable_counter("hookward_circuit_changes_total")
        .with_description("Changes of receivers' circuits, by what became of them")
        .with_callback(move |observer| {
            for (value, labels) in shared.circuit_changes.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
}

fn observe_checks(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = CheckResult::ALL.map(|result| [label("result", result.as_str())]);
    meter
        .u64_observable_counter("hookward_ownership_checks_total")
        .with_description("Endpoints asked whether they want events, by what they answered")
        .with_callback(move |observer| {
            for (value, labels) in shared.ownership_checks.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
}

fn observe_operations(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = Disabled::ALL.map(|reason| [label("reason", reason.label())]);
    meter
        .u64_observable_counter("hookward_subscriptions_disabled_total")
        .with_description("Subscriptions that this process has switched off, by reason")
        .with_callback(move |observer| {
            for (value, labels) in shared.subscriptions_disabled.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
    let shared = Arc::clone(values);
    let labels = OperationalType::ALL.map(|kind| [label("type", kind.as_str())]);
    meter
        .u64_observable_counter("hookward_operational_events_total")
        .with_description("The service's own events published by this process, by type")
        .with_callback(move |observer| {
            for (value, labels) in shared.operational_events.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
}

fn observe_purges(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = STAGES.map(|(_, stage)| [label("stage", stage)]);
    meter
        .u64_observable_counter("hookward_events_purged_total")
        .with_description("Events purged since they were kept for long enough, by what went")
        .with_callback(move |observer| {
            for (value, labels) in shared.events_purged.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
}

fn observe_audit(meter: &Meter, values: &Arc<Values>) {
    count(
        meter,
        values,
        "hookward_refused_calls_counted_total",
        "Refused calls that the audit log counts, without an entry of their own",
        |values| &values.refused_calls_counted,
    );
    count(
        meter,
        values,
        "hookward_audit_write_failures_total",
        "Writes of audit entries, of reads and refused calls, that failed",
        |values| &values.audit_write_failures,
    );
}

fn observe_authentication(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = AuthenticationRefusal::ALL.map(|cause| [label("cause", cause.label())]);
    meter
        .u64_observable_counter("hookward_authentication_refusals_total")
        .with_description("Calls and connections that were not let in, by cause")
        .with_callback(move |observer| {
            for (value, labels) in shared.authentication_refusals.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
    count(
        meter,
        values,
        "hookward_authentication_refusals_limited_total",
        "Refused calls that were told to come back later, for their address failed too often",
        |values| &values.authentication_limited,
    );
    let shared = Arc::clone(values);
    let labels = CredentialSource::ALL.map(|source| [label("source", source.label())]);
    meter
        .u64_observable_counter("hookward_credential_reload_failures_total")
        .with_description("Times that what says who is let in could not be read anew, by source")
        .with_callback(move |observer| {
            for (value, labels) in shared.credential_reload_failures.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
    let shared = Arc::clone(values);
    meter
        .i64_observable_gauge("hookward_tls_certificate_expiry_timestamp_seconds")
        .with_description("When the certificate of the gRPC port ends, in seconds since 1970")
        .with_callback(move |observer| {
            let secs = shared.tls_certificate_expiry_secs.load(Ordering::Relaxed);
            if secs != 0 {
                observer.observe(secs, &[]);
            }
        })
        .build();
}

fn observe_canary(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = ProbeResult::ALL.map(|result| [label("result", result.label())]);
    meter
        .u64_observable_counter("hookward_canary_probes_total")
        .with_description("Probes of the canary, by how they ended")
        .with_callback(move |observer| {
            for (value, labels) in shared.probes.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
    let shared = Arc::clone(values);
    meter
        .i64_observable_gauge("hookward_canary_last_success_timestamp_seconds")
        .with_description("When a probe was delivered last, in seconds since 1970")
        .with_callback(move |observer| {
            let secs = shared.canary_success_secs.load(Ordering::Relaxed);
            if secs != 0 {
                observer.observe(secs, &[]);
            }
        })
        .build();
}

fn observe_levels(meter: &Meter, values: &Arc<Values>) {
    #[expect(clippy::cast_precision_loss, reason = "for people; exact up to 2^53")]
    let plain = |value: u64| value as f64;
    let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
    let levels: [Level; 11] = [
        ("hookward_deliveries_queued", "Deliveries that wait in memory", plain, |values| {
            &values.queued
        }),
        ("hookward_attempts_in_flight", "Requests under way", plain, |values| &values.in_flight),
        (
            "hookward_deliveries_unsettled",
            "Deliveries that this process holds and has not settled",
            plain,
            |values| &values.unsettled,
        ),
        ("hookward_circuits_open", "Receivers that are left alone for a while", plain, |values| {
            &values.circuits_open
        }),
        (
            "hookward_endpoints_unproven",
            "Endpoints that must consent before they get anything, and have not",
            plain,
            |values| &values.endpoints_unproven,
        ),
        (
            "hookward_due_oldest_age_seconds",
            "Time that the oldest due delivery has been waiting to be claimed",
            seconds,
            |values| &values.due_oldest_age_micros,
        ),
        (
            "hookward_purge_late_seconds",
            "By how much the last purge was late for what was longest over",
            seconds,
            |values| &values.purge_late_micros,
        ),
        ("hookward_subscriptions", "Subscriptions that routing knows", plain, |values| {
            &values.subscriptions
        }),
        (
            "hookward_subscriptions_failing",
            "Subscriptions whose receivers have failed since their last success",
            plain,
            |values| &values.subscriptions_failing,
        ),
        (
            "hookward_organizations_backlog_full",
            "Organizations that have as many open deliveries as they may",
            plain,
            |values| &values.backlogs_full,
        ),
        (
            "hookward_token_keys_oldest_age_seconds",
            "Time since the keys of a token issuer were read, of the one for whom it is longest",
            seconds,
            |values| &values.token_keys_oldest_age_micros,
        ),
    ];
    for (name, help, unit, value) in levels {
        let values = Arc::clone(values);
        meter
            .f64_observable_gauge(name)
            .with_description(help)
            .with_callback(move |observer| {
                observer.observe(unit(value(&values).load(Ordering::Relaxed)), &[]);
            })
            .build();
    }
}

fn observe_process(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    meter
        .u64_observable_gauge("hookward_ready")
        .with_description("1 while calls can be served, else 0")
        .with_callback(move |observer| observer.observe(u64::from(shared.ready.holds()), &[]))
        .build();
    let values = Arc::clone(values);
    meter
        .f64_observable_gauge("hookward_clock_skew_seconds")
        .with_description("How far the database's clock is ahead of this machine's")
        .with_callback(move |observer| {
            let micros = values.clock_skew_micros.load(Ordering::Relaxed);
            let size = Duration::from_micros(micros.unsigned_abs()).as_secs_f64();
            observer.observe(if micros < 0 { -size } else { size }, &[]);
        })
        .build();
    let version = [label("version", env!("CARGO_PKG_VERSION"))];
    meter
        .u64_observable_gauge("hookward_build_info")
        .with_description("Always 1; says which version runs")
        .with_callback(move |observer| observer.observe(1, &version))
        .build();
}

fn count(
    meter: &Meter,
    values: &Arc<Values>,
    name: &'static str,
    help: &'static str,
    value: fn(&Values) -> &AtomicU64,
) {
    let values = Arc::clone(values);
    meter
        .u64_observable_counter(name)
        .with_description(help)
        .with_callback(move |observer| {
            observer.observe(value(&values).load(Ordering::Relaxed), &[]);
        })
        .build();
}

pub(super) fn label(key: &'static str, value: &'static str) -> KeyValue {
    KeyValue::new(key, value)
}
