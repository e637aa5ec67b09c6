//! Promise: after pause, deactivate or delete no request starts later than one second
//! after their OK; what a pause holds is sent on resume.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;
use tonic::Code;

use crate::harness::client::{Organization, draft, event, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

on_both_engines!(
    a_pause_stops_requests_within_a_second_and_resume_sends_what_waited,
    deactivate_and_delete_stop_requests_within_a_second_and_cancel_the_rest,
    a_receiver_that_is_gone_disables_its_subscription,
    verbs_in_the_wrong_state_are_refused,
);

/// Publishes an event every few milliseconds until it is stopped; gives their numbers.
fn publish_steadily(organization: &Organization) -> tokio::task::JoinHandle<usize> {
    let organization = organization.clone();
    tokio::spawn(async move {
        let begin = Instant::now();
        let mut count = 0;
        while begin.elapsed() < Duration::from_secs(4) {
            organization.publish("steady", &format!(r#"{{"n":{count}}}"#)).await;
            count += 1;
            meanwhile(Duration::from_millis(5)).await;
        }
        count
    })
}

/// No request began more than a second after `ok`.
fn assert_quiet_since(receiver: &Receiver, ok: Instant) {
    let late = receiver.requests().into_iter().filter_map(|request| {
        let after = request.arrival.checked_duration_since(ok)?;
        (Duration::from_secs(1) < after).then_some(after)
    });
    let late: Vec<_> = late.collect();
    assert!(late.is_empty(), "requests later than a second after the OK: {late:?}");
}

async fn a_pause_stops_requests_within_a_second_and_resume_sends_what_waited(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscribed = clinic.subscribe(&receiver, "azodha", "*").await;
    let publishing = publish_steadily(&clinic);
    receiver.received(20).await;

    clinic.pause(&subscribed.id).await.expect("it is active");
    let ok = Instant::now();
    let count = publishing.await.expect("it does not panic");

    assert_quiet_since(&receiver, ok);
    assert!(receiver.count() < count, "some waited");
    clinic.resume(&subscribed.id).await.expect("it is paused");
    eventually("all that was published", async || {
        let bodies: BTreeSet<_> = receiver.requests().into_iter().map(|r| r.body).collect();
        (bodies.len() == count).then_some(())
    })
    .await;
    assert_eq!(receiver.count(), count, "each came once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_at_one_replica_stops_the_requests_of_another() {
    let Some(engine) = Engine::postgres() else { return };
    let first = Service::start(engine).await;
    let second = first.replica().await;
    let receiver = Receiver::answering([200]).await;
    let subscribed = first.organization("clinic").subscribe(&receiver, "azodha", "*").await;
    let publishing = publish_steadily(&second.organization("clinic"));
    receiver.received(20).await;

    first.organization("clinic").pause(&subscribed.id).await.expect("it is active");
    let ok = Instant::now();
    publishing.await.expect("it does not panic");

    assert_quiet_since(&receiver, ok);
}

async fn deactivate_and_delete_stop_requests_within_a_second_and_cancel_the_rest(engine: Engine) {
    let service = Service::start(engine).await;
    for verb in ["deactivate", "delete"] {
        let clinic = service.organization(verb);
        // Every event fails and is tried again twice a second, for ever.
        let receiver = Receiver::answering([500]).await;
        let retry_policy = Some(waits(&[500; 49]));
        let draft = pb::Subscription { retry_policy, ..draft(&receiver, "azodha", "*") };
        let subscribed = clinic.create(draft).await;
        let events = (0..20).map(|_| event("failing", "{}")).collect();
        clinic.try_publish(events).await.expect("it keeps the rules");
        receiver.received(40).await;

        match verb {
            "deactivate" => clinic.deactivate(&subscribed.id).await,
            _ => clinic.delete(&subscribed.id).await,
        }
        .expect("it is there");
        let ok = Instant::now();

        eventually("the end of all deliveries", async || {
            let found = clinic.list(pb::ListDeliveriesRequest::default()).await;
            assert_eq!(found.len(), 20);
            found.iter().all(|one| one.state() == State::Cancelled).then_some(())
        })
        .await;
        meanwhile(Duration::from_millis(2500).saturating_sub(ok.elapsed())).await;
        assert_quiet_since(&receiver, ok);
    }
}

async fn a_receiver_that_is_gone_disables_its_subscription(engine: Engine) {
    let service = Service::start(engine).await;
    for profile in ["standard", "telegramd", "azodha", "meetinglawyers", "hapihub"] {
        let clinic = service.organization(profile);
        let receiver = Receiver::answering([410, 200]).await;
        let subscribed = clinic.subscribe(&receiver, profile, "*").await;

        let id = clinic.publish("invoice.paid", "{}").await;

        let dead = clinic.delivery_of(&id).reaches(State::Dead).await;
        assert_eq!(dead.dead_reason(), pb::delivery::DeadReason::Gone, "{profile}");
        let disabled = eventually("the subscription is disabled", async || {
            let subscription = clinic.get(&subscribed.id).await.expect("it is there");
            (subscription.state() == pb::subscription::State::Disabled).then_some(subscription)
        })
        .await;
        assert!(!disabled.state_reason.is_empty(), "{profile}: it says why");
        let later = event("invoice.paid", "{}");
        assert_eq!(clinic.publish_event(later.clone()).await.delivery_count, 0, "{profile}");

        clinic.activate(&subscribed.id).await.expect("it is disabled");
        let id = clinic.publish_event(later).await.event_id;
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
        assert_eq!(receiver.count(), 2, "{profile}");
    }
}

async fn verbs_in_the_wrong_state_are_refused(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let id = clinic.subscribe(&receiver, "standard", "*").await.id;
    let refused = |result: Result<(), tonic::Status>| {
        assert_eq!(result.expect_err("its state").code(), Code::FailedPrecondition);
    };

    clinic.activate(&id).await.expect("it is active already");
    clinic.resume(&id).await.expect("it is active already");
    clinic.pause(&id).await.expect("it is active");
    clinic.pause(&id).await.expect("it is paused already");
    refused(clinic.activate(&id).await);
    clinic.deactivate(&id).await.expect("from any state");
    clinic.deactivate(&id).await.expect("it is inactive already");
    refused(clinic.pause(&id).await);
    refused(clinic.resume(&id).await);
    clinic.activate(&id).await.expect("it is inactive");
}
