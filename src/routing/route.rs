//! One subscription, with everything that its requests need prepared.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::delivery::DeadReason;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::id::{AccountId, SubscriptionKey};
use crate::domain::ownership::{Fingerprint, OwnershipRecord, OwnershipRule, OwnershipState};
use crate::domain::pattern::EventPattern;
use crate::domain::profile::{Profile, Profiles};
use crate::domain::signature::SigningKey;
use crate::domain::subscription::{SigningSecret, Subscription, SubscriptionState};
use crate::domain::timestamp::Timestamp;
use crate::egress;
use crate::store::Routed;

/// A subscription, ready to be matched and called.
#[derive(Debug)]
pub struct Route {
    /// As stored.
    pub subscription: Subscription,
    /// Its wire profile; `None` when the operator has taken it away.
    pub profile: Option<Arc<Profile>>,
    /// Its receiver; `None` when the stored URL or certificates cannot be read.
    pub target: Option<Arc<egress::Target>>,
    pub(super) deleted: bool,
    /// A header or a secret that its requests need cannot be decrypted.
    locked: bool,
    pub(super) patterns: Vec<EventPattern>,
    /// Oldest first.
    keys: Vec<(SigningKey, Option<Timestamp>)>,
    plain: Vec<SigningKey>,
    /// What its endpoint must have consented to; `None` where its profile does not ask.
    asks: Option<Fingerprint>,
    /// What is known of the endpoint, perhaps under another URL.
    known: Option<OwnershipRecord>,
    /// Whether it must consent and has not.
    unproven: bool,
}

/// Whether deliveries of a subscription may be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They may.
    Sendable,
    /// Not now: they wait.
    Held,
    /// Not any more: they end, as dead letters or as cancelled.
    Over(Option<DeadReason>),
}

impl Route {
    pub(super) fn new(routed: Routed, profiles: &Profiles) -> Route {
        let spec = &routed.subscription.spec;
        let profile = profiles.get(&spec.profile).cloned();
        let services = profile.as_ref().is_some_and(|profile| profile.service_patterns());
        let operational = profile.as_ref().is_some_and(|profile| profile.operational_events());
        let parse = |text: &String| EventPattern::stored(text, services, operational);
        let rule = profile.as_ref().and_then(|profile| profile.secret());
        if profile.is_none() {
            tracing::warn!(
                profile = spec.profile,
                "no such wire profile here: the deliveries of its subscriptions wait"
            );
        }
        // One whose end is set has a successor, which may sign alone.
        let lost = |secret: &SigningSecret| secret.secret.is_none() && secret.expire_time.is_none();
        let locked = routed.subscription.headers_lost
            || (spec.signing_enabled && routed.secrets.iter().any(lost));
        if locked && !routed.deleted {
            tracing::error!("a subscription's headers or secrets cannot be decrypted: it waits");
        }
        let key = |text: &str| rule.and_then(|rule| rule.key(text).ok());
        let key = |secret: &SigningSecret| {
            secret.secret.as_deref().and_then(key).map(|key| (key, secret.expire_time))
        };
        let keys: Vec<_> = routed.secrets.iter().filter_map(key).collect();
        let rule = profile.as_ref().and_then(|profile| profile.ownership());
        let asks = rule.map(|rule| rule.fingerprint(&spec.url));
        let state = |asked| about(routed.ownership.as_ref(), asked).map(|record| record.state);
        let unproven = asks.is_some_and(|asked| state(asked) != Some(OwnershipState::Proven));
        Route {
            patterns: spec.event_patterns.iter().filter_map(parse).collect(),
            target: target(&routed.subscription).map(Arc::new),
            plain: keys.iter().map(|(key, _)| key.clone()).collect(),
            keys,
            asks,
            unproven,
            known: routed.ownership,
            profile,
            deleted: routed.deleted,
            locked,
            subscription: routed.subscription,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> SubscriptionKey {
        self.subscription.key
    }

    /// Whether its deliveries may be attempted.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.subscription.state {
            // Our own fault, which the deliveries wait out.
            SubscriptionState::Active if self.is_unusable() => Standing::Held,
            SubscriptionState::Active if self.unproven => Standing::Held,
            SubscriptionState::Active => Standing::Sendable,
            SubscriptionState::Paused => Standing::Held,
            SubscriptionState::Inactive => Standing::Over(None),
            SubscriptionState::Disabled => Standing::Over(Some(DeadReason::SubscriptionDisabled)),
        }
    }

