//! Organization -> patterns -> subscriptions.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Route;
use crate::domain::event::NewEvent;
use crate::domain::id::{AccountId, OrganizationId, SubscriptionKey};
use crate::domain::pattern::PatternIndex;

/// Organizations without a subscription that are remembered for a while.
const EMPTIED_MAX: usize = 1000;

/// All subscriptions at one version of the routing clock.
#[derive(Debug, Default)]
pub struct Table {
    version: i64,
    routes: HashMap<SubscriptionKey, Arc<Route>>,
    /// Those whose endpoints must consent and have not.
    unproven: BTreeMap<SubscriptionKey, Arc<Route>>,
    organizations: HashMap<OrganizationId, Organization>,
    /// Organizations that have lost their last subscription, the latest last: it is not
    /// forgotten at once that they have changed something.
    emptied: VecDeque<OrganizationId>,
}

#[derive(Debug)]
struct Organization {
    /// Of the table, when a subscription of it changed last. What is known of endpoints
    /// does not count, as it does not for a commit.
    version: i64,
    members: BTreeMap<SubscriptionKey, Arc<Route>>,
    /// Over the members that take events.
    index: PatternIndex<Arc<Route>>,
}

impl Table {
    /// The version of the routing clock.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// One subscription.
    #[must_use]
    pub fn route(&self, key: SubscriptionKey) -> Option<Arc<Route>> {
        self.routes.get(&key).cloned()
    }

    /// The subscriptions whose endpoints must consent before they get anything, and have not.
    #[must_use]
    pub fn unproven(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.unproven.values()
    }

    /// The subscriptions that an event goes to, by ascending key: those of its
    /// organization that take events, cover its account and match its type; for a
    /// ping the one it is for.
    #[must_use]
    pub fn matching(&self, event: &NewEvent) -> Vec<Arc<Route>> {
        let Some(organization) = self.organizations.get(&event.organization) else {
            return Vec::new();
        };
        if let Some(target) = event.target {
            let takes = |route: &&Arc<Route>| route.subscription.state.takes_events();
            return organization.members.get(&target).filter(takes).cloned().into_iter().collect();
        }
        let matching = organization.index.matching(&event.event_type).into_iter();
        matching.filter(|route| route.covers(event.account.as_ref())).cloned().collect()
    }

    /// Whether anybody in the organization asks for events of this type about this account.
    #[must_use]
    pub fn is_wanted(
        &self,
        organization: &OrganizationId,
        event_type: &str,
        account: Option<&AccountId>,
    ) -> bool {
        let Some(organization) = self.organizations.get(organization) else { return false };
        let matching = organization.index.matching(event_type);
        matching.into_iter().any(|route| route.covers(account))
    }

    /// Whether a subscription of the organization has changed after this version.
    #[must_use]
    pub fn has_changed(&self, organization: &OrganizationId, version: i64) -> bool {
        self.organizations.get(organization).is_some_and(|known| version < known.version)
    }

    pub(super) fn apply(&mut self, version: i64, changed: Vec<Route>) {
        let mut touched = HashSet::new();
        for route in changed {
            let key = route.key();
            // A deleted one may not say any more whose it was.
            let known = self.routes.get(&key).map(|known| &known.subscription);
            let name = known.unwrap_or(&route.subscription).organization.clone();
            let is_as_it_was = known.is_some_and(|it| it.version == route.subscription.version);
            let organization =
                self.organizations.entry(name.clone()).or_insert_with(Organization::empty);
            if !is_as_it_was {
                organization.version = version;
            }
            touched.insert(name);
            self.unproven.remove(&key);
            if route.deleted {
                self.routes.remove(&key);
                organization.members.remove(&key);
            } else {
                let route = Arc::new(route);
                if route.is_unproven() {
                    self.unproven.insert(key, Arc::clone(&route));
                }
                self.routes.insert(key, Arc::clone(&route));
                organization.members.insert(key, route);
            }
        }
        for name in touched {
            if let Some(organization) = self.organizations.get_mut(&name) {
                organization.index();
                if organization.members.is_empty() {
                    self.emptied.push_back(name);
                }
            }
        }
        let forgotten = self.emptied.len().saturating_sub(EMPTIED_MAX);
        for name in self.emptied.drain(..forgotten) {
            if self.organizations.get(&name).is_some_and(|one| one.members.is_empty()) {
                self.organizations.remove(&name);
            }
        }
        self.version = version;
    }
}

