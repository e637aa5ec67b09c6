//! Every error that callers see is made here, and only here.
//!
//! Each carries a `google.rpc.Status` (AIP-193): an `ErrorInfo` with a stable reason
//! in the domain [`DOMAIN`], and what the code calls for: the fields of a bad request,
//! the wait before a retry, the resource that is missing, the precondition or the
//! quota that failed. No error carries a value of a payload, a header or a secret, nor
//! the database's own words. What is our fault is logged here, once.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::call;
use crate::domain::invalid::InvalidField;
use crate::domain::scope::Scope;
use crate::intake::{DELIVERIES_MAX, PublishError};
use crate::store::{SUBSCRIPTIONS_MAX, StoreError};

/// Where the reasons of `ErrorInfo` are unique.
pub(super) const DOMAIN: &str = "hookward.v1";

/// Violations in one answer. HTTP/2 clients accept 8 KiB of trailers at least; a
/// batch can break a rule a thousand times.
const VIOLATIONS_MAX: usize = 16;
/// Characters of an id that an error repeats: as long as the longest id there is. A
/// caller's own text may be longer and would not fit into the trailers.
const ID_CHARS_MAX: usize = 128;
/// When to try again while the database is away: about a fail-over's first second.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// What an error is about: its kind, as in the API, and its public id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a> {
    pub(super) kind: Kind,
    pub(super) id: &'a str,
}

/// A kind of object that can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AuditEntry,
    Delivery,
    Event,
    EventType,
    SigningSecret,
    Subscription,
}

impl Kind {
    fn type_name(self) -> &'static str {
        match self {
            Kind::AuditEntry => "hookward.v1.AuditEntry",
            Kind::Delivery => "hookward.v1.Delivery",
            Kind::Event => "hookward.v1.Event",
            Kind::EventType => "hookward.v1.EventType",
            Kind::SigningSecret => "hookward.v1.SigningSecret",
            Kind::Subscription => "hookward.v1.Subscription",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::AuditEntry => "audit entry",
            Kind::Delivery => "delivery",
            Kind::Event => "event",
            Kind::EventType => "event type",
            Kind::SigningSecret => "live signing secret",
            Kind::Subscription => "subscription",
        }
    }
}

impl<'a> Object<'a> {
    pub(super) fn audit_entry(id: &'a str) -> Self {
        Object { kind: Kind::AuditEntry, id }
    }

    pub(super) fn delivery(id: &'a str) -> Self {
        Object { kind: Kind::Delivery, id }
    }

    pub(super) fn event(id: &'a str) -> Self {
        Object { kind: Kind::Event, id }
    }

    pub(super) fn event_type(id: &'a str) -> Self {
        Object { kind: Kind::EventType, id }
    }

    pub(super) fn signing_secret(id: &'a str) -> Self {
        Object { kind: Kind::SigningSecret, id }
    }

    pub(super) fn subscription(id: &'a str) -> Self {
        Object { kind: Kind::Subscription, id }
    }

    fn shown_id(self) -> &'a str {
        let end = self.id.char_indices().nth(ID_CHARS_MAX).map(|(end, _)| end);
        end.map_or(self.id, |end| &self.id[..end])
    }
}

impl From<InvalidField> for Status {
    fn from(field: InvalidField) -> Status {
        invalid(vec![field])
    }
}

/// `INVALID_ARGUMENT` with one violation a field; `fields` has at least one.
pub(super) fn invalid(fields: Vec<InvalidField>) -> Status {
    let reason = fields.first().map_or("INVALID_ARGUMENT", |field| field.reason);
    let mut message = fields.first().map(ToString::to_string).unwrap_or_default();
    if 1 < fields.len() {
        message = format!("{message} (and {} more)", fields.len() - 1);
    }
    let metadata = fields.first().map(|field| ("field".to_owned(), field.field.clone()));
    let mut details = info(reason, metadata);
    let violation = |field: InvalidField| FieldViolation {
        reason: field.reason.to_owned(),
        ..FieldViolation::new(field.field, field.why)
    };
    let violations: Vec<_> = fields.into_iter().take(VIOLATIONS_MAX).map(violation).collect();
    details.set_bad_request(violations);
    with(Code::InvalidArgument, message, details)
}

/// `NOT_FOUND`: the organization has no such object, whoever else has.
pub(super) fn not_found(object: Object<'_>) -> Status {
    let message = format!("there is no {} of this id in the organization", object.kind.noun());
    let mut details = info("NOT_FOUND", None);
    details.set_resource_info(object.kind.type_name(), object.shown_id(), "", message.clone());
    with(Code::NotFound, message, details)
}

