//! The audit log as an operator reads it.

use std::process::{Command, Output};

use super::engine::Engine;

/// A line of `hookward audit list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) principal: String,
    pub(crate) credential: String,
    pub(crate) peer: String,
    /// Without the package.
    pub(crate) method: String,
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) objects: Vec<String>,
    pub(crate) fields: Vec<String>,
    pub(crate) payload_read: bool,
    pub(crate) calls: usize,
}

/// The entries of an organization, or of `*`, oldest first.
pub(crate) fn entries(engine: &Engine, organization: &str) -> Vec<Line> {
    let output = run(engine, &["list", "--organization", organization]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().rev().map(line).collect()
}

/// `hookward audit` with these words.
pub(crate) fn run(engine: &Engine, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hookward"))
        .arg("audit")
        .args(words)
        .args(["--database-url", engine.url()])
        .output()
        .expect("the binary was built with the tests")
}

/// What `hookward audit verify` says with these words, and whether everything fits.
pub(crate) fn verify(engine: &Engine, words: &[&str]) -> (bool, String) {
    let output = run(engine, &[&["verify"][..], words].concat());
    let said = String::from_utf8(output.stdout).expect("text");
    (output.status.success(), said)
}

fn line(text: &str) -> Line {
    let columns: Vec<&str> = text.split('\t').collect();
    let [_, _, principal, credential, peer, method, code, reason, objects, fields, _, read, calls] =
        columns[..]
    else {
        panic!("thirteen columns: {text}");
    };
    let word = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    let words = |text| word(text).split_whitespace().map(str::to_owned).collect();
    Line {
        principal: word(principal),
        credential: word(credential),
        peer: word(peer),
        method: word(method.trim_start_matches("hookward.v1.")),
        code: word(code),
        reason: word(reason),
        objects: words(objects),
        fields: words(fields),
        payload_read: read == "read",
        calls: calls.parse().expect("a number"),
    }
}
