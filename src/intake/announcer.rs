//! For a replica that takes in and does not send: tells those that do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// NOTIFY takes a lock of the whole database at commit, so it comes this seldom.
const PAUSE: Duration = Duration::from_millis(50);

/// Tells other replicas of due rows until `stop`.
pub async fn announce(store: Store, due: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = due.notified() => {}
        }
        if let Err(error) = store.notify_due().await {
            tracing::debug!(%error, "others find the due rows at their next poll");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
