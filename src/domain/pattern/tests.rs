//! Patterns against tables, and the index against asking every pattern.

use proptest::prelude::*;

use super::*;

fn pattern(text: &str, service_names: bool) -> EventPattern {
    EventPattern::parse(text, service_names).expect(text)
}

#[test]
fn plain_patterns_match_exactly_by_prefix_or_everything() {
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("*", &["a", "a.b.c", "ping"], &[]),
        ("message_sent", &["message_sent"], &["message_sent.x", "Message_sent", "message"]),
        ("a.*", &["a.b", "a.b.c"], &["a", "a.", "ab.c", "A.b", "b.a.c"]),
        ("a.b.*", &["a.b.c"], &["a.b", "a.bc.d"]),
        ("medical.create", &["medical.create"], &["medical.created", "medical"]),
    ];
    for (text, yes, no) in cases {
        let pattern = pattern(text, false);
        assert_eq!(pattern.as_str(), text);
        assert!(yes.iter().all(|event_type| pattern.matches(event_type)), "{text}");
        assert!(!no.iter().any(|event_type| pattern.matches(event_type)), "{text}");
    }
    assert!(!pattern("medical-encounters", false).matches("medical-encounters.create"));
}

/// Contracts 4f.3, A8, A11, A12.
#[test]
fn service_names_match_their_methods_and_verbs_have_aliases() {
    let cases: [(&str, &[&str], &[&str]); 8] = [
        (
            "medical-encounters",
            &[
                "medical-encounters.create",
                "medical-encounters.patched",
                "medical-encounters.remove",
                "medical-encounters.find",
                "medical-encounters",
            ],
            &["medical-encounters.notes.create", "Medical-encounters.create"],
        ),
        ("medical-records", &["medical-records.update"], &["medical-records-x.create", "ping"]),
        ("a.create", &["a.create", "a.created"], &["a.update", "b.create", "a.x.create", "a"]),
        ("a.patch", &["a.update", "a.updated", "a.patch", "a.patched"], &["a.create"]),
        ("a.deleted", &["a.remove", "a.removed", "a.delete", "a.deleted"], &["a.update"]),
        ("a.find", &["a.find"], &["a.get", "a.create"]),
        ("ping", &["ping"], &["ping.create", "pings"]),
        ("a.*", &["a.create", "a.b.c"], &["a"]),
    ];
    for (text, yes, no) in cases {
        let pattern = pattern(text, true);
        for event_type in yes {
            assert!(pattern.matches(event_type), "{text} {event_type}");
        }
        for event_type in no {
            assert!(!pattern.matches(event_type), "{text} {event_type}");
        }
    }
}

#[test]
fn the_services_own_events_go_to_those_that_name_them() {
    let own = "hookward.subscription.disabled";
    for text in [own, "hookward.*", "hookward.subscription.*"] {
        let pattern = EventPattern::stored(text, false, true).expect(text);
        assert!(pattern.matches(own) && pattern.names_operational(), "{text}");
        assert_eq!(EventPattern::stored(text, false, false), None, "{text}: the profile's word");
        assert_eq!(PatternIndex::new([([&pattern], ())]).matching(own).len(), 1, "{text}");
    }
    for (text, service_names) in [("*", false), ("*", true), ("hookward", true), ("h.*", false)] {
        let pattern = EventPattern::stored(text, service_names, false).expect(text);
        assert!(!pattern.matches(own) && !pattern.names_operational(), "{text}");
        assert!(PatternIndex::new([([&pattern], ())]).matching(own).is_empty(), "{text}");
    }
    assert!(pattern("*", false).matches("hookwards.x") && pattern("*", false).matches("hookward"));
    assert_eq!(EventPattern::parse_filter("*"), Ok(None), "a list hides nothing");
}

#[test]
fn what_is_no_pattern_is_refused() {
    let long = format!("{}.*", "a".repeat(127));
    for text in ["", ".*", "**", "a*", "*.a", "a.*.b", "a..*", ".a", "a.", "a b", "é", &long] {
        for service_names in [false, true] {
            let refused = EventPattern::parse(text, service_names).expect_err(text);
            assert_eq!(refused.within("event_patterns[2]").field, "event_patterns[2]");
        }
    }
    assert_eq!(EventPattern::parse_filter(""), Ok(None));
    assert_eq!(EventPattern::parse_filter("a b").expect_err("space").field, "event_type_pattern");
    let filter = EventPattern::parse_filter("a.*").expect("valid").expect("given");
    assert!(filter.matches("a.b"));
}

#[test]
fn a_taker_with_several_matching_patterns_is_found_once_in_the_order_given() {
    let first = [pattern("a.b", false), pattern("*", false), pattern("a.*", false)];
    let second = [pattern("a", true), pattern("a.*", true)];
    let index = PatternIndex::new([(&first[..], "first"), (&second[..], "second"), (&[], "none")]);
    assert_eq!(index.matching("a.b"), [&"first", &"second"]);
    assert_eq!(index.matching("c"), [&"first"]);
    assert!(PatternIndex::<()>::new([(&[][..], ())]).matching("c").is_empty());
}

fn a_type() -> impl Strategy<Value = String> {
    let segment =
        prop::sample::select(vec!["a", "b", "ping", "create", "created", "patch", "hookward"]);
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("."))
}

fn a_pattern() -> impl Strategy<Value = EventPattern> {
    let text = prop_oneof![a_type(), a_type().prop_map(|text| text + ".*"), Just("*".to_owned())];
    (text, any::<bool>()).prop_map(|(text, service_names)| pattern(&text, service_names))
}

proptest! {
    #[test]
    fn the_index_finds_what_asking_every_pattern_finds(
        takers in prop::collection::vec(prop::collection::vec(a_pattern(), 0..4), 0..12),
        event_type in a_type(),
    ) {
        let index = PatternIndex::new(takers.iter().enumerate().map(|(at, all)| (all, at)));
        let found: Vec<usize> = index.matching(&event_type).into_iter().copied().collect();
        let naive = |at: &usize| takers[*at].iter().any(|pattern| pattern.matches(&event_type));
        let expected: Vec<usize> = (0..takers.len()).filter(naive).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_text_panics(text in "[a.*ü-]{0,12}", event_type in "\\PC{0,12}") {
        if let Ok(pattern) = EventPattern::parse(&text, true) {
            let index = PatternIndex::new([([&pattern], ())]);
            prop_assert_eq!(pattern.matches(&event_type), index.matching(&event_type).len() == 1);
        }
    }
}
