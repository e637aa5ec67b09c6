//! The JSON check: takes exactly what a strict parser takes, to a depth, in linear time. And
//! the mask, which takes the same, leaves JSON, and finds nothing left to mask.
#![no_main]

use std::time::Duration;

use hookward::domain::json::{DEPTH_MAX, JsonFault, check_json, masked};
use hookward::domain::json_pointer::JsonPointer;
use hookward_fuzz::cpu_time;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

/// What a text is repeated to, and how long that may take: a hundred times what it does.
const LONG: usize = 1 << 20;
const LONG_TIME: Duration = Duration::from_secs(2);

fuzz_target!(|text: &[u8]| {
    let ours = check_json(text);
    if let Err(JsonFault::NotUtf8) = ours {
        assert!(std::str::from_utf8(text).is_err());
        return;
    }
    assert!(std::str::from_utf8(text).is_ok());
    let deepest = deepest(text);
    match ours {
        Ok(()) => assert!(deepest <= DEPTH_MAX as usize, "too deep"),
        Err(JsonFault::TooDeep) => assert!((DEPTH_MAX as usize) < deepest, "not so deep"),
        Err(_) => {}
    }
    if ours != Err(JsonFault::TooDeep) {
        // Skipping a value knows no depth, no numbers and no surrogates.
        let theirs: Result<IgnoredAny, _> = serde_json::from_slice(text);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?}, {theirs:?}");
    }
    mask(text, ours);
    if !text.is_empty() && text.len() <= 64 {
        let long = text.repeat(LONG / text.len());
        let began = cpu_time();
        let _ = check_json(&long);
        let took = cpu_time() - began;
        assert!(took < LONG_TIME, "{took:?}");
    }
});

fn mask(text: &[u8], checked: Result<(), JsonFault>) {
    let pointers =
        ["/a", "/0", "/1/a", "/a/0"].map(|text| JsonPointer::parse(text).expect("is one"));
    match (checked, masked(text, &pointers)) {
        (Ok(()), once) => {
            let once = once.expect("it is JSON");
            assert_eq!(check_json(&once), Ok(()));
            assert_eq!(masked(&once, &pointers).expect("it is JSON"), once);
        }
        (Err(JsonFault::Syntax(_)), once) => assert!(once.is_err(), "not JSON, and masked"),
        (Err(JsonFault::TooDeep | JsonFault::NotUtf8), _) => {}
    }
}

/// Most brackets that are open at once, outside strings.
fn deepest(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
