//! The task that records what came of attempts, in groups.
//!
//! It alone writes about deliveries that this process holds, so a settlement and the
//! due row that a long wait earns cannot overtake each other.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Parts;
use super::failure_streaks::View;
use crate::domain::attempt::Attempt;
use crate::domain::canary;
use crate::domain::delivery::DeliveryState;
use crate::domain::failure_streak::Mark;
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId};
use crate::domain::operational_event::{OperationalType, is_operational, is_told};
use crate::domain::timestamp::{Timestamp, micros};
use crate::store::{Claim, EndpointNote, Fence, Next, Settlement, StoreError};
use crate::trace::{self, Origin};

/// Most settlements of a group.
const GROUP: usize = 512;
/// A group smaller than [`WORTHWHILE`] waits this long for more: nobody waits for a
/// settlement, and a transaction costs the same for one as for many.
const LINGER: Duration = Duration::from_millis(10);
const WORTHWHILE: usize = 64;
/// A delivery that is held longer than this without a due row gets one.
const SPILL_AFTER: Duration = Duration::from_secs(1);
/// How often that is looked after.
const SPILL_EVERY: Duration = Duration::from_millis(500);
const SPILL_MAX: usize = 2000;
/// Pause after the database did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What came of a claim.
#[derive(Debug)]
pub(super) struct Settled {
    fence: Fence,
    delivery: DeliveryKey,
    organization: OrganizationId,
    claim: i32,
    attempts: u32,
    attempt: Option<Attempt>,
    next: Next,
    /// What the attempt adds to its endpoint's failures.
    mark: Mark,
    /// Version of the subscription that was called.
    version: i64,
    /// Whether its end is to be told of.
    is_told: bool,
    /// Where the attempt is in its trace.
    origin: Origin,
}

impl Settled {
    /// No request was made.
    pub(super) fn untried(claim: &Claim, next: Next) -> Settled {
        let is_told = match next {
            // An end that is told of is not told of again, in a circle.
            Next::Dead(reason) => {
                is_told(reason) && !is_operational(&claim.event.summary.event_type)
            }
            Next::Succeeded | Next::RetryIn(_) | Next::Release | Next::Cancelled => false,
        };
        Settled {
            fence: claim.fence,
            delivery: claim.delivery(),
            organization: claim.event.summary.organization.clone(),
            claim: claim.number,
            attempts: claim.attempts,
            attempt: None,
            next,
            mark: Mark::Nothing,
            version: 0,
            is_told,
            origin: Origin::default(),
        }
    }

    /// A request was made, or could not be, for this version of the subscription.
    pub(super) fn tried(
        claim: &Claim,
        attempt: Attempt,
        next: Next,
        mark: Mark,
        version: i64,
    ) -> Settled {
        let attempts = attempt.number;
        let attempt = Some(attempt);
        Settled { attempts, attempt, mark, version, ..Settled::untried(claim, next) }
    }

    /// The same, of an attempt that is there in its trace.
    pub(super) fn in_trace(self, origin: Origin) -> Settled {
        Settled { origin, ..self }
    }
}

/// Records settlements until `stop` and the last one is written, or the channel ends.
pub(super) async fn run(
    parts: &Parts,
    mut settled: mpsc::Receiver<Settled>,
    stop: CancellationToken,
) {
    let mut spill = tokio::time::interval(SPILL_EVERY);
    spill.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut group = Vec::with_capacity(GROUP);
    loop {
        tokio::select! {
            biased;
            // First: it comes seldom, and would wait for ever behind a full channel.
            _ = spill.tick() => spill_old(parts).await,
            count = settled.recv_many(&mut group, GROUP) => {
                if count == 0 {
                    return;
                }
                if count < WORTHWHILE && !stop.is_cancelled() {
                    gather(&mut settled, &mut group).await;
                }
                write(parts, &mut group).await;
            }
            () = stop.cancelled() => settled.close(),
        }
    }
}

