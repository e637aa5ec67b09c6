//! What the dispatcher makes of circuits: how many rows may be claimed, what is said
//! when one opens or closes.

use super::Parts;
use crate::metrics::CircuitChange;
use crate::permits::{Admission, Change, Endpoint};
use crate::routing::{Route, Standing};
use crate::store::CLAIM_ROWS;

/// Which circuit a subscription's requests belong to.
pub(super) fn endpoint(route: &Route) -> Endpoint {
    Endpoint { subscription: route.key(), version: route.subscription.version }
}

/// Most rows of a subscription that are worth claiming now: none of one whose requests
/// may not start, and one where a single request may. So a backlog behind an open
/// circuit stays in the database untouched, however long it is.
pub(super) fn rows_max(parts: &Parts, route: &Route) -> usize {
    if route.standing() != Standing::Sendable {
        return 0;
    }
    match parts.circuits.look(endpoint(route)) {
        Admission::Free => CLAIM_ROWS as usize,
        Admission::Probe(_) => usize::from(!parts.slots.holds(route.key())),
        Admission::Refused => 0,
    }
}

/// Tells of a change: the log, the metrics, and the claimer, which may have work again.
pub(super) fn heed(parts: &Parts, endpoint: Endpoint, change: Change) {
    let subscription = || parts.store.ids().subscription(endpoint.subscription);
    let change = match change {
        Change::Same => return,
        Change::Opened(wait) => {
            tracing::info!(
                subscription = subscription(),
                failures = parts.circuits.circuit(endpoint).failures,
                seconds = wait.as_secs_f64(),
                "a receiver keeps failing; its circuit is open"
            );
            CircuitChange::Opened
        }
        Change::Reopened(wait) => {
            tracing::debug!(
                subscription = subscription(),
                seconds = wait.as_secs_f64(),
                "a receiver still fails; its circuit stays open"
            );
            CircuitChange::Reopened
        }
        Change::Closed => {
            tracing::info!(
                subscription = subscription(),
                "a receiver answers again; its circuit is closed"
            );
            parts.due.notify_one();
            CircuitChange::Closed
        }
    };
    parts.metrics.circuit_changed(change);
    parts.metrics.circuits_open(parts.circuits.open());
}
