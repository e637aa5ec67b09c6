//! The task that claims what is due.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::circuit::{endpoint, rows_max};
use super::{Dispatcher, Parts};
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::permits::{Admission, Endpoint};
use crate::routing::{Route, Standing};
use crate::store::{DueListener, StoreError, Waiting};

/// The longest time between two looks at `due`; shorter when something is known to
/// come due earlier, or when a notice comes.
const POLL: Duration = Duration::from_millis(250);
/// The same while something is due and its queue is full.
const FULL_POLL: Duration = Duration::from_millis(20);
/// Most subscriptions of one claim.
const SUBSCRIPTIONS_MAX: usize = 128;
/// Most rows of one claim, and most payload bytes that it loads.
const CLAIM_ROWS_MAX: usize = 4096;
const CLAIM_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A claim takes no more than the n-th part of the places that are left in memory, however
/// many endpoints it is for: the next one finds room.
const SHARE: usize = 4;
/// How often claims in the database are compared with memory.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// Other replicas are told of due rows at most this often.
const NOTIFY_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn run(dispatcher: Dispatcher, stop: CancellationToken) {
    let parts = &dispatcher.inner.parts;
    let mut listener = None;
    let mut compared = Instant::now();
    let mut told = Instant::now();
    loop {
        let pause = match look(&dispatcher).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::debug!(%error, "cannot look for due deliveries");
                POLL
            }
        };
        if COMPARE_EVERY <= compared.elapsed() {
            compared = Instant::now();
            sweep(parts);
            if let Err(error) = compare(parts).await {
                tracing::debug!(%error, "cannot compare claims");
            }
        }
        if listener.as_ref().is_none_or(DueListener::is_old) {
            listener = parts.store.due_listener().await.ok().flatten();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = parts.due.notified() => {
                if NOTIFY_EVERY <= told.elapsed() {
                    told = Instant::now();
                    // Without it the others find the rows by themselves.
                    let _ = parts.store.notify_due().await;
                }
            }
            heard = hear(&mut listener) => if !heard {
                listener = None;
            },
        }
    }
}

