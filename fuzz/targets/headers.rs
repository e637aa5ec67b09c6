//! A subscription's own headers: what is accepted arrives as it was given, once each,
//! beside the service's own and nothing else.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use hookward::domain::headers::{HIDDEN, check_headers, hidden, is_credential, merge_hidden};
use hookward::domain::id::SubscriptionKey;
use hookward::egress::SignedRequest;
use hookward_fuzz::{EGRESS, RUNTIME, Receiver, Script};
use libfuzzer_sys::fuzz_target;

const SIGNATURE: &str = "X-Signature";
const CONTENT_TYPE: &str = "application/json";
const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// What egress adds.
const OWN: [&str; 3] = ["host", "accept-encoding", "content-length"];

#[derive(Arbitrary, Debug)]
struct Input {
    headers: BTreeMap<String, String>,
    stored: BTreeMap<String, String>,
}

fuzz_target!(|input: Input| {
    let Input { headers, stored } = input;
    if let Ok(merged) = merge_hidden(headers.clone(), &stored) {
        assert!(merged.keys().eq(headers.keys()), "names stay");
    }
    if check_headers(&headers, &[SIGNATURE], CONTENT_TYPE).is_err() {
        return;
    }
    for (name, shown) in hidden(&headers) {
        assert_eq!(shown == HIDDEN, is_credential(&name));
    }
    // Shown and sent back, they are what they were.
    assert_eq!(merge_hidden(hidden(&headers), &headers).as_ref(), Ok(&headers));
    RUNTIME.block_on(arrive(&headers));
});

async fn arrive(headers: &BTreeMap<String, String>) {
    let script =
        Script { answers: vec![OK.to_vec()], keeps_open: false, patience: Duration::from_secs(10) };
    let receiver = Receiver::start(script).await;
    let own = headers
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let request = SignedRequest {
        subscription: SubscriptionKey(1),
        target: receiver.target(),
        headers: own.collect(),
        body: bytes::Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(10),
    };
    let sent = EGRESS.send(request).await;
    assert!(sent.detail.is_empty(), "{}", sent.detail);
    let requests = receiver.requests();
    let [request] = requests.as_slice() else { panic!("one request: {requests:?}") };
    let mut room = [httparse::EMPTY_HEADER; 64];
    let mut read = httparse::Request::new(&mut room);
    assert!(read.parse(request).expect("HTTP").is_complete());
    let mut seen: Vec<(String, String)> = Vec::new();
    for header in read.headers.iter() {
        let value = std::str::from_utf8(header.value).expect("ASCII");
        if !OWN.contains(&header.name) {
            seen.push((header.name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    assert_eq!(seen.len() + OWN.len(), read.headers.len(), "the service's own, once each");
    seen.sort_unstable();
    let lower = |(name, value): (&String, &String)| (name.to_ascii_lowercase(), value.clone());
    let mut given: Vec<_> = headers.iter().map(lower).collect();
    given.sort_unstable();
    assert_eq!(seen, given);
}
