//! Texts that must turn up nowhere but where they belong, in whatever spelling.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::signature::hex;

/// A text that nobody has seen before.
pub(crate) struct Canary {
    text: String,
    /// How it could be written: as it is, in hexadecimal, in base64 wherever a longer text
    /// begins, and as the numbers by which Rust shows bytes.
    spellings: Vec<String>,
}

impl Canary {
    /// One that tells by its name where it was put in.
    pub(crate) fn new(name: &str) -> Canary {
        let text = format!("Canary-{name}-{:016x}", fastrand::u64(..));
        let bytes = text.as_bytes();
        let hex = hex(bytes);
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut spellings = vec![text.clone(), hex.to_uppercase(), hex, numbers.join(", ")];
        for shift in 0..3 {
            spellings.extend(base64_behind(shift, bytes));
        }
        Canary { text, spellings }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is in there, in any spelling.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        // What is not text is replaced; a canary is, in every spelling.
        let text = String::from_utf8_lossy(bytes);
        self.spellings.iter().any(|spelling| text.contains(spelling))
    }
}

/// The characters of base64 that say nothing but `bytes`, when so many others come before
/// them, and any after them.
fn base64_behind(shift: usize, bytes: &[u8]) -> [String; 2] {
    let longer = [&vec![0; shift][..], bytes].concat();
    let whole = (8 * shift).div_ceil(6)..8 * longer.len() / 6;
    [STANDARD_NO_PAD.encode(&longer), URL_SAFE_NO_PAD.encode(&longer)]
        .map(|text| text[whole.clone()].to_owned())
}

/// Panics when one of `canaries` is in `bytes`, naming the place.
pub(crate) fn assert_absent(canaries: &[&Canary], place: &str, bytes: &[u8]) {
    for canary in canaries {
        assert!(!canary.is_in(bytes), "{} in {place}", canary.text);
    }
}

/// Every file in a folder and below it, with what it holds.
pub(crate) fn files_in(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is ours") {
        let path = entry.expect("the folder is ours").path();
        if path.is_dir() {
            found.extend(files_in(&path));
        } else {
            // One that has gone meanwhile holds nothing.
            let bytes = fs::read(&path).unwrap_or_default();
            found.push((path, bytes));
        }
    }
    found
}

/// A search that finds nothing proves something only if it finds what is there.
#[test]
fn a_canary_is_found_in_every_spelling_and_not_where_it_is_not() {
    let canary = Canary::new("test");
    let text = canary.text();
    let other = Canary::new("test");
    let mut hidden = vec![
        format!("before {text} after").into_bytes(),
        [&[0xff, 0][..], text.as_bytes(), &[0xfe]].concat(),
        format!("{:?}", text.as_bytes()).into_bytes(),
        hex(text.as_bytes()).into_bytes(),
        hex(text.as_bytes()).to_uppercase().into_bytes(),
    ];
    for before in ["", "a", "ab", "abc", "{\"name\":\""] {
        for after in ["", "z", "yz"] {
            let longer = format!("{before}{text}{after}");
            hidden.push(STANDARD_NO_PAD.encode(&longer).into_bytes());
            hidden.push(URL_SAFE_NO_PAD.encode(&longer).into_bytes());
        }
    }
    for bytes in hidden {
        assert!(canary.is_in(&bytes), "{}", String::from_utf8_lossy(&bytes));
        assert!(!other.is_in(&bytes), "{}", String::from_utf8_lossy(&bytes));
    }
}
