//! Masking against tables, against a tree of `serde_json`, and byte for byte.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn pointers(texts: &[&str]) -> Vec<JsonPointer> {
    texts.iter().map(|text| JsonPointer::parse(text).expect("a pointer")).collect()
}

fn text_of(text: &str, pointed: &[&str]) -> String {
    let masked = masked(text.as_bytes(), &pointers(pointed)).expect(text);
    String::from_utf8(masked.into_owned()).expect("UTF-8")
}

#[test]
fn what_a_pointer_names_becomes_null_and_nothing_else_changes() {
    for (text, pointed, expected) in [
        (r#"{"a":1,"b":2}"#, &["/b"][..], r#"{"a":1,"b":null}"#),
        (" { \"a\" : \"x\" , \"b\":1.0 }\n", &["/a"], " { \"a\" : null , \"b\":1.0 }\n"),
        (r#"{"a":{"b":[1,{"c":2}]}}"#, &["/a/b/1/c"], r#"{"a":{"b":[1,{"c":null}]}}"#),
        (r#"{"a":{"b":[1,{"c":2}]}}"#, &["/a/b"], r#"{"a":{"b":null}}"#),
        (r#"{"a":{"b":1,"c":1e400}}"#, &["/a/b", "/a"], r#"{"a":null}"#),
        (r#"{"a":{"b":1,"c":2}}"#, &["/a/b", "/a/c"], r#"{"a":{"b":null,"c":null}}"#),
        (r#"{"a":1,"a":{"a":2}}"#, &["/a"], r#"{"a":null,"a":null}"#),
        (r#"{"\u0061":1,"a\u0062":2}"#, &["/a"], r#"{"\u0061":null,"a\u0062":2}"#),
        (
            r#"{"x/y":1,"m~n":2,"":3}"#,
            &["/x~1y", "/m~0n", "/"],
            r#"{"x/y":null,"m~n":null,"":null}"#,
        ),
        ("[[1,2],[3]]", &["/0/1", "/1/0"], "[[1,null],[null]]"),
        (r#"{"0":1}"#, &["/0"], r#"{"0":null}"#),
        (r#"[1,"",[]]"#, &["/1", "/2"], "[1,null,null]"),
        (r#"{"a":"\"},{","b":"]"}"#, &["/a"], r#"{"a":null,"b":"]"}"#),
        ("\"x\"", &[""], "null"),
    ] {
        assert_eq!(text_of(text, pointed), expected, "{text} {pointed:?}");
    }
}

#[test]
fn a_pointer_that_names_nothing_leaves_the_text_as_it_is() {
    let cases = [
        (r#"{"a":[1,2]}"#, &["/b", "/a/2", "/a/-", "/a/00", "/a/+1", "/a/0/x", "/A"][..]),
        (r#"{"a":{"b":1}}"#, &["/b", "/a/b/c", "/a//b"]),
        (r#"{"\ud800":1,"�":2}"#, &["/\u{d7ff}"]),
        ("{ }", &["/a"]),
        ("[ ]", &["/0"]),
        ("\"/a\"", &["/a"]),
        ("7", &[]),
    ];
    for (text, pointed) in cases {
        let pointers = pointers(pointed);
        let masked = masked(text.as_bytes(), &pointers).expect(text);
        assert!(matches!(masked, Cow::Borrowed(same) if same == text.as_bytes()), "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused_wherever_it_breaks() {
    for text in [
        "",
        "{",
        r#"{"a":1"#,
        r#"{"a":1}}"#,
        r#"{"a" 1}"#,
        r#"{"b":1,}"#,
        "[1,,2]",
        "{a:1}",
        "[1 2]",
    ] {
        assert!(masked(text.as_bytes(), &pointers(&["/a/b", "/0/1"])).is_err(), "{text}");
        assert!(masked(text.as_bytes(), &[]).is_err(), "{text}");
    }
}

/// A JSON value, members' names from a few letters so that pointers hit.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a/~\"\\\\é ]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a/~0é\"]{0,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn way() -> impl Strategy<Value = JsonPointer> {
    let token = prop_oneof!["[a/~0é\"]{0,2}", "[0-3]", Just("-".to_owned())];
    let tokens = prop::collection::vec(token, 1..5);
    tokens.prop_map(|tokens| {
        let escaped = |token: String| token.replace('~', "~0").replace('/', "~1");
        let text = tokens.into_iter().fold(String::new(), |way, one| way + "/" + &escaped(one));
        JsonPointer::parse(&text).expect("escaped")
    })
}

/// A value in an odd spelling.
fn odd() -> impl Strategy<Value = &'static str> {
    let values = [
        "1.0",
        "-0",
        "1e400",
        "123456789012345678901234567890",
        r#""\u0061\ud800\/""#,
        "null",
        "[ ]",
        "{ \"x\" :\t[1,{}] }",
        "\"Grüße, 世界 }],\"",
        "true",
    ];
    prop::sample::select(values.to_vec())
}

proptest! {
    #[test]
    fn agrees_with_masking_a_tree(
        tree in tree(),
        ways in prop::collection::vec(way(), 0..6),
        pretty: bool,
    ) {
        let text = if pretty {
            serde_json::to_string_pretty(&tree)
        } else {
            serde_json::to_string(&tree)
        };
        let text = text.expect("a tree is JSON");
        let mut expected = tree;
        for way in &ways {
            if let Some(value) = expected.pointer_mut(&way.to_string()) {
                *value = Value::Null;
            }
        }
        let masked = masked(text.as_bytes(), &ways).expect("it is JSON");
        let read: Value = serde_json::from_slice(&masked).expect("it is still JSON");
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn every_byte_outside_of_what_is_masked_stays(
        members in prop::collection::vec((odd(), any::<bool>(), any::<bool>(), "[ \n\t]{0,2}"), 1..8),
        in_array: bool,
    ) {
        let (mut before, mut after) = (String::new(), String::new());
        let mut pointed = Vec::new();
        for (number, (value, masked, escaped, space)) in members.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let key = if *escaped { format!("k\\u003{number}") } else { format!("k{number}") };
            let key = if in_array { String::new() } else { format!("\"{key}\"{space}:") };
            let opening = format!("{comma}{space}{key}{space}");
            before.extend([opening.as_str(), *value, space.as_str()]);
            let shown = if *masked { "null" } else { *value };
            after.extend([opening.as_str(), shown, space.as_str()]);
            if *masked {
                let name = if in_array { number.to_string() } else { format!("k{number}") };
                pointed.push(JsonPointer::parse(&format!("/deep/{name}")).expect("a pointer"));
            }
        }
        let (open, close) = if in_array { ('[', ']') } else { ('{', '}') };
        let whole = |inside: &str| format!("{{\"other\":1e2, \"deep\" :{open}{inside}{close} }}\r\n");
        let (before, after) = (whole(&before), whole(&after));
        let masked = masked(before.as_bytes(), &pointed).expect("it is JSON");
        prop_assert_eq!(String::from_utf8_lossy(&masked), after);
    }
}
