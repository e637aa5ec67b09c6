//! Promise: an event goes to each subscription that was active and matched at one instant
//! between the call's arrival and its OK; a subscription acknowledged before the publish
//! is seen by it, on every replica.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hookward::grpc::pb;
use tonic::{Code, Status};

use crate::harness::client::{Organization, draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::proxy::Proxy;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

on_both_engines!(
    a_change_counts_for_the_very_next_publish,
    changes_of_others_hold_nobody_back,
    patterns_match_as_documented,
);

const ROUNDS: usize = 200;

async fn a_change_counts_for_the_very_next_publish(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    rounds(&clinic, &clinic, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_one_replica_counts_for_the_very_next_publish_at_another() {
    let Some(engine) = Engine::postgres() else { return };
    let first = Service::start(engine).await;
    let second = first.replica().await;
    rounds(&first.organization("clinic"), &second.organization("clinic"), ROUNDS).await;
}

/// What the far replica's link adds, each way.
const FAR: Duration = Duration::from_millis(90);

/// One replica beside its database, and one at the other end of a slow link.
async fn near_and_far() -> Option<(Service, Service, Proxy)> {
    let engine = Engine::postgres()?;
    let proxy = Proxy::to(engine.port()).await;
    let near = Service::start(engine.clone()).await;
    let far = Service::start(engine.at_port(proxy.port())).await;
    Some((near, far, proxy))
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_others_hold_nobody_back_who_is_far_from_the_database() {
    let Some((near, far, proxy)) = near_and_far().await else { return };
    let receiver = Receiver::answering([200]).await;
    let (quiet, far_busy) = (far.organization("quiet"), far.organization("busy"));
    let busy = near.organization("busy");
    let changing = busy.subscribe(&receiver, "standard", "*").await.id;
    quiet.publish_event(event("visit.created", "{}")).await;
    proxy.delay(FAR);
    // A change may have to wait for what the far replica records of this subscription, and
    // not for ever.
    let comes_again = |status: &Status| assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let without_end = async {
        loop {
            while busy.pause(&changing).await.inspect_err(comes_again).is_err() {}
            while busy.resume(&changing).await.inspect_err(comes_again).is_err() {}
        }
    };
    // The same replica stores these, too, if it can.
    let in_vain = async {
        let mut refused = 0;
        loop {
            let began = Instant::now();
            let answer = far_busy.try_publish(vec![event("visit.created", "{}")]).await;
            if let Err(status) = answer {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                refused += 1;
            }
            let took = began.elapsed();
            assert!(took < Duration::from_secs(8), "{took:?}, {refused} refused");
        }
    };
    let publishing = async {
        let mut times = Vec::new();
        for _ in 0..8 {
            let began = Instant::now();
            quiet.publish_event(event("visit.created", "{}")).await;
            times.push(began.elapsed());
        }
        assert!(times.iter().all(|took| *took < Duration::from_secs(4)), "{times:?}");
        println!("{times:?}");
    };
    tokio::select! {
        () = without_end => {}
        () = in_vain => {}
        () = publishing => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_replica_learns_of_a_change_in_few_round_trips() {
    let Some((near, far, proxy)) = near_and_far().await else { return };
    let receiver = Receiver::answering([200]).await;
    let (here, there) = (near.organization("clinic"), far.organization("clinic"));
    let changing = here.subscribe(&receiver, "standard", "*").await.id;
    proxy.delay(FAR);
    let mut times = Vec::new();
    for _ in 0..9 {
        here.pause(&changing).await.expect("it is active");
        here.resume(&changing).await.expect("it is paused");
        let began = Instant::now();
        there.publish_event(event("visit.created", "{}")).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    // Four for a commit that finds the change, five where the poll is reading it, too. The
    // slowest prepare their statements.
    assert!(times[4] < 8 * 2 * FAR, "{times:?}");
}

/// Changes through `here`, publishes through `there` at once.
async fn rounds(here: &Organization, there: &Organization, count: usize) {
    let receiver = Receiver::answering([200]).await;
    let reached =
        async |event_type: &str| there.publish_event(event(event_type, "{}")).await.delivery_count;
    for round in 0..count {
        let (old, new) = (format!("old.{round}"), format!("new.{round}"));
        assert_eq!(reached(&old).await, 0, "round {round}: nobody yet");

        let subscribed = here.create(draft(&receiver, "azodha", &old)).await;
        assert_eq!(reached(&old).await, 1, "round {round}: created");

        let event_patterns = vec![new.clone()];
        let changed = pb::Subscription { event_patterns, ..subscribed.subscription };
        let changed = pb::Subscription { etag: String::new(), ..changed };
        here.try_update(changed, &["event_patterns"]).await.expect("it is there");
        assert_eq!(reached(&old).await, 0, "round {round}: moved away");
        assert_eq!(reached(&new).await, 1, "round {round}: moved here");

        here.deactivate(&subscribed.id).await.expect("it is there");
        assert_eq!(reached(&new).await, 0, "round {round}: deactivated");
        here.activate(&subscribed.id).await.expect("it is inactive");
        assert_eq!(reached(&new).await, 1, "round {round}: activated");
        here.pause(&subscribed.id).await.expect("it is active");
        assert_eq!(reached(&new).await, 1, "round {round}: paused ones go on collecting");

        here.delete(&subscribed.id).await.expect("it is there");
        assert_eq!(reached(&new).await, 0, "round {round}: deleted");
    }
}

/// Several change subscriptions without a pause, each as soon as the change before is answered.
async fn changes_of_others_hold_nobody_back(engine: Engine) {
    let service = Service::start(engine).await;
    let receiver = Receiver::answering([200]).await;
    let mut changing = FuturesUnordered::new();
    for number in 0..4 {
        let busy = service.organization(&format!("busy-{number}"));
        let id = busy.subscribe(&receiver, "standard", "*").await.id;
        changing.push(async move {
            loop {
                busy.pause(&id).await.expect("it is active");
                busy.resume(&id).await.expect("it is paused");
            }
        });
    }
    let quiet = service.organization("quiet");
    let publishing = async {
        for _ in 0..50 {
            let began = Instant::now();
            quiet.publish_event(event("visit.created", "{}")).await;
            let took = began.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    };
    tokio::select! {
        Some(()) = changing.next() => {}
        () = publishing => {}
    }
}

async fn patterns_match_as_documented(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let cases = [
        ("message_sent", "message_sent", true),
        ("message_sent", "message_sent2", false),
        ("message_sent", "Message_sent", false),
        ("medical-encounters.*", "medical-encounters.create", true),
        ("medical-encounters.*", "medical-encounters.notes.create", true),
        ("medical-encounters.*", "medical-encounters", false),
        ("medical-encounters.*", "medical-encounters-x.create", false),
        ("medical-encounters", "medical-encounters.create", false),
        ("*", "anything:at-all.1", true),
    ];
    for (pattern, event_type, matches) in cases {
        let subscribed = clinic.subscribe(&receiver, "standard", pattern).await;
        let result = clinic.publish_event(event(event_type, "{}")).await;
        assert_eq!(result.delivery_count, u32::from(matches), "{pattern} and {event_type}");
        clinic.delete(&subscribed.id).await.expect("it is there");
    }
}