    /// Whether this side lacks what its requests need: a key, the profile, a certificate that
    /// can be read.
    #[must_use]
    pub fn is_unusable(&self) -> bool {
        self.locked || self.profile.is_none() || self.target.is_none()
    }

    /// Whether its endpoint must consent before it gets anything, and has not.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.unproven
    }

    /// What is known of its endpoint about this question; `None` when it has not been asked
    /// that.
    #[must_use]
    pub fn known_of(&self, asked: Fingerprint) -> Option<&OwnershipRecord> {
        about(self.known.as_ref(), asked)
    }

    /// What its endpoint may be asked now, if it has not consented: while the subscription
    /// is active and can be used here, and as long as there is a next time.
    #[must_use]
    pub fn to_ask(&self) -> Option<Fingerprint> {
        let active = self.subscription.state == SubscriptionState::Active && !self.locked;
        let callable = active && self.target.is_some() && self.unproven;
        let asked = self.asks.filter(|_| callable)?;
        let pending = |record: &OwnershipRecord| record.state == OwnershipState::Pending;
        self.known_of(asked).is_none_or(pending).then_some(asked)
    }

    /// How its endpoint is asked, and where it is; `None` where it cannot be.
    #[must_use]
    pub fn question(&self) -> Option<(&Profile, &OwnershipRule, &Arc<egress::Target>)> {
        let profile = self.profile.as_deref()?;
        Some((profile, profile.ownership()?, self.target.as_ref()?))
    }

    /// Whether [`Route::to_ask`] is due.
    #[must_use]
    pub fn is_due_to_ask(&self, now: Timestamp) -> bool {
        let due = |record: &OwnershipRecord| record.due_time <= now;
        self.to_ask().is_some_and(|asked| self.known_of(asked).is_none_or(due))
    }

    /// Whether it wants the events of this account.
    #[must_use]
    pub fn covers(&self, account: Option<&AccountId>) -> bool {
        self.subscription.spec.account.as_ref().is_none_or(|own| Some(own) == account)
    }

    /// The keys that sign now. A profile that can show several signatures shows one
    /// of every live secret; one that can show a single signature goes on with the
    /// oldest live secret until its overlap ends.
    #[must_use]
    pub fn signing_keys(&self, now: Timestamp) -> Cow<'_, [SigningKey]> {
        let several =
            self.profile.as_ref().is_some_and(|profile| profile.signs_with_every_secret());
        let count = if several { usize::MAX } else { 1 };
        if self.keys.iter().all(|(_, expire_time)| expire_time.is_none()) {
            return Cow::Borrowed(&self.plain[..self.plain.len().min(count)]);
        }
        let live = |(_, expire_time): &&(SigningKey, Option<Timestamp>)| {
            expire_time.is_none_or(|expire_time| now < expire_time)
        };
        Cow::Owned(self.keys.iter().filter(live).take(count).map(|(key, _)| key.clone()).collect())
    }
}

/// The record, if it is about this question.
fn about(record: Option<&OwnershipRecord>, asked: Fingerprint) -> Option<&OwnershipRecord> {
    record.filter(|record| record.asked == asked)
}

fn target(subscription: &Subscription) -> Option<egress::Target> {
    let url = EndpointUrl::stored(&subscription.spec.url).ok()?;
    let target = egress::Target::new(&url).ok()?.of(subscription.organization.clone());
    let target = target.with_tls(&subscription.spec.tls);
    if target.is_err() {
        tracing::warn!(
            organization = %subscription.organization,
            "the certificates of a subscription cannot be used here: its deliveries wait"
        );
    }
    target.ok()
}
