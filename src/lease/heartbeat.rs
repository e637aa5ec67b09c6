//! Renewing the lease.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{HEARTBEAT, HEARTBEAT_ALONE, Lease};
use crate::metrics::Metrics;
use crate::store::{CrashHint, Store, StoreError};

/// Renews the lease until `stop`, and starts over when it was lost. Never fails:
/// while the database is away the lease ends by itself ([`Lease::is_trusted`]).
pub async fn keep(lease: Lease, store: Store, metrics: Metrics, stop: CancellationToken) {
    let mut hint = None;
    let every = if store.is_shared() { HEARTBEAT } else { HEARTBEAT_ALONE };
    let mut rhythm = tokio::time::interval(every);
    rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rhythm.tick() => {}
        }
        beat(&lease, &store, &mut hint).await;
        metrics.clock_skew(lease.clock_skew_micros());
    }
}

async fn beat(lease: &Lease, store: &Store, hint: &mut Option<CrashHint>) {
    let sent = Instant::now();
    let low_key = lease.low_key();
    match store.heartbeat(lease.fence(), low_key).await {
        Ok(beat) => lease.renewed(sent, beat.now),
        Err(StoreError::Fenced) => {
            tracing::warn!("another replica has taken this one over; registering anew");
            *hint = None;
            start_over(lease, store).await;
        }
        Err(error) => {
            tracing::warn!(%error, "heartbeat failed");
            // After a failover its session would stay on the server that was left.
            *hint = None;
            return;
        }
    }
    let held = match hint {
        Some(hint) => hint.is_held().await,
        None => false,
    };
    if !held {
        match store.crash_hint(lease.fence()).await {
            Ok(taken) => *hint = taken,
            Err(error) => tracing::warn!(%error, "no crash hint; a crash is noticed later"),
        }
    }
}

async fn start_over(lease: &Lease, store: &Store) {
    let sent = Instant::now();
    match store.register().await {
        Ok((fence, now)) => lease.replaced(fence, sent, now),
        Err(error) => tracing::warn!(%error, "cannot register"),
    }
}