async fn gather(settled: &mut mpsc::Receiver<Settled>, group: &mut Vec<Settled>) {
    let end = tokio::time::Instant::now() + LINGER;
    while group.len() < WORTHWHILE {
        let more = settled.recv_many(group, GROUP);
        match tokio::time::timeout_at(end, more).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Writes a group, however long the database takes to answer. Settlements under a
/// fence that is gone are dropped: another replica has their deliveries.
async fn write(parts: &Parts, group: &mut Vec<Settled>) {
    while let Some(fence) = group.first().map(|one| one.fence) {
        let (mine, others): (Vec<Settled>, Vec<Settled>) =
            group.drain(..).partition(|one| one.fence == fence);
        *group = others;
        let origins = mine.iter().map(|one| &one.origin);
        let span = trace::settle_span(origins, mine.len(), parts.store.system());
        let batch = settlements(parts, mine);
        if write_batch(parts, fence, &batch).instrument(span).await {
            done(parts, fence, &batch);
        }
    }
}

async fn write_batch(parts: &Parts, fence: Fence, batch: &[Settlement]) -> bool {
    let mut failing = false;
    loop {
        let began = Instant::now();
        match parts.store.settle(fence, batch).await {
            Ok(()) => {
                parts.metrics.settle(batch.len(), began.elapsed());
                return true;
            }
            Err(StoreError::Fenced) => return false,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot record attempts; trying until it works");
                }
                failing = true;
            }
        }
        if parts.lease.fence() != fence {
            return false;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn settlements(parts: &Parts, group: Vec<Settled>) -> Vec<Settlement> {
    let failing = parts.failure_streaks.view();
    group.into_iter().map(|one| settlement(parts, &failing, one)).collect()
}

fn settlement(parts: &Parts, failing: &View, one: Settled) -> Settlement {
    let subscription = one.delivery.subscription;
    let mark = failing.worth_writing(subscription, one.version, one.mark);
    let telling = if one.is_told {
        Some(OperationalType::DeliveryDead)
    } else if mark == Mark::Success {
        Some(OperationalType::SubscriptionRecovered)
    } else {
        None
    };
    let audience = telling.and_then(|kind| parts.routing.audience(subscription, kind));
    Settlement {
        in_due: parts.lease.ledger().is_in_due(one.delivery, one.claim),
        delivery: one.delivery,
        organization: one.organization,
        claim: one.claim,
        attempt: one.attempt,
        attempts: one.attempts,
        next: one.next,
        note: EndpointNote { mark, version: one.version, audience },
    }
}

fn done(parts: &Parts, fence: Fence, batch: &[Settlement]) {
    let claims = batch.iter().map(|one| (one.delivery, one.claim));
    parts.lease.ledger().settled(fence, claims);
    parts.failure_streaks.written(batch);
    let mut put_back = false;
    for one in batch {
        match one.next {
            // Its publisher counts the probe.
            Next::Succeeded | Next::Dead(_) | Next::Cancelled
                if canary::owns(&one.organization) => {}
            Next::Succeeded => parts.metrics.delivery_ended(DeliveryState::Succeeded),
            Next::Dead(_) => parts.metrics.delivery_ended(DeliveryState::Dead),
            Next::Cancelled => parts.metrics.delivery_ended(DeliveryState::Cancelled),
            Next::RetryIn(_) => put_back = true,
            Next::Release => parts.metrics.released(1),
        }
    }
    parts.metrics.unsettled(parts.lease.ledger().len());
    if put_back {
        // The claimer learns when the next one is due.
        parts.due.notify_one();
    }
}

/// Gives deliveries that have been held for long a due row, so that the watermark
/// from which another replica would take over does not lag.
async fn spill_old(parts: &Parts) {
    let now = parts.lease.now();
    let before = EventKey::first_at(Timestamp(now.0 - micros(SPILL_AFTER)));
    let (fence, old) = parts.lease.ledger().fresh_before(before, SPILL_MAX);
    // Until it is known whether the rows are there: they decide how these deliveries
    // are settled.
    while !old.is_empty() && parts.lease.fence() == fence {
        match parts.store.spill(fence, &old).await {
            Ok(()) => return parts.lease.ledger().spilled(fence, &old),
            // Noticed by the heartbeat, which starts over.
            Err(StoreError::Fenced) => return,
            Err(error) => tracing::debug!(%error, "the watermark stays behind for now"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
