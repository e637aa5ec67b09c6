//! The scanner against tables and against `serde_json`.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

#[test]
fn well_formed_texts_pass() {
    let texts = [
        "null",
        " true ",
        "\t\r\n0\n",
        "-0.0e-0",
        "1e400",
        "123456789012345678901234567890",
        r#""""#,
        r#""\u00e9\ud800\"\\\/\b\f\n\r\t""#,
        "\"Grüße, 世界 and more than eight bytes\"",
        "[]",
        "{ }",
        r#"{"a":1,"a":2}"#,
        r#" { "a" : [ 1 , { } , [ ] ] , "b" : false } "#,
        "\"\u{7f}\"",
    ];
    for text in texts {
        assert_eq!(check_json(text.as_bytes()), Ok(()), "{text}");
    }
}

#[test]
fn the_rest_is_refused_at_the_byte() {
    let texts = [
        ("", 0),
        (" ", 1),
        ("\u{feff}1", 0),
        ("nul", 0),
        ("truex", 4),
        ("01", 1),
        ("-", 1),
        ("+1", 0),
        (".5", 0),
        ("1.", 2),
        ("1e", 2),
        ("1e+", 3),
        ("NaN", 0),
        ("'a'", 0),
        ("\"a", 2),
        ("\"a\nb\"", 2),
        ("\"abcdefgh\u{1}ijklmnopq\"", 9),
        (r#""\x""#, 2),
        (r#""\u12g4""#, 5),
        (r#""\u12"#, 5),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("[", 1),
        ("]", 0),
        ("[}", 1),
        ("{]", 1),
        ("{1:2}", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":1]"#, 6),
        ("1 2", 2),
        ("// x\n1", 0),
    ];
    for (text, at) in texts {
        assert_eq!(check_json(text.as_bytes()), Err(JsonFault::Syntax(at)), "{text}");
    }
    assert_eq!(check_json(b"\"\xff\""), Err(JsonFault::NotUtf8));
    assert_eq!(check_json(b"\"\xed\xa0\x80\""), Err(JsonFault::NotUtf8), "a surrogate");
}

#[test]
fn nesting_ends_at_128_levels() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = if open.len() == 6 { 64 } else { 128 };
        let nested = |n: usize| format!("{}[]{}", open.repeat(n), close.repeat(n));
        let inner = if levels == 64 { 63 } else { 127 };
        assert_eq!(check_json(nested(inner).as_bytes()), Ok(()), "{open}");
        assert_eq!(check_json(nested(levels).as_bytes()), Err(JsonFault::TooDeep), "{open}");
    }
    let wide = format!("[{}[]]", "[],".repeat(1000));
    assert_eq!(check_json(wide.as_bytes()), Ok(()));
}

fn agrees_with_serde(text: &str) -> bool {
    check_json(text.as_bytes()).is_ok() == serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[test]
fn agrees_with_serde_on_every_byte_at_every_place_in_a_string() {
    for byte in 0..0x80 {
        for place in 1..20 {
            let mut text = format!("\"{}\"", "x".repeat(20)).into_bytes();
            text[place] = byte;
            let text = String::from_utf8(text).expect("ASCII");
            assert!(agrees_with_serde(&text), "{byte} at {place}");
        }
    }
}

fn near_json() -> impl Strategy<Value = String> {
    let parts = [
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        " ",
        "\"",
        "\\",
        "\\u00",
        "0",
        "1",
        ".",
        "e",
        "E",
        "+",
        "-",
        "true",
        "null",
        "\"a\":",
        "\"long enough for a chunk\"",
        "{\"a\":1}",
        "[1,2]",
    ];
    let part = prop::sample::select(parts.to_vec());
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn agrees_with_serde_on_near_json(text in near_json()) {
        prop_assert!(agrees_with_serde(&text), "{}", text);
    }

    #[test]
    fn agrees_with_serde_on_one_string(start in "\\PC{0,40}", end in "[\\x00-\\x7f]{0,12}") {
        let quoted = format!("\"{start}{end}\"");
        prop_assert!(agrees_with_serde(&quoted), "{}", quoted);
    }

    #[test]
    fn what_serde_writes_passes_until_a_byte_is_lost(
        strings in prop::collection::vec("\\PC{0,20}", 1..6),
        number: f64,
        cut: prop::sample::Index,
    ) {
        let value = serde_json::json!({ "strings": strings, "number": number, "none": null });
        let text = value.to_string();
        prop_assert_eq!(check_json(text.as_bytes()), Ok(()));
        let shorter = &text.as_bytes()[..cut.index(text.len())];
        prop_assert!(check_json(shorter).is_err());
    }

    #[test]
    fn no_bytes_panic_or_pass_that_serde_refuses(bytes: Vec<u8>) {
        let passes = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        prop_assert!(check_json(&bytes).is_err() || passes);
    }
}
