//! The table against IANA's registries of special-purpose addresses, for every address
//! there is. `tests/data/iana/README.md` says where they come from.
//!
//! All 2^32 IPv4 addresses are compared without being counted through: the table is made
//! of networks, so that its verdict changes only where one of them begins or ends, and
//! the same is true of the registry. Between two such places one address speaks for all.
//! [`a_network_holds_what_lies_between_its_ends`] shows what this rests on.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const IPV4: &str = include_str!("../../../tests/data/iana/ipv4.csv");
const IPV6: &str = include_str!("../../../tests/data/iana/ipv6.csv");

/// Refused besides the registry: it lists no multicast (RFC 5771), and no public address
/// that a cloud has put into every machine of its customers.
const BESIDES_V4: [&str; 2] = ["224.0.0.0/4", "168.63.129.16/32"];

/// The networks of a registry: each row's first field, which may hold two of them and a
/// mark of a footnote.
fn networks(csv: &str) -> Vec<Cidr> {
    let rows = csv.lines().skip(1).filter(|line| !line.starts_with(' '));
    let blocks = rows.map(|row| match row.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => row.split(',').next().unwrap_or_default(),
    });
    let texts = blocks.flat_map(|blocks| blocks.split(", "));
    let text = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    texts.map(text).map(|text| text.parse().expect(&text)).collect()
}

fn special_v4() -> Vec<Cidr> {
    let besides = BESIDES_V4.map(|text| text.parse().expect(text));
    networks(IPV4).into_iter().chain(besides).collect()
}

/// First and last address of a network of IPv4.
fn ends(network: Cidr) -> (u32, u32) {
    let IpAddr::V4(first) = network.network else { panic!("{network} is IPv6") };
    let others = u32::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
    (first.to_bits(), first.to_bits() | others)
}

#[test]
fn the_registries_are_read_whole() {
    assert_eq!(networks(IPV4).len(), 26, "as many as IANA lists, and one row has two");
    assert_eq!(networks(IPV6).len(), 25);
    assert_eq!(ends("172.16.0.0/12".parse().expect("cidr")), (0xac10_0000, 0xac1f_ffff));
    assert_eq!(ends("0.0.0.0/0".parse().expect("cidr")), (0, u32::MAX));
}

#[test]
fn every_ipv4_address_is_judged_as_the_registry_says() {
    let special: Vec<(u32, u32)> = special_v4().into_iter().map(ends).collect();
    let of_table = |&(network, prefix): &([u8; 4], u8)| {
        ends(Cidr { network: Ipv4Addr::from_octets(network).into(), prefix })
    };
    let table: Vec<(u32, u32)> = REFUSED_V4.iter().map(of_table).collect();
    // Where a verdict may change: at the first address of a network and behind its last.
    let mut starts = BTreeSet::from([0]);
    for &(first, last) in special.iter().chain(&table) {
        starts.insert(first);
        starts.extend(last.checked_add(1));
    }
    let ends: Vec<u32> = starts.iter().skip(1).map(|start| start - 1).chain([u32::MAX]).collect();
    let mut compared = 0_u64;
    for (&first, &last) in starts.iter().zip(&ends) {
        let is_special = special.iter().any(|&(from, to)| from <= first && last <= to);
        let expected = if is_special { Verdict::Refused } else { Verdict::Public };
        for bits in [first, first.midpoint(last), last] {
            let address = Ipv4Addr::from_bits(bits);
            assert_eq!(judge(address.into()), expected, "{address}");
        }
        compared += u64::from(last - first) + 1;
    }
    assert_eq!(compared, 1 << 32, "the stretches are all there is");
}

#[test]
fn no_ipv6_address_of_the_registry_is_public() {
    for network in networks(IPV6) {
        let IpAddr::V6(first) = network.network else {
            assert_eq!(network.to_string(), "0.0.0.0/0", "mapped ones are judged as IPv4");
            continue;
        };
        let others = u128::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
        for bits in [0, 1, others / 3, others] {
            let address = Ipv6Addr::from_bits(first.to_bits() | bits);
            assert_eq!(judge(address.into()), Verdict::Refused, "{address} of {network}");
        }
    }
}

proptest! {
    #[test]
    fn a_network_holds_what_lies_between_its_ends(bits: u32, other: u32, prefix in 0_u8..=32) {
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let (first, last) = (bits & !host_bits, bits | host_bits);
        let network = Ipv4Addr::from_bits(first);
        for bits in [first, last, other, first.wrapping_sub(1), last.wrapping_add(1)] {
            let inside = first <= bits && bits <= last;
            prop_assert_eq!(same_v4(Ipv4Addr::from_bits(bits), network, prefix), inside);
        }
    }
}
