//! Contexts go in and out unchanged, and attempts stand where decision 36 puts them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use opentelemetry::Value;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::domain::attempt::Fault;
use crate::domain::event::EventSummary;
use crate::domain::id::{EventKey, OrganizationId};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const HOUR: i64 = 3_600_000_000;
const NO_WAIT: Duration = Duration::ZERO;

#[derive(Clone, Debug, Default)]
struct Collected(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collected {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no test panics with it").extend(batch);
        Ok(())
    }
}

/// Runs `action` with traces exported, and gives what was exported.
fn exported<T>(action: impl FnOnce() -> T) -> (T, Vec<SpanData>) {
    let collected = Collected::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(collected.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("hookward"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let result = tracing::subscriber::with_default(subscriber, action);
    let spans = std::mem::take(&mut *collected.0.lock().expect("no test panics with it"));
    (result, spans)
}

fn published() -> TraceContext {
    TraceContext { traceparent: PARENT.to_owned(), tracestate: "congo=t61rcWkgMzE".to_owned() }
}

fn event(trace: TraceContext) -> EventSummary {
    EventSummary {
        key: EventKey(7),
        id: "evt_1".to_owned(),
        organization: OrganizationId::stored("acme"),
        account: None,
        event_type: "orders.create".to_owned(),
        occur_time: Timestamp(0),
        publish_time: Timestamp(0),
        expire_time: None,
        content_type: "application/json".to_owned(),
        payload_bytes: 2,
        attributes: std::collections::BTreeMap::new(),
        subject: String::new(),
        trace,
        purge_time: None,
        publisher: "".into(),
    }
}

fn sent(published: &TraceContext) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    send_context(published, &mut headers);
    let text = |value: &HeaderValue| value.to_str().expect("is ASCII").to_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string())
}

#[test]
fn without_an_exporter_the_publishers_context_goes_through() {
    // As the program has it: something listens, but not to these spans.
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO);
    tracing::subscriber::with_default(subscriber, || {
        let span = attempt_span(&event(published()), 1, NO_WAIT, Timestamp(0));
        assert!(span.is_disabled());
        assert_eq!(trace_id(&span), [0; 16]);
        assert_eq!(context_to_store(&span, published()), published());
        let expected = [("traceparent", PARENT), ("tracestate", "congo=t61rcWkgMzE")];
        assert_eq!(sent(&published()), expected.map(|(name, value)| (name.into(), value.into())));
    });
}

#[test]
fn no_context_is_no_header() {
    assert_eq!(sent(&TraceContext::default()), []);
    let alone = TraceContext { tracestate: "a=b".to_owned(), ..TraceContext::default() };
    assert_eq!(sent(&alone), []);
}

