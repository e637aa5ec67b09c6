//! Organization -> patterns -> subscriptions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Route;
use crate::domain::event::NewEvent;
use crate::domain::id::{AccountId, OrganizationId, SubscriptionKey};
use crate::domain::pattern::PatternIndex;

/// All subscriptions at one version of the routing clock.
#[derive(Debug, Default)]
pub struct Table {
    version: i64,
    routes: HashMap<SubscriptionKey, Arc<Route>>,
    /// Those whose endpoints must consent and have not.
    unproven: BTreeMap<SubscriptionKey, Arc<Route>>,
    organizations: HashMap<OrganizationId, Organization>,
}

#[derive(Debug)]
struct Organization {
    /// Of the table, when something of it changed last.
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

    /// Whether something of the organization has changed after this version, as far as it
    /// still has a subscription.
    #[must_use]
    pub fn has_changed(&self, organization: &OrganizationId, version: i64) -> bool {
        self.organizations.get(organization).is_some_and(|known| version < known.version)
    }

    pub(super) fn apply(&mut self, version: i64, changed: Vec<Route>) {
        let mut touched = HashSet::new();
        for route in changed {
            let key = route.key();
            // A deleted one may not say any more whose it was.
            let known = self.routes.get(&key).map(|known| &known.subscription.organization);
            let name = known.unwrap_or(&route.subscription.organization).clone();
            let organization =
                self.organizations.entry(name.clone()).or_insert_with(Organization::empty);
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
                organization.version = version;
                if organization.members.is_empty() {
                    self.organizations.remove(&name);
                }
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
