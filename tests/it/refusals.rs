//! Contract: every limit of a subscription refuses what breaks it, with the field's path
//! and a stable reason, accepts what just keeps it, and stores nothing of a refused call.

use std::time::Duration;

use hookward::grpc::pb;

use crate::harness::client::{Organization, draft, duration, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::{Service, Settings};

on_both_engines!(
    what_breaks_a_limit_of_a_subscription_is_refused_and_not_stored,
    what_just_keeps_the_limits_of_a_subscription_is_stored_as_it_is,
    updates_are_held_to_the_same_limits,
);

type Change = fn(&mut pb::Subscription);

/// Whatever kind of map the generated code has.
fn map<M: FromIterator<(String, String)>>(count: usize, key: &str, value: &str) -> M {
    (0..count).map(|number| (format!("{key}{number:02}"), value.to_owned())).collect()
}

/// What breaks a rule, the field, the reason.
const BREACHES: [(Change, &str, &str); 46] = [
    (|s| s.url.clear(), "url", "URL_SYNTAX"),
    (|s| s.url = format!("https://example.com/{}", "a".repeat(2048)), "url", "URL_SYNTAX"),
    (|s| s.url = "example.com/hook".into(), "url", "URL_SYNTAX"),
    (|s| s.url = "https://exa\nmple.com/".into(), "url", "URL_SYNTAX"),
    (|s| s.url = "https:\\\\example.com/".into(), "url", "URL_SYNTAX"),
    (|s| s.url = "https://example.com/#f".into(), "url", "URL_SYNTAX"),
    (|s| s.url = "https://example.com/%0d%0aX:y".into(), "url", "URL_SYNTAX"),
    (|s| s.url = "ftp://example.com/".into(), "url", "URL_SCHEME"),
    (|s| s.url = "http://example.com/".into(), "url", "URL_SCHEME"),
    (|s| s.url = "https://user:pass@example.com/".into(), "url", "URL_USERINFO"),
    (|s| s.url = "https://a..example/".into(), "url", "URL_HOST"),
    (|s| s.url = "https://-a.example/".into(), "url", "URL_HOST"),
    (|s| s.url = "https://2130706433/".into(), "url", "URL_HOST"),
    (|s| s.url = "https://[fe80::1%eth0]/".into(), "url", "URL_HOST"),
    (|s| s.url = "https://example.com:0/".into(), "url", "URL_PORT"),
    (|s| s.url = "https://example.com:22/".into(), "url", "URL_PORT"),
    (|s| s.url = "https://169.254.169.254/".into(), "url", "URL_BLOCKED_ADDRESS"),
    (|s| s.url = "https://localhost/".into(), "url", "URL_BLOCKED_ADDRESS"),
    (|s| s.name = "n".repeat(257), "name", "INVALID_NAME"),
    (|s| s.name = "a\0b".into(), "name", "INVALID_NAME"),
    (|s| s.account_id = "a b".into(), "account_id", "INVALID_ID"),
    (|s| s.account_id = "a".repeat(65), "account_id", "INVALID_ID"),
    (|s| s.event_patterns.clear(), "event_patterns", "EVENT_PATTERNS_COUNT"),
    (|s| s.event_patterns = patterns(101), "event_patterns", "EVENT_PATTERNS_COUNT"),
    (|s| s.event_patterns = vec!["a b".into()], "event_patterns[0]", "INVALID_EVENT_PATTERN"),
    (|s| s.event_patterns = vec!["a".into(), "b*".into()], "event_patterns[1]", PATTERN),
    (|s| s.event_patterns = vec!["*.created".into()], "event_patterns[0]", PATTERN),
    (|s| s.event_patterns = vec![String::new()], "event_patterns[0]", PATTERN),
    (|s| s.headers = map(21, "X-", "v"), "headers", "HEADERS_TOO_MANY"),
    (|s| s.headers = map(9, "X-", &"v".repeat(1024)), "headers", "HEADERS_TOO_LARGE"),
    (|s| s.headers = header("a b", "v"), "headers", "HEADER_NAME"),
    (|s| s.headers = header(&"n".repeat(65), "v"), "headers", "HEADER_NAME"),
    (|s| s.headers = header("X", "a\r\nY: z"), "headers[\"X\"]", "HEADER_VALUE"),
    (|s| s.headers = header("X", &"v".repeat(1025)), "headers[\"X\"]", "HEADER_VALUE"),
    (|s| s.headers = header("X", "é"), "headers[\"X\"]", "HEADER_VALUE"),
    (|s| s.headers = header("hOST", "v"), "headers[\"hOST\"]", "HEADER_RESERVED"),
    (|s| s.headers = header("Webhook-Id", "v"), "headers[\"Webhook-Id\"]", "HEADER_RESERVED"),
    (|s| s.headers = header("traceparent", "v"), "headers[\"traceparent\"]", "HEADER_RESERVED"),
    (|s| s.attributes = map(65, "k", "v"), "attributes", "TOO_MANY_ATTRIBUTES"),
    (|s| s.attributes = header(&"k".repeat(65), "v"), "attributes", "INVALID_ATTRIBUTE"),
    (|s| s.attributes = header("k", &"v".repeat(1025)), "attributes[\"k\"]", ATTRIBUTE),
    (|s| s.retry_policy = Some(waits(&[100; 50])), "retry_policy.waits", RETRY),
    (|s| s.retry_policy = Some(waits(&[100, 99])), "retry_policy.waits[1]", RETRY),
    (|s| s.retry_policy = Some(waits(&[86_400_000; 9])), "retry_policy.waits", RETRY),
    (
        |s| s.attempt_timeout = Some(duration(Duration::from_millis(999))),
        "attempt_timeout",
        "INVALID_ATTEMPT_TIMEOUT",
    ),
    (|s| s.max_in_flight = 257, "max_in_flight", "INVALID_MAX_IN_FLIGHT"),
];

fn patterns(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("p{number}")).collect()
}

