//! What a caller may do, in parts small enough that nobody needs to be given more.

use std::fmt;
use std::str::FromStr;

/// One thing that a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Publish events.
    EventsPublish,
    /// See which events there are, and event types; not what events carry.
    EventsRead,
    /// See what events carry: patient data.
    PayloadsRead,
    /// See subscriptions, their secrets' ids and times, and profiles.
    SubscriptionsRead,
    /// Create, change, delete and ping subscriptions, and rotate their secrets.
    SubscriptionsWrite,
    /// See what became of deliveries.
    DeliveriesRead,
    /// Retry and cancel deliveries.
    DeliveriesWrite,
    /// See what receivers answered: it may repeat patient data.
    BodiesRead,
    /// All of it: for the one key in the safe.
    Admin,
    /// Erase what events carry, for good.
    PayloadsPurge,
    /// See the audit log.
    AuditRead,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 11] = [
        Scope::EventsPublish,
        Scope::EventsRead,
        Scope::PayloadsRead,
        Scope::SubscriptionsRead,
        Scope::SubscriptionsWrite,
        Scope::DeliveriesRead,
        Scope::DeliveriesWrite,
        Scope::BodiesRead,
        Scope::Admin,
        Scope::PayloadsPurge,
        Scope::AuditRead,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::EventsPublish => "events:publish",
            Scope::EventsRead => "events:read",
            Scope::PayloadsRead => "payloads:read",
            Scope::SubscriptionsRead => "subscriptions:read",
            Scope::SubscriptionsWrite => "subscriptions:write",
            Scope::DeliveriesRead => "deliveries:read",
            Scope::DeliveriesWrite => "deliveries:write",
            Scope::BodiesRead => "bodies:read",
            Scope::Admin => "admin",
            Scope::PayloadsPurge => "payloads:purge",
            Scope::AuditRead => "audit:read",
        }
    }

    /// Its bit in a stored set; never changes.
    fn bit(self) -> i32 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Scope::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            let names = Scope::ALL.map(Scope::name).join(", ");
            format!("one of {names}")
        })
    }
}

/// Some scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(i32);

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is among them; with [`Scope::Admin`] all are.
    #[must_use]
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// For storage.
    #[must_use]
    pub fn bits(self) -> i32 {
        self.0
    }

    /// As [`Scopes::bits`] told. Bits of a later version mean nothing here.
    #[must_use]
    pub fn stored(bits: i32) -> Self {
        Scopes(bits & Scopes::all().0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Scopes(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0);
        formatter.write_str(&held.map(Scope::name).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        assert!("Admin".parse::<Scope>().is_err_and(|why| why.contains("events:publish")));
    }

    #[test]
    fn a_set_allows_what_is_in_it_and_admin_allows_all() {
        let reader: Scopes = [Scope::EventsRead, Scope::DeliveriesRead].into_iter().collect();
        assert!(reader.allow(Scope::EventsRead) && !reader.allow(Scope::PayloadsRead));
        assert_eq!(reader.to_string(), "events:read deliveries:read");
        let admin: Scopes = [Scope::Admin].into_iter().collect();
        assert!(Scope::ALL.into_iter().all(|scope| admin.allow(scope)));
        assert_eq!(Scopes::stored(reader.bits() | (1 << 30)), reader);
        assert_eq!(reader.bits(), 0b10_0010, "as it is stored");
    }
}
