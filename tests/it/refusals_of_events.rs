//! Contract: every limit of an event and of a request refuses what breaks it, with the
//! field's path and a stable reason, accepts what just keeps it, and stores nothing of a
//! refused call.

use hookward::grpc::pb;
use pb::event::Payload;
use tonic::Code;

use crate::harness::client::{Organization, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    what_breaks_a_limit_of_an_event_is_refused_and_not_stored,
    what_just_keeps_the_limits_of_an_event_is_stored_as_it_is,
    requests_that_are_too_large_are_refused_whole,
    organizations_have_names,
);

type Change = fn(&mut pb::Event);

#[expect(clippy::unnecessary_wraps, reason = "as the field takes it")]
fn json(text: impl Into<String>) -> Option<Payload> {
    Some(Payload::Json(text.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "as the field takes it")]
fn time(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

/// What breaks a rule, the field, the reason.
const BREACHES: [(Change, &str, &str); 34] = [
    (|e| e.id = "a.b".into(), "id", "INVALID_ID"),
    (|e| e.id = "a b".into(), "id", "INVALID_ID"),
    (|e| e.id = "é".into(), "id", "INVALID_ID"),
    (|e| e.id = "i".repeat(129), "id", "INVALID_ID"),
    (|e| e.id = "evt_0000000000001".into(), "id", "INVALID_ID"),
    (|e| e.account_id = "a b".into(), "account_id", "INVALID_ID"),
    (|e| e.account_id = "a".repeat(65), "account_id", "INVALID_ID"),
    (|e| e.r#type.clear(), "type", "INVALID_EVENT_TYPE"),
    (|e| e.r#type = "a b".into(), "type", "INVALID_EVENT_TYPE"),
    (|e| e.r#type = "a\0".into(), "type", "INVALID_EVENT_TYPE"),
    (|e| e.r#type = "t".repeat(129), "type", "INVALID_EVENT_TYPE"),
    (|e| e.r#type = "a.*".into(), "type", "INVALID_EVENT_TYPE"),
    (|e| e.r#type = "hookward.delivery.dead".into(), "type", "RESERVED_EVENT_TYPE"),
    (|e| e.occur_time = time(-1, 0), "occur_time", "INVALID_TIME"),
    (|e| e.occur_time = time(0, -1), "occur_time", "INVALID_TIME"),
    (|e| e.occur_time = time(0, 1_000_000_000), "occur_time", "INVALID_TIME"),
    (|e| e.occur_time = time(253_402_300_800, 0), "occur_time", "INVALID_TIME"),
    (|e| e.occur_time = time(i64::MAX, 0), "occur_time", "INVALID_TIME"),
    (|e| e.expire_time = time(i64::MIN, 0), "expire_time", "INVALID_TIME"),
    (|e| e.expire_time = time(1_600_000_000, 0), "expire_time", "EXPIRED"),
    (|e| e.payload = json(""), "json", "INVALID_JSON"),
    (|e| e.payload = json("{"), "json", "INVALID_JSON"),
    (|e| e.payload = json("{}{}"), "json", "INVALID_JSON"),
    (|e| e.payload = json("{'a':1}"), "json", "INVALID_JSON"),
    (|e| e.payload = json("NaN"), "json", "INVALID_JSON"),
    (|e| e.payload = json("\u{feff}{}"), "json", "INVALID_JSON"),
    (|e| e.payload = json(nested(129)), "json", "JSON_TOO_DEEP"),
    (|e| e.payload = json(text_of(256 * 1024 + 1)), "json", "PAYLOAD_TOO_LARGE"),
    (|e| e.payload = Some(Payload::Raw("x".into())), "content_type", "INVALID_CONTENT_TYPE"),
    (|e| e.content_type = "text/plain\r\nX: y".into(), "content_type", "INVALID_CONTENT_TYPE"),
    (|e| e.subject = "s".repeat(257), "subject", "INVALID_SUBJECT"),
    (
        |e| e.attributes = (0..65).map(|n| (n.to_string(), String::new())).collect(),
        "attributes",
        "TOO_MANY_ATTRIBUTES",
    ),
    (|e| e.attributes = entry(&"k".repeat(65), "v"), "attributes", "INVALID_ATTRIBUTE"),
    (|e| e.attributes = entry("k", &"v".repeat(1025)), "attributes[\"k\"]", "INVALID_ATTRIBUTE"),
];

fn entry<M: FromIterator<(String, String)>>(key: &str, value: &str) -> M {
    [(key.to_owned(), value.to_owned())].into_iter().collect()
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// A JSON text of so many bytes.
fn text_of(bytes: usize) -> String {
    format!("\"{}\"", "a".repeat(bytes - 2))
}

async fn count(clinic: &Organization) -> usize {
    let request = pb::ListEventsRequest {
        organization_id: clinic.name(),
        page_size: 1000,
        ..Default::default()
    };
    let page = clinic.events().list_events(request).await.expect("it is readable");
    page.into_inner().events.len()
}

async fn what_breaks_a_limit_of_an_event_is_refused_and_not_stored(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    for (number, (change, field, reason)) in BREACHES.into_iter().enumerate() {
        let mut bad = event("invoice.paid", "{}");
        change(&mut bad);
        let events = vec![event("invoice.paid", "{}"), bad];
        let refused = clinic.try_publish(events).await;
        let refused = refused.err().unwrap_or_else(|| panic!("breach {number}: {field} {reason}"));
        let expected = (format!("events[1].{field}"), reason.to_owned());
        assert_eq!(violation(&refused), expected, "breach {number}");
    }
    let other = pb::Event { organization_id: "other".into(), ..event("invoice.paid", "{}") };
    let refused = clinic.try_publish(vec![other]).await.expect_err("another organization");
    assert_eq!(violation(&refused).0, "events[0].organization_id");
    assert_eq!(count(&clinic).await, 0);
}

async fn what_just_keeps_the_limits_of_an_event_is_stored_as_it_is(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let changes: [Change; 15] = [
        |e| e.id = "i".repeat(128),
        |e| e.id = "event::A_b-1".into(),
        |e| e.account_id = "A.b_c-1".into(),
        |e| e.r#type = "t".repeat(128),
        |e| e.r#type = "message-from:admin_1.created".into(),
        |e| e.occur_time = time(0, 0),
        |e| e.occur_time = time(253_402_300_799, 999_999_000),
        |e| e.expire_time = time(4_102_444_800, 1000),
        |e| e.payload = json(nested(128)),
        |e| e.payload = json(text_of(256 * 1024)),
        |e| e.payload = None,
        |e| e.subject = "é".repeat(256),
        |e| e.content_type = "application/fhir+json; charset=utf-8".into(),
        |e| e.attributes = (0..64).map(|n| (n.to_string(), "é".repeat(1024))).collect(),
        |e| {
            e.payload = Some(Payload::Raw(vec![0xff; 256 * 1024].into()));
            e.content_type = "image/png".into();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut good = event("invoice.paid", "{}");
        change(&mut good);
        let results = clinic.try_publish(vec![good.clone()]).await;
        let results = results.unwrap_or_else(|status| panic!("change {number}: {status:?}"));
        let stored = clinic.read_event(&results[0].event_id).await.expect("it is there");
        // What the server fills in.
        let json_type = matches!(good.payload, Some(Payload::Json(_)));
        let default_type = if json_type { "application/json" } else { "" };
        let filled = pb::Event {
            id: results[0].event_id.clone(),
            organization_id: clinic.name(),
            occur_time: good.occur_time.or(stored.occur_time),
            content_type: Some(good.content_type.clone())
                .filter(|given| !given.is_empty())
                .unwrap_or_else(|| default_type.to_owned()),
            payload_bytes: stored.payload_bytes,
            publish_time: stored.publish_time,
            publisher: "anyone".to_owned(),
            ..good
        };
        assert_eq!(stored, filled, "change {number}");
    }
}

async fn requests_that_are_too_large_are_refused_whole(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let many = |count| (0..count).map(|_| event("many", "{}")).collect::<Vec<_>>();

    for events in [many(0), many(1001)] {
        let refused = clinic.try_publish(events).await.expect_err("1 to 1000");
        assert_eq!(violation(&refused).0, "events");
    }
    let heavy = |count| (0..count).map(|_| event("heavy", &text_of(256 * 1024))).collect();
    let refused = clinic.try_publish(heavy(16)).await.expect_err("more than 4 MiB");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    // Beyond the decoder's limit tonic itself refuses.
    let refused = clinic.try_publish(heavy(40)).await.expect_err("more than 5 MiB");
    let codes = [Code::ResourceExhausted, Code::OutOfRange];
    assert!(codes.contains(&refused.code()), "{refused:?}");
    assert_eq!(count(&clinic).await, 0);

    clinic.try_publish(many(1000)).await.expect("it keeps the rules");
    clinic.try_publish(heavy(15)).await.expect("it keeps the rules");
}

async fn organizations_have_names(engine: Engine) {
    let service = Service::start(engine).await;
    for name in ["", "a b", "é", "a/b", &"a".repeat(65)] {
        let organization = service.organization(name);
        let refused = organization.try_publish(vec![event("a", "{}")]).await.expect_err(name);
        assert_eq!(violation(&refused), ("organization_id".into(), "INVALID_ID".into()), "{name}");
        let refused = organization.get("sub_0000000000001").await.expect_err(name);
        assert_eq!(violation(&refused).0, "organization_id", "{name}");
    }
    for name in ["A.b_c-1", &"a".repeat(64)] {
        service.organization(name).publish("a", "{}").await;
    }
}
