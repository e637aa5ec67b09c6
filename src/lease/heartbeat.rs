//! Renewing the lease.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{HEARTBEAT, HEARTBEAT_ALONE, Lease};
use crate::metrics::Metrics;
use crate::store::{LeaseSession, Store, StoreError};

/// Renews the lease until `stop`, and starts over when it was lost. Never fails:
/// while the database is away the lease ends by itself ([`Lease::is_trusted`]).
pub async fn keep(lease: Lease, store: Store, metrics: Metrics, stop: CancellationToken) {
    let mut session = LeaseSession::default();
    let every = if store.is_shared() { HEARTBEAT } else { HEARTBEAT_ALONE };
    let mut rhythm = tokio::time::interval(every);
    rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rhythm.tick() => {}
        }
        let began = Instant::now();
        let mut beaten = beat(&lease, &store, &metrics, &mut session).await;
        if beaten.is_err() && began.elapsed() < every {
            // The session may have been ended, and its lock with it: others would soon take
            // this replica for dead.
            beaten = beat(&lease, &store, &metrics, &mut session).await;
        }
        if let Err(error) = beaten {
            tracing::warn!(%error, "heartbeat failed");
        }
        metrics.clock_skew(lease.clock_skew_micros());
        metrics.decrypt_failures(store.decrypt_failures());
    }
}

async fn beat(
    lease: &Lease,
    store: &Store,
    metrics: &Metrics,
    session: &mut LeaseSession,
) -> Result<(), StoreError> {
    let sent = Instant::now();
    let low_key = lease.low_key();
    match store.heartbeat(session, lease.fence(), low_key).await {
        Ok(beat) => lease.renewed(sent, beat.now),
        Err(StoreError::Fenced) => {
            tracing::warn!("another replica has taken this one over; registering anew");
            match start_over(lease, store).await {
                Ok(lost) => metrics.claims_lapsed(lost),
                Err(error) => {
                    tracing::warn!(%error, "cannot register");
                    return Ok(());
                }
            }
        }
        Err(error) => return Err(error),
    }
    if let Err(error) = store.hold_session(session, lease.fence()).await {
        tracing::warn!(%error, "no crash hint; a crash is noticed later");
    }
    Ok(())
}

async fn start_over(lease: &Lease, store: &Store) -> Result<usize, StoreError> {
    let sent = Instant::now();
    Ok(lease.replaced(sent, store.register().await?))
}
