//! Promise: publish answers OK only after one commit that holds the events and all their
//! deliveries.

use std::collections::BTreeSet;

use hookward::grpc::pb;
use pb::delivery::State;
use tonic::Code;

use crate::harness::client::{event, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::Service;

on_both_engines!(
    a_server_that_dies_right_after_its_ok_has_kept_the_events_and_all_deliveries,
    a_request_with_one_bad_event_stores_none_of_its_events,
);

async fn a_server_that_dies_right_after_its_ok_has_kept_the_events_and_all_deliveries(
    engine: Engine,
) {
    let mut service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receivers = [
        Receiver::answering([Answer::Held(200)]).await,
        Receiver::answering([Answer::Held(200)]).await,
        Receiver::answering([Answer::Held(200)]).await,
    ];
    for receiver in &receivers {
        clinic.subscribe(receiver, "azodha", "*").await;
    }
    let numbers: Vec<String> = (0..50).map(|number| format!(r#"{{"n":{number}}}"#)).collect();
    let events = numbers.iter().map(|json| event("counted", json)).collect();

    let results = clinic.try_publish(events).await.expect("it keeps the rules");
    service.kill();

    assert!(results.iter().all(|result| result.delivery_count == 3), "{results:?}");
    receivers.iter().for_each(Receiver::release);
    service.restart().await;
    let clinic = service.organization("clinic");
    for result in &results {
        let read = clinic.read_event(&result.event_id).await.expect("it was stored");
        assert_eq!(read.r#type, "counted");
        assert_eq!(clinic.deliveries_of(&result.event_id).await.len(), 3);
    }
    let expected: BTreeSet<_> = numbers.iter().map(String::as_bytes).map(<[u8]>::to_vec).collect();
    for receiver in &receivers {
        eventually("every event at every receiver", async || {
            let bodies: BTreeSet<_> = receiver.requests().into_iter().map(|r| r.body).collect();
            (bodies == expected).then_some(())
        })
        .await;
    }
}

async fn a_request_with_one_bad_event_stores_none_of_its_events(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;

    let good = |id: &str| event_with_id(id, "counted", "{}");
    let bad = pb::Event { r#type: String::new(), ..good("bad") };
    let refused = clinic.try_publish(vec![good("a"), bad, good("b")]).await;

    assert_eq!(refused.expect_err("one is bad").code(), Code::InvalidArgument);
    for id in ["a", "b"] {
        let missing = clinic.read_event(id).await.expect_err("none was stored");
        assert_eq!(missing.code(), Code::NotFound);
    }
    // The ids are free, and what is sent next is all that arrives.
    clinic.publish_event(good("a")).await;
    clinic.delivery_of("a").reaches(State::Succeeded).await;
    assert_eq!(receiver.count(), 1);
}
