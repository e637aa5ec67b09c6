//! Promise: a server that is asked to stop finishes what is under way, loses nothing and
//! sends nothing twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, within};
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(
    requests_under_way_are_finished_and_recorded,
    nothing_is_lost_or_sent_twice_across_a_stop_under_load,
    a_receiver_that_hangs_does_not_hold_the_stop_for_ever,
);

async fn requests_under_way_are_finished_and_recorded(engine: Engine) {
    let mut service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([Answer::Held(200)]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(clinic.publish("held", "{}").await);
    }
    receiver.received(10).await;

    service.terminate();
    let refused = "a stopping server refuses events";
    within(Duration::from_secs(5), refused, async || {
        clinic.try_publish(vec![event("late", "{}")]).await.err().map(drop)
    })
    .await;
    receiver.release();
    let status = service.ends().await;

    assert!(status.success(), "{status:?}");
    service.restart().await;
    let clinic = service.organization("clinic");
    for id in ids {
        let delivery = clinic.delivery_of(&id).reaches(State::Succeeded).await;
        assert_eq!(delivery.attempt_count, 1);
    }
    // Events that got in between SIGTERM and the refusal count as well.
    let held = receiver.requests().into_iter().filter(|request| request.text() == "{}");
    assert!(10 <= held.count());
}

async fn nothing_is_lost_or_sent_twice_across_a_stop_under_load(engine: Engine) {
    let mut service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    let publishers = (0..4).map(|publisher| {
        let clinic = clinic.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let body = format!(r#"{{"n":"{publisher}-{number}"}}"#);
                match clinic.try_publish(vec![event("load", &body)]).await {
                    Ok(_) => acknowledged.push(body),
                    Err(_) => break,
                }
            }
            acknowledged
        })
    });
    let publishers: Vec<_> = publishers.collect();
    receiver.received(200).await;

    service.terminate();
    let status = service.ends().await;
    assert!(status.success(), "{status:?}");
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.extend(publisher.await.expect("it does not panic"));
    }
    service.restart().await;

    let arrivals = || {
        let mut arrivals: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for request in receiver.requests() {
            *arrivals.entry(request.body).or_default() += 1;
        }
        arrivals
    };
    eventually("every acknowledged event", async || {
        let arrivals = arrivals();
        let missing = acknowledged.iter().any(|body| !arrivals.contains_key(body.as_bytes()));
        (!missing).then_some(())
    })
    .await;
    let twice: Vec<_> = arrivals().into_values().filter(|count| 1 < *count).collect();
    assert!(twice.is_empty(), "{} of {} came twice", twice.len(), acknowledged.len());
}

async fn a_receiver_that_hangs_does_not_hold_the_stop_for_ever(engine: Engine) {
    let settings = Settings::new(engine).flag("--shutdown-grace", "2s");
    let mut service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::deciding(
        |number, _| {
            if number == 0 { Answer::Hang } else { Answer::Status(200) }
        },
    )
    .await;
    let attempt_timeout = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    clinic.create(pb::Subscription { attempt_timeout, ..draft(&receiver, "azodha", "*") }).await;
    let id = clinic.publish("held", "{}").await;
    receiver.received(1).await;

    service.terminate();
    let begin = Instant::now();
    service.ends().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    service.restart().await;
    service.organization("clinic").delivery_of(&id).reaches(State::Succeeded).await;
    assert_eq!(receiver.count(), 2);
}
