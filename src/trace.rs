//! W3C trace context and the spans of the hot path.

use http::{HeaderName, HeaderValue};

use crate::domain::event::{EventSummary, TraceContext};
use crate::domain::timestamp::Timestamp;

/// The span of one attempt.
#[must_use]
pub fn attempt_span(_event: &EventSummary, _number: u32, _now: Timestamp) -> tracing::Span {
    tracing::Span::none()
}

/// The span's trace id.
#[must_use]
pub fn trace_id(_span: &tracing::Span) -> [u8; 16] {
    [0; 16]
}

/// Adds the headers that carry the trace to the receiver.
pub fn send_context(_published: &TraceContext, _headers: &mut Vec<(HeaderName, HeaderValue)>) {}
