//! One event changed in one place at a time: accepted, refused, told apart.

use bytes::Bytes;

use super::super::id::SubscriptionKey;
use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn input() -> EventInput {
    EventInput {
        organization: OrganizationId::stored("clinic"),
        account_id: String::new(),
        id: String::new(),
        event_type: "medical-encounters.create".to_owned(),
        occur_time: None,
        expire_time: None,
        payload: Payload::Json(Bytes::from_static(br#"{"id":1}"#)),
        content_type: String::new(),
        attributes: BTreeMap::new(),
        subject: String::new(),
        traceparent: String::new(),
        tracestate: String::new(),
    }
}

fn changed(change: impl FnOnce(&mut EventInput)) -> Result<NewEvent, InvalidField> {
    let mut input = input();
    change(&mut input);
    input.check(64, NOW)
}

fn raw(bytes: &'static [u8]) -> Payload {
    Payload::Raw(Bytes::from_static(bytes))
}

#[test]
fn a_plain_event_is_taken_as_it_is() {
    let event = changed(|_| {}).expect("valid");
    assert_eq!(event.content_type, "application/json");
    assert_eq!((event.id, event.account, event.target), (None, None, None));
    assert_eq!(event.payload.bytes(), &br#"{"id":1}"#[..]);
}

#[test]
fn what_keeps_the_rules_is_accepted() {
    type Change = fn(&mut EventInput);
    let changes: [Change; 13] = [
        |e| e.id = "event::a_b-1".to_owned(),
        |e| e.id = "i".repeat(128),
        |e| e.account_id = "a.b".to_owned(),
        |e| e.event_type = "hookward".to_owned(),
        |e| e.occur_time = Some(Timestamp::MIN),
        |e| e.occur_time = Some(Timestamp::MAX),
        |e| e.expire_time = Some(Timestamp(NOW.0 + 1)),
        |e| e.content_type = "application/fhir+json; charset=utf-8".to_owned(),
        |e| e.payload = Payload::None,
        |e| (e.payload, e.content_type) = (raw(b"\xff"), "image/png".to_owned()),
        |e| (e.payload, e.content_type) = (raw(b""), "text/plain".to_owned()),
        |e| e.subject = "é".repeat(256),
        |e| e.traceparent = "nonsense".to_owned(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(changed(change).is_ok(), "change {number}");
    }
    let none = changed(|e| e.payload = Payload::None).expect("valid");
    assert_eq!(none.content_type, "");
}

#[test]
fn what_breaks_a_rule_is_refused_by_field_and_reason() {
    type Change = fn(&mut EventInput);
    let cases: [(Change, &str, &str); 19] = [
        (|e| e.id = "a.b".to_owned(), "id", "INVALID_ID"),
        (|e| e.id = "i".repeat(129), "id", "INVALID_ID"),
        (|e| e.id = "evt_1".to_owned(), "id", "INVALID_ID"),
        (|e| e.account_id = "a b".to_owned(), "account_id", "INVALID_ID"),
        (|e| e.event_type.clear(), "type", "INVALID_EVENT_TYPE"),
        (|e| e.event_type = "a..b".to_owned(), "type", "INVALID_EVENT_TYPE"),
        (|e| e.event_type = "hookward.delivery.dead".to_owned(), "type", "RESERVED_EVENT_TYPE"),
        (|e| e.occur_time = Some(Timestamp(-1)), "occur_time", "INVALID_TIME"),
        (|e| e.expire_time = Some(Timestamp(i64::MAX)), "expire_time", "INVALID_TIME"),
        (
            |e| {
                e.id.clear();
                e.expire_time = Some(NOW);
            },
            "expire_time",
            "EXPIRED",
        ),
        (|e| e.payload = Payload::Json(Bytes::new()), "json", "INVALID_JSON"),
        (
            |e| e.payload = Payload::Json(Bytes::from(format!("\"{}\"", "a".repeat(63)))),
            "json",
            "PAYLOAD_TOO_LARGE",
        ),
        (|e| e.payload = raw(b"x"), "content_type", "INVALID_CONTENT_TYPE"),
        (|e| e.payload = Payload::Raw(Bytes::from(vec![0; 65])), "raw", "PAYLOAD_TOO_LARGE"),
        (|e| e.content_type = "text/plain".to_owned(), "content_type", "INVALID_CONTENT_TYPE"),
        (|e| e.content_type = "json".to_owned(), "content_type", "INVALID_CONTENT_TYPE"),
        (|e| e.subject = "a\0".to_owned(), "subject", "INVALID_SUBJECT"),
        (|e| e.subject = "s".repeat(257), "subject", "INVALID_SUBJECT"),
        (
            |e| drop(e.attributes.insert("k".repeat(65), String::new())),
            "attributes",
            "INVALID_ATTRIBUTE",
        ),
    ];
    for (number, (change, field, reason)) in cases.into_iter().enumerate() {
        let invalid = changed(change).expect_err(reason);
        assert_eq!((&*invalid.field, invalid.reason), (field, reason), "case {number}");
    }
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    let mut input = input();
    input.payload = Payload::Json(Bytes::from(deep));
    let invalid = input.check(PAYLOAD_BYTES_DEFAULT, NOW).expect_err("too deep");
    assert_eq!((&*invalid.field, invalid.reason), ("json", "JSON_TOO_DEEP"));
}

#[test]
fn a_repeated_event_may_have_expired_meanwhile() {
    let event = changed(|e| {
        e.id = "mine".to_owned();
        e.expire_time = Some(NOW);
    });
    assert_eq!(event.expect("valid").expire_time, Some(NOW));
}

#[test]
fn the_hash_tells_every_choice_of_the_publisher() {
    type Change = fn(&mut NewEvent);
    let changes: [Change; 12] = [
        |_| {},
        |e| e.account = Some(AccountId::stored("a")),
        |e| e.event_type = "a".to_owned(),
        |e| e.occur_time = Some(NOW),
        |e| e.expire_time = Some(NOW),
        |e| e.target = Some(SubscriptionKey(NOW.0)),
        |e| e.payload = raw(br#"{"id":1}"#),
        |e| e.payload = Payload::None,
        |e| e.content_type = "application/fhir+json".to_owned(),
        |e| e.subject = "s".to_owned(),
        |e| drop(e.attributes.insert("a".to_owned(), "bc".to_owned())),
        |e| drop(e.attributes.insert("ab".to_owned(), "c".to_owned())),
    ];
    let hashes = changes.map(|change| {
        let mut event = changed(|_| {}).expect("valid");
        change(&mut event);
        content_hash(&event)
    });
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}

#[test]
fn the_hash_is_the_same_for_a_repeated_call() {
    let first = changed(|_| {}).expect("valid");
    let mut again = first.clone();
    again.id = Some("x".to_owned());
    again.trace.traceparent = "another call's".to_owned();
    assert_eq!(content_hash(&first), content_hash(&again));
}
