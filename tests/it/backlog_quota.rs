//! Promise: what one organization has open has a limit, so that its receivers that are down
//! do not fill the disk of all. Beyond it the organization publishes nothing, and the others
//! what they like.

use std::time::Duration;

use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::client::event;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::within;
use crate::harness::receiver::Receiver;
use crate::harness::service::Settings;

on_both_engines!(who_has_too_much_open_publishes_again_when_it_is_delivered);

/// Counted every five seconds, and longer on a machine that has much else to do.
const COUNTED: Duration = Duration::from_secs(20);

async fn who_has_too_much_open_publishes_again_when_it_is_delivered(engine: Engine) {
    let settings = Settings::new(engine).flag("--max-open-deliveries-organization", "20");
    let service = settings.start().await;
    let (full, other) = (service.organization("full"), service.organization("other"));
    let receiver = Receiver::answering([200]).await;
    let one = full.subscribe(&receiver, "azodha", "*").await;
    let two = full.subscribe(&receiver, "azodha", "*").await;
    for paused in [&one.id, &two.id] {
        full.pause(paused).await.expect("it is active");
    }
    for _ in 0..10 {
        full.publish("held", "{}").await;
    }

    let refused = within(COUNTED, "it is counted", async || {
        full.try_publish(vec![event("one_more", "{}")]).await.err()
    });
    let refused = refused.await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let info = refused.get_details_error_info().expect("every error has one");
    assert_eq!(info.reason, "BACKLOG_QUOTA");
    let quota = refused.get_details_quota_failure().expect("whose it is");
    assert_eq!(quota.violations[0].subject, "organization");
    assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    other.publish("free", "{}").await;
    let series = "hookward_publish_refused_total{reason=\"backlog_full\"}";
    assert!(service.metric(series).await.is_some_and(|count| 1.0 <= count));
    assert_eq!(service.metric("hookward_organizations_backlog_full").await, Some(1.0));

    for paused in [&one.id, &two.id] {
        full.resume(paused).await.expect("it is paused");
    }
    within(COUNTED, "it is let in again", async || {
        full.try_publish(vec![event("again", "{}")]).await.ok()
    })
    .await;
    assert_eq!(service.metric("hookward_organizations_backlog_full").await, Some(0.0));
}