impl Organization {
    fn empty() -> Self {
        Organization {
            version: 0,
            members: BTreeMap::new(),
            index: PatternIndex::new(Vec::<(Vec<_>, _)>::new()),
        }
    }

    fn index(&mut self) {
        let takers = self.members.values().filter(|route| route.subscription.state.takes_events());
        self.index = PatternIndex::new(takers.map(|route| (&route.patterns, Arc::clone(route))));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::payload_mode::PayloadMode;
    use crate::domain::profile::Profiles;
    use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionState};
    use crate::domain::timestamp::Timestamp;
    use crate::store::Routed;

    fn organization(name: &str) -> OrganizationId {
        OrganizationId::stored(name)
    }

    fn route(key: i64, name: &str, version: i64, deleted: bool) -> Route {
        let spec = SubscriptionSpec {
            account: None,
            name: String::new(),
            url: "https://example.com/hook".into(),
            event_patterns: vec!["*".into()],
            profile: "standard".into(),
            signing_enabled: false,
            headers: BTreeMap::new(),
            attributes: BTreeMap::new(),
            send_organization_code: false,
            retry_waits: Vec::new(),
            attempt_timeout: Duration::from_secs(15),
            max_in_flight: 16,
            tls: crate::domain::receiver_tls::ReceiverTls::default(),
            payload_mode: PayloadMode::Full,
            omit_trace_context: false,
        };
        let subscription = Subscription {
            key: SubscriptionKey(key),
            organization: organization(name),
            spec,
            state: SubscriptionState::Active,
            state_reason: String::new(),
            version,
            create_time: Timestamp(0),
            update_time: Timestamp(0),
            headers_lost: false,
        };
        let routed = Routed { subscription, secrets: Vec::new(), ownership: None, deleted };
        Route::new(routed, &Profiles::built_in())
    }

    #[test]
    fn an_organization_has_changed_when_its_subscriptions_have() {
        let mut table = Table::default();
        table.apply(5, vec![route(1, "acme", 4, false), route(2, "other", 5, false)]);
        // What is known of its endpoint is new; the subscription is as it was.
        table.apply(6, vec![route(1, "acme", 4, false)]);
        assert!(!table.has_changed(&organization("acme"), 5));
        table.apply(7, vec![route(1, "acme", 7, false)]);
        assert!(table.has_changed(&organization("acme"), 6));
        assert!(!table.has_changed(&organization("acme"), 7));
        assert!(!table.has_changed(&organization("other"), 5));
        assert!(!table.has_changed(&organization("nobody"), 0));
    }

    #[test]
    fn it_has_changed_as_well_when_it_has_lost_the_last_one_and_is_forgotten_in_the_end() {
        let mut table = Table::default();
        table.apply(1, vec![route(1, "acme", 1, false)]);
        table.apply(2, vec![route(1, "acme", 2, true)]);
        assert!(table.has_changed(&organization("acme"), 1) && table.is_empty());
        for number in 0..i64::try_from(EMPTIED_MAX).expect("small") + 10 {
            let (key, name, version) = (100 + number, format!("brief-{number}"), 10 + 2 * number);
            table.apply(version, vec![route(key, &name, version, false)]);
            table.apply(version + 1, vec![route(key, &name, version + 1, true)]);
        }
        assert!(!table.has_changed(&organization("acme"), 1));
        assert_eq!((table.organizations.len(), table.emptied.len()), (EMPTIED_MAX, EMPTIED_MAX));
    }
}
