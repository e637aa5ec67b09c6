//! Promise: one organization cannot take what the others need. Beyond its rates it is told
//! when to come again, and nothing of its request is stored.

use std::time::{Duration, Instant};

use hookward::grpc::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::client::{Organization, draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::within;
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};

on_both_engines!(events_beyond_the_rate_are_refused_with_the_time_to_wait);

/// How long to wait, as a caller over a rate is told.
fn told(refused: &Status) -> Duration {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let info = refused.get_details_error_info().expect("every error has one");
    assert_eq!(info.reason, "RATE_LIMIT_EXCEEDED");
    let quota = refused.get_details_quota_failure().expect("whose it is");
    assert_eq!(quota.violations[0].subject, "organization");
    let retry = refused.get_details_retry_info().expect("a wait");
    retry.retry_delay.filter(|wait| !wait.is_zero()).expect("some time")
}

async fn publish(organization: &Organization, events: usize) -> Result<(), Status> {
    let events = (0..events).map(|_| event("noted", "{}")).collect();
    organization.try_publish(events).await.map(drop)
}

async fn count(organization: &Organization) -> usize {
    let request = pb::ListEventsRequest {
        organization_id: organization.name(),
        page_size: 1000,
        ..Default::default()
    };
    let page = organization.events().list_events(request).await.expect("it is readable");
    page.into_inner().events.len()
}

async fn events_beyond_the_rate_are_refused_with_the_time_to_wait(engine: Engine) {
    let settings = Settings::new(engine).flag("--max-publish-rate-organization", "50");
    let service = settings.start().await;
    let (busy, other) = (service.organization("busy"), service.organization("other"));

    // Nothing is owed, so that it is let in. It takes eight seconds to pay for, three more
    // than a burst, and what follows one more.
    publish(&busy, 400).await.expect("the first one");
    let begin = Instant::now();
    let wait = told(&publish(&busy, 50).await.expect_err("too much"));

    assert!(wait <= Duration::from_secs(4), "{wait:?}");
    assert_eq!(count(&busy).await, 400, "nothing of it is stored");
    publish(&other, 250).await.expect("another organization has a rate of its own");
    let refused = "hookward_publish_refused_total{reason=\"rate_exceeded\"}";
    assert_eq!(service.metric(refused).await, Some(1.0));
    // Refused ones do not count: asking again and again makes the wait no longer.
    within(wait + Duration::from_secs(5), "it is let in", async || publish(&busy, 50).await.ok())
        .await;
    assert!(wait <= begin.elapsed(), "{wait:?}, and it was let in after {:?}", begin.elapsed());
    assert_eq!(count(&busy).await, 450);
}

/// Calls until one is refused; how many were not.
async fn until_refused(
    most: usize,
    mut call: impl AsyncFnMut() -> Result<(), Status>,
) -> (usize, Duration) {
    for number in 0..most {
        if let Err(refused) = call().await {
            return (number, told(&refused));
        }
    }
    panic!("{most} calls, and none was refused")
}

/// A call that finds nothing, as there is nothing to find.
async fn look_up(organization: &Organization) -> Result<(), Status> {
    match organization.get("sub_0000000000001").await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(status),
        Ok(subscription) => panic!("{subscription:?}"),
    }
}

#[tokio::test]
async fn calls_beyond_the_rate_are_refused_and_publishing_is_not() {
    let settings = Settings::new(Engine::sqlite()).flag("--max-call-rate-organization", "1");
    let service = settings.start().await;
    let (busy, other) = (service.organization("busy"), service.organization("other"));

    let (answered, wait) = until_refused(1000, async || look_up(&busy).await).await;

    assert!(5 <= answered, "five seconds' worth may come at once, and only {answered} did");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    publish(&busy, 1000).await.expect("events have a rate of their own");
    look_up(&other).await.expect("another organization has a rate of its own");
    // Every method counts, not only the one that was called.
    let lists = pb::ListEventTypesRequest { organization_id: busy.name(), ..Default::default() };
    let list = async || busy.event_types().list_event_types(lists.clone()).await.map(drop);
    until_refused(1000, list).await;
}

#[tokio::test]
async fn pings_are_few() {
    let service = Service::start(Engine::sqlite()).await;
    let (busy, other) = (service.organization("busy"), service.organization("other"));
    let receiver = Receiver::answering([200]).await;
    let subscribed = busy.create(draft(&receiver, "hapihub", "*")).await;
    let another = other.create(draft(&receiver, "hapihub", "*")).await;

    let ping = async || busy.ping(&subscribed.id).await.map(drop);
    let (answered, wait) = until_refused(30, ping).await;

    assert!(10 <= answered, "ten in a minute, and only {answered} were sent");
    assert!(wait <= Duration::from_secs(6), "{wait:?}");
    other.ping(&another.id).await.expect("another organization has a rate of its own");
    receiver.received(answered + 1).await;
}
