//! What every call gets, whichever method it is for: a span that continues the
//! caller's trace, a request id, a deadline, and a line in the log.
//!
//! A tower layer around the services. It also gives the errors that tonic itself
//! makes the form of our own. Nothing here reads a message. Health checks and
//! reflection pass through untouched.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use super::methods::{Methods, methods};
use super::refusals::Unlogged;
use super::status;
use crate::domain::event::TraceContext;
use crate::domain::trace_context::parse_trace_context;
use crate::trace;

/// Longest call, whatever the caller allows.
const CALL_MAX: Duration = Duration::from_secs(30);
/// tonic runs a timer of its own for `grpc-timeout`, whose answer is CANCELLED. Ours,
/// which says `DEADLINE_EXCEEDED`, must come first; timers are exact to a millisecond.
const AHEAD_OF_TONIC: Duration = Duration::from_millis(5);
/// Paths of our own services begin so.
const OWN: &str = "/hookward.v1.";
/// Name of a method that there is not: paths are the caller's text.
pub(super) const OTHER: &str = "_OTHER";

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The id of the call that runs in this task, as the log and `x-request-id` say it.
pub(super) fn request_id() -> Option<String> {
    REQUEST_ID.try_with(Clone::clone).ok()
}

/// The trace that what this call stores belongs to.
pub(super) fn trace_context(metadata: &MetadataMap) -> TraceContext {
    trace::context_to_store(&Span::current(), callers_trace(metadata.as_ref()))
}

fn callers_trace(headers: &HeaderMap) -> TraceContext {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    parse_trace_context(header("traceparent"), header("tracestate"))
}

/// Puts [`Calls`] around the services.
#[derive(Clone, Debug)]
pub(super) struct CallLayer {
    methods: Arc<Methods>,
}

impl CallLayer {
    pub(super) fn new() -> Self {
        CallLayer { methods: Arc::new(methods()) }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, services: S) -> Calls<S> {
        Calls { services, methods: Arc::clone(&self.methods) }
    }
}

/// The services, each call of which is traced, timed, limited and logged.
#[derive(Clone, Debug)]
pub(super) struct Calls<S> {
    services: S,
    methods: Arc<Methods>,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer<S::Error> {
        let path = request.uri().path();
        if !path.starts_with(OWN) {
            return Box::pin(self.services.call(request));
        }
        let method = self.methods.get_key_value(path.trim_start_matches('/'));
        let method = method.map(|(name, _)| Arc::clone(name));
        let id = new_request_id();
        let name = method.as_deref().unwrap_or(OTHER);
        let span = trace::request_span(name, &callers_trace(request.headers()));
        let limit = limit(request.headers());
        let answer = self.services.call(request);
        let answered = async move {
            let began = Instant::now();
            let answer = tokio::time::timeout(limit, answer);
            let mut response = match REQUEST_ID.scope(id.clone(), answer).await {
                Ok(response) => own_form(response?),
                Err(_) => REQUEST_ID.sync_scope(id.clone(), status::deadline_exceeded).into_http(),
            };
            let name = method.as_deref().unwrap_or(OTHER);
            finish(&response, name, began.elapsed(), &id);
            if let Ok(id) = HeaderValue::try_from(id) {
                response.headers_mut().insert("x-request-id", id);
            }
            Ok(response)
        };
        Box::pin(answered.instrument(span))
    }
}

/// How long a call may take: [`CALL_MAX`], or less if its caller says so.
fn limit(headers: &HeaderMap) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let asked = asked.and_then(parse_timeout).map(|asked| asked.saturating_sub(AHEAD_OF_TONIC));
    asked.map_or(CALL_MAX, |asked| asked.min(CALL_MAX))
}

/// One to eight digits and a unit ("Timeout" in gRPC over HTTP/2).
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let value: u64 = digits.parse().ok().filter(|_| plain)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Gives an error that tonic made before or instead of our code the form of ours. Ours
/// all have details; tonic's have none.
pub(super) fn own_form(response: Response<Body>) -> Response<Body> {
    let Some(error) = error(&response) else { return response };
    if !error.details().is_empty() {
        return response;
    }
    match error.code() {
        // Larger than the decoder takes; tonic says OUT_OF_RANGE.
        Code::OutOfRange | Code::ResourceExhausted => status::too_large().into_http(),
        // Not decodable.
        Code::Internal => status::malformed().into_http(),
        Code::Unimplemented => status::unimplemented().into_http(),
        _ => response,
    }
}