/// `FAILED_PRECONDITION`; `reason` stable, `why` for people.
pub(super) fn precondition(object: Object<'_>, reason: &'static str, why: &str) -> Status {
    let mut details = info(reason, None);
    let subject = format!("{}/{}", object.kind.type_name(), object.shown_id());
    details.add_precondition_failure_violation(reason, subject, why);
    with(Code::FailedPrecondition, why, details)
}

/// `ABORTED`: somebody else changed it in between.
pub(super) fn stale() -> Status {
    let message = "changed since it was read: read it again";
    with(Code::Aborted, message, info("ETAG_STALE", None))
}

/// `UNAUTHENTICATED`: the same for every cause, so that nobody learns which keys there are.
pub(super) fn unauthenticated() -> Status {
    let message = "show credentials that are valid here: authorization: Bearer with an API key \
                   or a token, or a client certificate";
    with(Code::Unauthenticated, message, info("UNAUTHENTICATED", None))
}

/// `RESOURCE_EXHAUSTED`: the same as above, but too often; when to try again.
pub(super) fn too_many_failures(retry_in: Duration) -> Status {
    let message = "too many calls from this address show no credentials that are valid here: \
                   try again later, with such";
    let mut details = info("TOO_MANY_FAILURES", None);
    details.add_quota_failure_violation("address", message);
    details.set_retry_info(Some(retry_in));
    with(Code::ResourceExhausted, message, details)
}

/// `UNAVAILABLE`: whose credentials these are cannot be told now.
pub(super) fn credentials_unknown() -> Status {
    unavailable("DATABASE_UNAVAILABLE", "the database is away: try again")
}

/// `UNAVAILABLE`: whoever reads payloads or response bodies must be on record.
pub(super) fn read_not_recorded() -> Status {
    let message = "that you read this cannot be recorded now: try again";
    unavailable("DATABASE_UNAVAILABLE", message)
}

/// `PERMISSION_DENIED`: the caller's credentials are not meant for this.
pub(super) fn scope_missing(scope: Scope) -> Status {
    let message = format!("the credentials lack the scope {scope}");
    let scope = Some(("scope".to_owned(), scope.to_string()));
    with(Code::PermissionDenied, message, info("SCOPE_MISSING", scope))
}

/// `PERMISSION_DENIED`: whether there is such an organization or not.
pub(super) fn organization_denied() -> Status {
    let message = "the credentials are not for this organization_id";
    with(Code::PermissionDenied, message, info("ORGANIZATION_DENIED", None))
}

/// `RESOURCE_EXHAUSTED`: the request is larger than the API takes.
pub(super) fn too_large() -> Status {
    quota("REQUEST_TOO_LARGE", "request", "a request has at most 4 MiB")
}

/// `RESOURCE_EXHAUSTED`: more is asked for the organization than it may have of this
/// server; when to try again.
pub(super) fn rate_exceeded(what: &str, retry_in: Duration) -> Status {
    let why = format!("{what} of this organization come too fast: try again later");
    let mut details = info("RATE_LIMIT_EXCEEDED", None);
    details.add_quota_failure_violation("organization", why.clone());
    details.set_retry_info(Some(retry_in));
    with(Code::ResourceExhausted, why, details)
}

/// `DEADLINE_EXCEEDED`: the caller's time or the server's own cap is over.
pub(super) fn deadline_exceeded() -> Status {
    let message = "the call took too long; it is not known whether it had an effect";
    with(Code::DeadlineExceeded, message, with_request_info(info("DEADLINE_EXCEEDED", None)))
}

/// `INVALID_ARGUMENT`: the bytes are not the message that the method takes.
pub(super) fn malformed() -> Status {
    let message = "the request is not a message that this method takes";
    with(Code::InvalidArgument, message, info("MALFORMED_REQUEST", None))
}

/// `UNIMPLEMENTED`: no such method, or a compression that is not spoken here.
pub(super) fn unimplemented() -> Status {
    let message = "this server has no such method, or does not speak its compression";
    with(Code::Unimplemented, message, info("UNIMPLEMENTED", None))
}

/// INTERNAL: our fault. `cause` goes to the log, not to the caller.
pub(super) fn internal(cause: &dyn std::fmt::Display) -> Status {
    tracing::error!(error = %cause, request.id = call::request_id(), "a call failed by our fault");
    let message = "the server failed; its log says why under this request id";
    with(Code::Internal, message, with_request_info(info("INTERNAL", None)))
}

