//! The page says what was counted, and the documentation what is on the page.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_sdk::metrics::data::{Metric, ScopeMetrics};

use super::*;

fn busy() -> Metrics {
    let metrics = Metrics::new();
    metrics.events_accepted(3);
    metrics.events_duplicate(1);
    metrics.publish_refused(Refusal::QueueFull);
    metrics.publish_refused(Refusal::RateExceeded);
    metrics.publish_refused(Refusal::RateExceeded);
    metrics.publish_refused(Refusal::BacklogFull);
    metrics.publish_held_back(Duration::from_secs(1));
    metrics.commit(3, Duration::from_millis(2));
    for result in AttemptResult::ALL {
        metrics.attempt(result, Duration::from_millis(20));
    }
    metrics.delivery_ended(DeliveryState::Dead);
    metrics.delivery_ended(DeliveryState::Pending);
    metrics.first_attempt_delay(Timestamp(0), Timestamp(4_000), false, [0; 16]);
    metrics.first_attempt_delay(Timestamp(0), Timestamp(4_000_000), true, [0; 16]);
    metrics.delivered_delay(Timestamp(0), Timestamp(7_000_000), [0; 16]);
    metrics.settle(9, Duration::from_millis(3));
    metrics.claimed(5);
    metrics.taken_over(2);
    metrics.released(4);
    metrics.claims_lapsed(6);
    metrics.queue_wait(Duration::from_millis(5));
    let pool = |in_use| Pool { in_use, size: 6, waits: 2, waited: Duration::from_millis(1500) };
    metrics.pools_by(move || Some([pool(3), pool(0)]));
    metrics.not_asked();
    metrics.circuit_changed(CircuitChange::Opened);
    metrics.circuit_changed(CircuitChange::Reopened);
    metrics.circuit_changed(CircuitChange::Reopened);
    metrics.circuits_open(12);
    metrics.ownership_check(CheckResult::Proven);
    metrics.ownership_check(CheckResult::Refused);
    metrics.ownership_check(CheckResult::Refused);
    metrics.ready_when(|| true);
    metrics.endpoints_unproven(13);
    metrics.subscription_disabled(Disabled::Failing);
    metrics.operational_event(OperationalType::DeliveryDead);
    metrics.operational_event(OperationalType::DeliveryDead);
    metrics.subscriptions_failing(13);
    metrics.backlogs_full(12);
    metrics.purged(Stage::Payload, 13);
    metrics.purged(Stage::Metadata, 1);
    metrics.purge_late(Duration::from_secs(61));
    metrics.refused_call_counted();
    metrics.audit_write_failed();
    metrics.routing_reload(6);
    metrics.clock_skew(-1_500_000);
    metrics.decrypt_failures(13);
    metrics.queued(7);
    metrics.in_flight(8);
    metrics.unsettled(9);
    metrics.due_waiting_oldest_age(Duration::from_millis(2500));
    metrics.subscriptions(11);
    for cause in AuthenticationRefusal::ALL {
        metrics.authentication_refused(cause);
    }
    metrics.authentication_refused(AuthenticationRefusal::TokenExpired);
    metrics.authentication_limited();
    metrics.credential_reload_failed(CredentialSource::TlsFiles);
    metrics.tls_certificate_expiry(Some(Timestamp(1_785_542_400_000_000)));
    metrics.token_keys_oldest_age(Duration::from_millis(1500));
    metrics.configuration_reload(true);
    metrics.configuration_reload(false);
    metrics.configuration_reload(false);
    metrics.configuration_current(false);
    metrics.probes_begin(Timestamp(1_785_542_000_000_000));
    metrics.probe(ProbeResult::Delivered, Timestamp(1_785_542_030_000_000), Duration::from_secs(2));
    metrics.probe(ProbeResult::Late, Timestamp(1_785_542_090_000_000), Duration::from_secs(30));
    metrics.probe(ProbeResult::Late, Timestamp(1_785_542_150_000_000), Duration::from_secs(30));
    metrics
}

fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|text| text.parse().expect("a value is a number"))
}

