//! Promise: an event goes to each subscription that was active and matched at one instant
//! between the call's arrival and its OK; a subscription acknowledged before the publish
//! is seen by it, on every replica.

use hookward::grpc::pb;

use crate::harness::client::{Organization, draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

on_both_engines!(a_change_counts_for_the_very_next_publish, patterns_match_as_documented);

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
