//! Receivers that asked to be left alone for ever (410 Gone): their subscriptions are
//! switched off.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Parts;
use super::switch_off::switch_off;
use crate::domain::id::SubscriptionKey;
use crate::routing::Route;
use crate::store::DisableCause;

/// Subscriptions that are being switched off. Requests that were under way to such a
/// receiver all end alike, and one write is enough. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    ending: Arc<Mutex<HashSet<SubscriptionKey>>>,
}

impl Gone {
    /// `false`: somebody has begun to switch it off and has not ended.
    fn begin(&self, key: SubscriptionKey) -> bool {
        self.ending().insert(key)
    }

    fn end(&self, key: SubscriptionKey) {
        self.ending().remove(&key);
    }

    fn ending(&self) -> MutexGuard<'_, HashSet<SubscriptionKey>> {
        // A set has no half-written state that a panic could leave behind.
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Switches the subscription of a receiver that is gone off, beside the attempt.
pub(super) fn disable(parts: &Parts, route: &Route) {
    let key = route.key();
    if !parts.gone.begin(key) {
        return;
    }
    let (parts, subscription) = (parts.clone(), route.subscription.clone());
    tokio::spawn(async move {
        if let Err(error) = switch_off(&parts, &subscription, DisableCause::Gone).await {
            // The next delivery meets the same answer, and tries this again.
            tracing::warn!(%error, "cannot disable a subscription that is gone");
        }
        parts.gone.end(key);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_switches_a_subscription_off() {
        let gone = Gone::default();
        let [one, other] = [SubscriptionKey(1), SubscriptionKey(2)];
        assert!(gone.begin(one) && gone.begin(other));
        assert!(!gone.clone().begin(one), "it is under way");
        gone.end(one);
        assert!(gone.begin(one), "the URL may be another one by now");
    }
}
