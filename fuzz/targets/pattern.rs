//! Event patterns: the pattern, the index of patterns and a naive reading agree, and
//! length costs no more than length.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use hookward::domain::pattern::{EventPattern, PatternIndex};
use hookward_fuzz::cpu_time;
use libfuzzer_sys::fuzz_target;

const LONG: usize = 100_000;
const LONG_TIME: Duration = Duration::from_millis(500);

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    service_names: bool,
    patterns: Vec<&'a str>,
    event_type: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let Input { service_names, patterns, event_type } = input;
    let mut read = Vec::new();
    for text in patterns {
        let Ok(pattern) = EventPattern::parse(text, service_names) else { continue };
        assert_eq!(pattern.as_str(), text);
        assert!(text.len() <= 128);
        let expected = naive(text, event_type, service_names);
        assert_eq!(pattern.matches(event_type), expected, "{text:?} {event_type:?}");
        quick(&pattern, event_type);
        read.push(pattern);
    }
    let takers = read.iter().enumerate().map(|(at, pattern)| ([pattern], at));
    let index = PatternIndex::new(takers);
    let found: Vec<usize> = index.matching(event_type).into_iter().copied().collect();
    let one_by_one = (0..read.len()).filter(|at| read[*at].matches(event_type));
    assert_eq!(found, one_by_one.collect::<Vec<_>>(), "the index and its patterns");
});

/// The documentation, word by word.
fn naive(pattern: &str, event_type: &str, service_names: bool) -> bool {
    if pattern == "*" {
        return !event_type.starts_with("hookward.");
    }
    if pattern == event_type {
        return true;
    }
    if let Some(prefix) = pattern.strip_suffix('*') {
        return prefix.len() < event_type.len() && event_type.starts_with(prefix);
    }
    let Some((service, method)) = event_type.rsplit_once('.') else { return false };
    if !service_names || pattern == "ping" {
        return false;
    }
    match pattern.rsplit_once('.') {
        None => service == pattern,
        Some((wanted, verb)) => {
            wanted == service && group(verb).is_some() && group(verb) == group(method)
        }
    }
}

fn group(verb: &str) -> Option<usize> {
    let groups: [&[&str]; 3] = [
        &["create", "created"],
        &["update", "updated", "patch", "patched"],
        &["remove", "removed", "delete", "deleted"],
    ];
    groups.iter().position(|group| group.contains(&verb))
}

fn quick(pattern: &EventPattern, event_type: &str) {
    if event_type.is_empty() {
        return;
    }
    let long = event_type.repeat(LONG / event_type.len());
    let began = cpu_time();
    let _ = pattern.matches(&long);
    let took = cpu_time() - began;
    assert!(took < LONG_TIME, "{took:?}");
}
