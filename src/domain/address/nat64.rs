//! IPv4 addresses inside IPv6 ones, as translators reach them (RFC 6052).
//!
//! Where a network has IPv6 only, its resolver gives such addresses for names that have
//! IPv4 ones alone (DNS64), and a translator carries the connection. Whoever is behind
//! is an IPv4 address, so that is what must be judged.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::Cidr;
use super::CidrError;

/// Prefix lengths that RFC 6052, 2.2 allows, in bits.
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// The octet that is zero in every such address: bits 64 to 71.
const RESERVED_OCTET: usize = 8;

/// A prefix under which a translator of this network reaches IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64Prefix {
    network: Ipv6Addr,
    /// In bits, one of [`LENGTHS`].
    length: u8,
}

impl Nat64Prefix {
    /// Whether the address lies under this prefix.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        super::same_v6(address, self.network, self.length)
    }

    /// Whether the two have addresses in common: what such an address reaches would not
    /// be certain.
    #[must_use]
    pub fn overlaps(self, other: Nat64Prefix) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The IPv4 address that an address under this prefix reaches. `None` where a bit is
    /// set that must not be: what a translator makes of it is not known.
    #[must_use]
    pub fn embedded(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let start = usize::from(self.length / 8);
        let mut rest = (start..octets.len()).filter(|&place| place != RESERVED_OCTET);
        let mut v4 = [0; 4];
        for octet in &mut v4 {
            *octet = octets[rest.next()?];
        }
        let clean = octets[RESERVED_OCTET] == 0 && rest.all(|place| octets[place] == 0);
        clean.then_some(Ipv4Addr::from_octets(v4))
    }
}

impl FromStr for Nat64Prefix {
    type Err = CidrError;

    /// Reads `64:ff9b::/96`, or a network's own prefix.
    fn from_str(text: &str) -> Result<Nat64Prefix, CidrError> {
        let Cidr { network, prefix } = text.parse()?;
        match network {
            IpAddr::V6(network)
                if LENGTHS.contains(&prefix) && network.octets()[RESERVED_OCTET] == 0 =>
            {
                Ok(Nat64Prefix { network, length: prefix })
            }
            IpAddr::V6(_) | IpAddr::V4(_) => Err(CidrError::Nat64),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::address::AddressPolicy;
    use crate::domain::address::Verdict;
    use crate::domain::address::judge;

    /// RFC 6052, 2.4: 192.0.2.33 under prefixes of every length.
    const EXAMPLES: [(&str, &str); 7] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];

    fn prefix(text: &str) -> Nat64Prefix {
        text.parse().expect(text)
    }

    /// The opposite of [`Nat64Prefix::embedded`].
    fn embed(prefix: Nat64Prefix, v4: Ipv4Addr) -> Ipv6Addr {
        let mut octets = prefix.network.octets();
        let start = usize::from(prefix.length / 8);
        let places = (start..16).filter(|&place| place != RESERVED_OCTET);
        for (place, octet) in places.zip(v4.octets()) {
            octets[place] = octet;
        }
        Ipv6Addr::from_octets(octets)
    }

    #[test]
    fn the_examples_of_the_standard_are_decoded() {
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        for (text, address) in EXAMPLES {
            let address: Ipv6Addr = address.parse().expect(address);
            assert!(prefix(text).contains(address), "{address}");
            assert_eq!(prefix(text).embedded(address), Some(v4), "{address}");
            assert_eq!(embed(prefix(text), v4), address, "{text}");
        }
    }

    #[test]
    fn bits_that_must_be_zero_are_looked_at() {
        for (text, _) in EXAMPLES {
            let good = embed(prefix(text), Ipv4Addr::new(8, 8, 8, 8));
            let reserved = Ipv6Addr::from_bits(good.to_bits() | 1 << 56);
            assert_eq!(prefix(text).embedded(reserved), None, "{reserved}");
            if prefix(text).length < 96 {
                let suffix = Ipv6Addr::from_bits(good.to_bits() | 1);
                assert_eq!(prefix(text).embedded(suffix), None, "{suffix}");
            }
        }
    }

    #[test]
    fn what_is_no_such_prefix_is_refused() {
        for text in ["10.0.0.0/8", "64:ff9b::/95", "64:ff9b::/33", "2001:db8::", "::/0"] {
            assert_eq!(text.parse::<Nat64Prefix>(), Err(CidrError::Nat64), "{text}");
        }
        // Bits 64 to 71 are zero also inside a prefix.
        assert_eq!("2001:db8:0:0:100::/96".parse::<Nat64Prefix>(), Err(CidrError::Nat64));
        assert_eq!("2001:db8::1/96".parse::<Nat64Prefix>(), Err(CidrError::HostBits));
        assert!(prefix("2001:db8::/32").overlaps(prefix("2001:db8:122::/48")));
        assert!(!prefix("2001:db8::/32").overlaps(prefix("64:ff9b::/96")));
    }

    #[test]
    fn what_the_operator_says_of_an_ipv4_address_holds_for_it_behind_a_translator() {
        let [own, well_known] = [prefix("2001:db8:64::/96"), prefix("64:ff9b::/96")];
        let policy = AddressPolicy {
            allow: vec!["10.0.0.0/8:443".parse().expect("entry")],
            deny: vec!["8.8.4.0/24".parse().expect("cidr")],
            nat64: vec![own, well_known],
            ..AddressPolicy::default()
        };
        let rules = policy.rules(None);
        let cases = [
            ("8.8.8.8", true),
            ("8.8.4.4", false),
            ("10.1.1.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("168.63.129.16", false),
        ];
        for (v4, permitted) in cases {
            let v4: Ipv4Addr = v4.parse().expect(v4);
            for prefix in [own, well_known] {
                let address = embed(prefix, v4).into();
                assert_eq!(rules.permits(address, 443), permitted, "{address}");
                assert_eq!(rules.refuses(address, 443), !permitted, "{address}");
            }
            let unknown = embed(prefix("2001:db8:65::/96"), v4).into();
            assert!(!rules.permits(unknown, 443), "{unknown}");
        }
        let reserved: Ipv6Addr = "2001:db8:64:0:100::808:808".parse().expect("an address");
        let elsewhere = AddressPolicy {
            allow: vec!["::/0".parse().expect("entry")],
            nat64: vec![prefix("2001:db8::/32")],
            ..AddressPolicy::default()
        };
        assert!(!elsewhere.rules(None).permits(reserved.into(), 443), "nobody knows where to");
    }

    proptest! {
        #[test]
        fn an_address_behind_a_translator_is_judged_as_what_it_is(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            for (text, _) in EXAMPLES {
                let prefix = prefix(text);
                let address = embed(prefix, v4);
                prop_assert_eq!(prefix.embedded(address), Some(v4));
                let policy = AddressPolicy { nat64: vec![prefix], ..AddressPolicy::default() };
                let public = judge(v4.into()) == Verdict::Public;
                prop_assert_eq!(policy.rules(None).permits(address.into(), 443), public);
            }
        }
    }
}