/// What a failed store call means to the caller of a method about `object`.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`; nobody else handles it")]
pub(super) fn store(error: StoreError, object: Object<'_>) -> Status {
    match error {
        StoreError::NotFound => not_found(object),
        StoreError::Stale => stale(),
        StoreError::WrongState(why) => precondition(object, "WRONG_STATE", why),
        StoreError::Purged => {
            precondition(object, "PAYLOAD_PURGED", "the event's payload was purged")
        }
        StoreError::TooMany => {
            let why = format!("an organization has at most {SUBSCRIPTIONS_MAX} subscriptions");
            quota("TOO_MANY_SUBSCRIPTIONS", "organization", &why)
        }
        StoreError::RequestIdReused => {
            let why = "used in the last 24 hours for a request with another content";
            InvalidField::new("request_id", "REQUEST_ID_REUSED", why).into()
        }
        StoreError::Fenced | StoreError::Unavailable(_) => {
            tracing::warn!(%error, request.id = call::request_id(), "the database is away");
            unavailable("DATABASE_UNAVAILABLE", "the database is away: try again")
        }
        StoreError::StorageFull => storage_full(),
        StoreError::Rejected(_) => {
            tracing::warn!(%error, request.id = call::request_id(), "a value was refused");
            rejected("request")
        }
        StoreError::Taken => {
            let message = "another change came in between: try again";
            with(Code::Aborted, message, info("WRITE_CONFLICT", None))
        }
        StoreError::Shredded => {
            let why = "it cannot be decrypted: the organization's key was destroyed";
            precondition(object, "DATA_KEY_GONE", why)
        }
        StoreError::Corrupt(_) | StoreError::Locked(_) | StoreError::Setup(_) => internal(&error),
    }
}

/// What a refused publication means.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`; nobody else handles it")]
pub(super) fn publish(error: PublishError) -> Status {
    match error {
        PublishError::QueueFull { retry_in } => {
            let message = "too many events wait to be stored: try again later";
            let mut details = info("QUEUE_FULL", None);
            details.add_quota_failure_violation("server", message);
            details.set_retry_info(Some(retry_in));
            with(Code::ResourceExhausted, message, details)
        }
        PublishError::RateExceeded { retry_in } => rate_exceeded("events", retry_in),
        PublishError::BacklogFull { retry_in } => {
            let why = "the organization has as many open deliveries as it may: ListDeliveries \
                       says for whom they wait; cancel some, or have their receivers mended";
            let mut details = info("BACKLOG_QUOTA", None);
            details.add_quota_failure_violation("organization", why);
            details.set_retry_info(Some(retry_in));
            with(Code::ResourceExhausted, why, details)
        }
        PublishError::TooManyDeliveries => {
            let why = format!("a request makes at most {DELIVERIES_MAX} deliveries: send less");
            quota("TOO_MANY_DELIVERIES", "request", &why)
        }
        PublishError::IdConflict { index } => {
            // The id itself went into the intake with its event.
            let field = format!("events[{index}].id");
            let message = format!("{field}: used before for another content");
            let mut details = info("EVENT_ID_CONFLICT", Some(("field".to_owned(), field.clone())));
            let description = "an event of this id has another content";
            details.set_resource_info(Kind::Event.type_name(), field, "", description);
            with(Code::AlreadyExists, message, details)
        }
        PublishError::Rejected => rejected("events"),
        PublishError::StorageFull => storage_full(),
        PublishError::Unavailable => {
            let message = "it is not known whether the events were stored: try again";
            unavailable("DATABASE_UNAVAILABLE", message)
        }
        PublishError::ShuttingDown => {
            unavailable("SHUTTING_DOWN", "the server is stopping: try again")
        }
    }
}

fn storage_full() -> Status {
    let message = "the server's storage is full; nothing was stored";
    with(Code::ResourceExhausted, message, info("STORAGE_FULL", None))
}

fn rejected(field: &str) -> Status {
    InvalidField::new(field, "VALUE_REJECTED", "a value that cannot be stored").into()
}

fn unavailable(reason: &'static str, message: &str) -> Status {
    let mut details = info(reason, None);
    details.set_retry_info(Some(UNAVAILABLE_RETRY));
    with(Code::Unavailable, message, details)
}

fn quota(reason: &'static str, subject: &str, why: &str) -> Status {
    let mut details = info(reason, None);
    details.add_quota_failure_violation(subject, why);
    with(Code::ResourceExhausted, why, details)
}

fn info(reason: &'static str, metadata: Option<(String, String)>) -> ErrorDetails {
    let metadata: HashMap<_, _> = metadata.into_iter().collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

/// The id under which our log tells more.
fn with_request_info(mut details: ErrorDetails) -> ErrorDetails {
    if let Some(id) = call::request_id() {
        details.set_request_info(id, "");
    }
    details
}

fn with(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests;
