//! Promise: a slow, hanging, failing or hostile receiver costs only its own deliveries.

use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(
    receivers_that_never_answer_delay_nobody_else,
    one_endpoint_gets_no_more_requests_at_once_than_its_limit,
    hostile_answers_end_as_failures_of_their_own_deliveries,
);

async fn receivers_that_never_answer_delay_nobody_else(engine: Engine) {
    let service = Service::start(engine).await;
    let (bad, good) = (service.organization("bad"), service.organization("good"));
    let hanging = Receiver::answering([Answer::Hang]).await;
    for number in 0..20 {
        let url = hanging.url_at(&format!("/{number}"));
        bad.create(pb::Subscription { url, ..draft(&hanging, "azodha", "*") }).await;
    }
    let healthy = Receiver::answering([200]).await;
    good.subscribe(&healthy, "azodha", "*").await;
    // 2,000 deliveries that hang for the whole attempt timeout of 15 s.
    for _ in 0..10 {
        let events = (0..10).map(|_| event("hanging", "{}")).collect();
        bad.try_publish(events).await.expect("it keeps the rules");
    }
    eventually("requests that hang", async || (100 <= hanging.count()).then_some(())).await;

    let begin = Instant::now();
    for number in 0..50 {
        good.publish("healthy", "{}").await;
        healthy.received(number + 1).await;
    }
    let each = begin.elapsed() / 50;
    assert!(each < Duration::from_millis(500), "{each:?} from publish to arrival");
}

async fn one_endpoint_gets_no_more_requests_at_once_than_its_limit(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([Answer::Held(200)]).await;
    clinic.create(pb::Subscription { max_in_flight: 3, ..draft(&receiver, "azodha", "*") }).await;
    let witness = Receiver::answering([200]).await;

    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(clinic.publish("held", "{}").await);
    }
    receiver.received(3).await;
    // Another endpoint's delivery, made later, has come: there was time for a fourth.
    let other = service.organization("other");
    other.subscribe(&witness, "azodha", "*").await;
    other.publish("later", "{}").await;
    witness.received(1).await;
    assert_eq!(receiver.count(), 3);

    receiver.release();
    for id in ids {
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
    }
    assert_eq!(receiver.count(), 10);
}

async fn hostile_answers_end_as_failures_of_their_own_deliveries(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let many: Vec<_> = (0..2000).map(|n| (format!("X-{n}"), "v".repeat(100))).collect();
    let hostile = [
        Answer::Full(200, many, Vec::new()),
        Answer::Full(500, Vec::new(), vec![b'x'; 8 << 20]),
        Answer::with(200, "Content-Length", "1, 2"),
        Answer::with(503, "Retry-After", "1e300"),
        Answer::Drip,
    ];
    for (number, answer) in hostile.into_iter().enumerate() {
        let receiver = Receiver::answering([answer]).await;
        let event_type = format!("hostile{number}");
        let once = pb::Subscription {
            retry_policy: Some(pb::RetryPolicy::default()),
            attempt_timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..draft(&receiver, "standard", &event_type)
        };
        clinic.create(once).await;

        let id = clinic.publish(&event_type, "{}").await;

        let delivery = clinic.delivery_of(&id).reaches(State::Dead).await;
        let attempts = clinic.attempts(&delivery.id).await;
        assert_eq!(attempts.len(), 1, "{event_type}");
        assert!(attempts[0].response_body.len() <= 4096, "{event_type}");
    }
}
