//! W3C trace context (<https://www.w3.org/TR/trace-context/>) and the spans of the hot
//! path.
//!
//! Spans are made at DEBUG level under the target [`TARGET`], which telemetry switches
//! on only when traces are exported. Otherwise each of them is a disabled call site:
//! one relaxed load, no allocation; and every function here finds that out first. The same
//! holds for a trace that is not sampled, as far as [`Sampling`] can tell beforehand.
//!
//! Spans carry ids, names of types, sizes and codes: never a payload, a header's value
//! or a URL's path.

mod sampling;

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use self::sampling::Sampling;

use crate::domain::attempt::{Attempt, AttemptResult, Timing};
use crate::domain::event::{EventSummary, TraceContext};
use crate::domain::timestamp::Timestamp;

/// The target of every span that is exported.
pub const TARGET: &str = "hookward::span";

/// Attempts that start later than this after their event are traces of their own,
/// linked to the publisher's: backends close a trace long before a retry schedule ends.
const CHILD_WITHIN: Duration = Duration::from_hours(1);

/// What the library keeps of a span's links.
const LINKS_MAX: usize = 128;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of one gRPC call, a child of the caller's. `method` is fully qualified:
/// `hookward.v1.EventService/PublishEvents`. Names are those of OpenTelemetry's
/// conventions for RPC.
#[must_use]
pub fn request_span(method: &str, caller: &TraceContext) -> Span {
    if !is_exported() {
        return Span::none();
    }
    let caller = span_context(caller);
    if !sampling::starts(caller.as_ref()) {
        return Span::none();
    }
    let span = tracing::debug_span!(
        target: TARGET,
        parent: None,
        "grpc",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.status_code = Empty,
        error.type = Empty,
        webhook.intake.wait = Empty,
    );
    set_parent(&span, caller);
    span
}

/// Notes in a call's span how long its events waited for their commit to begin, in seconds.
pub fn record_intake_wait(span: &Span, waited: Duration) {
    if !span.is_disabled() {
        span.record("webhook.intake.wait", waited.as_secs_f64());
    }
}

/// The span of a commit of so many events: a child of the first of these calls that has one,
/// with links to the others. `database` as OpenTelemetry's conventions call it.
#[must_use]
pub fn commit_span<'a>(
    calls: impl Iterator<Item = &'a Span>,
    events: usize,
    database: &str,
) -> Span {
    if !is_exported() {
        return Span::none();
    }
    let mut calls = calls.filter(|call| !call.is_disabled());
    let Some(first) = calls.next() else { return Span::none() };
    let span = tracing::debug_span!(
        target: TARGET,
        parent: first,
        "commit",
        messaging.batch.message_count = whole(events),
        db.system.name = database,
    );
    for other in calls {
        span.follows_from(other.id());
    }
    span
}

/// Notes how a gRPC call ended. `code` is the status as text, such as `OK`;
/// `server_fault` says whether it is the service's fault, which makes the span an error.
pub fn record_status(span: &Span, code: &str, server_fault: bool) {
    if span.is_disabled() {
        return;
    }
    span.record("rpc.status_code", code);
    if server_fault {
        span.record("error.type", code);
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of attempt `number`, which starts `now` after a wait in this process's memory: a
/// child of the publisher's span in the first hour, later a trace of its own with a link to
/// it. Names are those of OpenTelemetry's conventions for HTTP clients.
#[must_use]
pub fn attempt_span(event: &EventSummary, number: u32, waited: Duration, now: Timestamp) -> Span {
    if !is_exported() {
        return Span::none();
    }
    let published = span_context(&event.trace);
    if !sampling::goes_on(published.as_ref()) {
        return Span::none();
    }
    let span = tracing::debug_span!(
        target: TARGET,
        parent: None,
        "attempt",
        otel.name = "POST",
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = "POST",
        http.request.resend_count = i64::from(number.saturating_sub(1)),
        http.response.status_code = Empty,
        error.type = Empty,
        webhook.event.id = event.id,
        webhook.event.type = event.event_type,
        webhook.queue.wait = waited.as_secs_f64(),
        webhook.attempt.dns = Empty,
        webhook.attempt.connect = Empty,
        webhook.attempt.tls = Empty,
        webhook.attempt.first_byte = Empty,
        webhook.attempt.body = Empty,
    );
    if now.since(event.publish_time) < CHILD_WITHIN {
        set_parent(&span, published);
    } else if let Some(published) = published {
        span.add_link(published);
    }
    span
}

/// Notes in the current span what the parts of its attempt took, in seconds.
pub fn record_timing(timing: Timing) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    for (name, took) in [
        ("webhook.attempt.dns", timing.dns),
        ("webhook.attempt.connect", timing.connect),
        ("webhook.attempt.tls", timing.tls),
        ("webhook.attempt.first_byte", timing.first_byte),
        ("webhook.attempt.body", timing.body),
    ] {
        if let Some(took) = took {
            span.record(name, took.as_secs_f64());
        }
    }
}

/// Notes how an attempt ended; the id of the trace in which that can be read, all zero
/// where it cannot. One that failed has a span, too, where its trace is not sampled: what
/// went wrong is what traces are read for.
pub fn record_attempt(span: &Span, event: &EventSummary, attempt: &Attempt) -> [u8; 16] {
    if !span.is_disabled() {
        record_end(span, attempt);
        return trace_id(span);
    }
    let failed = attempt.result != AttemptResult::Succeeded;
    if failed && is_exported() && sampling::keeps_failures() {
        failed_span(event, attempt)
    } else {
        [0; 16]
    }
}

/// Makes the span of an attempt that has failed already. Its parent may not be exported.
fn failed_span(event: &EventSummary, attempt: &Attempt) -> [u8; 16] {
    let now = SystemTime::now();
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("http.request.resend_count", i64::from(attempt.number.saturating_sub(1))),
        KeyValue::new("webhook.event.id", event.id.clone()),
        KeyValue::new("webhook.event.type", event.event_type.clone()),
    ];
    let status = attempt.http_status.map(i64::from);
    attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
    let error = error_type(attempt).unwrap_or_default();
    attributes.push(KeyValue::new("error.type", error));
    let tracer = opentelemetry::global::tracer("hookward");
    let builder = tracer.span_builder("POST").with_kind(SpanKind::Client);
    let builder = builder.with_attributes(attributes);
    let builder = builder.with_start_time(now.checked_sub(attempt.duration).unwrap_or(now));
    let published = span_context(&event.trace);
    let near = attempt.start_time.since(event.publish_time) < CHILD_WITHIN;
    let mut span = match published {
        Some(parent) if near => {
            let context = Context::new().with_remote_span_context(parent);
            builder.start_with_context(&tracer, &context)
        }
        Some(published) => {
            let builder = builder.with_links(vec![Link::with_context(published)]);
            builder.start_with_context(&tracer, &Context::new())
        }
        None => builder.start_with_context(&tracer, &Context::new()),
    };
    span.set_status(Status::error(""));
    span.end_with_timestamp(now);
    span.span_context().trace_id().to_bytes()
}

