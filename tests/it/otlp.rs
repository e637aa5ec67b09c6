//! Contract: traces and metrics reach a collector by either protocol of OpenTelemetry, and one
//! that is away holds nothing up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;
use tokio::net::TcpListener;

use crate::harness::admin;
use crate::harness::collector::{Collector, GRPC, HTTP};
use crate::harness::engine::Engine;
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::proxy::Proxy;
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};

/// A server that speaks to this endpoint in this way, and soon.
fn exporting(endpoint: &str, protocol: &str) -> Settings {
    Settings::new(Engine::sqlite())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
}

/// Publishes and sends so many events.
async fn deliver(service: &Service, count: usize) {
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    for _ in 0..count {
        let id = clinic.publish("invoice.paid", "{}").await;
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_reach_a_collector_over_http() {
    let collector = Collector::speaking(HTTP).await;
    let endpoint = format!("{}/otlp", collector.endpoint());
    let service = exporting(&endpoint, HTTP).start().await;

    deliver(&service, 1).await;

    let spans = eventually("the call and the attempt", async || {
        let spans = collector.spans();
        let named = |name| spans.iter().any(|span| span.name == name);
        (named("hookward.v1.EventService/PublishEvents") && named("POST")).then_some(spans)
    })
    .await;
    assert!(spans.iter().all(|span| span.trace_id.len() == 16), "{spans:?}");
    for (path, kind) in collector.requests() {
        assert_eq!((&*path, &*kind), ("/otlp/v1/traces", "application/x-protobuf"));
    }
    let sender = |attribute| collector.sender(attribute);
    assert_eq!(sender("service.name").as_deref(), Some("hookward"));
    assert_eq!(sender("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(sender("deployment.environment.name").as_deref(), Some("test"));
}

/// The spans that the timer would send much later leave when the server ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_traces_leave_over_http_at_the_end() {
    let collector = Collector::speaking(HTTP).await;
    let settings = exporting(&collector.endpoint(), HTTP).env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut service = settings.start().await;
    deliver(&service, 1).await;
    assert!(collector.spans().is_empty(), "the timer is slow");

    service.terminate();
    assert!(service.ends().await.success());

    assert!(collector.spans().iter().any(|span| span.name == "POST"), "{:?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused_at_the_start() {
    let mut process = exporting("http://127.0.0.1:9", "http/json").launch();
    assert_eq!(process.ends().await.code(), Some(78));
    let expected = "--otlp-protocol: write grpc or http/protobuf";
    assert!(process.written().contains(expected), "{}", process.written());
}

/// Takes connections, and never answers.
async fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_up_the_end_for_seconds_only() {
    let collector = silent().await;
    let endpoint = format!("http://{}", collector.local_addr().expect("it is bound"));
    for protocol in [GRPC, HTTP] {
        let mut service = pushing(&endpoint, protocol, "100").start().await;
        deliver(&service, 3).await;

        let begin = Instant::now();
        service.terminate();
        assert!(service.ends().await.success(), "{protocol}");

        // Five seconds for all that is to be flushed, and some for the rest of the end.
        assert!(begin.elapsed() < Duration::from_secs(9), "{protocol}: {:?}", begin.elapsed());
        let written = service.written();
        assert!(written.contains("the last traces were not delivered"), "{protocol}: {written}");
        assert!(written.contains("the last metrics were not delivered"), "{protocol}: {written}");
    }
}

/// The same that sends its metrics too, after so many milliseconds.
fn pushing(endpoint: &str, protocol: &str, interval: &str) -> Settings {
    exporting(endpoint, protocol)
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_METRIC_EXPORT_INTERVAL", interval)
}

/// Every value of the page.
async fn page(service: &Service) -> BTreeMap<String, f64> {
    let page = admin::get(service.admin_address(), "/metrics").await;
    let (_, page) = page.expect("the page is there");
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let value = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a name and a value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(value).collect()
}

/// Without the one that is measured anew all the time.
fn still(mut series: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    series.remove("hookward_clock_skew_seconds");
    series
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_what_the_page_says() {
    for (protocol, path) in [(GRPC, None), (HTTP, Some("/v1/metrics"))] {
        let collector = Collector::speaking(protocol).await;
        let service = pushing(&collector.endpoint(), protocol, "100").start().await;
        deliver(&service, 3).await;

        let pushed = eventually("the same values as on the page", async || {
            let (pushed, page) = (still(collector.series()), still(page(&service).await));
            (pushed == page).then_some(pushed)
        })
        .await;
        let value = |name: &str| pushed.get(name).copied();
        assert_eq!(value("hookward_events_accepted_total"), Some(3.0), "{protocol}");
        let attempts = "hookward_attempt_duration_seconds_count{result=\"succeeded\"}";
        assert_eq!(value(attempts), Some(3.0), "{protocol}");
        assert_eq!(value("hookward_ready"), Some(1.0), "{protocol}");
        let before = collector.pushes();
        eventually("more of them", async || (before < collector.pushes()).then_some(())).await;

        let requests = collector.requests();
        let of_metrics = requests.iter().filter(|(path, _)| path.ends_with("metrics"));
        for (sent, kind) in of_metrics {
            assert_eq!((Some(&**sent), &**kind), (path, "application/x-protobuf"));
        }
        let sender = |attribute| collector.sender(attribute);
        assert_eq!(sender("service.name").as_deref(), Some("hookward"));
        assert_eq!(sender("deployment.environment.name").as_deref(), Some("test"));
    }
}

/// Spans and metrics of a process are told to be of the same one.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_traces_are_of_one_instance() {
    let collector = Collector::start().await;
    let service = pushing(&collector.endpoint(), GRPC, "3600000").start().await;
    deliver(&service, 1).await;
    eventually("spans", async || (!collector.spans().is_empty()).then_some(())).await;
    let traced = collector.sender("service.instance.id").expect("each has one");
    let mut service = service;
    service.terminate();
    assert!(service.ends().await.success());
    assert_eq!(collector.pushes(), 1);
    assert_eq!(collector.sender("service.instance.id"), Some(traced));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_values_are_pushed_at_the_end() {
    for protocol in [GRPC, HTTP] {
        let collector = Collector::speaking(protocol).await;
        let mut service = pushing(&collector.endpoint(), protocol, "3600000").start().await;
        deliver(&service, 3).await;
        assert_eq!(collector.pushes(), 0, "the timer is slow");

        service.terminate();
        assert!(service.ends().await.success());

        assert_eq!(collector.pushes(), 1, "{protocol}");
        let series = collector.series();
        let value = |name: &str| series.get(name).copied();
        assert_eq!(value("hookward_events_accepted_total"), Some(3.0), "{protocol}");
        let ended = "hookward_deliveries_ended_total{state=\"succeeded\"}";
        assert_eq!(value(ended), Some(3.0), "{protocol}");
        assert_eq!(value("hookward_ready"), Some(0.0), "it has stopped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_stay_here_unless_they_are_asked_for() {
    let collector = Collector::start().await;
    let settings = exporting(&collector.endpoint(), GRPC);
    let mut service = settings.env("OTEL_METRIC_EXPORT_INTERVAL", "100").start().await;
    deliver(&service, 1).await;
    eventually("spans", async || (!collector.spans().is_empty()).then_some(())).await;
    service.terminate();
    assert!(service.ends().await.success());
    assert_eq!(collector.pushes(), 0);
}

/// Without spans there is nothing on the hot path that is there for the collector.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_pushed_without_traces_too() {
    let collector = Collector::start().await;
    let settings = pushing(&collector.endpoint(), GRPC, "100");
    let mut service = settings.env("OTEL_TRACES_SAMPLER", "always_off").start().await;
    deliver(&service, 1).await;
    service.terminate();
    assert!(service.ends().await.success());
    assert_eq!(collector.series().get("hookward_events_accepted_total"), Some(&1.0));
    assert!(collector.spans().is_empty());
}

/// One line when it goes, one when it is back, however long that takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_once_and_missed_nowhere() {
    for protocol in [GRPC, HTTP] {
        let collector = Collector::speaking(protocol).await;
        let proxy = Proxy::to(collector.port()).await;
        proxy.refuse();
        let endpoint = format!("http://127.0.0.1:{}", proxy.port());
        let service = pushing(&endpoint, protocol, "100").start().await;
        let told = |text: &str| service.written().matches(text).count();
        let away = "metrics do not reach the collector";
        eventually(away, async || (told(away) == 1).then_some(())).await;

        deliver(&service, 3).await;
        // Each push is tried four times, over a second.
        meanwhile(Duration::from_secs(4)).await;
        assert_eq!(told(away), 1, "{protocol}");

        proxy.accept();
        eventually("the values of the time between", async || {
            let series = collector.series();
            (series.get("hookward_events_accepted_total") == Some(&3.0)).then_some(())
        })
        .await;
        let back = "metrics reach the collector again";
        eventually(back, async || (told(back) == 1).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_without_a_collector_are_refused_at_the_start() {
    let settings = Settings::new(Engine::sqlite()).env("OTEL_METRICS_EXPORTER", "otlp");
    let mut process = settings.launch();
    assert_eq!(process.ends().await.code(), Some(78));
    let expected = "--metrics-exporter: otlp needs --otlp-endpoint";
    assert!(process.written().contains(expected), "{}", process.written());
}
