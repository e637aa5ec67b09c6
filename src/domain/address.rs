//! Which addresses are public, and how networks of them are written.
//!
//! [`judge`] is the fixed table; [`AddressPolicy`] puts around it what the operator
//! opens and closes. Both see an IPv4-mapped IPv6 address as the IPv4 address that it
//! reaches.

mod allow;
mod nat64;
mod policy;

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;

pub use self::allow::EgressAllow;
pub use self::nat64::Nat64Prefix;
pub use self::policy::AddressPolicy;
pub use self::policy::AddressRules;
pub use self::policy::DEFAULT_PORTS;

/// What the table says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on the public internet.
    Public,
    /// Private, special or a disguise of such: not to be called.
    Refused,
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A text that is no network or allow entry. The text says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an IP address.
    #[error("not an IP address; write 10.0.0.0/8 or [fd00::]/8:443")]
    Address,
    /// Not a prefix length of this family.
    #[error("the prefix is a number, at most 32 for IPv4 and 128 for IPv6")]
    Prefix,
    /// Bits are set beyond the prefix: most likely a slip.
    #[error("the address has bits set beyond its prefix")]
    HostBits,
    /// Not a list of ports.
    #[error("ports are numbers from 1 to 65535 or ranges of them: 443,9000-9100")]
    Ports,
    /// Not the name of an organization.
    #[error("after @ stands an organization: 1 to 64 letters, digits, _, . or -")]
    Organization,
    /// Not a prefix of RFC 6052.
    #[error("a NAT64 prefix is an IPv6 network of 32, 40, 48, 56, 64 or 96 bits: 64:ff9b::/96")]
    Nat64,
}

/// The table of reserved ranges, from the IANA special-purpose address registries
/// (RFC 6890 and its successors) and from what clouds put at fixed addresses.
///
/// IPv4 is public unless listed. IPv6 is public only inside `2000::/3`, the global
/// unicast range, and there unless listed or carrying an ISATAP interface id, which
/// hides an IPv4 address under any prefix (RFC 5214, 6.1).
#[must_use]
pub fn judge(address: IpAddr) -> Verdict {
    let refused = match address.to_canonical() {
        IpAddr::V4(v4) => REFUSED_V4
            .iter()
            .any(|&(network, prefix)| same_v4(v4, Ipv4Addr::from_octets(network), prefix)),
        IpAddr::V6(v6) => {
            !same_v6(v6, Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
                || REFUSED_V6.iter().any(|&(network, prefix)| same_v6(v6, network, prefix))
                || is_isatap(v6)
        }
    };
    if refused { Verdict::Refused } else { Verdict::Public }
}

const REFUSED_V4: [([u8; 4], u8); 19] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // CGNAT; also Alibaba's metadata and Tailscale.
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Azure WireServer: a public address that answers inside every Azure machine.
    ([168, 63, 129, 16], 32),
    // Link-local, and with it the metadata of AWS, GCP, Azure, OpenStack, ECS, EKS.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    // IETF assignments; also Oracle's metadata.
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    // AS112, AMT, 6to4 relays, AS112.
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    // Benchmarking and documentation.
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

const REFUSED_V6: [(Ipv6Addr, u8); 6] = [
    // Teredo, benchmarking, AMT, AS112, ORCHID, DRIP.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4 carries an IPv4 address.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    // AS112; 6bone.
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Interface id `0000:5efe` or `0200:5efe` before an IPv4 address.
fn is_isatap(v6: Ipv6Addr) -> bool {
    let [_, _, _, _, high, low, _, _] = v6.segments();
    high & 0xfdff == 0 && low == 0x5efe
}

fn same_v4(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let differing = one.to_bits() ^ other.to_bits();
    differing.checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
}

fn same_v6(one: Ipv6Addr, other: Ipv6Addr, prefix: u8) -> bool {
    let differing = one.to_bits() ^ other.to_bits();
    differing.checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
}

impl Cidr {
    /// Whether the address lies in this network. IPv4 networks hold IPv4-mapped
    /// IPv6 addresses too.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => same_v4(address, network, self.prefix),
            (IpAddr::V6(network), IpAddr::V6(address)) => same_v6(address, network, self.prefix),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The network of `prefix` leading bits; `None`: this one address.
    fn new(address: IpAddr, prefix: Option<&str>) -> Result<Cidr, CidrError> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let mut prefix = match prefix {
            None => longest,
            Some(digits) => number(digits).ok_or(CidrError::Prefix)?,
        };
        if longest < prefix {
            return Err(CidrError::Prefix);
        }
        let network = address.to_canonical();
        if network.is_ipv4() && longest == 128 {
            // A mapped network is an IPv4 network; shorter prefixes leave bits set.
            prefix = prefix.checked_sub(96).ok_or(CidrError::HostBits)?;
        }
        let host_bits = match network {
            IpAddr::V4(v4) => v4.to_bits().checked_shl(prefix).unwrap_or(0) != 0,
            IpAddr::V6(v6) => v6.to_bits().checked_shl(prefix).unwrap_or(0) != 0,
        };
        if host_bits {
            return Err(CidrError::HostBits);
        }
        Ok(Cidr { network, prefix: u8::try_from(prefix).map_err(|_| CidrError::Prefix)? })
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `10.0.0.0/8`, `fd00::/8`, or a plain address.
    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        Cidr::new(address.parse().map_err(|_| CidrError::Address)?, prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix)
    }
}

/// Digits alone: `parse` would take a sign as well.
fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;
