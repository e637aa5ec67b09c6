//! Promise: no retry comes before its time; `Retry-After` can only lengthen it.

use std::time::{Duration, SystemTime};

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(
    every_wait_is_at_least_as_long_as_the_policy_says,
    retry_after_lengthens_a_wait_and_never_shortens_it,
    the_next_attempt_time_is_told,
);

/// The gaps between the arrivals of the requests that one event makes.
async fn gaps(answers: Vec<Answer>, policy: &[u64], engine: Engine) -> Vec<Duration> {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering(answers).await;
    let retry_policy = Some(waits(policy));
    clinic.create(pb::Subscription { retry_policy, ..draft(&receiver, "standard", "*") }).await;
    let id = clinic.publish("invoice.paid", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
    let requests = receiver.requests();
    requests.windows(2).map(|pair| pair[1].arrival - pair[0].arrival).collect()
}

async fn every_wait_is_at_least_as_long_as_the_policy_says(engine: Engine) {
    let policy = [200, 400, 800, 1600];
    let answers = [500, 500, 500, 500, 200].map(Answer::Status).into();

    let gaps = gaps(answers, &policy, engine).await;

    assert_eq!(gaps.len(), policy.len());
    for (gap, wait) in gaps.iter().zip(policy.map(Duration::from_millis)) {
        assert!(wait <= *gap, "{gaps:?}");
        // 10 % jitter, and what a busy machine takes.
        assert!(*gap <= wait.mul_f64(1.1) + Duration::from_secs(2), "{gaps:?}");
    }
}

async fn retry_after_lengthens_a_wait_and_never_shortens_it(engine: Engine) {
    let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_hours(1));
    let answers = vec![
        Answer::with(503, "Retry-After", "2"),
        Answer::with(429, "Retry-After", "0"),
        Answer::with(503, "Retry-After", &date),
        Answer::with(503, "Retry-After", "soon"),
        Answer::Status(200),
    ];

    let gaps = gaps(answers, &[500; 4], engine).await;

    assert_eq!(gaps.len(), 4);
    assert!(Duration::from_secs(2) <= gaps[0], "{gaps:?}");
    for gap in &gaps[1..] {
        assert!(Duration::from_millis(500) <= *gap, "{gaps:?}");
        assert!(*gap < Duration::from_secs(5), "{gaps:?}");
    }
}

async fn the_next_attempt_time_is_told(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([500]).await;
    let retry_policy = Some(waits(&[3_600_000]));
    clinic.create(pb::Subscription { retry_policy, ..draft(&receiver, "standard", "*") }).await;

    let id = clinic.publish("invoice.paid", "{}").await;

    let waiting =
        |delivery: &pb::Delivery| delivery.state() == State::Pending && delivery.attempt_count == 1;
    let delivery = clinic.delivery_of(&id).is("waits for its second attempt", waiting).await;
    let end = delivery.last_attempt.expect("there was one").start_time.expect("it began").seconds;
    let next = delivery.next_attempt_time.expect("it is waited for").seconds;
    assert!((3600..=3962).contains(&(next - end)), "an hour and up to 10 %: {}", next - end);
}
