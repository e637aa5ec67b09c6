//! Publishes what the service itself has to tell, through the same intake as everything
//! else.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::domain::event::{NewEvent, Payload, TraceContext};
use crate::domain::id::EventKey;
use crate::domain::operational_event::OperationalType;
use crate::intake::{Intake, PublishError};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, UnpublishedEvent};

/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Most events that are published at once.
const TOGETHER: u32 = 256;
/// How long they are this process's to publish. Then another one does: an event that was
/// published after all is stored once, under its id.
const TAKEN: Duration = Duration::from_secs(30);
/// Who publishes them: the name under which the service stands in the audit log too.
const PUBLISHER: &str = "hookward";

/// Publishes operational events until `stop`. Never fails: what could not be published is
/// tried again.
pub async fn publish_operational_events(
    store: Store,
    intake: Intake,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut rhythm = tokio::time::interval(LOOK);
    rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rhythm.tick() => {}
        }
        while !stop.is_cancelled() {
            match publish_some(&store, &intake, &metrics).await {
                Ok(count) if count < TOGETHER as usize => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot publish operational events; trying again");
                    break;
                }
            }
        }
    }
}

/// Tells how many there were.
async fn publish_some(
    store: &Store,
    intake: &Intake,
    metrics: &Metrics,
) -> Result<usize, StoreError> {
    let taken = store.take_operational_events(TOGETHER, TAKEN).await?;
    if taken.is_empty() {
        return Ok(0);
    }
    // One by one, so that each stands for itself; the intake commits them together.
    let published = taken.iter().map(|one| publish(store, intake, metrics, one));
    let over = join_all(published).await.into_iter().zip(&taken);
    let over: Vec<i64> = over.filter_map(|(is_over, one)| is_over.then_some(one.key)).collect();
    if !over.is_empty() {
        store.operational_events_published(&over).await?;
    }
    Ok(taken.len())
}

/// Publishes one; whether it need not be tried again.
async fn publish(
    store: &Store,
    intake: &Intake,
    metrics: &Metrics,
    one: &UnpublishedEvent,
) -> bool {
    let published = intake.publish(vec![event(store, one)]).await;
    match published.as_deref() {
        Ok([published]) if published.duplicate => true,
        Ok(_) => {
            let is_type = |kind: &OperationalType| kind.as_str() == one.event_type;
            if let Some(kind) = OperationalType::ALL.into_iter().find(is_type) {
                metrics.operational_event(kind);
            }
            true
        }
        // Too busy, or about to stop.
        Err(
            PublishError::QueueFull { .. }
            | PublishError::RateExceeded { .. }
            | PublishError::BacklogFull { .. }
            | PublishError::StorageFull
            | PublishError::Unavailable
            | PublishError::ShuttingDown,
        ) => false,
        Err(
            PublishError::TooManyDeliveries
            | PublishError::IdConflict { .. }
            | PublishError::Rejected,
        ) => {
            tracing::error!(kind = one.event_type, "an operational event cannot be published");
            true
        }
    }
}

fn event(store: &Store, one: &UnpublishedEvent) -> NewEvent {
    NewEvent {
        organization: one.organization.clone(),
        account: one.account.clone(),
        // Keys of events are positive: no other event has this id.
        id: Some(store.ids().event(EventKey(-one.key))),
        event_type: one.event_type.clone(),
        occur_time: Some(one.occur_time),
        expire_time: None,
        payload: Payload::Json(one.payload.clone().into()),
        content_type: "application/json".to_owned(),
        attributes: std::collections::BTreeMap::new(),
        subject: String::new(),
        target: None,
        trace: TraceContext::default(),
        publisher: PUBLISHER.into(),
    }
}
