//! The file that tells callers apart: any text is refused with words for each fault, or says
//! of whom it speaks, and for what, without a doubt.
#![no_main]

use std::collections::BTreeSet;

use hookward::config::AuthFile;
use hookward::credentials::{CertificateName, Certificates};
use hookward::domain::principal::{Organizations, Principal};
use hookward::domain::scope::Scopes;
use libfuzzer_sys::fuzz_target;

/// Keys whose values are read as files: not those of whoever fuzzes.
const FILES: [&str; 2] = ["jwks_file", "jwks_ca"];

fuzz_target!(|text: &str| {
    // With a backslash they could be spelled otherwise.
    if FILES.iter().any(|key| text.contains(key)) || text.contains(['\\', '\u{feff}']) {
        return;
    }
    let file = match AuthFile::read(text) {
        Ok(file) => file,
        Err(wrong) => {
            assert!(!wrong.is_empty(), "refused without a word");
            assert!(wrong.iter().all(|why| !why.is_empty()));
            return;
        }
    };
    let mut names = BTreeSet::new();
    for (name, principal) in &file.certificates {
        let text = match name {
            CertificateName::Dns(name) => {
                let plain =
                    |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
                assert!(name.len() <= 253 && name.bytes().all(plain), "{name}");
                assert!(name.split('.').all(|label| !label.is_empty()), "{name}");
                name
            }
            CertificateName::Uri(name) => {
                assert!(name.contains("://"), "{name}");
                name
            }
        };
        assert!(names.insert(text.clone()), "{text} is there twice");
        judge(principal);
    }
    for issuer in &file.issuers {
        let rules = &issuer.rules;
        assert!(names.insert(rules.issuer.clone()), "{} is there twice", rules.issuer);
        assert!(!rules.algorithms.is_empty());
        for text in
            [&rules.issuer, &rules.audience, &rules.organizations_claim, &rules.scopes_claim]
        {
            assert!(!text.trim().is_empty());
        }
    }
    let shown = format!("{file:?}");
    let again = AuthFile::read(&format!("# A comment changes nothing.\n{text}\n"));
    assert_eq!(format!("{:?}", again.expect("it was right")), shown);
    assert_eq!(Certificates::new(file.certificates).is_empty(), shown.starts_with(EMPTY));
});

/// How a file without certificates shows itself.
const EMPTY: &str = "AuthFile { certificates: [], ";

/// Nobody is written down for nothing, nor for organizations that there cannot be.
fn judge(principal: &Principal) {
    assert!(principal.scopes != Scopes::default(), "{principal:?}");
    if let Organizations::Some(these) = &principal.organizations {
        assert!(!these.is_empty(), "{principal:?}");
        for organization in these {
            let name = organization.as_str();
            assert!((1..=64).contains(&name.len()) && name.is_ascii(), "{name}");
        }
    }
}
