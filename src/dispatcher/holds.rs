//! Until when endpoints could not be sent to by their own or their owner's doing.
//!
//! So that what waited for a pause, an open circuit or a slow receiver can be told from
//! what this side was late with. Only endpoints that were held have an entry, and each
//! replica knows what it has seen itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::id::SubscriptionKey;
use crate::domain::timestamp::Timestamp;

/// When each endpoint was last seen held, by the database's clock. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    seen: Arc<Mutex<HashMap<SubscriptionKey, Timestamp>>>,
}

impl Holds {
    /// Something for `endpoint` is held at `now`.
    pub(super) fn note(&self, endpoint: SubscriptionKey, now: Timestamp) {
        let mut seen = self.seen();
        let last = seen.entry(endpoint).or_insert(now);
        *last = now.max(*last);
    }

    /// Whether `endpoint` was held at `since` or later.
    pub(super) fn held(&self, endpoint: SubscriptionKey, since: Timestamp) -> bool {
        self.seen().get(&endpoint).is_some_and(|last| since <= *last)
    }

    /// Forgets the endpoints that are not `known` any more.
    pub(super) fn retain(&self, known: impl Fn(SubscriptionKey) -> bool) {
        self.seen().retain(|endpoint, _| known(*endpoint));
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<SubscriptionKey, Timestamp>> {
        // Each operation leaves an entry whole; `retain` changes none.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_before_the_last_hold_was_held() {
        let holds = Holds::default();
        let (one, other) = (SubscriptionKey(1), SubscriptionKey(2));
        let at = Timestamp;
        assert!(!holds.held(one, at(0)));
        holds.note(one, at(20));
        holds.note(one, at(10));
        assert!(holds.held(one, at(5)) && holds.held(one, at(20)));
        assert!(!holds.held(one, at(21)) && !holds.held(other, at(5)));
        holds.retain(|key| key != one);
        assert!(!holds.held(one, at(5)));
    }
}
