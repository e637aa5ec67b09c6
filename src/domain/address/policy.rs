//! Who may be called in a deployment: the table, and what its operator opens and closes.

use std::net::IpAddr;
use std::net::SocketAddr;

use super::Cidr;
use super::EgressAllow;
use super::Nat64Prefix;
use super::Verdict;
use super::judge;
use crate::domain::id::OrganizationId;

/// Ports that may be called at any public address.
pub const DEFAULT_PORTS: [u16; 2] = [443, 8443];

/// Who may be called in this deployment. The default is the bare table.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// Opened by the operator, also for plain `http`.
    pub allow: Vec<EgressAllow>,
    /// Closed whatever else is said: the deployment's own networks.
    pub deny: Vec<Cidr>,
    /// Prefixes under which translators of this network reach IPv4; no two overlap. An
    /// address under one is judged as the IPv4 address that it reaches.
    pub nat64: Vec<Nat64Prefix>,
    /// This machine's own addresses: refused like those of the table.
    pub own: Vec<IpAddr>,
    /// Where parts of the deployment serve, such as its database. Their addresses are
    /// refused like those of the table, and their ports are closed whatever else is said:
    /// for one on this machine, at each of its addresses, since it may listen on all.
    pub services: Vec<SocketAddr>,
}

/// The policy as it is for the receivers of one organization.
#[derive(Clone, Copy, Debug)]
pub struct AddressRules<'a> {
    policy: &'a AddressPolicy,
    organization: Option<&'a OrganizationId>,
}

impl AddressPolicy {
    /// What holds for the receivers of `organization`; `None`: what holds for everybody's.
    #[must_use]
    pub fn rules<'a>(&'a self, organization: Option<&'a OrganizationId>) -> AddressRules<'a> {
        AddressRules { policy: self, organization }
    }

    /// Whether the address is this machine's. One that is not specified reaches it too.
    fn is_here(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified() || self.own.contains(&address)
    }

    /// Whether a part of the deployment serves at this port of the address.
    fn serves(&self, address: IpAddr, port: u16) -> bool {
        let at = |service: IpAddr| {
            service == address || (self.is_here(service) && self.is_here(address))
        };
        self.services.iter().any(|service| service.port() == port && at(service.ip()))
    }

    /// What an address reaches: itself, or an IPv4 address behind a translator. `None`:
    /// nobody knows.
    fn reached(&self, address: IpAddr) -> Option<IpAddr> {
        let IpAddr::V6(v6) = address.to_canonical() else { return Some(address.to_canonical()) };
        match self.nat64.iter().find(|prefix| prefix.contains(v6)) {
            Some(prefix) => prefix.embedded(v6).map(IpAddr::V4),
            None => Some(IpAddr::V6(v6)),
        }
    }
}

impl AddressRules<'_> {
    /// Whether `port` at `address` may be called over https. The deny list and the
    /// deployment's own services win over the allow list, which wins over the table and
    /// its default ports.
    #[must_use]
    pub fn permits(self, address: IpAddr, port: u16) -> bool {
        let by_default = || self.is_public(address) && DEFAULT_PORTS.contains(&port);
        !self.denies(address, port) && (self.allows(address, port) || by_default())
    }

    /// Whether `port` at `address` may be called over plain http: only where the
    /// operator says so.
    #[must_use]
    pub fn permits_http(self, address: IpAddr, port: u16) -> bool {
        !self.denies(address, port) && self.allows(address, port)
    }

    /// Whether a name may be given with this port: some address behind it could be
    /// called there. The address decides when the connection is made.
    #[must_use]
    pub fn permits_port(self, port: u16) -> bool {
        port != 0 && (DEFAULT_PORTS.contains(&port) || self.entries().any(|one| one.lists(port)))
    }

    /// Whether it is the address that is out of bounds, or what serves there, and not only
    /// the port.
    #[must_use]
    pub fn refuses(self, address: IpAddr, port: u16) -> bool {
        let ways = self.ways(address);
        let opened = || self.entries().any(|entry| ways.iter().any(|&way| entry.covers(way)));
        self.denies(address, port) || (!self.is_public(address) && !opened())
    }

    fn is_public(self, address: IpAddr) -> bool {
        let public = |reached| judge(reached) == Verdict::Public;
        let own = |way| {
            self.policy.own.contains(&way)
                || self.policy.services.iter().any(|service| service.ip() == way)
        };
        self.policy.reached(address).is_some_and(public) && !self.ways(address).into_iter().any(own)
    }

    fn denies(self, address: IpAddr, port: u16) -> bool {
        let closed = |way| {
            self.policy.deny.iter().any(|network| network.contains(way))
                || self.policy.serves(way, port)
        };
        self.policy.reached(address).is_none() || self.ways(address).into_iter().any(closed)
    }

    fn allows(self, address: IpAddr, port: u16) -> bool {
        let ways = self.ways(address);
        port != 0 && self.entries().any(|entry| ways.iter().any(|&way| entry.opens(way, port)))
    }

    /// The address as it is dialled and as it is reached: lists may name either.
    fn ways(self, address: IpAddr) -> [IpAddr; 2] {
        let address = address.to_canonical();
        [address, self.policy.reached(address).unwrap_or(address)]
    }

    /// The allow list, as far as it concerns the organization.
    fn entries(&self) -> impl Iterator<Item = &EgressAllow> {
        let organization = self.organization;
        self.policy.allow.iter().filter(move |entry| entry.concerns(organization))
    }
}
