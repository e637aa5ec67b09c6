//! Promise: whatever a receiver answers, its attempt ends by its deadline with the right
//! outcome, in bounded memory, and what it held is free for others.

use std::collections::HashMap;
use std::time::Duration;

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_attempt::Outcome;

use crate::harness::client::{Organization, Subscribed, draft, duration, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{Punctuality, eventually};
use crate::harness::hostile::{self, GZIP_BOMB, Hostility};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(
    every_kind_of_answer_has_its_outcome,
    a_second_answer_is_taken_for_no_later_request,
);

const TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout of those that end before it, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much later than its deadline an attempt may end, on a machine that is punctual.
const LATE: Duration = Duration::from_millis(500);
/// Requests to each kind of receiver, all at once.
const EACH: usize = 91;
const MEMORY_KIB_MAX: u64 = 512 << 10;

/// What must come of it.
fn outcome(hostility: Hostility) -> (Outcome, Option<u32>) {
    match hostility {
        Hostility::DrippingBody | Hostility::DrippingHead | Hostility::EndlessInterim => {
            (Outcome::Timeout, None)
        }
        Hostility::HugeBody | Hostility::GzipBomb | Hostility::SecondAnswer => {
            (Outcome::HttpStatus, Some(500))
        }
        Hostility::HeaderFlood
        | Hostility::EarlyClose
        | Hostility::ResetAfterHead
        | Hostility::Http09
        | Hostility::Http2Preface => (Outcome::ProtocolError, None),
    }
}

/// A subscription of its own for such a receiver, with a single attempt for each event.
async fn subscribe(
    organization: &Organization,
    hostility: Hostility,
    timeout: Duration,
    max_in_flight: usize,
) -> Subscribed {
    let subscription = pb::Subscription {
        url: hostile::receiver(hostility).await,
        event_patterns: vec![event_type(hostility)],
        retry_policy: Some(pb::RetryPolicy::default()),
        attempt_timeout: Some(duration(timeout)),
        max_in_flight: u32::try_from(max_in_flight).expect("a small number"),
        ..pb::Subscription::default()
    };
    organization.create(subscription).await
}

fn event_type(hostility: Hostility) -> String {
    format!("hostile.{hostility:?}")
}

async fn every_kind_of_answer_has_its_outcome(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let mut published = Vec::new();
    for hostility in Hostility::ALL {
        let (expected, _) = outcome(hostility);
        let timeout = if expected == Outcome::Timeout { TIMEOUT } else { PATIENCE };
        subscribe(&clinic, hostility, timeout, 1).await;
        published.push((hostility, clinic.publish(&event_type(hostility), "{}").await));
    }
    for (hostility, id) in published {
        let delivery = clinic.delivery_of(&id).reaches(State::Dead).await;
        let attempts = clinic.attempts(&delivery.id).await;
        let found = (attempts[0].outcome(), attempts[0].http_status);
        assert_eq!((found, attempts.len()), (outcome(hostility), 1), "{hostility:?}: {attempts:?}");
        // At most 4 KiB, and not decompressed.
        let body = match hostility {
            Hostility::HugeBody => &[b'x'; 4096][..],
            Hostility::GzipBomb => &GZIP_BOMB[..4096],
            Hostility::DrippingBody
            | Hostility::DrippingHead
            | Hostility::EndlessInterim
            | Hostility::HeaderFlood
            | Hostility::SecondAnswer
            | Hostility::EarlyClose
            | Hostility::ResetAfterHead
            | Hostility::Http09
            | Hostility::Http2Preface => &[],
        };
        assert!(attempts[0].response_body == body, "{hostility:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_end_in_time_in_bounded_memory_and_leave_nothing_taken() {
    let permits = Hostility::ALL.len() * EACH;
    assert!(1000 <= permits);
    let service = Settings::new(Engine::sqlite())
        .flag("--max-in-flight-replica", &permits.to_string())
        .flag("--max-in-flight-organization", &permits.to_string())
        .start()
        .await;
    let clinic = service.organization("clinic");
    let mut kinds = HashMap::new();
    for hostility in Hostility::ALL {
        kinds.insert(subscribe(&clinic, hostility, TIMEOUT, EACH).await.id, hostility);
    }

    // It takes a moment to make, which none of its requests should wait for.
    assert!(4096 < GZIP_BOMB.len());
    let punctuality = Punctuality::watch();
    let events = (0..EACH).flat_map(|_| Hostility::ALL);
    let events: Vec<_> = events.map(|hostility| event(&event_type(hostility), "{}")).collect();
    for some in events.chunks(1000) {
        clinic.try_publish(some.to_vec()).await.expect("it keeps the rules");
    }

    let everything = pb::ListDeliveriesRequest { page_size: 1000, ..Default::default() };
    let deliveries = eventually("the end of every delivery", async || {
        let found = clinic.list(everything.clone()).await;
        let ended = found.iter().filter(|one| one.state() == State::Dead).count();
        (ended == permits).then_some(found)
    })
    .await;
    let limit = TIMEOUT + LATE + punctuality.worst();
    for delivery in &deliveries {
        let hostility = kinds[&delivery.subscription_id];
        let attempt = delivery.last_attempt.as_ref().expect("there was one");
        let found = (attempt.outcome(), attempt.http_status);
        // A receiver among a thousand that share this machine may come too late.
        let expected = [outcome(hostility), (Outcome::Timeout, None)];
        assert!(expected.contains(&found), "{hostility:?}: {attempt:?}");
        let took = Duration::try_from(attempt.duration.expect("always there")).expect("positive");
        assert!(took <= limit, "{hostility:?}: {took:?}, and the limit is {limit:?}");
    }
    let peak = service.peak_memory_kib();
    assert!(peak <= MEMORY_KIB_MAX, "{peak} KiB");
    every_permit_is_free(&service, permits).await;
}

/// As many requests can be under way at once as there are permits, and none is when they
/// have ended.
async fn every_permit_is_free(service: &Service, permits: usize) {
    let other = service.organization("other");
    let healthy = Receiver::answering([Answer::Held(200)]).await;
    for _ in 0..permits.div_ceil(256) {
        let draft = pb::Subscription { max_in_flight: 256, ..draft(&healthy, "azodha", "*") };
        other.create(draft).await;
    }
    let events = (0..256).map(|_| event("healthy", "{}")).collect();
    other.try_publish(events).await.expect("it keeps the rules");
    healthy.received(permits).await;
    healthy.release();
    eventually("no request under way", async || {
        (service.metric("hookward_attempts_in_flight").await == Some(0.0)).then_some(())
    })
    .await;
}

async fn a_second_answer_is_taken_for_no_later_request(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    // One at a time: each finds the connection that the one before it has left.
    subscribe(&clinic, Hostility::SecondAnswer, PATIENCE, 1).await;
    let hostile = || event(&event_type(Hostility::SecondAnswer), "{}");
    let events = (0..30).map(|_| hostile()).collect();

    let published = clinic.try_publish(events).await.expect("it keeps the rules");

    for result in published {
        let delivery = clinic.delivery_of(&result.event_id).reaches(State::Dead).await;
        let attempt = delivery.last_attempt.expect("there was one");
        assert_eq!(attempt.http_status, Some(500), "{attempt:?}");
    }
}
