//! One request from start to end under one deadline.

use std::error::Error as _;
use std::io;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use http::response::Parts;
use http_body_util::Full;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::domain::attempt::Fault;
use crate::domain::attempt::Outcome;
use crate::domain::attempt::{Failure, Timing};
use crate::domain::endpoint_url::Host;
use crate::domain::id::SubscriptionKey;
use crate::domain::retry::parse_retry_after;
use crate::domain::timestamp::Timestamp;

use super::Room;
use super::Sent;
use super::SignedRequest;
use super::Trouble;
use super::connect;
use super::connect::Connection;
use super::proxy::Proxy;
use super::response;
use super::response::Received;
use super::target::Target;

/// Headers this room adds.
const OWN_HEADERS: usize = 2;

/// What is known so far; survives the deadline.
#[derive(Default)]
pub(super) struct Course {
    pub(super) timing: Timing,
    peer: Option<std::net::SocketAddr>,
    reused: bool,
    /// Whether the proxy is being reached.
    pub(super) at_proxy: bool,
}

/// Sends `request` and reads the answer.
pub(super) async fn send(room: &Room, request: SignedRequest) -> Sent {
    let deadline = Instant::now() + request.timeout;
    let mut course = Course::default();
    let has_name = matches!(request.target.host, Host::Name(_));
    let timed = timeout_at(deadline, attempt(room, request, &mut course)).await;
    let answer = timed.unwrap_or_else(|_elapsed| Err(late(room, has_name, &course)));
    let Course { timing, peer, reused, at_proxy: _ } = course;
    let (outcome, fault, detail) = match answer {
        Ok(outcome) => (outcome, Fault::Receiver, ""),
        Err(trouble) => (trouble.outcome, trouble.fault, trouble.detail),
    };
    Sent { outcome, fault, timing, peer, reused, detail }
}

/// Why there is no answer of a host, with a name or without, when the time is over.
pub(super) fn late(room: &Room, has_name: bool, course: &Course) -> Trouble {
    if has_name && !course.reused && course.timing.dns.is_none() {
        // Its name servers may be the cause, or ours.
        return Trouble::ours(Failure::Timeout, "The host name was not resolved in time.");
    }
    let late = Trouble::new(Failure::Timeout, "The receiver did not answer in time.");
    room.proxy.as_ref().filter(|_| course.at_proxy).map_or(late, Proxy::broken)
}

async fn attempt(
    room: &Room,
    request: SignedRequest,
    course: &mut Course,
) -> Result<Outcome, Trouble> {
    let SignedRequest { subscription, target, headers, body, timeout: _ } = request;
    let mut message = http_request(Method::POST, &target, headers, body);
    let mut idle = room.pool.take(subscription, &target);
    loop {
        course.reused = idle.is_some();
        let mut connection = match idle.take() {
            Some(connection) => {
                connection.lookout.look_first();
                connection
            }
            // Boxed: it is large, and most requests do without it.
            None => Box::pin(connect::open(room, &target, course)).await?,
        };
        course.peer = Some(connection.peer);
        let begun = Instant::now();
        match connection.sender.try_send_request(message).await {
            Ok(answer) => {
                let first_byte = begun.elapsed();
                course.timing.first_byte = Some(first_byte);
                let (head, body) = answer.into_parts();
                let received = response::receive(body).await?;
                course.timing.body = Some(begun.elapsed().saturating_sub(first_byte));
                return Ok(finish(room, subscription, connection, &head, received).await);
            }
            Err(mut refused) => match refused.take_message() {
                // Not a byte was written: the idle connection had ended. Once more,
                // on a fresh one.
                Some(unsent) if course.reused => message = unsent,
                Some(_) | None => return Err(broken(refused.error())),
            },
        }
    }
}

/// The request as it is written. Headers that are this room's own are left out.
pub(super) fn http_request(
    method: Method,
    target: &Target,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let mut map = HeaderMap::with_capacity(headers.len() + OWN_HEADERS);
    for (name, value) in headers {
        if !frames_message(&name) {
            map.insert(name, value);
        }
    }
    map.insert(header::HOST, target.host_header.clone());
    // An encoded answer would have to be decoded to be read: a kilobyte can
    // become a thousand.
    map.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.path.clone();
    *request.headers_mut() = map;
    request
}

/// Headers that decide where a message ends or what becomes of the connection.
/// hyper believes a caller's `content-length` and cuts the body to it.
fn frames_message(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::CONTENT_LENGTH
            | header::EXPECT
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    )
}

/// Keeps or drops the connection after an answer.
async fn finish(
    room: &Room,
    subscription: SubscriptionKey,
    connection: Connection,
    head: &Parts,
    received: Received,
) -> Outcome {
    if received.ended && head.status != StatusCode::SWITCHING_PROTOCOLS {
        keep(room, subscription, connection).await;
    }
    let retry_after = retry_after(&head.headers);
    Outcome::Responded { status: head.status.as_u16(), retry_after, body: received.start }
}

/// How long the receiver asks to be left alone.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    parse_retry_after(value.as_bytes(), now())
}

/// Keeps a connection that is ready for another request. One that is not has been
/// closed, has bytes after the answer, or answered before it had read the request.
async fn keep(room: &Room, subscription: SubscriptionKey, connection: Connection) {
    if !connection.sender.is_ready() {
        // Its task, on another thread, may be in the middle of getting ready.
        tokio::task::yield_now().await;
    }
    if connection.sender.is_ready() {
        room.pool.put(subscription, connection);
    }
}

/// By the wall clock: an HTTP date means the world's time, not the database's.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().plus(since_epoch)
}

/// Why a request got no answer on an open connection.
pub(super) fn broken(error: &hyper::Error) -> Trouble {
    if is_alert(error) {
        // With TLS 1.3 it judges our certificate after we have begun to write.
        let detail = "The receiver refused the TLS session; it may want another certificate.";
        return Trouble::new(Failure::Tls, detail);
    }
    let detail = if error.is_parse() {
        "The answer was not HTTP within the limits."
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "The receiver closed the connection before it answered."
    } else {
        "The connection broke before the receiver answered."
    };
    Trouble::new(Failure::Protocol, detail)
}

/// Whether the receiver ended the TLS session and said so.
fn is_alert(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let io = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    let mut inner = io.filter_map(io::Error::get_ref);
    inner.any(|cause| {
        let tls = cause.downcast_ref::<rustls::Error>();
        matches!(tls, Some(rustls::Error::AlertReceived(_)))
    })
}