#[test]
fn an_attempt_continues_the_publishers_trace_in_the_first_hour() {
    let ((id, sent), spans) = exported(|| {
        let span = attempt_span(&event(published()), 2, NO_WAIT, Timestamp(HOUR - 1));
        (trace_id(&span), span.in_scope(|| sent(&published())))
    });
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    let own = &span.span_context;
    assert_eq!(own.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(id, own.trace_id().to_bytes());
    let traceparent = format!("00-{}-{}-01", own.trace_id(), own.span_id());
    assert_eq!(sent[0], ("traceparent".to_owned(), traceparent));
    assert_eq!(sent[1], ("tracestate".to_owned(), "congo=t61rcWkgMzE".to_owned()));
    assert_eq!(attribute(span, "http.request.resend_count").as_deref(), Some("1"));
}

#[test]
fn a_later_attempt_is_a_trace_of_its_own_with_a_link() {
    let (sent, spans) = exported(|| {
        let span = attempt_span(&event(published()), 9, NO_WAIT, Timestamp(HOUR));
        span.in_scope(|| sent(&published()))
    });
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_ne!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    let [link] = span.links.links.as_slice() else { panic!("{:?}", span.links) };
    assert_eq!(link.span_context.span_id().to_string(), "00f067aa0ba902b7");
    assert_eq!(sent.len(), 1, "an empty tracestate is not sent: {sent:?}");
}

#[test]
fn what_the_publisher_did_not_sample_is_not_exported_but_goes_on_as_such() {
    let quiet = PARENT.replace("-01", "-00");
    let quiet = TraceContext { traceparent: quiet, tracestate: String::new() };
    let (sent, spans) = exported(|| {
        attempt_span(&event(quiet.clone()), 1, NO_WAIT, Timestamp(0)).in_scope(|| sent(&quiet))
    });
    assert!(spans.is_empty(), "{spans:?}");
    assert!(sent[0].1.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{sent:?}");
    assert!(sent[0].1.ends_with("-00"), "{sent:?}");
}

#[test]
fn a_call_is_a_child_of_its_callers_span_and_is_what_its_events_continue() {
    let (stored, spans) = exported(|| {
        let span = request_span("hookward.v1.EventService/PublishEvents", &published());
        record_status(&span, "UNAVAILABLE", true);
        context_to_store(&span, published())
    });
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(span.name, "hookward.v1.EventService/PublishEvents");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(attribute(span, "rpc.status_code").as_deref(), Some("UNAVAILABLE"));
    assert_eq!(attribute(span, "error.type").as_deref(), Some("UNAVAILABLE"));
    let own = format!("00-{}-{}-01", span.span_context.trace_id(), span.span_context.span_id());
    assert_eq!(stored.traceparent, own);
}

#[test]
fn an_attempts_end_says_its_status_and_what_kind_of_error_it_was() {
    let cases = [
        (AttemptResult::Succeeded, Some(204), None),
        (AttemptResult::HttpStatus, Some(503_u16), Some("503")),
        (AttemptResult::Timeout, None, Some("timeout")),
    ];
    for (result, http_status, error) in cases {
        let ((), spans) = exported(|| {
            let attempt = Attempt {
                number: 1,
                result,
                http_status,
                error: "for people".to_owned(),
                response_body: Bytes::from_static(b"not for traces"),
                start_time: Timestamp(0),
                duration: Duration::ZERO,
                trace_id: [0; 16],
                fault: Fault::Receiver,
            };
            let event = event(published());
            record_attempt(&attempt_span(&event, 1, NO_WAIT, Timestamp(0)), &event, &attempt);
        });
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        // Numbers, as the conventions have them: backends compare them.
        let status = http_status.map(|status| Value::I64(status.into()));
        let sent = |key: &str| span.attributes.iter().find(|one| one.key.as_str() == key);
        let sent = |key: &str| sent(key).map(|one| one.value.clone());
        assert_eq!(sent("http.response.status_code"), status, "{result:?}");
        assert_eq!(sent("http.request.resend_count"), Some(Value::I64(0)));
        assert_eq!(attribute(span, "error.type").as_deref(), error, "{result:?}");
        assert!(!format!("{span:?}").contains("not for traces"));
    }
}

/// Samplers that decide by the trace make each span and drop it: nobody is sent there.
#[test]
fn a_span_that_is_made_and_dropped_leads_nowhere() {
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("hookward"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let span = attempt_span(&event(published()), 1, NO_WAIT, Timestamp(0));
        assert!(!span.is_disabled());
        assert_eq!(trace_id(&span), [0; 16]);
        assert!(settle_span([origin(&span)].iter(), 1, "sqlite").is_disabled());
    });
}

/// One write is for many deliveries: it hangs on one of their attempts and names the others.
#[test]
fn a_write_hangs_on_an_attempt_and_is_linked_to_the_others() {
    let ((), spans) = exported(|| {
        let attempts = [Timestamp(0), Timestamp(1)]
            .map(|now| origin(&attempt_span(&event(published()), 1, NO_WAIT, now)));
        let untraced = Origin::default();
        let origins = [&untraced, &attempts[0], &attempts[1]];
        drop(settle_span(origins.into_iter(), 3, "sqlite"));
        assert!(settle_span([&untraced].into_iter(), 1, "sqlite").is_disabled());
    });
    let [first, second, settle] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(settle.name, "settle");
    assert_eq!(settle.parent_span_id, first.span_context.span_id());
    assert_eq!(settle.span_context.trace_id(), first.span_context.trace_id());
    let links: Vec<SpanId> = settle.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [second.span_context.span_id()]);
    let count = KeyValue::new("messaging.batch.message_count", 3);
    assert!(settle.attributes.contains(&count), "{:?}", settle.attributes);
}
