//! Promise: what is accepted is enforced, and what is not enforced is refused.

use std::time::{Duration, SystemTime};

use hookward::grpc::pb;
use pb::delivery::{DeadReason, State};
use tonic::{Code, Status};

use crate::harness::client::{Organization, draft, event, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::within;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(
    no_attempt_starts_after_an_events_expire_time,
    a_cancelled_delivery_is_not_sent_again,
    a_retry_gives_one_attempt_more,
    an_attempt_is_over_when_its_timeout_is,
    a_change_of_url_counts_for_events_published_before,
);

/// A clinic whose deliveries fail and wait long for their second attempt.
async fn waiting(service: &Service) -> (Organization, Receiver) {
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([500, 200]).await;
    let retry_policy = Some(waits(&[3_600_000]));
    clinic.create(pb::Subscription { retry_policy, ..draft(&receiver, "azodha", "*") }).await;
    (clinic, receiver)
}

fn attempted(delivery: &pb::Delivery) -> bool {
    delivery.attempt_count == 1
}

async fn no_attempt_starts_after_an_events_expire_time(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([500]).await;
    let retry_policy = Some(waits(&[300; 49]));
    clinic.create(pb::Subscription { retry_policy, ..draft(&receiver, "azodha", "*") }).await;
    let expire = SystemTime::now() + Duration::from_secs(2);

    let expiring = pb::Event { expire_time: Some(expire.into()), ..event("short", "{}") };
    let id = clinic.publish_event(expiring).await.event_id;
    receiver.received(1).await;
    let dead = clinic.delivery_of(&id).reaches(State::Dead).await;

    assert_eq!(dead.dead_reason(), DeadReason::Expired);
    assert_eq!(dead.expire_time.map(|time| time.seconds), Some(seconds(expire)));
    for attempt in clinic.attempts(&dead.id).await {
        let start =
            SystemTime::try_from(attempt.start_time.expect("it began")).expect("after 1970");
        assert!(start <= expire, "{start:?} and {expire:?}");
    }
}

fn seconds(time: SystemTime) -> i64 {
    prost_types::Timestamp::from(time).seconds
}

async fn cancel(clinic: &Organization, delivery_id: &str) -> Result<pb::Delivery, Status> {
    let request = pb::CancelDeliveryRequest {
        organization_id: clinic.name(),
        delivery_id: delivery_id.to_owned(),
    };
    let response = clinic.deliveries().cancel_delivery(request).await?.into_inner();
    Ok(response.delivery.expect("always there"))
}

async fn retry(clinic: &Organization, delivery_id: &str) -> Result<pb::Delivery, Status> {
    let request = pb::RetryDeliveryRequest {
        organization_id: clinic.name(),
        delivery_id: delivery_id.to_owned(),
        request_id: String::new(),
    };
    let response = clinic.deliveries().retry_delivery(request).await?.into_inner();
    Ok(response.delivery.expect("always there"))
}

async fn a_cancelled_delivery_is_not_sent_again(engine: Engine) {
    let service = Service::start(engine).await;
    let (clinic, receiver) = waiting(&service).await;
    let id = clinic.publish("invoice.paid", "{}").await;
    let open = clinic.delivery_of(&id).is("was attempted", attempted).await;

    let cancelled = cancel(&clinic, &open.id).await.expect("it is open");

    assert_eq!(cancelled.state(), State::Cancelled);
    assert!(cancelled.end_time.is_some() && cancelled.next_attempt_time.is_none());
    let again = cancel(&clinic, &open.id).await.expect("it is cancelled already");
    assert_eq!(again.state(), State::Cancelled);
    // A retry of it is the one request that comes.
    retry(&clinic, &open.id).await.expect("it is finished");
    let done = clinic.delivery_of(&id).reaches(State::Succeeded).await;
    assert_eq!((done.attempt_count, receiver.count()), (2, 2));
    let refused = cancel(&clinic, &open.id).await.expect_err("it has succeeded");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

async fn a_retry_gives_one_attempt_more(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([500, 500, 500, 200]).await;
    let retry_policy = Some(pb::RetryPolicy::default());
    let once = pb::Subscription { retry_policy, ..draft(&receiver, "azodha", "*") };
    let subscribed = clinic.create(once).await;
    let id = clinic.publish("invoice.paid", "{}").await;
    let dead = clinic.delivery_of(&id).reaches(State::Dead).await;

    for attempts in [2, 3] {
        let open = retry(&clinic, &dead.id).await.expect("it is finished");
        assert!([State::Pending, State::InFlight].contains(&open.state()), "{open:?}");
        let ended =
            |one: &pb::Delivery| one.state() == State::Dead && one.attempt_count == attempts;
        clinic.delivery_of(&id).is("is dead again", ended).await;
    }
    retry(&clinic, &dead.id).await.expect("it is finished");
    let done = clinic.delivery_of(&id).reaches(State::Succeeded).await;
    let numbers: Vec<_> =
        clinic.attempts(&done.id).await.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);

    clinic.deactivate(&subscribed.id).await.expect("it is active");
    let refused = retry(&clinic, &dead.id).await.expect_err("its subscription is inactive");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

async fn an_attempt_is_over_when_its_timeout_is(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([Answer::Drip]).await;
    let once = pb::Subscription {
        retry_policy: Some(pb::RetryPolicy::default()),
        attempt_timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        ..draft(&receiver, "azodha", "*")
    };
    clinic.create(once).await;

    let id = clinic.publish("invoice.paid", "{}").await;

    let dead = clinic.delivery_of(&id).reaches(State::Dead).await;
    let took = dead.last_attempt.expect("there was one").duration.expect("it took a while");
    let took = Duration::try_from(took).expect("not negative");
    let limits = Duration::from_secs(2)..Duration::from_millis(2500);
    assert!(limits.contains(&took), "{took:?}");
}

async fn a_change_of_url_counts_for_events_published_before(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let (old, new) = (Receiver::answering([500]).await, Receiver::answering([200]).await);
    let retry_policy = Some(waits(&[1500, 1500, 1500]));
    let draft = pb::Subscription { retry_policy, ..draft(&old, "azodha", "*") };
    let subscribed = clinic.create(draft).await;
    let id = clinic.publish("invoice.paid", "{}").await;
    old.received(1).await;

    let moved = pb::Subscription { url: new.url(), ..subscribed.subscription };
    clinic.try_update(moved, &["url"]).await.expect("nobody else changed it");

    clinic.delivery_of(&id).reaches(State::Succeeded).await;
    assert_eq!((old.count(), new.count()), (1, 1));
}

/// Roles: one process takes in, another sends.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_replica_sends_nothing_and_a_dispatch_replica_sends_what_it_took_in() {
    let Some(engine) = Engine::postgres() else { return };
    let api = Settings::new(engine.clone()).flag("--role", "api").start().await;
    let clinic = api.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(clinic.publish("invoice.paid", "{}").await);
    }
    assert_eq!(receiver.connections(), 0);
    let open = clinic.deliveries_of(&ids[0]).await.remove(0);
    assert_eq!(open.state(), State::Pending);

    let dispatch = Settings::new(engine).flag("--role", "dispatch").start().await;
    for id in &ids {
        clinic.delivery_of(id).reaches(State::Succeeded).await;
    }
    // What comes later is announced, not found by chance.
    let before = receiver.count();
    clinic.publish("invoice.paid", "{}").await;
    within(Duration::from_secs(2), "the announced delivery", async || {
        (before < receiver.count()).then_some(())
    })
    .await;
    drop(dispatch);
}
