//! Switching a subscription off by the server's own decision.

use super::Parts;
use crate::domain::operational_event::OperationalType;
use crate::domain::subscription::Subscription;
use crate::metrics::Disabled;
use crate::store::{DisableCause, StoreError};

/// Switches it off, unless it has changed or works again, and tells whoever asks for it.
pub(super) async fn switch_off(
    parts: &Parts,
    subscription: &Subscription,
    cause: DisableCause,
) -> Result<(), StoreError> {
    let (organization, key) = (&subscription.organization, subscription.key);
    let audience = parts.routing.audience(key, OperationalType::SubscriptionDisabled);
    let version = subscription.version;
    let done = parts.store.disable(organization, key, version, cause, audience.as_ref()).await?;
    if done {
        let id = parts.store.ids().subscription(key);
        tracing::info!(subscription = id, "a subscription is disabled; its state reason says why");
        parts.metrics.subscription_disabled(match cause {
            DisableCause::Gone => Disabled::Gone,
            DisableCause::Failing(_) => Disabled::Failing,
        });
    }
    if let Err(error) = parts.routing.refresh().await {
        tracing::debug!(%error, "the next poll sees the disabled subscription");
    }
    Ok(())
}
