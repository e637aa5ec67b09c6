//! The address rules against the shared corpus, every range's edges, disguises of
//! IPv4 addresses, and the operator's lists.

use proptest::prelude::*;

use super::*;
use crate::domain::id::OrganizationId;

const CORPUS: &str = include_str!("../../../tests/data/ssrf-corpus.txt");

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_corpus_is_judged_as_it_says() {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut judged = [0, 0];
    for line in lines {
        let (address, why) = line.split_once('|').expect("address|why");
        let public = why == "PUBLIC control";
        let expected = if public { Verdict::Public } else { Verdict::Refused };
        assert_eq!(judge(ip(address)), expected, "{line}");
        judged[usize::from(public)] += 1;
    }
    assert_eq!(judged, [42, 4], "refused and controls in the corpus");
}

#[test]
fn every_ipv4_range_begins_and_ends_where_it_should() {
    let edges = [
        ("0.255.255.255", "1.0.0.0"),
        ("10.0.0.0", "9.255.255.255"),
        ("10.255.255.255", "11.0.0.0"),
        ("100.64.0.0", "100.63.255.255"),
        ("100.127.255.255", "100.128.0.0"),
        ("127.0.0.0", "126.255.255.255"),
        ("127.255.255.255", "128.0.0.0"),
        ("168.63.129.16", "168.63.129.15"),
        ("168.63.129.16", "168.63.129.17"),
        ("169.254.0.0", "169.253.255.255"),
        ("169.254.255.255", "169.255.0.0"),
        ("172.16.0.0", "172.15.255.255"),
        ("172.31.255.255", "172.32.0.0"),
        ("192.0.0.0", "191.255.255.255"),
        ("192.0.0.255", "192.0.1.0"),
        ("192.0.2.0", "192.0.1.255"),
        ("192.0.2.255", "192.0.3.0"),
        ("192.31.196.255", "192.31.197.0"),
        ("192.52.193.0", "192.52.192.255"),
        ("192.52.193.255", "192.52.194.0"),
        ("192.88.99.255", "192.88.100.0"),
        ("192.168.0.0", "192.167.255.255"),
        ("192.168.255.255", "192.169.0.0"),
        ("192.175.48.0", "192.175.47.255"),
        ("192.175.48.255", "192.175.49.0"),
        ("198.18.0.0", "198.17.255.255"),
        ("198.19.255.255", "198.20.0.0"),
        ("198.51.100.0", "198.51.99.255"),
        ("198.51.100.255", "198.51.101.0"),
        ("203.0.113.0", "203.0.112.255"),
        ("203.0.113.255", "203.0.114.0"),
        ("224.0.0.0", "223.255.255.255"),
        ("255.255.255.255", "223.255.255.254"),
    ];
    for (inside, outside) in edges {
        assert_eq!(judge(ip(inside)), Verdict::Refused, "{inside}");
        assert_eq!(judge(ip(outside)), Verdict::Public, "{outside}");
    }
}

#[test]
fn ipv6_is_public_only_in_global_unicast_and_outside_the_list() {
    let refused = [
        "1fff:ffff::1",
        "4000::",
        "5f00::1",
        "ff02::1",
        "64:ff9b:1::1",
        "2001:1ff:ffff::1",
        "2001:db8:ffff::1",
        "2002:808:808::1",
        "2620:4f:8000:ffff::1",
        "3ffe::1",
        "3fff:fff::1",
        "2606:4700::5efe:808:808",
        "2606:4700::200:5efe:808:808",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
    ];
    for address in refused {
        assert_eq!(judge(ip(address)), Verdict::Refused, "{address}");
    }
    let public = ["2000::1", "2001:200::1", "2003::1", "2620:4f:8001::1", "3fff:1000::1"];
    for address in public {
        assert_eq!(judge(ip(address)), Verdict::Public, "{address}");
    }
    assert_eq!(judge(ip("::ffff:8.8.8.8")), Verdict::Public, "the IPv4 address decides");
}

