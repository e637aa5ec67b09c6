//! Promise: one trace leads from the publisher's call through the commit and the attempt
//! to the receiver, over OTLP and W3C trace context; a receiver that is to know nothing of it
//! does not.

use std::collections::BTreeSet;

use hookward::grpc::pb;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use pb::delivery::State;

use crate::harness::admin;
use crate::harness::client::{draft, event, waits};
use crate::harness::collector::Collector;
use crate::harness::consent::write_profile;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};
use crate::harness::signature::hex;

on_both_engines!(
    a_published_trace_goes_on_to_the_receiver_and_to_the_collector,
    a_receiver_that_is_to_get_no_trace_context_gets_none,
);

const OPEN_METRICS: &str = "application/openmetrics-text";
const TRACE: [u8; 16] = *b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c";
const TRACE_HEX: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: [u8; 8] = *b"\xb7\xad\x6b\x71\x69\x20\x33\x31";
const PARENT_HEX: &str = "b7ad6b7169203331";
const STATE: &str = "congo=t61rcWkgMzE";
const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);

const QUIET: &str = r#"
    name = "quiet"
    description = "The payload, and nothing of traces"
    content_type = "application/json"
    omit_trace_context = true
    [body]
    kind = "payload"
    payload = "json"
"#;

/// A server that sends its spans soon.
fn exporting(engine: Engine, collector: &Collector) -> Settings {
    Settings::new(engine)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
}