/// What kind of error it was; `None`: none. The convention: a status says it itself.
fn error_type(attempt: &Attempt) -> Option<String> {
    match (attempt.result, attempt.http_status) {
        (AttemptResult::Succeeded, _) => None,
        (AttemptResult::HttpStatus, Some(status)) => Some(status.to_string()),
        (result, _) => Some(result.as_str().to_owned()),
    }
}

fn record_end(span: &Span, attempt: &Attempt) {
    if let Some(status) = attempt.http_status {
        span.record("http.response.status_code", i64::from(status));
    }
    if let Some(error) = error_type(attempt) {
        span.record("error.type", error);
        span.record("otel.status_code", "ERROR");
    }
}

/// The place of an attempt in its trace, for what comes of it later.
#[derive(Clone, Debug, Default)]
pub struct Origin(Option<SpanContext>);

/// Where what follows from this span goes on; nowhere, if it is not exported.
#[must_use]
pub fn origin(span: &Span) -> Origin {
    if span.is_disabled() {
        return Origin::default();
    }
    let context = span.context().span().span_context().clone();
    Origin(Some(context).filter(|context| context.is_valid() && context.is_sampled()))
}

/// The span of the write of what came of so many deliveries: a child of the first of these
/// attempts that has a span, with links to the others.
#[must_use]
pub fn settle_span<'a>(
    attempts: impl Iterator<Item = &'a Origin>,
    deliveries: usize,
    database: &str,
) -> Span {
    let mut attempts = attempts.filter_map(|origin| origin.0.clone());
    let Some(first) = attempts.next() else { return Span::none() };
    let span = tracing::debug_span!(
        target: TARGET,
        parent: None,
        "settle",
        messaging.batch.message_count = whole(deliveries),
        db.system.name = database,
    );
    set_parent(&span, Some(first));
    for other in attempts.take(LINKS_MAX) {
        span.add_link(other);
    }
    span
}

/// The span's trace id; all zero when nobody exports traces, or not this one.
#[must_use]
pub fn trace_id(span: &Span) -> [u8; 16] {
    origin(span).0.map_or([0; 16], |context| context.trace_id().to_bytes())
}

/// What to store with an event so that its attempts continue this trace: the span's own
/// context, or that of the caller when nobody exports traces.
#[must_use]
pub fn context_to_store(span: &Span, caller: TraceContext) -> TraceContext {
    own_context(span).unwrap_or(caller)
}

/// Adds the headers that carry the trace to the receiver: the current span's, or those
/// that the publisher sent when nobody exports traces.
pub fn send_context(published: &TraceContext, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    let own = own_context(&Span::current());
    let context = own.as_ref().unwrap_or(published);
    let mut send = |name, text: &str| {
        // An empty header would say that there is a state, and what is no header's
        // value was not W3C's either.
        if !text.is_empty()
            && let Ok(value) = HeaderValue::from_str(text)
        {
            headers.push((name, value));
        }
    };
    if !context.traceparent.is_empty() {
        send(TRACEPARENT, &context.traceparent);
        send(TRACESTATE, &context.tracestate);
    }
}

fn own_context(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    own.is_valid().then(|| TraceContext {
        traceparent: format!(
            "00-{}-{}-{:02x}",
            own.trace_id(),
            own.span_id(),
            own.trace_flags().to_u8() & TraceFlags::SAMPLED.to_u8()
        ),
        tracestate: own.trace_state().header(),
    })
}

/// A number as an attribute: one without a sign becomes text.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether spans go anywhere.
fn is_exported() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::DEBUG)
}

fn set_parent(span: &Span, parent: Option<SpanContext>) {
    if let Some(parent) = parent {
        // Fails where the span is for the log alone: then there is no trace to continue.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Reads a context that [`crate::domain::trace_context`] has judged.
fn span_context(context: &TraceContext) -> Option<SpanContext> {
    let mut parts = context.traceparent.split('-').skip(1);
    let trace_id = TraceId::from_hex(parts.next()?).ok()?;
    let span_id = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let state = TraceState::from_str(&context.tracestate).unwrap_or_default();
    let context = SpanContext::new(trace_id, span_id, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests;