proptest! {
    #[test]
    fn no_disguise_of_an_ipv4_address_is_judged_better_than_the_address(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(judge(v4.to_ipv6_mapped().into()), judge(v4.into()));
        let low = u128::from(bits);
        let disguises = [
            low,
            (0xffff_u128 << 48) | low,
            (0x64_ff9b_u128 << 96) | low,
            (0x2002_u128 << 112) | (low << 80) | 1,
            (0x2001_u128 << 112) | (low << 64),
            (0x2001_u128 << 112) | u128::from(!bits),
            (0x2606_4700_u128 << 96) | (0x5efe_u128 << 32) | low,
            (0x2606_4700_u128 << 96) | (0x0200_5efe_u128 << 32) | low,
        ];
        for disguise in disguises {
            prop_assert_eq!(judge(Ipv6Addr::from_bits(disguise).into()), Verdict::Refused);
        }
    }

    #[test]
    fn ipv6_judged_public_is_global_unicast(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits);
        if judge(v6.into()) == Verdict::Public && v6.to_ipv4_mapped().is_none() {
            prop_assert_eq!(bits >> 125, 1);
        }
    }

    #[test]
    fn reading_an_allow_entry_never_panics(text in "[0-9a-f.:/,@\\[\\]-]{0,40}") {
        drop(text.parse::<EgressAllow>());
    }
}

#[test]
fn allow_entries_are_read_as_written() {
    let cases: [(&str, &str, &[u16], &[u16]); 10] = [
        ("10.0.0.0/8", "10.1.2.3", &[1, 443, 65535], &[]),
        ("127.0.0.1", "127.0.0.1", &[1, 9000], &[]),
        ("127.0.0.1:9000", "127.0.0.1", &[9000], &[443, 9001]),
        ("127.0.0.1/32:8080,9000-9100", "127.0.0.1", &[8080, 9000, 9100], &[8081, 9101]),
        ("::1", "::1", &[443], &[]),
        ("fd00::/8", "fd12::1", &[443], &[]),
        ("[::1]:443", "::1", &[443], &[80]),
        ("[fd00::]/8:443", "fdff::9", &[443], &[444]),
        ("::1/128:443", "::1", &[443], &[80]),
        ("::ffff:10.0.0.0/104", "10.1.1.1", &[443], &[]),
    ];
    for (text, address, open, closed) in cases {
        let entry: EgressAllow = text.parse().expect(text);
        assert!(open.iter().all(|&port| entry.opens(ip(address), port)), "{text}");
        assert!(closed.iter().all(|&port| !entry.opens(ip(address), port)), "{text}");
        assert!(!entry.opens(ip("9.9.9.9"), 443), "{text}");
    }
}

#[test]
fn what_is_no_allow_entry_is_refused_with_the_reason() {
    let cases = [
        ("", CidrError::Address),
        ("localhost", CidrError::Address),
        ("10.0.0/8", CidrError::Address),
        ("010.0.0.1", CidrError::Address),
        ("[10.0.0.1]:443", CidrError::Address),
        ("[::1:443", CidrError::Address),
        ("10.0.0.0/33", CidrError::Prefix),
        ("10.0.0.0/", CidrError::Prefix),
        ("10.0.0.0/+8", CidrError::Prefix),
        ("::/129", CidrError::Prefix),
        ("[::1]443", CidrError::Prefix),
        ("10.0.0.1/8", CidrError::HostBits),
        ("::ffff:0:0/95", CidrError::HostBits),
        ("127.0.0.1:", CidrError::Ports),
        ("127.0.0.1:0", CidrError::Ports),
        ("127.0.0.1:65536", CidrError::Ports),
        ("127.0.0.1:9-8", CidrError::Ports),
        ("127.0.0.1:80,,81", CidrError::Ports),
        ("127.0.0.1:+80", CidrError::Ports),
        ("127.0.0.1@", CidrError::Organization),
        ("127.0.0.1@a b", CidrError::Organization),
        ("127.0.0.1@a@b", CidrError::Organization),
        ("@a", CidrError::Address),
        ("127.0.0.1:@a", CidrError::Ports),
    ];
    for (text, why) in cases {
        assert_eq!(text.parse::<EgressAllow>(), Err(why), "{text}");
    }
}