async fn a_published_trace_goes_on_to_the_receiver_and_to_the_collector(engine: Engine) {
    let collector = Collector::start().await;
    let service = exporting(engine, &collector).start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([503, 200]).await;
    let subscribed = clinic.subscribe(&receiver, "standard", "*").await;
    let patient = "patient-4711";
    let event = pb::Event {
        subject: patient.to_owned(),
        ..event("invoice.paid", r#"{"name":"Robin Example"}"#)
    };

    let id = publish_traced(&service, event).await;

    let delivery = clinic.delivery_of(&id).reaches(State::Succeeded).await;
    let sent: Vec<String> = receiver
        .requests()
        .iter()
        .map(|request| {
            let parent = request.header("traceparent").expect("it is sent");
            assert_eq!(request.header("baggage"), None);
            assert_eq!(&parent[..36], format!("00-{TRACE_HEX}-"));
            assert_ne!(&parent[36..52], PARENT_HEX, "the attempt's span, not the publisher's");
            parent[36..52].to_owned()
        })
        .collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1], "each attempt has its span");
    for attempt in clinic.attempts(&delivery.id).await {
        assert_eq!(attempt.trace_id, TRACE_HEX);
    }

    let spans = eventually("server span and both attempts in one trace", async || {
        let spans = collector.trace(&TRACE);
        let ids: BTreeSet<String> = spans.iter().map(|span| hex(&span.span_id)).collect();
        let server = spans.iter().any(|span| span.kind() == SpanKind::Server);
        (server && sent.iter().all(|id| ids.contains(id))).then_some(spans)
    })
    .await;
    check_tree(&spans);
    let server = spans.iter().find(|span| span.kind() == SpanKind::Server).expect("seen above");
    assert_eq!(server.name, "hookward.v1.EventService/PublishEvents");
    assert!(has(server, "webhook.intake.wait"), "{server:?}");
    let commit = spans.iter().find(|span| span.name == "commit").expect("it is in the trace");
    assert!(has(commit, "db.system.name") && has(commit, "messaging.batch.message_count"));
    for id in &sent {
        let attempt = spans.iter().find(|span| hex(&span.span_id) == *id).expect("seen above");
        assert_eq!((&*attempt.name, attempt.kind()), ("POST", SpanKind::Client));
        for phase in ["webhook.queue.wait", "webhook.attempt.first_byte", "webhook.attempt.body"] {
            assert!(has(attempt, phase), "{phase} of {attempt:?}");
        }
        eventually("the write of what came of it", async || {
            let parent = |span: &Span| hex(&span.parent_span_id) == *id && span.name == "settle";
            collector.trace(&TRACE).iter().any(parent).then_some(())
        })
        .await;
    }
    let (_, page) =
        admin::get_as(service.admin_address(), "/metrics", OPEN_METRICS).await.expect("an answer");
    for histogram in ["hookward_first_attempt_delay_seconds", "hookward_delivered_delay_seconds"] {
        let mut buckets =
            page.lines().filter(|line| line.starts_with(&format!("{histogram}_bucket")));
        let exemplar = format!(" # {{trace_id=\"{TRACE_HEX}\"}} ");
        assert!(buckets.any(|line| line.contains(&exemplar)), "{histogram} leads to it: {page}");
    }
    let written = format!("{spans:?}{}", service.written());
    for secret in [patient, "Robin", &subscribed.secret] {
        assert!(!written.contains(secret), "neither spans nor logs hold {secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_over_a_retry_and_a_change_of_replica() {
    let Some(engine) = Engine::postgres() else { return };
    let collector = Collector::start().await;
    let settings = exporting(engine, &collector);
    let mut first = settings.clone().start().await;
    let second = settings.start().await;
    let clinic = second.organization("clinic");
    let receiver = Receiver::answering([503, 200]).await;
    let retry_policy = Some(waits(&[4000]));
    clinic.create(pb::Subscription { retry_policy, ..draft(&receiver, "standard", "*") }).await;

    let id = publish_traced(&first, event("invoice.paid", "{}")).await;
    let delivery = clinic.delivery_of(&id);
    let tried = delivery.is("has failed once", |delivery| delivery.attempt_count == 1).await;
    assert_eq!(tried.state(), State::Pending, "its retry is to come");
    first.terminate();
    assert!(first.ends().await.success());
    delivery.reaches(State::Succeeded).await;

    let spans = eventually("the spans of both replicas", async || {
        let spans = collector.trace_by_instance(&TRACE);
        let attempts = spans.iter().filter(|(_, span)| span.kind() == SpanKind::Client);
        (attempts.count() == 2).then_some(spans)
    })
    .await;
    let (instances, tree): (Vec<String>, Vec<Span>) = spans.into_iter().unzip();
    check_tree(&tree);
    print_tree(&tree, &instances, PARENT_HEX, 0);
    let of = |span: &dyn Fn(&Span) -> bool| {
        let found = (0..tree.len()).filter(|place| span(&tree[*place]));
        found.map(|place| (&*instances[place], &tree[place])).collect::<Vec<_>>()
    };
    let server = of(&|span| span.kind() == SpanKind::Server);
    let commit = of(&|span| span.name == "commit");
    let attempts = of(&|span| span.kind() == SpanKind::Client);
    let [(publisher, _)] = server.as_slice() else { panic!("one call: {server:?}") };
    assert!(commit.iter().all(|(instance, _)| instance == publisher) && !commit.is_empty());
    for (place, request) in receiver.requests().iter().enumerate() {
        let parent = request.header("traceparent").expect("it is sent");
        let sent = attempts.iter().find(|(_, span)| hex(&span.span_id) == parent[36..52]);
        let (instance, _) = sent.expect("the receiver goes on where the attempt is");
        let by_the_first = instance == publisher;
        assert_eq!(by_the_first, place == 0, "the second attempt is the other replica's");
    }
}

/// Of a trace that its publisher does not sample only the attempt that fails is seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_seen_although_its_trace_is_not_sampled() {
    let collector = Collector::start().await;
    let mut service = exporting(Engine::sqlite(), &collector).start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([503, 200]).await;
    let retry_policy = Some(waits(&[100]));
    clinic.create(pb::Subscription { retry_policy, ..draft(&receiver, "standard", "*") }).await;

    let id = publish_in(&service, event("invoice.paid", "{}"), "00").await;
    let delivery = clinic.delivery_of(&id).reaches(State::Succeeded).await;
    let quiet = format!("00-{TRACE_HEX}-{PARENT_HEX}-00");
    for request in receiver.requests() {
        assert_eq!(request.header("traceparent"), Some(&*quiet), "it goes on as it came");
    }
    let attempts = clinic.attempts(&delivery.id).await;
    let ids: Vec<&str> = attempts.iter().map(|attempt| &*attempt.trace_id).collect();
    assert_eq!(ids, [TRACE_HEX, ""], "where there is something to be read");
    service.terminate();
    assert!(service.ends().await.success());
    let spans = collector.trace(&TRACE);
    let [failed] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((&*failed.name, hex(&failed.parent_span_id)), ("POST", PARENT_HEX.to_owned()));
    assert!(has(failed, "error.type") && has(failed, "http.response.status_code"), "{failed:#?}");
    assert!(failed.start_time_unix_nano < failed.end_time_unix_nano);
}

