//! The rules of the house, kept by `cargo test` rather than by memory.
//!
//! Each test reads the sources as text. A failure names the file, the line and the
//! rule, so that the fix needs no tour.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors of the house, ground floor first. A room may use rooms on lower
/// floors only; rooms on one floor don't know each other.
const FLOORS: [&[&str]; 10] = [
    &["domain"],
    &["metrics", "trace", "keyring"],
    &["store", "egress"],
    &["routing", "permits", "lease", "credentials", "audit"],
    &["intake", "dispatcher"],
    &["canary", "janitor"],
    &["grpc", "admin", "telemetry"],
    &["config"],
    &["app"],
    &["main", "cli"],
];

/// Libraries that only these rooms may name.
const KEPT_TO: [(&str, &[&str]); 10] = [
    ("sea_orm", &["store"]),
    ("sqlx", &["store"]),
    ("tonic", &["grpc", "cli"]),
    ("prost_types", &["grpc", "cli"]),
    ("hyper", &["egress", "cli"]),
    ("hyper_util", &["egress", "telemetry", "cli"]),
    ("axum", &["admin", "canary"]),
    ("std::env", &["config", "main"]),
    ("clap", &["config", "cli", "main"]),
    // Besides the keyring: the signatures of tokens (`domain`), and TLS.
    ("ring", &["keyring", "domain", "credentials", "egress", "grpc", "cli"]),
];

/// File names that say nothing about what is inside.
const VAGUE: [&str; 6] = ["utils", "util", "common", "helpers", "manager", "misc"];

/// Above this a file is two files.
const LINES_MAX: usize = 500;

struct Source {
    /// From the root of the repository.
    path: PathBuf,
    /// The first name under `src/`.
    room: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Every Rust file of the product.
fn sources() -> Vec<Source> {
    files_under("src")
}

/// Every Rust file: product, tests, benchmarks.
fn all_files() -> Vec<Source> {
    ["src", "tests", "benches", "examples"].into_iter().flat_map(files_under).collect()
}

fn files_under(top: &str) -> Vec<Source> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![repository.join(top)];
    folders.retain(|folder| folder.is_dir());
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(repository).expect("under the root");
                let room = relative.components().nth(1).expect("a file under a folder");
                let room = Path::new(room.as_os_str()).file_stem().expect("has a name");
                let room = room.to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).expect("is UTF-8");
                found.push(Source { path: relative.to_path_buf(), room, text });
            }
        }
    }
    found
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn report(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Whether `line` names something in `library`: `hyper::` but not `hyper_util::`
/// and not `axum_hyper::`.
fn names(line: &str, library: &str) -> bool {
    let path = format!("{library}::");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn the_sources_are_found() {
    assert!(sources().iter().any(|source| source.room == "domain"), "looking in the wrong place?");
}

#[test]
fn rooms_use_lower_floors_only() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(own) = floor(&source.room) else { continue };
        for (number, line) in source.code() {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let used = used.unwrap_or_default();
                if used != source.room && floor(used).is_some_and(|other| own <= other) {
                    broken.push(format!("{}:{number} uses {used}", source.path.display()));
                }
            }
        }
    }
    report(&broken, "a room may use lower floors only (see docs/ARCHITECTURE.md)");
}

#[test]
fn a_line_uses_one_room() {
    let mut broken = Vec::new();
    for source in sources() {
        let many = source.code().filter(|(_, line)| line.contains("crate::{"));
        broken.extend(many.map(|(number, _)| format!("{}:{number}", source.path.display())));
    }
    report(&broken, "write one `use crate::room::…` a line, so that floors can be read");
}

#[test]
fn every_room_has_a_floor() {
    let unknown = sources().into_iter();
    let unknown = unknown.filter(|source| source.room != "lib" && floor(&source.room).is_none());
    let unknown: Vec<_> = unknown.map(|source| source.path.display().to_string()).collect();
    report(&unknown, "not in FLOORS");
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            for (library, rooms) in KEPT_TO {
                if names(line, library) && !rooms.contains(&source.room.as_str()) {
                    let path = source.path.display();
                    broken.push(format!("{path}:{number} names {library}, kept to {rooms:?}"));
                }
            }
        }
    }
    report(&broken, "a library is named in its rooms only");
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let silent = all_files().into_iter().filter(|source| !source.text.starts_with("//! "));
    let silent: Vec<_> = silent.map(|source| source.path.display().to_string()).collect();
    report(&silent, "no //! on line 1");
}

#[test]
fn names_say_something() {
    let vague = all_files().into_iter().filter(|source| {
        source.path.components().any(|part| {
            let stem = Path::new(part.as_os_str()).file_stem().unwrap_or_default();
            VAGUE.iter().any(|name| stem == *name)
        })
    });
    let vague: Vec<_> = vague.map(|source| source.path.display().to_string()).collect();
    report(&vague, "vague name");
}

#[test]
fn files_are_short() {
    let long = all_files().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (LINES_MAX < lines).then(|| format!("{}: {lines} lines", source.path.display()))
    });
    let long: Vec<_> = long.collect();
    report(&long, "a file has at most 500 lines: split it by noun or verb");
}