#[test]
fn deny_wins_over_allow_and_allow_over_the_table() {
    let policy = AddressPolicy {
        allow: vec!["10.0.0.0/8:9000".parse().expect("entry")],
        deny: vec!["10.9.0.0/16".parse().expect("cidr"), "8.8.4.4".parse().expect("cidr")],
        ..AddressPolicy::default()
    };
    let rules = policy.rules(None);
    let cases = [
        ("8.8.8.8", 443, true, false),
        ("8.8.8.8", 8443, true, false),
        ("8.8.8.8", 80, false, false),
        ("8.8.8.8", 9000, false, false),
        ("8.8.4.4", 443, false, false),
        ("10.1.1.1", 9000, true, true),
        ("::ffff:10.1.1.1", 9000, true, true),
        ("10.1.1.1", 443, false, false),
        ("10.9.1.1", 9000, false, false),
        ("::ffff:10.9.1.1", 9000, false, false),
        ("127.0.0.1", 443, false, false),
    ];
    for (address, port, https, http) in cases {
        assert_eq!(rules.permits(ip(address), port), https, "{address} {port}");
        assert_eq!(rules.permits_http(ip(address), port), http, "http {address} {port}");
    }
    assert!(rules.permits_port(9000) && !rules.permits_port(9001) && !rules.permits_port(0));
    assert!(rules.refuses(ip("10.9.1.1"), 1) && !rules.refuses(ip("10.1.1.1"), 1));
}

#[test]
fn an_entry_for_an_organization_is_for_no_other() {
    let entries = ["10.0.0.0/8@clinic-7", "[fd00::]/8:443@clinic-7", "192.168.0.0/16:9000"];
    let policy = AddressPolicy {
        allow: entries.map(|entry| entry.parse().expect("entry")).into(),
        deny: vec!["10.9.0.0/16".parse().expect("cidr")],
        ..AddressPolicy::default()
    };
    let [clinic, other] = ["clinic-7", "clinic-77"].map(OrganizationId::stored);
    let cases = [
        ("10.1.1.1", 80, true, false),
        ("fd00::1", 443, true, false),
        ("fd00::1", 80, false, false),
        ("192.168.1.1", 9000, true, true),
        ("10.9.1.1", 80, false, false),
    ];
    for (address, port, own, others) in cases {
        let permitted = |who| policy.rules(who).permits_http(ip(address), port);
        assert_eq!(permitted(Some(&clinic)), own, "{address} {port}");
        assert_eq!(permitted(Some(&other)), others, "{address} {port}");
        assert_eq!(permitted(None), others, "{address} {port}");
    }
    assert!(policy.rules(Some(&clinic)).permits_port(1), "some entry of theirs is for any port");
    assert!(!policy.rules(Some(&other)).permits_port(1));
    assert!(policy.rules(Some(&other)).refuses(ip("10.1.1.1"), 1));
    assert!(!policy.rules(Some(&clinic)).refuses(ip("10.1.1.1"), 1));
}

#[test]
fn the_deployments_own_addresses_are_refused_and_its_services_closed() {
    let policy = AddressPolicy {
        allow: vec!["127.0.0.1".parse().expect("entry"), "9.9.9.9".parse().expect("entry")],
        own: vec![ip("127.0.0.1"), ip("203.1.113.7"), ip("2606:4700::7")],
        services: ["9.9.9.9:53", "9.8.7.6:5432", "127.0.0.1:50051", "203.1.113.7:8080"]
            .map(|service| service.parse().expect("an address"))
            .into(),
        ..AddressPolicy::default()
    };
    let rules = policy.rules(None);
    let cases = [
        // This machine: refused like private addresses, unless opened.
        ("203.1.113.7", 443, false),
        ("::ffff:203.1.113.7", 443, false),
        ("2606:4700::7", 443, false),
        ("203.1.113.8", 443, true),
        ("127.0.0.1", 443, true),
        // Services: opened at other ports only.
        ("9.8.7.6", 443, false),
        ("9.9.9.9", 443, true),
        ("9.9.9.9", 53, false),
        ("127.0.0.1", 50051, false),
        ("127.0.0.1", 8080, false),
        ("127.0.0.1", 8081, true),
    ];
    for (address, port, permitted) in cases {
        assert_eq!(rules.permits(ip(address), port), permitted, "{address} {port}");
        assert_eq!(rules.refuses(ip(address), port), !permitted, "{address} {port}");
    }
    assert!(!rules.permits_http(ip("127.0.0.1"), 50051));
}

#[test]
fn port_0_is_never_permitted() {
    let allow = vec!["0.0.0.0/0".parse().expect("entry")];
    let policy = AddressPolicy { allow, ..AddressPolicy::default() };
    let rules = policy.rules(None);
    assert!(rules.permits(ip("10.0.0.1"), 1));
    assert!(!rules.permits(ip("10.0.0.1"), 0));
    assert!(!rules.permits_port(0));
}
