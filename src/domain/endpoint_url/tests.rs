//! The URL rules: what is canonical, what is refused and with which reason.

use proptest::prelude::*;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::id::OrganizationId;

fn reason(text: &str, policy: &AddressPolicy) -> &'static str {
    match EndpointUrl::parse(text, policy.rules(None)) {
        Ok(url) => panic!("{text} was accepted as {}", url.as_str()),
        Err(invalid) => {
            assert_eq!(invalid.field, "url");
            invalid.reason
        }
    }
}

fn opened(entries: &[&str]) -> AddressPolicy {
    let allow = entries.iter().map(|entry| entry.parse().expect("an allow entry")).collect();
    AddressPolicy { allow, ..AddressPolicy::default() }
}

#[test]
fn good_urls_become_canonical_and_stay_so() {
    let cases = [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM./a?b=c", "https://example.com/a?b=c"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("https://example.com:8443", "https://example.com:8443/"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://example.com/a/../b/%2e/c", "https://example.com/b/c"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        ("https://example。com/", "https://example.com/"),
        ("https://tag---service.a.run.app/", "https://tag---service.a.run.app/"),
        ("https://8.8.8.8/hook", "https://8.8.8.8/hook"),
        ("https://[2606:4700:4700:0::1111]/", "https://[2606:4700:4700::1111]/"),
        ("https://[::FFFF:8.8.8.8]/", "https://[::ffff:808:808]/"),
        ("https://example.com/@x:y%20z;p?q=/?", "https://example.com/@x:y%20z;p?q=/?"),
        ("https://svc.example.com/", "https://svc.example.com/"),
    ];
    for (text, expected) in cases {
        let url = EndpointUrl::parse(text, AddressPolicy::default().rules(None)).expect(text);
        assert_eq!(url.as_str(), expected, "{text}");
        assert_eq!(EndpointUrl::stored(expected), Ok(url), "{text}");
    }
}

#[test]
fn the_parts_are_those_of_the_canonical_form() {
    let policy = AddressPolicy::default();
    let url = EndpointUrl::parse("https://Example.com:8443/a?b", policy.rules(None));
    let url = url.expect("valid");
    assert_eq!(url.scheme(), Scheme::Https);
    assert_eq!(*url.host(), Host::Name("example.com".to_owned()));
    assert_eq!(url.port(), 8443);
    assert_eq!(url.host_header(), "example.com:8443");
    assert_eq!(url.path_and_query(), "/a?b");
    assert_eq!(format!("{url:?}"), "EndpointUrl(https://example.com:8443…)");
}

#[test]
fn what_a_parser_would_mend_is_refused() {
    let cases = [
        ("", "URL_SYNTAX"),
        ("example.com/hook", "URL_SYNTAX"),
        ("//example.com/", "URL_SYNTAX"),
        ("/a:b", "URL_SYNTAX"),
        ("https:example.com", "URL_SYNTAX"),
        ("https:127.0.0.1/", "URL_SYNTAX"),
        ("https:/example.com/", "URL_SYNTAX"),
        ("https:\\\\127.0.0.1/", "URL_SYNTAX"),
        ("https://example.com\\@127.0.0.1/", "URL_SYNTAX"),
        ("https://exa\nmple.com/", "URL_SYNTAX"),
        ("https://exa\tmple.com/", "URL_SYNTAX"),
        (" https://example.com/", "URL_SYNTAX"),
        ("https://example.com/a b", "URL_SYNTAX"),
        ("https://example.com/é", "URL_SYNTAX"),
        ("https://example.com/#f", "URL_SYNTAX"),
        ("https://example.com/%0d%0aX: y", "URL_SYNTAX"),
        ("https://example.com/%0D", "URL_SYNTAX"),
        ("https://example.com/?a=%00", "URL_SYNTAX"),
    ];
    for (text, expected) in cases {
        assert_eq!(reason(text, &AddressPolicy::default()), expected, "{text:?}");
    }
    let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
    assert_eq!(reason(&long, &AddressPolicy::default()), "URL_SYNTAX");
}