/// The error in an answer. Unary errors have no body: they are in the headers.
pub(super) fn error(response: &Response<Body>) -> Option<Status> {
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

/// Notes how the call ended, in its span and in the log.
fn finish(response: &Response<Body>, method: &str, took: Duration, id: &str) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let span = Span::current();
    let Some(error) = error(response) else {
        trace::record_status(&span, "OK", false);
        tracing::debug!(
            rpc.method = method,
            rpc.status_code = "OK",
            duration_us = micros,
            request.id = id,
            "call answered"
        );
        return;
    };
    let code = code_name(error.code());
    let reason = error.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let server_fault = is_server_fault(error.code());
    trace::record_status(&span, code, server_fault);
    if response.extensions().get::<Unlogged>().is_some() {
        return;
    }
    if server_fault {
        tracing::warn!(
            rpc.method = method,
            rpc.status_code = code,
            reason,
            duration_us = micros,
            request.id = id,
            "call failed"
        );
    } else {
        tracing::info!(
            rpc.method = method,
            rpc.status_code = code,
            reason,
            duration_us = micros,
            request.id = id,
            "call refused"
        );
    }
}

/// Which codes OpenTelemetry counts as errors of a server.
fn is_server_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A code as gRPC itself names it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// 16 hexadecimal digits: enough to find a line in a log, and no secret.
fn new_request_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    const PUBLISH: &str = "/hookward.v1.EventService/PublishEvents";

    async fn answer(
        path: &str,
        timeout: Option<&str>,
        services: impl Future<Output = Response<Body>> + Send + 'static,
    ) -> Response<Body> {
        let services = Arc::new(std::sync::Mutex::new(Some(services)));
        let service = service_fn(move |_: Request<Body>| {
            let answer = services.lock().expect("nobody panics").take().expect("called once");
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut request = Request::builder().uri(format!("http://localhost{path}"));
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(Body::empty()).expect("valid");
        let Ok(response) = CallLayer::new().layer(service).oneshot(request).await;
        response
    }

    fn tonics_own(code: Code) -> Response<Body> {
        Status::new(code, "internals").into_http()
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_exceeds_its_deadline() {
        let response = answer(PUBLISH, Some("20m"), std::future::pending()).await;
        let error = error(&response).expect("no answer came");
        assert_eq!(error.code(), Code::DeadlineExceeded);
        let named = error.get_details_request_info().expect("names the call").request_id;
        assert_eq!(response.headers()["x-request-id"], named.as_str());
    }

    #[test]
    fn calls_end_before_tonic_ends_them_and_after_thirty_seconds_at_most() {
        let limit = |timeout: &str| {
            let value = HeaderValue::try_from(timeout).expect("valid");
            limit(&HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]))
        };
        assert_eq!(limit("50m"), Duration::from_millis(45));
        assert_eq!(limit("1m"), Duration::ZERO);
        assert_eq!(limit("2H"), CALL_MAX);
        assert_eq!(limit("soon"), CALL_MAX);
        assert_eq!(super::limit(&HeaderMap::new()), CALL_MAX);
    }

    #[tokio::test]
    async fn errors_that_tonic_makes_take_our_form() {
        for (theirs, ours, reason) in [
            (Code::OutOfRange, Code::ResourceExhausted, "REQUEST_TOO_LARGE"),
            (Code::Internal, Code::InvalidArgument, "MALFORMED_REQUEST"),
            (Code::Unimplemented, Code::Unimplemented, "UNIMPLEMENTED"),
        ] {
            let response = answer(PUBLISH, None, async move { tonics_own(theirs) }).await;
            let error = error(&response).expect("still an error");
            assert_eq!(error.code(), ours);
            assert_eq!(error.get_details_error_info().expect("has one").reason, reason);
            assert!(!error.message().contains("internals"));
        }
    }

    #[tokio::test]
    async fn our_own_internal_errors_stay_internal_and_name_the_call() {
        let response = answer(PUBLISH, None, async { status::internal(&"x").into_http() }).await;
        let error = error(&response).expect("an error");
        assert_eq!(error.code(), Code::Internal);
        let named = error.get_details_request_info().expect("names the call").request_id;
        assert_eq!(response.headers()["x-request-id"], named.as_str());
    }

    #[tokio::test]
    async fn health_checks_pass_untouched() {
        let check = async { tonics_own(Code::NotFound) };
        let response = answer("/grpc.health.v1.Health/Check", None, check).await;
        assert!(!response.headers().contains_key("x-request-id"));
        assert_eq!(error(&response).expect("an error").message(), "internals");
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("40m", Some(Duration::from_millis(40))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789S", None),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("1é", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }
}