async fn hear(listener: &mut Option<DueListener>) -> bool {
    match listener {
        Some(listener) => listener.heard().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Claims what is due and has room. Tells how long the next look can wait.
async fn look(dispatcher: &Dispatcher) -> Result<Duration, StoreError> {
    let parts = &dispatcher.inner.parts;
    if !parts.lease.is_trusted() || !parts.routing.is_fresh() {
        return Ok(POLL);
    }
    let waiting = parts.store.waiting().await?;
    report(parts, &waiting);
    note_held(parts, &waiting);
    let (due, later): (Vec<&Waiting>, Vec<&Waiting>) =
        waiting.iter().partition(|one| one.due_at <= one.now);
    let sendable = |one: &Waiting| {
        let route = parts.routing.route(one.subscription)?;
        let rows_max = rows_max(parts, &route);
        (0 < rows_max).then_some((route, rows_max))
    };
    let next = later.into_iter().filter(|one| sendable(one).is_some());
    let next = next.map(|one| one.due_at.since(one.now)).min();
    let mut due: Vec<(Arc<Route>, usize)> = due.into_iter().filter_map(sendable).collect();
    // Each look begins where the last one ended, so that no endpoint waits for ever
    // behind others that always have something due.
    let turn = dispatcher.inner.turn.load(Ordering::Relaxed);
    let start = turn.checked_rem(due.len()).unwrap_or_default();
    due.rotate_left(start);
    let (rows_free, bytes_left) = parts.slots.free_in_all();
    let mut rows_left = rows_free.div_ceil(SHARE).min(CLAIM_ROWS_MAX);
    let mut given: HashMap<OrganizationId, usize> = HashMap::new();
    let mut room = |(route, rows_max): &(Arc<Route>, usize)| {
        let organization = &route.subscription.organization;
        let given = given.entry(organization.clone()).or_default();
        let free = parts.slots.free_of(organization).saturating_sub(*given);
        let free = parts.slots.worthwhile(organization, route.key()).min(free);
        let rows = free.min(*rows_max).min(rows_left);
        rows_left -= rows;
        *given += rows;
        (0 < rows).then(|| (route.key(), u32::try_from(rows).unwrap_or(u32::MAX)))
    };
    let wanted: Vec<_> = due.iter().filter_map(&mut room).take(SUBSCRIPTIONS_MAX).collect();
    let served = wanted.len() + usize::from(wanted.len() == due.len());
    dispatcher.inner.turn.fetch_add(served, Ordering::Relaxed);
    if wanted.is_empty() || bytes_left == 0 {
        let longest = if due.is_empty() { POLL } else { FULL_POLL };
        return Ok(next.unwrap_or(longest).min(longest));
    }
    let fence = parts.lease.fence();
    let bytes = u64::try_from(bytes_left.div_ceil(SHARE)).unwrap_or(u64::MAX);
    let bytes = bytes.min(CLAIM_BYTES_MAX);
    let claims = parts.store.claim(fence, &wanted, bytes).await?;
    parts.metrics.claimed(claims.len());
    let numbered = claims.iter().map(|claim| (claim.delivery(), claim.number));
    parts.lease.ledger().claimed(fence, numbered);
    for claim in &claims {
        let organization = &claim.event.summary.organization;
        parts.slots.put(organization, claim.subscription, claim.event.weight());
    }
    let more = !claims.is_empty();
    dispatcher.enqueue(claims);
    Ok(if more { Duration::ZERO } else { POLL })
}

/// Remembers for which endpoints something is due that they or their owners keep waiting:
/// by a pause, an open circuit, or so slowly that their share of memory is full.
fn note_held(parts: &Parts, waiting: &[Waiting]) {
    for one in waiting.iter().filter(|one| one.due_at <= one.now) {
        let Some(route) = parts.routing.route(one.subscription) else { continue };
        let organization = &route.subscription.organization;
        let full = || {
            0 < parts.slots.free_of(organization)
                && parts.slots.free(organization, one.subscription) == 0
        };
        // What this side lacks is nobody else's doing.
        if !route.is_unusable() && (!is_owed(parts, one.subscription) || full()) {
            parts.holds.note(one.subscription, one.now);
        }
    }
}

/// Whether only this process keeps its deliveries waiting.
fn is_owed(parts: &Parts, key: SubscriptionKey) -> bool {
    parts.routing.route(key).is_some_and(|route| {
        route.standing() == Standing::Sendable
            && parts.circuits.look(endpoint(&route)) == Admission::Free
    })
}

/// Forgets the circuits of subscriptions that were changed, and all of those that are gone.
fn sweep(parts: &Parts) {
    let table = parts.routing.table();
    let same =
        |one: Endpoint| table.route(one.subscription).is_some_and(|route| endpoint(&route) == one);
    parts.circuits.retain(same);
    parts.holds.retain(|key| table.route(key).is_some());
    parts.metrics.circuits_open(parts.circuits.open());
}

/// Gives back claims that the database shows and this process does not know: their
/// rows were claimed by a statement whose answer was lost.
async fn compare(parts: &Parts) -> Result<(), StoreError> {
    let fence = parts.lease.fence();
    let mut unknown = parts.store.owned(fence).await?;
    unknown.retain(|(delivery, claim)| !parts.lease.ledger().holds(*delivery, *claim));
    if unknown.is_empty() {
        return Ok(());
    }
    // Claims and settlements were going on meanwhile: look again, and act on what
    // stayed.
    let still: HashSet<_> = parts.store.owned(fence).await?.into_iter().collect();
    unknown.retain(|one| still.contains(one) && !parts.lease.ledger().holds(one.0, one.1));
    tracing::info!(count = unknown.len(), "giving back claims of lost answers");
    parts.store.disown(fence, &unknown).await
}

fn report(parts: &Parts, waiting: &[Waiting]) {
    let owed = waiting.iter().filter(|one| is_owed(parts, one.subscription));
    let age = owed.map(|one| one.now.since(one.due_at)).max().unwrap_or_default();
    parts.metrics.due_waiting_oldest_age(age);
}
