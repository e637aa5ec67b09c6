//! What the operator opens although it is not public.
//!
//! An entry is written `address[/prefix][:ports][@organization]`, where ports are numbers
//! and ranges separated by commas; without ports it means every port, and without an
//! organization it is for all of them. An IPv6 address stands in brackets when ports
//! follow it directly:
//!
//! ```text
//! 10.0.0.0/8
//! 127.0.0.1:8080,9000-9100
//! 10.7.0.0/16:443@clinic-7
//! fd00::/8
//! [::1]:443
//! [fd00::]/8:443
//! ```

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::Cidr;
use super::CidrError;
use super::number;
use crate::domain::id::OrganizationId;

/// Addresses, and ports at them, that the operator opens for everybody or for one
/// organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressAllow {
    network: Cidr,
    /// Empty: every port.
    ports: Vec<RangeInclusive<u16>>,
    /// `None`: for all of them.
    organization: Option<OrganizationId>,
}

impl EgressAllow {
    /// Whether this entry says anything to `organization`; `None` is nobody in
    /// particular, whom only the entries for everybody concern.
    #[must_use]
    pub fn concerns(&self, organization: Option<&OrganizationId>) -> bool {
        self.organization.is_none() || self.organization.as_ref() == organization
    }

    /// Whether this entry opens `port` at `address`.
    #[must_use]
    pub fn opens(&self, address: IpAddr, port: u16) -> bool {
        self.covers(address) && self.lists(port)
    }

    pub(super) fn covers(&self, address: IpAddr) -> bool {
        self.network.contains(address)
    }

    pub(super) fn lists(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port))
    }
}

impl FromStr for EgressAllow {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<EgressAllow, CidrError> {
        let (place, organization) = match text.split_once('@') {
            Some((place, name)) => {
                let name = OrganizationId::parse(name).map_err(|_| CidrError::Organization)?;
                (place, Some(name))
            }
            None => (text, None),
        };
        let (network, ports) = parse_place(place)?;
        Ok(EgressAllow { network, ports, organization })
    }
}

fn parse_place(text: &str) -> Result<(Cidr, Vec<RangeInclusive<u16>>), CidrError> {
    if let Ok(network) = text.parse::<Cidr>() {
        return Ok((network, Vec::new()));
    }
    let (address, rest): (IpAddr, &str) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(CidrError::Address)?;
        (address.parse::<Ipv6Addr>().map_err(|_| CidrError::Address)?.into(), rest)
    } else {
        let end = text.find('/').or_else(|| text.find(':')).unwrap_or(text.len());
        let (address, rest) = text.split_at(end);
        (address.parse().map_err(|_| CidrError::Address)?, rest)
    };
    let (prefix, ports) = match rest.split_once(':') {
        Some((prefix, ports)) => (prefix, parse_ports(ports)?),
        None => (rest, Vec::new()),
    };
    let prefix = match prefix {
        "" => None,
        prefix => Some(prefix.strip_prefix('/').ok_or(CidrError::Prefix)?),
    };
    Ok((Cidr::new(address, prefix)?, ports))
}

fn parse_ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, CidrError> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |digits| number(digits).and_then(|port| u16::try_from(port).ok());
        let (first, last) = (port(first)?, port(last)?);
        (first != 0 && first <= last).then_some(first..=last)
    };
    text.split(',').map(|part| range(part).ok_or(CidrError::Ports)).collect()
}
