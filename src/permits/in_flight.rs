//! Requests under way: per organization and for the whole process. (The endpoint's
//! own limit is kept by its queue.)

use std::collections::HashMap;

use crate::domain::id::OrganizationId;

/// How many requests may be under way at once.
#[derive(Clone, Copy, Debug)]
pub struct InFlightLimits {
    /// To the endpoints of one organization.
    pub organization: usize,
    /// To all endpoints.
    pub replica: usize,
}

/// Counts requests under way.
#[derive(Debug)]
pub struct InFlight {
    limits: InFlightLimits,
    all: usize,
    organizations: HashMap<OrganizationId, usize>,
}

/// Whether a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is counted; [`InFlight::finish`] gives its permit back.
    Started,
    /// The organization has as many as it may.
    OrganizationFull,
    /// The process has.
    ReplicaFull,
}

impl InFlight {
    /// Nothing under way.
    #[must_use]
    pub fn new(limits: InFlightLimits) -> Self {
        InFlight { limits, all: 0, organizations: HashMap::new() }
    }

    /// From now on as many requests may be under way; those that are stay.
    pub fn set_limits(&mut self, limits: InFlightLimits) {
        self.limits = limits;
    }

    /// Takes a permit, if there is one.
    pub fn start(&mut self, organization: &OrganizationId) -> Start {
        if self.limits.replica <= self.all {
            return Start::ReplicaFull;
        }
        match self.organizations.get_mut(organization) {
            Some(count) if self.limits.organization <= *count => return Start::OrganizationFull,
            Some(count) => *count += 1,
            None => {
                self.organizations.insert(organization.clone(), 1);
            }
        }
        self.all += 1;
        Start::Started
    }

    /// Whether the organization has fewer than it may.
    #[must_use]
    pub fn has_room(&self, organization: &OrganizationId) -> bool {
        self.organizations.get(organization).is_none_or(|count| *count < self.limits.organization)
    }

    /// Gives a permit back.
    pub fn finish(&mut self, organization: &OrganizationId) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.organizations.get_mut(organization) {
            *count -= 1;
            if *count == 0 {
                self.organizations.remove(organization);
            }
        }
    }

    /// Requests under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all
    }
}