#[test]
fn bad_schemes_hosts_ports_and_addresses_are_refused_with_the_reason() {
    let cases = [
        ("ftp://example.com/", "URL_SCHEME"),
        ("http://example.com/", "URL_SCHEME"),
        ("http://127.0.0.1:9000/", "URL_SCHEME"),
        ("http://localhost:9000/", "URL_SCHEME"),
        ("javascript:alert(1)", "URL_SCHEME"),
        ("https://user@example.com/", "URL_USERINFO"),
        ("https://user:pass@example.com/", "URL_USERINFO"),
        ("https://@example.com/", "URL_USERINFO"),
        ("https://", "URL_HOST"),
        ("https:///path", "URL_HOST"),
        ("https://:443/", "URL_HOST"),
        ("https://./", "URL_HOST"),
        ("https://a..example/", "URL_HOST"),
        ("https://example.com../", "URL_HOST"),
        ("https://-a.example/", "URL_HOST"),
        ("https://a-.example/", "URL_HOST"),
        ("https://a_b.example/", "URL_HOST"),
        ("https://exa%6dple.com/", "URL_HOST"),
        ("https://%31%32%37.0.0.1/", "URL_HOST"),
        ("https://2130706433/", "URL_HOST"),
        ("https://0x7f.1/", "URL_HOST"),
        ("https://0177.0.0.1/", "URL_HOST"),
        ("https://127.1/", "URL_HOST"),
        ("https://8.8.8.8./", "URL_HOST"),
        ("https://8.8.8.08/", "URL_HOST"),
        ("https://１２７.0.0.1/", "URL_HOST"),
        ("https://8。8。8。8/", "URL_HOST"),
        ("https://example.0x1/", "URL_HOST"),
        ("https://[::1%25eth0]/", "URL_HOST"),
        ("https://[fe80::1%eth0]/", "URL_HOST"),
        ("https://[::1/", "URL_HOST"),
        ("https://[::1]x/", "URL_HOST"),
        ("https://[127.0.0.1]/", "URL_HOST"),
        ("https://xn--a.example/", "URL_HOST"),
        ("https://example.com:/", "URL_PORT"),
        ("https://example.com:0/", "URL_PORT"),
        ("https://example.com:65536/", "URL_PORT"),
        ("https://example.com:+443/", "URL_PORT"),
        ("https://example.com:0443/", "URL_PORT"),
        ("https://example.com:22/", "URL_PORT"),
        ("https://8.8.8.8:22/", "URL_PORT"),
        ("https://a:443:443/", "URL_PORT"),
        ("https://127.0.0.1/", "URL_BLOCKED_ADDRESS"),
        ("https://127.0.0.1:9000/", "URL_BLOCKED_ADDRESS"),
        ("https://169.254.169.254/latest/meta-data/", "URL_BLOCKED_ADDRESS"),
        ("https://canary.hookward.invalid/", "URL_BLOCKED_ADDRESS"),
        ("https://[::1]/", "URL_BLOCKED_ADDRESS"),
        ("https://[::ffff:127.0.0.1]/", "URL_BLOCKED_ADDRESS"),
        ("https://[64:ff9b::a9fe:a9fe]/", "URL_BLOCKED_ADDRESS"),
    ];
    for (text, expected) in cases {
        assert_eq!(reason(text, &AddressPolicy::default()), expected, "{text:?}");
    }
    let label = format!("https://{}.example/", "a".repeat(64));
    assert_eq!(reason(&label, &AddressPolicy::default()), "URL_HOST");
}

#[test]
fn names_of_this_machine_network_or_cluster_are_refused() {
    let names = [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "printer.local",
        "metadata.google.internal",
        "wiki.intranet",
        "nas.home.arpa",
        "home.arpa",
        "hookward.default.svc",
        "hookward.default.svc.example.com",
        "kubernetes.default.svc.cluster.local",
        "a.cluster.local",
        "instance-data",
        "kubernetes",
        "localhost.localdomain",
        "metadata",
        "metadata.goog",
        "METADATA.GOOG.",
        "metadata.tencentyun.com",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
        // What UTS 46 makes of other spellings: full width, circled, with a soft hyphen
        // that it drops, with the full stops of other scripts.
        "ｌｏｃａｌｈｏｓｔ",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "local\u{ad}host",
        "a。localhost",
        "metadata．google．internal",
        "kubernetes｡default｡ｓｖｃ",
    ];
    for name in names {
        let url = format!("https://{name}/");
        assert_eq!(reason(&url, &AddressPolicy::default()), "URL_BLOCKED_ADDRESS", "{name}");
    }
}

