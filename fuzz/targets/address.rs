//! Which addresses may be called: an IPv4 address that may not is no better in an IPv6
//! address that reaches it, and nothing is public outside of the global unicast range.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::Arbitrary;
use hookward::domain::address::{AddressPolicy, Cidr, DEFAULT_PORTS, Verdict, judge};
use libfuzzer_sys::fuzz_target;

/// Lengths of translators' prefixes, in bits, and which octets then hold the IPv4 address
/// (RFC 6052, 2.2).
const NAT64: [(u8, [usize; 4]); 6] = [
    (32, [4, 5, 6, 7]),
    (40, [5, 6, 7, 9]),
    (48, [6, 7, 9, 10]),
    (56, [7, 9, 10, 11]),
    (64, [9, 10, 11, 12]),
    (96, [12, 13, 14, 15]),
];

#[derive(Arbitrary, Debug)]
struct Input {
    v4: [u8; 4],
    v6: [u8; 16],
    /// Of a network that the operator closes.
    prefix: u8,
    /// Most are closed everywhere.
    usual_port: bool,
    port: u16,
}

fuzz_target!(|input: Input| {
    let v4 = Ipv4Addr::from(input.v4);
    let v6 = Ipv6Addr::from(input.v6);
    in_disguise(v4, input.v6);
    behind_a_translator(v4, input.v6);
    if judge(v6.into()) == Verdict::Public && v6.to_ipv4_mapped().is_none() {
        assert_eq!(v6.octets()[0] >> 5, 1, "{v6} is outside of 2000::/3");
    }
    let port = if input.usual_port { DEFAULT_PORTS[0] } else { input.port };
    for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
        by_default(address, port);
        closed(address, input.prefix, port);
    }
});

/// Every form that carries an IPv4 address by itself.
fn in_disguise(v4: Ipv4Addr, other: [u8; 16]) {
    let put = |mut octets: [u8; 16], at: usize| {
        octets[at..at + 4].copy_from_slice(&v4.octets());
        Ipv6Addr::from(octets)
    };
    let starting = |start: &[u8], mut octets: [u8; 16]| {
        octets[..start.len()].copy_from_slice(start);
        octets
    };
    let inverted = Ipv4Addr::from_bits(!v4.to_bits()).octets();
    let mut client = starting(&[0x20, 1, 0, 0], other);
    client[12..].copy_from_slice(&inverted);
    let isatap = |local: u8| {
        let mut octets = other;
        octets[8..12].copy_from_slice(&[local, 0, 0x5e, 0xfe]);
        put(octets, 12)
    };
    // Refused whatever they carry: nobody needs them.
    let always = [
        ("compatible", put([0; 16], 12)),
        ("SIIT", put(starting(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], [0; 16]), 12)),
        ("NAT64", put(starting(&[0, 0x64, 0xff, 0x9b], [0; 16]), 12)),
        ("local NAT64", put(starting(&[0, 0x64, 0xff, 0x9b, 0, 1], other), 12)),
        ("6to4", put(starting(&[0x20, 2], other), 2)),
        ("Teredo's server", put(starting(&[0x20, 1, 0, 0], other), 4)),
        ("Teredo's client", Ipv6Addr::from(client)),
        ("ISATAP", isatap(0)),
        ("ISATAP", isatap(2)),
    ];
    for (form, address) in always {
        assert_eq!(judge(address.into()), Verdict::Refused, "{form}: {address}");
    }
    assert_eq!(judge(v4.to_ipv6_mapped().into()), judge(v4.into()), "mapped: {v4}");
}

/// Each kind of prefix that an operator can name.
fn behind_a_translator(v4: Ipv4Addr, other: [u8; 16]) {
    for (length, places) in NAT64 {
        let start = usize::from(length / 8);
        let mut octets = [0; 16];
        octets[..start].copy_from_slice(&other[..start]);
        octets[8] = 0;
        // Else the prefix is in the table of IPv4.
        octets[0] = octets[0].max(1);
        let prefix = format!("{}/{length}", Ipv6Addr::from(octets));
        for (place, octet) in places.into_iter().zip(v4.octets()) {
            octets[place] = octet;
        }
        let nat64 = vec![prefix.parse().unwrap_or_else(|error| panic!("{prefix}: {error}"))];
        let policy = AddressPolicy { nat64, ..AddressPolicy::default() };
        let rules = policy.rules(None);
        let address = Ipv6Addr::from(octets);
        assert_eq!(rules.permits(address.into(), 443), rules.permits(v4.into(), 443), "{address}");
        octets[8] = 1;
        let unclear = Ipv6Addr::from(octets);
        assert!(length == 96 || !rules.permits(unclear.into(), 443), "{unclear}");
    }
}

/// Without anything from the operator the table and two ports count.
fn by_default(address: IpAddr, port: u16) {
    let policy = AddressPolicy::default();
    let public = judge(address) == Verdict::Public;
    let permitted = policy.rules(None).permits(address, port);
    assert_eq!(permitted, public && DEFAULT_PORTS.contains(&port), "{address} {port}");
    assert!(!policy.rules(None).permits_http(address, port), "{address} {port}");
}

/// What is closed is closed, however wide it is opened.
fn closed(address: IpAddr, prefix: u8, port: u16) {
    let (network, prefix) = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let prefix = prefix % 33;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::from(Ipv4Addr::from_bits(v4.to_bits() & mask)), prefix)
        }
        IpAddr::V6(v6) => {
            let prefix = prefix % 129;
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::from(Ipv6Addr::from_bits(v6.to_bits() & mask)), prefix)
        }
    };
    let text = format!("{network}/{prefix}");
    let network = text.parse::<Cidr>().unwrap_or_else(|error| panic!("{text}: {error}"));
    let allow = ["0.0.0.0/0", "[::]/0"].map(|all| all.parse().expect("a network")).into();
    let policy = AddressPolicy { allow, deny: vec![network], ..AddressPolicy::default() };
    assert!(!policy.rules(None).permits(address, port), "{text}");
    assert!(!policy.rules(None).permits_http(address, port), "{text}");
}
