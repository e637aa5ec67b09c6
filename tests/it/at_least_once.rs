//! Promise: every event reaches its receiver at least once; each attempt carries the same
//! id and the same bytes.

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(
    a_receiver_that_recovers_gets_the_event_once_more_and_no_further,
    every_attempt_is_byte_for_byte_the_first_one,
    every_way_to_fail_is_tried_again,
    a_delivery_that_is_never_accepted_ends_dead_and_can_be_retried,
);

async fn a_receiver_that_recovers_gets_the_event_once_more_and_no_further(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([503, 200]).await;
    clinic.subscribe(&receiver, "azodha", "invoice.paid").await;

    let event = clinic.publish("invoice.paid", r#"{"id":1}"#).await;

    let delivery = clinic.delivery_of(&event).reaches(State::Succeeded).await;
    assert_eq!(delivery.attempt_count, 2);
    assert_eq!(receiver.count(), 2);
    let attempts = clinic.attempts(&delivery.id).await;
    let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.http_status).collect();
    assert_eq!(statuses, [Some(503), Some(200)]);
}

async fn every_attempt_is_byte_for_byte_the_first_one(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    for profile in ["standard", "telegramd", "azodha", "meetinglawyers", "hapihub"] {
        let receiver = Receiver::answering([500, 500, 500, 200]).await;
        let subscribed = clinic.subscribe(&receiver, profile, profile).await;

        let event = clinic.publish(profile, r#"{"text":"Médico – ok ✓"}"#).await;

        clinic.delivery_of(&event).reaches(State::Succeeded).await;
        let requests = receiver.requests();
        assert_eq!(requests.len(), 4, "{profile}");
        for request in &requests[1..] {
            assert_eq!(request.body, requests[0].body, "{profile}");
            for name in ["webhook-id", "TelegraMD-Signature", "X-Signature"] {
                assert_eq!(request.header(name), requests[0].header(name), "{profile}");
            }
        }
        clinic.delete(&subscribed.id).await.expect("it is there");
    }
}

async fn every_way_to_fail_is_tried_again(engine: Engine) {
    use pb::delivery_attempt::Outcome;
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let faults = [
        (Answer::Status(301), Outcome::HttpStatus),
        (Answer::Status(404), Outcome::HttpStatus),
        (Answer::Status(500), Outcome::HttpStatus),
        (Answer::Close, Outcome::ProtocolError),
        (Answer::Reset, Outcome::ProtocolError),
        (Answer::CutBody, Outcome::ProtocolError),
        (Answer::Hang, Outcome::Timeout),
        (Answer::Drip, Outcome::Timeout),
    ];
    for (number, (fault, outcome)) in faults.into_iter().enumerate() {
        let receiver = Receiver::answering([fault.clone(), Answer::Status(200)]).await;
        let event_type = format!("fault{number}");
        clinic
            .create(pb::Subscription {
                attempt_timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                ..draft(&receiver, "standard", &event_type)
            })
            .await;

        let event = clinic.publish(&event_type, "{}").await;

        let delivery = clinic.delivery_of(&event).reaches(State::Succeeded).await;
        let attempts = clinic.attempts(&delivery.id).await;
        assert_eq!(attempts.len(), 2, "{fault:?}");
        assert_eq!(attempts[0].outcome(), outcome, "{fault:?}");
    }
}

async fn a_delivery_that_is_never_accepted_ends_dead_and_can_be_retried(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([500, 500, 500, 200]).await;
    clinic
        .create(pb::Subscription {
            retry_policy: Some(waits(&[100, 100])),
            ..draft(&receiver, "standard", "*")
        })
        .await;
    let event = clinic.publish("invoice.paid", "{}").await;

    let dead = clinic.delivery_of(&event).reaches(State::Dead).await;
    assert_eq!(dead.dead_reason(), pb::delivery::DeadReason::AttemptsExhausted);
    assert_eq!(dead.attempt_count, 3);

    let request = pb::RetryDeliveryRequest {
        organization_id: clinic.name(),
        delivery_id: dead.id.clone(),
        request_id: String::new(),
    };
    clinic.deliveries().retry_delivery(request).await.expect("it is finished");
    let delivered = clinic.delivery_of(&event).reaches(State::Succeeded).await;
    assert_eq!((delivered.id, delivered.attempt_count), (dead.id, 4));
    let ids: Vec<_> =
        receiver.requests().iter().map(|r| r.header("webhook-id").map(str::to_owned)).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}