#[test]
fn international_names_keep_the_rules_of_uts_46() {
    let canonical = |name: &str| {
        let url = format!("https://{name}.example/");
        let url = EndpointUrl::parse(&url, AddressPolicy::default().rules(None));
        let url = url.map_err(|invalid| invalid.reason)?;
        let name = url.as_str().trim_start_matches("https://");
        Ok::<_, &str>(name.trim_end_matches(".example/").to_owned())
    };
    let good = [
        ("BÜCHER", "xn--bcher-kva"),
        // Composed and decomposed are one name.
        ("bu\u{308}cher", "xn--bcher-kva"),
        ("xn--bcher-kva", "xn--bcher-kva"),
        ("XN--BCHER-KVA", "xn--bcher-kva"),
        // Not transitional: they are not "fass" and "βολοσ".
        ("faß", "xn--fa-hia"),
        ("βόλος", "xn--nxasmm1c"),
        // A joiner where the script needs it.
        ("ශ්\u{200d}රී", "xn--10cl1a0b660p"),
        ("בגד", "xn--5dbcd"),
    ];
    for (name, expected) in good {
        assert_eq!(canonical(name).as_deref(), Ok(expected), "{name}");
    }
    let bad = [
        // Joiners where none belongs, and a letter of either direction beside the other's.
        "a\u{200d}b",
        "a\u{200c}b",
        "a\u{5d0}",
        "\u{5d0}1a",
        // STD3 beyond ASCII too: a full-width low line, a slash that another one becomes.
        "a＿b",
        "a／b",
        "a？b",
        "a＠b",
        "a：443",
        // Not assigned, a mark at the start, hyphens at third and fourth place.
        "a\u{378}b",
        "\u{301}a",
        "ab--ü",
        "-ü",
        // Punycode that no name makes.
        "xn--",
        "xn--ü",
        "xn--bücher",
        "xn--bcher-kv",
        "xn--abc-",
    ];
    for name in bad {
        assert_eq!(canonical(name), Err("URL_HOST"), "{name:?}");
    }
    let long = "ü".repeat(60);
    assert_eq!(canonical(&long), Err("URL_HOST"), "an A-label of more than 63");
}

#[test]
fn the_operator_opens_addresses_ports_and_http() {
    let policy = opened(&["127.0.0.1:9000", "10.0.0.0/8:443"]);
    for text in [
        "http://127.0.0.1:9000/hook",
        "https://127.0.0.1:9000/",
        "http://localhost:9000/",
        "https://localhost:9000/",
        "https://10.1.2.3/",
        "https://example.com:9000/",
    ] {
        EndpointUrl::parse(text, policy.rules(None)).expect(text);
    }
    assert_eq!(reason("http://example.com:9000/", &policy), "URL_SCHEME");
    assert_eq!(reason("http://127.0.0.1/", &policy), "URL_SCHEME");
    assert_eq!(reason("http://localhost:9001/", &policy), "URL_SCHEME");
    assert_eq!(reason("https://localhost/", &policy), "URL_BLOCKED_ADDRESS");
    assert_eq!(reason("https://a.localhost:9000/", &policy), "URL_BLOCKED_ADDRESS");
    assert_eq!(reason("https://10.1.2.3:9000/", &policy), "URL_PORT");
    assert_eq!(reason("https://127.0.0.2:9000/", &policy), "URL_BLOCKED_ADDRESS");

    let mut denying = opened(&["127.0.0.1"]);
    denying.deny.push("127.0.0.0/8".parse().expect("cidr"));
    assert_eq!(reason("https://127.0.0.1:9000/", &denying), "URL_BLOCKED_ADDRESS");
    assert_eq!(reason("http://localhost:9000/", &denying), "URL_SCHEME");
}

#[test]
fn an_entry_for_one_organization_opens_nothing_to_others() {
    let policy = opened(&["10.0.0.0/8:9000@clinic-7"]);
    let [clinic, other] = ["clinic-7", "clinic-77"].map(OrganizationId::stored);
    let parse = |text, organization| {
        EndpointUrl::parse(text, policy.rules(organization)).map_err(|invalid| invalid.reason)
    };
    assert!(parse("http://10.1.2.3:9000/", Some(&clinic)).is_ok());
    for stranger in [Some(&other), None] {
        assert_eq!(parse("http://10.1.2.3:9000/", stranger), Err("URL_SCHEME"));
        assert_eq!(parse("https://10.1.2.3:9000/", stranger), Err("URL_BLOCKED_ADDRESS"));
        assert_eq!(parse("https://example.com:9000/", stranger), Err("URL_PORT"));
    }
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_accepted_again_unchanged(
        text in "https?://[a-zA-Z0-9.\\[\\]:%@é_-]{1,24}[/?]?[ -~]{0,16}",
    ) {
        if let Ok(url) = EndpointUrl::stored(&text) {
            let again = EndpointUrl::stored(url.as_str());
            prop_assert_eq!(again, Ok(url));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        drop(EndpointUrl::stored(&text));
        drop(EndpointUrl::stored(&format!("https://{text}")));
    }
}