#[test]
fn the_page_says_what_was_counted() {
    let page = busy().render();
    let expected = [
        ("hookward_events_accepted_total", 3.0),
        ("hookward_events_duplicate_total", 1.0),
        ("hookward_publish_refused_total{reason=\"queue_full\"}", 1.0),
        ("hookward_publish_refused_total{reason=\"rate_exceeded\"}", 2.0),
        ("hookward_publish_refused_total{reason=\"backlog_full\"}", 1.0),
        ("hookward_publish_held_back_seconds_sum", 1.0),
        ("hookward_commit_events_sum", 3.0),
        ("hookward_commit_duration_seconds_bucket{le=\"0.0025\"}", 1.0),
        ("hookward_commit_duration_seconds_bucket{le=\"0.001\"}", 0.0),
        ("hookward_attempt_duration_seconds_count{result=\"tls_error\"}", 1.0),
        ("hookward_attempt_duration_seconds_count{result=\"not_sent\"}", 1.0),
        ("hookward_egress_proxy_failures_total", 1.0),
        ("hookward_deliveries_ended_total{state=\"succeeded\"}", 0.0),
        ("hookward_deliveries_ended_total{state=\"dead\"}", 1.0),
        ("hookward_deliveries_ended_total{state=\"cancelled\"}", 0.0),
        ("hookward_first_attempt_delay_seconds_count{held=\"false\"}", 1.0),
        ("hookward_first_attempt_delay_seconds_sum{held=\"true\"}", 4.0),
        ("hookward_delivered_delay_seconds_sum", 7.0),
        ("hookward_settle_deliveries_sum", 9.0),
        ("hookward_settle_duration_seconds_count", 1.0),
        ("hookward_deliveries_claimed_total", 5.0),
        ("hookward_deliveries_taken_over_total", 2.0),
        ("hookward_deliveries_released_total", 4.0),
        ("hookward_circuit_changes_total{change=\"opened\"}", 1.0),
        ("hookward_circuit_changes_total{change=\"reopened\"}", 2.0),
        ("hookward_circuit_changes_total{change=\"closed\"}", 0.0),
        ("hookward_circuits_open", 12.0),
        ("hookward_ownership_checks_total{result=\"proven\"}", 1.0),
        ("hookward_ownership_checks_total{result=\"refused\"}", 2.0),
        ("hookward_ownership_checks_total{result=\"no_answer\"}", 0.0),
        ("hookward_ownership_checks_total{result=\"not_sent\"}", 0.0),
        ("hookward_ready", 1.0),
        ("hookward_endpoints_unproven", 13.0),
        ("hookward_subscriptions_disabled_total{reason=\"failing\"}", 1.0),
        ("hookward_subscriptions_disabled_total{reason=\"gone\"}", 0.0),
        ("hookward_operational_events_total{type=\"hookward.delivery.dead\"}", 2.0),
        ("hookward_operational_events_total{type=\"hookward.subscription.failing\"}", 0.0),
        ("hookward_subscriptions_failing", 13.0),
        ("hookward_organizations_backlog_full", 12.0),
        ("hookward_events_purged_total{stage=\"payload\"}", 13.0),
        ("hookward_events_purged_total{stage=\"metadata\"}", 1.0),
        ("hookward_purge_late_seconds", 61.0),
        ("hookward_refused_calls_counted_total", 1.0),
        ("hookward_audit_write_failures_total", 1.0),
        ("hookward_routing_reloads_total", 1.0),
        ("hookward_routing_changes_total", 6.0),
        ("hookward_clock_skew_seconds", -1.5),
        ("hookward_decrypt_failures_total", 13.0),
        ("hookward_deliveries_queued", 7.0),
        ("hookward_attempts_in_flight", 8.0),
        ("hookward_deliveries_unsettled", 9.0),
        ("hookward_due_oldest_age_seconds", 2.5),
        ("hookward_subscriptions", 11.0),
        ("hookward_authentication_refusals_total{cause=\"no_credentials\"}", 1.0),
        ("hookward_authentication_refusals_total{cause=\"token_expired\"}", 2.0),
        ("hookward_authentication_refusals_total{cause=\"token_claims\"}", 1.0),
        ("hookward_authentication_refusals_limited_total", 1.0),
        ("hookward_credential_reload_failures_total{source=\"api_keys\"}", 0.0),
        ("hookward_credential_reload_failures_total{source=\"tls_files\"}", 1.0),
        ("hookward_tls_certificate_expiry_timestamp_seconds", 1_785_542_400.0),
        ("hookward_token_keys_oldest_age_seconds", 1.5),
        (concat!("hookward_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ];
    for (series, expected) in expected {
        assert_eq!(value(&page, series), Some(expected), "{series} on\n{page}");
    }
}

#[test]
fn the_page_says_what_waits_for_what() {
    let page = busy().render();
    for (series, expected) in [
        ("hookward_claims_lapsed_total", 6.0),
        ("hookward_queue_wait_seconds_bucket{le=\"0.005\"}", 1.0),
        ("hookward_database_connections_in_use{work=\"engine\"}", 3.0),
        ("hookward_database_connections_in_use{work=\"calls\"}", 0.0),
        ("hookward_database_connections_max{work=\"calls\"}", 6.0),
        ("hookward_database_waits_total{work=\"engine\"}", 2.0),
        ("hookward_database_wait_seconds_total{work=\"engine\"}", 1.5),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} on\n{page}");
    }
    let none = Metrics::new().render();
    assert!(!none.contains("hookward_database_connections"), "without a server: {none}");
}

#[test]
fn the_page_says_how_probes_and_changes_of_settings_ended() {
    let page = busy().render();
    for (series, expected) in [
        ("hookward_configuration_reloads_total{result=\"ok\"}", 1.0),
        ("hookward_configuration_reloads_total{result=\"refused\"}", 2.0),
        ("hookward_configuration_current", 0.0),
        ("hookward_canary_probes_total{result=\"delivered\"}", 1.0),
        ("hookward_canary_probes_total{result=\"late\"}", 2.0),
        ("hookward_canary_probes_total{result=\"refused\"}", 0.0),
        ("hookward_canary_probes_total{result=\"failed\"}", 0.0),
        ("hookward_canary_seconds_count", 1.0),
        ("hookward_canary_seconds_sum", 2.0),
        ("hookward_canary_last_success_timestamp_seconds", 1_785_542_030.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} on\n{page}");
    }
}

/// A rate over a counter that appears only with its first count misses that count.
#[test]
fn counters_are_on_the_page_before_they_count() {
    let page = Metrics::new().render();
    let counters = page.lines().filter(|line| line.ends_with(" counter")).count();
    assert_eq!(counters, 24, "{page}");
    assert_eq!(value(&page, "hookward_events_accepted_total"), Some(0.0));
    assert_eq!(value(&page, "hookward_configuration_current"), Some(1.0));
}

/// What OpenMetrics 1.0 has otherwise than the older format, and no more.
#[test]
fn the_page_in_open_metrics_has_the_traces_of_deliveries() {
    let seconds_now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        now.as_secs_f64() + 0.001
    };
    let began = seconds_now() - 1.0;
    let metrics = busy();
    metrics.first_attempt_delay(Timestamp(0), Timestamp(30_001_500_000), true, [0xAB; 16]);
    metrics.first_attempt_delay(Timestamp(1_000_000), Timestamp(1_001_000), false, [0xCD; 16]);
    metrics.delivered_delay(Timestamp(0), Timestamp(86_400_000_001), [0xEF; 16]);
    let page = metrics.render_open_metrics();
    assert!(page.ends_with("\n# EOF\n"), "{page}");
    let (held, free, delivered) = ("ab".repeat(16), "cd".repeat(16), "ef".repeat(16));
    let expected = [
        format!(
            "hookward_first_attempt_delay_seconds_bucket{{held=\"true\",le=\"86400\"}} 2 \
             # {{trace_id=\"{held}\"}} 30001.5 "
        ),
        format!(
            "hookward_first_attempt_delay_seconds_bucket{{held=\"false\",le=\"0.001\"}} 1 \
             # {{trace_id=\"{free}\"}} 0.001 "
        ),
        format!(
            "hookward_delivered_delay_seconds_bucket{{le=\"+Inf\"}} 2 \
             # {{trace_id=\"{delivered}\"}} 86400.000001 "
        ),
    ];
    let shown: Vec<&str> = page.lines().filter(|line| line.contains(" # {")).collect();
    assert_eq!(shown.len(), expected.len(), "{page}");
    for line in &expected {
        let time = shown.iter().find_map(|one| one.strip_prefix(line.as_str()));
        let time: f64 = time.and_then(|time| time.parse().ok()).expect("it is there, with a time");
        assert!((began..=seconds_now()).contains(&time), "{line}{time} is of now");
    }
    let counters = page.lines().filter(|line| line.ends_with(" counter"));
    assert_eq!(counters.filter(|line| !line.ends_with("_total counter")).count(), 26);
    let samples = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(samples(&page), samples(&metrics.render()), "the values are the same");
}

/// Whoever pushes reads what the page shows, under the same names and as often as he likes.
#[test]
fn what_is_collected_is_what_the_page_says() {
    let metrics = busy();
    let before = metrics.render();
    for _ in 0..2 {
        let collected = metrics.collect();
        let scopes = collected.scope_metrics().flat_map(ScopeMetrics::metrics);
        let collected: BTreeSet<&str> = scopes.map(Metric::name).collect();
        let types = before.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let shown: BTreeSet<&str> = types.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(collected, shown);
    }
    assert_eq!(metrics.render(), before, "collecting changes nothing");
}

#[test]
fn readiness_is_asked_for_at_each_look() {
    let metrics = Metrics::new();
    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    assert_eq!(value(&metrics.render(), "hookward_ready"), Some(0.0), "nobody is asked yet");
    metrics.ready_when(move || asked.load(Ordering::SeqCst));
    for state in [true, false, true] {
        ready.store(state, Ordering::SeqCst);
        let expected = f64::from(u8::from(state));
        assert_eq!(value(&metrics.render(), "hookward_ready"), Some(expected));
    }
}

/// An alert on a certificate that ends soon must not tell of one that there is not.
#[test]
fn where_there_is_no_certificate_none_ends() {
    let metrics = Metrics::new();
    let series = "hookward_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(value(&metrics.render(), series), None);
    metrics.tls_certificate_expiry(Some(Timestamp(7_000_000)));
    assert_eq!(value(&metrics.render(), series), Some(7.0));
    metrics.tls_certificate_expiry(None);
    assert_eq!(value(&metrics.render(), series), None);
}

/// An alert on a success that is long ago must not tell of a canary that is off.
#[test]
fn where_nobody_probes_there_is_no_last_success() {
    let metrics = Metrics::new();
    let series = "hookward_canary_last_success_timestamp_seconds";
    assert_eq!(value(&metrics.render(), series), None);
    metrics.probes_begin(Timestamp(7_000_000));
    assert_eq!(value(&metrics.render(), series), Some(7.0), "the start counts as one");
    for result in [ProbeResult::Late, ProbeResult::Refused, ProbeResult::Failed] {
        metrics.probe(result, Timestamp(8_000_000), Duration::from_secs(1));
        assert_eq!(value(&metrics.render(), series), Some(7.0), "{result:?}");
    }
    assert_eq!(value(&metrics.render(), "hookward_canary_seconds_count"), None, "none was");
}

#[test]
fn clones_share_and_new_ones_start_at_zero() {
    let metrics = busy();
    metrics.clone().events_accepted(4);
    assert_eq!(value(&metrics.render(), "hookward_events_accepted_total"), Some(7.0));
    assert_eq!(value(&Metrics::new().render(), "hookward_events_accepted_total"), Some(0.0));
}

/// Each row of the table in `docs/METRICS.md` starts with the name, the type and the
/// labels of one metric.
#[test]
fn the_documentation_lists_every_metric() {
    let page = busy().render();
    let mut rendered = BTreeSet::new();
    for line in page.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let series = page.lines().find_map(|line| line.strip_prefix(name)?.split_once('{'));
        let labels = match series {
            Some((suffix, labels)) if ["", "_bucket"].contains(&suffix) => labels,
            _ => "",
        };
        let keys = labels.split('}').next().unwrap_or_default().split(',');
        let keys: Vec<&str> =
            keys.filter_map(|pair| pair.split_once('=')).map(|(key, _)| key).collect();
        let keys: Vec<String> =
            keys.into_iter().filter(|key| *key != "le").map(|key| format!("`{key}`")).collect();
        rendered.insert(format!("| `{name}` | {kind} | {} |", keys.join(", ")));
    }
    let document = include_str!("../../docs/METRICS.md");
    let documented: BTreeSet<String> = document
        .lines()
        .filter(|line| line.starts_with("| `hookward_"))
        .filter_map(|line| {
            let (end, _) = line.match_indices('|').nth(3)?;
            Some(line[..=end].to_owned())
        })
        .collect();
    assert_eq!(documented, rendered);
}

#[test]
fn the_documentation_tells_every_cause_and_source() {
    let document = include_str!("../../docs/METRICS.md");
    let causes = document.split("Causes of `hookward_authentication_refusals_total`").nth(1);
    let causes = causes.and_then(|rest| rest.split("\n## ").next()).expect("it is there");
    let rows = causes.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<&str> =
        rows.map(|(label, _)| label).filter(|label| *label != "cause").collect();
    let counted: BTreeSet<&str> =
        AuthenticationRefusal::ALL.into_iter().map(AuthenticationRefusal::label).collect();
    assert_eq!(documented, counted);
    for source in CredentialSource::ALL {
        assert!(document.contains(&format!("`{}`: ", source.label())), "{}", source.label());
    }
}
