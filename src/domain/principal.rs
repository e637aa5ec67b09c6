//! Who is calling, once that is known.

use std::collections::BTreeSet;

use super::id::OrganizationId;
use super::scope::{Scope, Scopes};

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// For the log and the audit: the id of an API key, say. No secret.
    pub name: String,
    /// Whose data it may see and change.
    pub organizations: Organizations,
    /// What it may do.
    pub scopes: Scopes,
}

/// Some organizations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Organizations {
    /// Every one, also those to come.
    All,
    /// These.
    Some(BTreeSet<OrganizationId>),
}

/// The name of whoever needs no credentials.
const ANYONE: &str = "anyone";

impl Principal {
    /// Whoever can reach a server without credentials.
    #[must_use]
    pub fn anyone() -> Self {
        let name = ANYONE.to_owned();
        Principal { name, organizations: Organizations::All, scopes: Scopes::all() }
    }

    /// The id of what it showed: its name, which an API key's id is too, and which of a
    /// certificate or a token is what it is known by. Empty: it need not show anything.
    #[must_use]
    pub fn credential_id(&self) -> &str {
        if self.name == ANYONE { "" } else { &self.name }
    }

    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }

    /// Whether it may act for this organization.
    #[must_use]
    pub fn acts_for(&self, organization: &OrganizationId) -> bool {
        match &self.organizations {
            Organizations::All => true,
            Organizations::Some(these) => these.contains(organization),
        }
    }
}
