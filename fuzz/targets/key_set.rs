//! What an issuer of tokens publishes: any bytes are refused or are a set of keys, each for
//! one algorithm and one that the document lists, and whatever is signed by nobody is judged
//! without a panic.
#![no_main]

use hookward::domain::jwk::{Algorithm, KEYS_MAX, KeySet};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The members that make a key, by its kind (RFC 7518, 6).
const MEMBERS: [(&str, &[&str]); 3] =
    [("EC", &["crv", "x", "y"]), ("OKP", &["crv", "x"]), ("RSA", &["n", "e"])];

fuzz_target!(|document: &[u8]| {
    let Ok(keys) = KeySet::parse(document) else { return };
    let value: Value = serde_json::from_slice(document).expect("a set is JSON");
    let listed = value["keys"].as_array().expect("a set has its list");
    assert!(listed.len() <= KEYS_MAX);
    let mut found = 0;
    for jwk in listed {
        let Some(kid) = jwk["kid"].as_str() else { continue };
        for algorithm in Algorithm::ALL {
            let Some(key) = keys.get(kid, algorithm) else { continue };
            found += 1;
            assert!(!kid.is_empty());
            assert_eq!(key.algorithm(), algorithm);
            // Keys that nobody made may take signatures that nobody made.
            let _ = key.verifies(document, document);
            let _ = key.verifies(b"", &[0; 64]);
            let _ = key.verifies(b"", &[0; 256]);
        }
    }
    assert_eq!(0 < found, !keys.is_empty(), "every key is one of the list");
    if found == 1 && listed.len() == 1 {
        let kind = listed[0]["kty"].as_str().expect("it is known by its kind");
        let (_, members) = MEMBERS.iter().find(|(name, _)| *name == kind).expect("a kind");
        for member in *members {
            assert!(listed[0][*member].is_string(), "{kind} without {member}");
        }
    }
});
