//! Receivers' URLs: nothing panics, the canonical form is canonical, and three parsers
//! agree on where a request goes.
#![no_main]

use std::net::IpAddr;

use hookward::domain::address::AddressPolicy;
use hookward::domain::endpoint_url::{EndpointUrl, Host, URL_BYTES_MAX};
use hookward::egress::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Whatever is allowed, nothing panics.
    let policy = AddressPolicy::default();
    let judged = EndpointUrl::parse(text, policy.rules(None));
    let Ok(url) = EndpointUrl::stored(text) else {
        assert!(judged.is_err(), "taken although it is no URL");
        return;
    };
    let canonical = url.as_str();
    assert!(canonical.len() <= URL_BYTES_MAX);
    assert_eq!(EndpointUrl::stored(canonical).as_ref(), Ok(&url), "idempotent");
    if let Ok(judged) = &judged {
        assert_eq!(judged, &url);
        if let Host::Ip(address) = url.host() {
            assert!(policy.rules(None).permits(*address, url.port()));
        }
    }
    Target::new(&url).expect("what is stored can be called");
    agrees_with_whatwg(&url);
    agrees_with_http(&url);
    ignores_case_and_dot(&url);
});

/// The parser that browsers' rules describe reads the canonical form alike.
fn agrees_with_whatwg(url: &EndpointUrl) {
    let other = url::Url::parse(url.as_str()).expect("a URL for others too");
    assert_eq!(other.scheme(), url.scheme().as_str());
    assert_eq!(other.port_or_known_default(), Some(url.port()));
    assert_eq!((other.username(), other.password(), other.fragment()), ("", None, None));
    match (url.host(), other.host()) {
        (Host::Name(ours), Some(url::Host::Domain(theirs))) => assert_eq!(ours, theirs),
        (Host::Ip(IpAddr::V4(ours)), Some(url::Host::Ipv4(theirs))) => assert_eq!(*ours, theirs),
        (Host::Ip(IpAddr::V6(ours)), Some(url::Host::Ipv6(theirs))) => assert_eq!(*ours, theirs),
        (ours, theirs) => panic!("{ours:?} here, {theirs:?} there"),
    }
}

/// So does the one that writes the request.
fn agrees_with_http(url: &EndpointUrl) {
    let other: http::Uri = url.as_str().parse().expect("a URI for the client too");
    assert_eq!(other.scheme_str(), Some(url.scheme().as_str()));
    assert_eq!(other.authority().map(http::uri::Authority::as_str), Some(url.host_header()));
    let path = other.path_and_query().expect("a path").as_str();
    assert_eq!(path, url.path_and_query());
}

/// Another spelling of the same host is the same host.
fn ignores_case_and_dot(url: &EndpointUrl) {
    let Host::Name(name) = url.host() else { return };
    let (scheme, rest) = url.as_str().split_once("://").expect("it is absolute");
    let after = rest.strip_prefix(name.as_str()).expect("the host comes first");
    let louder = format!("{}://{}{after}", scheme.to_uppercase(), name.to_ascii_uppercase());
    assert_eq!(EndpointUrl::stored(&louder).as_ref(), Ok(url));
    let dotted = format!("{scheme}://{name}.{after}");
    if let Ok(dotted) = EndpointUrl::stored(&dotted) {
        assert_eq!(&dotted, url);
    } else {
        assert!(URL_BYTES_MAX <= url.as_str().len(), "refused for its length only");
    }
}
