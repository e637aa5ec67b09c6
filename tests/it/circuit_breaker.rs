//! Promise: a receiver that is down is left alone: nothing is sent but one probe at a
//! time, no retry is spent, and what waited goes out when it answers again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hookward::grpc::pb;
use pb::circuit::State as Circuit;
use pb::delivery::State;

use crate::harness::client::{Organization, draft, event, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(an_open_circuit_sends_one_probe_and_then_what_waited);

/// A subscription whose retries are too late to play a part.
async fn subscribe(organization: &Organization, receiver: &Receiver) -> String {
    let retry_policy = Some(waits(&[3_600_000; 3]));
    let draft = pb::Subscription { retry_policy, ..draft(receiver, "azodha", "*") };
    organization.create(draft).await.id
}

/// Publishes until the circuit opens; how it stands then.
async fn fail_until_open(organization: &Organization, id: &str) -> pb::Circuit {
    eventually("an open circuit", async || {
        organization.publish("failing", "{}").await;
        meanwhile(Duration::from_millis(200)).await;
        let circuit = circuit(organization, id).await;
        (circuit.state() != Circuit::Closed).then_some(circuit)
    })
    .await
}

async fn circuit(organization: &Organization, id: &str) -> pb::Circuit {
    organization.get(id).await.expect("it is there").circuit.expect("this replica sends")
}

async fn an_open_circuit_sends_one_probe_and_then_what_waited(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let recovered = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&recovered);
    let receiver = Receiver::deciding(move |_, _| {
        if is_up.load(Ordering::SeqCst) { Answer::Held(200) } else { Answer::Status(503) }
    })
    .await;
    let id = subscribe(&clinic, &receiver).await;
    let begin = Instant::now();

    let open = fail_until_open(&clinic, &id).await;

    assert!(Duration::from_secs(10) <= begin.elapsed(), "sustained: {:?}", begin.elapsed());
    assert_eq!(open.state(), Circuit::Open);
    assert!(10 <= open.consecutive_failures, "{open:?}");
    let probe_time: SystemTime = open.probe_time.expect("it is open").try_into().expect("a time");
    let last_failure = open.last_failure_time.expect("there was one").try_into().expect("a time");
    let wait = probe_time.duration_since(last_failure).expect("later");
    assert!((5.0..=5.6).contains(&wait.as_secs_f64()), "{wait:?}");
    assert_eq!(service.metric("hookward_circuits_open").await, Some(1.0));
    let failed = receiver.count();

    recovered.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..20).map(|_| event("waiting", "{}")).collect();
    let waiting = clinic.try_publish(waiting).await.expect("it keeps the rules");
    let soon = SystemTime::now() + Duration::from_secs(2);
    let expiring = pb::Event { expire_time: Some(soon.into()), ..event("expiring", "{}") };
    let expiring = clinic.publish_event(expiring).await;
    for one in &waiting {
        let delivery = clinic.delivery_of(&one.event_id).reaches(State::Pending).await;
        assert_eq!(delivery.attempt_count, 0);
    }

    let probe = receiver.received(failed + 1).await.pop().expect("it has come");
    let arrival = SystemTime::now() - probe.arrival.elapsed();
    // Both clocks are this machine's; they are read at slightly different times.
    assert!(probe_time <= arrival + Duration::from_millis(100), "not before its time");
    assert_eq!(circuit(&clinic, &id).await.state(), Circuit::HalfOpen);
    meanwhile(Duration::from_secs(1)).await;
    assert_eq!(receiver.count(), failed + 1, "one probe, although twenty wait");

    receiver.release();
    for one in &waiting {
        let delivery = clinic.delivery_of(&one.event_id).reaches(State::Succeeded).await;
        assert_eq!(delivery.attempt_count, 1, "no retry was spent");
    }
    let expired = clinic.delivery_of(&expiring.event_id).reaches(State::Dead).await;
    assert_eq!(expired.dead_reason(), pb::delivery::DeadReason::Expired);
    assert_eq!(expired.attempt_count, 0);
    assert_eq!(circuit(&clinic, &id).await.state(), Circuit::Closed);
    assert_eq!(service.metric("hookward_circuits_open").await, Some(0.0));
    let log = service.written();
    for line in ["its circuit is open", "its circuit is closed"] {
        assert_eq!(log.matches(line).count(), 1, "{line}");
    }
    assert!(!log.contains("/hook"), "no path of a URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_subscription_closes_its_circuit() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([Answer::Close]).await;
    let id = subscribe(&clinic, &receiver).await;
    fail_until_open(&clinic, &id).await;
    let failed = receiver.count();

    clinic.pause(&id).await.expect("it is active");
    clinic.resume(&id).await.expect("it is paused");
    let resumed = Instant::now();
    clinic.publish("failing", "{}").await;

    let request = receiver.received(failed + 1).await.pop().expect("it has come");
    let waited = request.arrival - resumed;
    assert!(waited < Duration::from_secs(4), "sooner than any probe: {waited:?}");
    let circuit = circuit(&clinic, &id).await;
    assert_eq!((circuit.state(), circuit.probe_time), (Circuit::Closed, None));
}