async fn a_receiver_that_is_to_get_no_trace_context_gets_none(engine: Engine) {
    let collector = Collector::start().await;
    let service = exporting(engine, &collector).start().await;
    let clinic = service.organization("clinic");
    let (told, spared) = (Receiver::answering([200]).await, Receiver::answering([200]).await);
    let plain = clinic.subscribe(&told, "standard", "*").await.subscription;
    let omits = pb::Subscription { omit_trace_context: true, ..draft(&spared, "standard", "*") };
    let omits = clinic.create(omits).await.subscription;
    assert_eq!((plain.omit_trace_context, omits.omit_trace_context), (false, true));
    assert_eq!(clinic.get(&omits.id).await.expect("it is there"), omits);

    publish_traced(&service, event("invoice.paid", "{}")).await;
    assert_eq!((carries(&told, 1).await, carries(&spared, 1).await), (BOTH, NEITHER));
    eventually("the spans of both attempts", async || {
        let spans = collector.trace(&TRACE);
        let attempts = spans.iter().filter(|span| span.kind() == SpanKind::Client);
        (attempts.count() == 2).then_some(())
    })
    .await;
    for id in [&plain.id, &omits.id] {
        clinic.ping(id).await.expect("it is active");
    }
    assert_eq!(carries(&told, 2).await, (true, false), "the ping's own trace has no state");
    assert_eq!(carries(&spared, 2).await, NEITHER);

    for (id, omit_trace_context) in [(plain.id, true), (omits.id, false)] {
        let change = pb::Subscription { id, omit_trace_context, ..Default::default() };
        let changed = clinic.try_update(change, &["omit_trace_context"]).await;
        assert_eq!(changed.expect("nobody else writes").omit_trace_context, omit_trace_context);
    }
    publish_traced(&service, event("invoice.paid", "{}")).await;
    assert_eq!((carries(&told, 3).await, carries(&spared, 3).await), (NEITHER, BOTH));
}

/// Here nobody exports traces: what the publisher sent would go through.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_can_keep_traces_from_all_of_its_receivers() {
    let engine = Engine::sqlite();
    write_profile(&engine, "quiet", QUIET);
    let folder = engine.folder().join("profiles.d").display().to_string();
    let service = Settings::new(engine).flag("--profiles", &folder).start().await;
    let clinic = service.organization("clinic");
    let (told, spared) = (Receiver::answering([200]).await, Receiver::answering([200]).await);
    clinic.subscribe(&told, "standard", "*").await;
    clinic.subscribe(&spared, "quiet", "*").await;

    publish_traced(&service, event("invoice.paid", "{}")).await;

    assert_eq!((carries(&told, 1).await, carries(&spared, 1).await), (BOTH, NEITHER));
    let request = pb::ListProfilesRequest { organization_id: clinic.name() };
    let profiles = clinic.subscriptions().list_profiles(request).await;
    for profile in profiles.expect("it is readable").into_inner().profiles {
        assert_eq!(profile.omit_trace_context, profile.name == "quiet", "{}", profile.name);
    }
}

/// Whether request `number`, of which 1 is the first, has `traceparent` and `tracestate`.
async fn carries(receiver: &Receiver, number: usize) -> (bool, bool) {
    let requests = receiver.received(number).await;
    let has = |name| requests[number - 1].header(name).is_some();
    (has("traceparent"), has("tracestate"))
}

fn has(span: &Span, attribute: &str) -> bool {
    span.attributes.iter().any(|one| one.key == attribute)
}

/// What hangs on a span, a line each.
fn print_tree(spans: &[Span], instances: &[String], parent: &str, depth: usize) {
    for (span, instance) in spans.iter().zip(instances) {
        if hex(&span.parent_span_id) == parent {
            println!("{:depth$}{} ({instance})", "", span.name);
            print_tree(spans, instances, &hex(&span.span_id), depth + 2);
        }
    }
}

/// Every span hangs on another one of the trace, the first on the publisher's.
fn check_tree(spans: &[Span]) {
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| &*span.span_id).collect();
    for span in spans {
        let parent = &*span.parent_span_id;
        assert!(parent == PARENT || ids.contains(parent), "{} hangs in the air", span.name);
    }
}

async fn publish_traced(service: &Service, event: pb::Event) -> String {
    publish_in(service, event, "01").await
}

/// Publishes in the trace, with these flags.
async fn publish_in(service: &Service, event: pb::Event, flags: &str) -> String {
    let clinic = service.organization("clinic");
    let mut request = tonic::Request::new(pb::PublishEventsRequest {
        organization_id: clinic.name(),
        events: vec![event],
    });
    let context = format!("00-{TRACE_HEX}-{PARENT_HEX}-{flags}");
    request.metadata_mut().insert("traceparent", context.parse().expect("ASCII"));
    request.metadata_mut().insert("tracestate", STATE.parse().expect("ASCII"));
    let response = clinic.events().publish_events(request).await.expect("it keeps the rules");
    response.into_inner().results.remove(0).event_id
}

/// A collector that is away delays nothing.
#[tokio::test]
async fn without_a_collector_events_are_delivered_all_the_same() {
    let settings = Settings::new(Engine::sqlite());
    // Nobody listens on port 9 (discard).
    let settings = settings.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let mut service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    for _ in 0..20 {
        clinic.publish("invoice.paid", "{}").await;
    }
    receiver.received(20).await;
    service.terminate();
    assert!(service.ends().await.success());
}
