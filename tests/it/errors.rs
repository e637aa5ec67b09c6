//! Contract: what a refused call carries for programs: `ErrorInfo` always, `BadRequest`
//! with a violation a field, `RetryInfo` where trying again makes sense.

use hookward::grpc::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::client::{draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};

on_both_engines!(every_refusal_has_error_info, a_full_queue_says_when_to_try_again);

fn info(status: &Status) -> (String, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
    let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    assert!(info.reason.bytes().all(upper), "{info:?}");
    assert!((1..=63).contains(&info.reason.len()), "{info:?}");
    (info.domain, info.reason)
}

async fn every_refusal_has_error_info(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "telegramd", "*").await;
    clinic.publish_event(pb::Event { id: "used".into(), ..event("a", "{}") }).await;

    let used = pb::Event { id: "used".into(), ..event("b", "{}") };
    let etag = clinic.subscribe(&receiver, "telegramd", "none").await.subscription.etag;
    let stale = pb::Subscription { etag, ..subscribed.subscription.clone() };
    let refusals = [
        (Code::NotFound, clinic.get("sub_0000000000001").await.err()),
        (Code::NotFound, clinic.delivery("dlv_0").await.err()),
        (Code::NotFound, clinic.read_event("none").await.err()),
        (Code::InvalidArgument, clinic.try_publish(Vec::new()).await.err()),
        (Code::AlreadyExists, clinic.try_publish(vec![used]).await.err()),
        (Code::Aborted, clinic.try_update(stale, &["name"]).await.err()),
        // TelegraMD has no ping.
        (Code::FailedPrecondition, clinic.ping(&subscribed.id).await.err()),
    ];
    let mut domains = Vec::new();
    for (code, status) in refusals {
        let status = status.expect("it is refused");
        assert_eq!(status.code(), code, "{status:?}");
        assert!(!status.message().is_empty());
        domains.push(info(&status).0);
    }
    assert!(domains.iter().all(|domain| *domain == domains[0]), "one domain: {domains:?}");
}

#[tokio::test]
async fn every_bad_event_of_a_request_has_its_violation() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let bad = |json: &str| event("a", json);
    let events = vec![event("a", "{}"), bad("{"), event("a", "{}"), event("", "{}")];

    let refused = clinic.try_publish(events).await.expect_err("two are bad");

    let details = refused.get_details_bad_request().expect("BadRequest is there");
    let fields: Vec<_> = details.field_violations.iter().map(|one| &*one.field).collect();
    assert_eq!(fields, ["events[1].json", "events[3].type"]);
}

#[tokio::test]
async fn several_bad_fields_of_a_subscription_are_named_and_no_value_is_repeated() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let secret = "https://user:hunter2@example.com/";
    let bad = pb::Subscription { url: secret.into(), ..draft(&receiver, "standard", "*") };

    let refused = clinic.try_create(bad, "").await.expect_err("user and password");

    let seen = format!("{refused:?} {}", String::from_utf8_lossy(refused.details()));
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(!service.written().contains("hunter2"), "nor is it logged");
}

/// The queue holds a few events; everything that is accepted is stored.
async fn a_full_queue_says_when_to_try_again(engine: Engine) {
    let settings = Settings::new(engine).flag("--publish-queue-events", "100");
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;

    let mut accepted = 0;
    let refused = eventually("a full queue", async || {
        let calls = (0..64).map(|_| {
            let clinic = clinic.clone();
            let events = (0..50).map(|_| event("load", "{}")).collect();
            tokio::spawn(async move { clinic.try_publish(events).await })
        });
        let calls: Vec<_> = calls.collect();
        let mut refused = None;
        for call in calls {
            match call.await.expect("it does not panic") {
                Ok(results) => accepted += results.len(),
                Err(status) => refused = Some(status),
            }
        }
        refused
    })
    .await;

    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let retry = refused.get_details_retry_info().expect("RetryInfo is there");
    assert!(retry.retry_delay.is_some_and(|delay| !delay.is_zero()), "{retry:?}");
    info(&refused);
    receiver.received(accepted).await;
}