const PATTERN: &str = "INVALID_EVENT_PATTERN";
const ATTRIBUTE: &str = "INVALID_ATTRIBUTE";
const RETRY: &str = "INVALID_RETRY_POLICY";

fn header<M: FromIterator<(String, String)>>(name: &str, value: &str) -> M {
    [(name.to_owned(), value.to_owned())].into_iter().collect()
}

/// A subscription that keeps every rule, of a server that calls public addresses only.
fn good(receiver: &Receiver) -> pb::Subscription {
    let url = "https://example.com/hook".to_owned();
    pb::Subscription { url, ..draft(receiver, "standard", "*") }
}

async fn strict(engine: Engine) -> (Service, Organization) {
    let service = Settings::new(engine).public_addresses_only().start().await;
    let clinic = service.organization("clinic");
    (service, clinic)
}

async fn count(clinic: &Organization) -> usize {
    let request =
        pb::ListSubscriptionsRequest { organization_id: clinic.name(), ..Default::default() };
    let page = clinic.subscriptions().list_subscriptions(request).await;
    page.expect("it is readable").into_inner().subscriptions.len()
}

async fn what_breaks_a_limit_of_a_subscription_is_refused_and_not_stored(engine: Engine) {
    let (_service, clinic) = strict(engine).await;
    let receiver = Receiver::answering([200]).await;
    for (number, (change, field, reason)) in BREACHES.into_iter().enumerate() {
        let mut subscription = good(&receiver);
        change(&mut subscription);
        let refused = clinic.try_create(subscription, "").await;
        let refused = refused.err().unwrap_or_else(|| panic!("breach {number}: {field} {reason}"));
        let expected = (format!("subscription.{field}"), reason.to_owned());
        assert_eq!(violation(&refused), expected, "breach {number}");
    }
    let unknown = pb::Subscription { profile: "nobodys".into(), ..good(&receiver) };
    let refused = clinic.try_create(unknown, "").await.expect_err("unknown");
    assert_eq!(violation(&refused).0, "subscription.profile");
    assert_eq!(count(&clinic).await, 0);
}

async fn what_just_keeps_the_limits_of_a_subscription_is_stored_as_it_is(engine: Engine) {
    let (_service, clinic) = strict(engine).await;
    let receiver = Receiver::answering([200]).await;
    let changes: [Change; 16] = [
        |s| s.url = format!("https://example.com/{}", "a".repeat(2048 - 20)),
        |s| s.url = "https://example.com:8443/?a=b".into(),
        |s| s.name = "é".repeat(256),
        |s| s.account_id = "a".repeat(64),
        |s| s.event_patterns = patterns(100),
        |s| s.event_patterns = vec!["a".repeat(128)],
        |s| s.headers = map(20, "X-", "v"),
        |s| s.headers = header(&"n".repeat(64), &"v".repeat(1024)),
        |s| s.attributes = map(64, "k", "v"),
        |s| s.attributes = header(&"k".repeat(64), &"é".repeat(1024)),
        |s| s.retry_policy = Some(waits(&[])),
        |s| s.retry_policy = Some(waits(&[100; 49])),
        |s| s.retry_policy = Some(waits(&[86_400_000; 8])),
        |s| s.attempt_timeout = Some(duration(Duration::from_secs(1))),
        |s| s.attempt_timeout = Some(duration(Duration::from_secs(30))),
        |s| s.max_in_flight = 256,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut subscription = good(&receiver);
        change(&mut subscription);
        let created = clinic.try_create(subscription.clone(), "").await;
        let created = created.unwrap_or_else(|status| panic!("change {number}: {status:?}"));
        let id = created.subscription.expect("always there").id;
        let stored = clinic.get(&id).await.expect("it is there");
        // What the server fills in.
        let filled = pb::Subscription {
            id: stored.id.clone(),
            organization_id: stored.organization_id.clone(),
            signing_enabled: Some(true),
            attempt_timeout: subscription
                .attempt_timeout
                .or_else(|| Some(duration(Duration::from_secs(15)))),
            max_in_flight: subscription.max_in_flight.max(16),
            payload_mode: pb::subscription::PayloadMode::Full.into(),
            state: pb::subscription::State::Active.into(),
            create_time: stored.create_time,
            update_time: stored.update_time,
            etag: stored.etag.clone(),
            circuit: stored.circuit,
            ..subscription
        };
        assert_eq!(stored, filled, "change {number}");
    }
}

async fn updates_are_held_to_the_same_limits(engine: Engine) {
    let (_service, clinic) = strict(engine).await;
    let receiver = Receiver::answering([200]).await;
    let before = clinic.create(good(&receiver)).await.subscription;
    for (number, (change, field, reason)) in BREACHES.into_iter().enumerate() {
        let path = field.split(['[', '.']).next().expect("a field");
        if path == "account_id" {
            continue;
        }
        let mut subscription = before.clone();
        change(&mut subscription);
        let refused = clinic.try_update(subscription, &[path]).await;
        let refused = refused.err().unwrap_or_else(|| panic!("breach {number}: {field} {reason}"));
        let expected = (format!("subscription.{field}"), reason.to_owned());
        assert_eq!(violation(&refused), expected, "breach {number}");
    }
    for path in ["account_id", "id", "state", "etag", "create_time", "nonsense", "url.host"] {
        let refused = clinic.try_update(before.clone(), &[path]).await.expect_err(path);
        assert!(violation(&refused).0.starts_with("update_mask"), "{path}");
    }
    assert_eq!(clinic.get(&before.id).await.expect("it is there"), before);
}
