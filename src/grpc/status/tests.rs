//! Codes, reasons and details of errors.

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

    let quota = full.get_details_quota_failure().expect("a quota");
    assert_eq!(quota.violations[0].subject, "server");

    let open = answer(PublishError::BacklogFull { retry_in: Duration::from_secs(10) });
    assert_eq!((open.code(), &*reason(&open)), (Code::ResourceExhausted, "BACKLOG_QUOTA"));
    let retry = open.get_details_retry_info().expect("a wait");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(10)));
    let quota = open.get_details_quota_failure().expect("a quota");
    assert_eq!(quota.violations[0].subject, "organization");

    let fast = answer(PublishError::RateExceeded { retry_in: Duration::from_millis(300) });
    assert_eq!((fast.code(), &*reason(&fast)), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
    let retry = fast.get_details_retry_info().expect("a wait");
    assert_eq!(retry.retry_delay, Some(Duration::from_millis(300)));
    let quota = fast.get_details_quota_failure().expect("a quota");
    assert_eq!(quota.violations[0].subject, "organization");

    let many = answer(PublishError::TooManyDeliveries);
    assert_eq!((many.code(), &*reason(&many)), (Code::ResourceExhausted, "TOO_MANY_DELIVERIES"));
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
