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
            details.set_retry_info(Some(retry_in));
            with(Code::ResourceExhausted, message, details)
        }
        PublishError::RateExceeded { retry_in } => rate_exceeded("events", retry_in),
        PublishError::TooManyDeliveries => {
            let why = format!("a request makes at most {DELIVERIES_MAX} deliveries: send less");
            quota("TOO_MANY_DELIVERIES", "request", &why)
        }
        PublishError::IdConflict { index } => {
            // The id itself went into the intake with its event.
            let field = format!("events[{index}].id");
            let message = format!("{field}: used in the last 7 days for another content");
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
mod tests {
    use super::*;
    use crate::keyring::Locked;

    fn reason(status: &Status) -> String {
        let info = status.get_details_error_info().expect("every error has one");
        assert_eq!(info.domain, DOMAIN);
        info.reason
    }

    #[test]
    fn each_field_that_breaks_a_rule_is_a_violation_with_its_own_reason() {
        let status = invalid(vec![
            InvalidField::new("events[0].type", "INVALID_EVENT_TYPE", "1 to 128 letters"),
            InvalidField::new("events[2].id", "INVALID_ID", "no full stop"),
        ]);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason(&status), "INVALID_EVENT_TYPE");
        assert_eq!(status.message(), "events[0].type: 1 to 128 letters (and 1 more)");
        let violations = status.get_details_bad_request().expect("a bad request").field_violations;
        let seen: Vec<_> = violations.iter().map(|one| (&*one.field, &*one.reason)).collect();
        let expected = [("events[0].type", "INVALID_EVENT_TYPE"), ("events[2].id", "INVALID_ID")];
        assert_eq!(seen, expected);
        assert_eq!(violations[1].description, "no full stop");
    }

    #[test]
    fn a_thousand_violations_still_fit_into_trailers() {
        let broken = |at| {
            let why = "1 to 128 characters of A-Z, a-z, 0-9, '_', '.', ':', '/' and '-', \
                       without empty segments between full stops";
            InvalidField::new(format!("events[{at}].type"), "INVALID_EVENT_TYPE", why)
        };
        let status = invalid((0..1000).map(broken).collect());
        // Base64 makes four of three.
        assert!(status.details().len() * 4 / 3 + status.message().len() < 8192);
    }

    #[test]
    fn the_stores_failures_have_the_codes_of_the_api() {
        let object = Object::subscription("sub_1");
        let answer = |error| {
            let status = store(error, object);
            (status.code(), reason(&status))
        };
        let expect = |code, reason: &str| (code, reason.to_owned());
        assert_eq!(answer(StoreError::NotFound), expect(Code::NotFound, "NOT_FOUND"));
        assert_eq!(answer(StoreError::Stale), expect(Code::Aborted, "ETAG_STALE"));
        let wrong = answer(StoreError::WrongState("paused"));
        assert_eq!(wrong, expect(Code::FailedPrecondition, "WRONG_STATE"));
        let purged = answer(StoreError::Purged);
        assert_eq!(purged, expect(Code::FailedPrecondition, "PAYLOAD_PURGED"));
        let many = answer(StoreError::TooMany);
        assert_eq!(many, expect(Code::ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS"));
        let reused = answer(StoreError::RequestIdReused);
        assert_eq!(reused, expect(Code::InvalidArgument, "REQUEST_ID_REUSED"));
        for away in [StoreError::Fenced, StoreError::Unavailable("connection lost".into())] {
            assert_eq!(answer(away), expect(Code::Unavailable, "DATABASE_UNAVAILABLE"));
        }
        let full = answer(StoreError::StorageFull);
        assert_eq!(full, expect(Code::ResourceExhausted, "STORAGE_FULL"));
        let rejected = answer(StoreError::Rejected("code 22021".into()));
        assert_eq!(rejected, expect(Code::InvalidArgument, "VALUE_REJECTED"));
        assert_eq!(answer(StoreError::Taken), expect(Code::Aborted, "WRITE_CONFLICT"));
        assert_eq!(answer(StoreError::Corrupt("row")), expect(Code::Internal, "INTERNAL"));
        let shredded = answer(StoreError::Shredded);
        assert_eq!(shredded, expect(Code::FailedPrecondition, "DATA_KEY_GONE"));
        let locked = answer(StoreError::Locked(Locked::Missing("2026-11".into())));
        assert_eq!(locked, expect(Code::Internal, "INTERNAL"));
    }

    #[test]
    fn what_is_missing_is_named_and_what_helps_is_said() {
        let missing = store(StoreError::NotFound, Object::delivery("dlv_1"));
        let resource = missing.get_details_resource_info().expect("a resource");
        assert_eq!(resource.resource_type, "hookward.v1.Delivery");
        assert_eq!(resource.resource_name, "dlv_1");

        let away = store(StoreError::Fenced, Object::delivery("dlv_1"));
        let retry = away.get_details_retry_info().expect("a wait");
        assert_eq!(retry.retry_delay, Some(UNAVAILABLE_RETRY));

        let paused = store(StoreError::WrongState("it is paused"), Object::delivery("dlv_1"));
        let failed = paused.get_details_precondition_failure().expect("a precondition");
        assert_eq!(failed.violations[0].subject, "hookward.v1.Delivery/dlv_1");
        assert_eq!(failed.violations[0].description, "it is paused");
    }

    #[test]
    fn an_id_that_is_far_too_long_is_cut() {
        let long = "é".repeat(12_000);
        let cut = "é".repeat(ID_CHARS_MAX);
        let missing = store(StoreError::NotFound, Object::delivery(&long));
        let resource = missing.get_details_resource_info().expect("a resource");
        assert_eq!(resource.resource_name, cut);
        let wrong = store(StoreError::WrongState("it is paused"), Object::delivery(&long));
        let failed = wrong.get_details_precondition_failure().expect("a precondition");
        assert_eq!(failed.violations[0].subject, format!("hookward.v1.Delivery/{cut}"));
    }

    #[test]
    fn our_own_failures_say_nothing_of_their_cause() {
        let status = store(StoreError::Setup("password refused".into()), Object::event("e"));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("password"));
        assert!(!String::from_utf8_lossy(status.details()).contains("password"));
    }

    #[test]
    fn refused_publications_have_the_codes_of_the_api() {
        let answer = publish;
        let full = answer(PublishError::QueueFull { retry_in: Duration::from_millis(200) });
        assert_eq!((full.code(), &*reason(&full)), (Code::ResourceExhausted, "QUEUE_FULL"));
        let retry = full.get_details_retry_info().expect("a wait");
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(200)));

        let fast = answer(PublishError::RateExceeded { retry_in: Duration::from_millis(300) });
        assert_eq!(
            (fast.code(), &*reason(&fast)),
            (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED")
        );
        let retry = fast.get_details_retry_info().expect("a wait");
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(300)));
        let quota = fast.get_details_quota_failure().expect("a quota");
        assert_eq!(quota.violations[0].subject, "organization");

        let many = answer(PublishError::TooManyDeliveries);
        assert_eq!(
            (many.code(), &*reason(&many)),
            (Code::ResourceExhausted, "TOO_MANY_DELIVERIES")
        );
        assert!(many.get_details_quota_failure().is_some());

        let conflict = answer(PublishError::IdConflict { index: 5 });
        assert_eq!(conflict.code(), Code::AlreadyExists);
        assert_eq!(reason(&conflict), "EVENT_ID_CONFLICT");
        let info = conflict.get_details_error_info().expect("every error has one");
        assert_eq!(info.metadata["field"], "events[5].id");
        let resource = conflict.get_details_resource_info().expect("a resource");
        assert_eq!(resource.resource_type, "hookward.v1.Event");

        for (error, expected) in [
            (PublishError::Rejected, Code::InvalidArgument),
            (PublishError::StorageFull, Code::ResourceExhausted),
            (PublishError::Unavailable, Code::Unavailable),
            (PublishError::ShuttingDown, Code::Unavailable),
        ] {
            assert_eq!(answer(error).code(), expected);
        }
    }
}
