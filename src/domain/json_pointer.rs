//! JSON pointers (RFC 6901): the way to a value inside a JSON text.

use std::fmt;

/// The way to a value, from the outside in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JsonPointer {
    /// Names of members, or numbers of elements; `~` and `/` as they are.
    tokens: Vec<String>,
}

impl JsonPointer {
    /// Reads a pointer: nothing, which is the whole text, or `/` before each name, in
    /// which `~0` means `~` and `~1` means `/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<JsonPointer> {
        if text.is_empty() {
            return Some(JsonPointer { tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(unescaped);
        Some(JsonPointer { tokens: tokens.collect::<Option<_>>()? })
    }

    /// Names of members, or numbers of elements, from the outside in; none for the whole
    /// text.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |token: &String| token.replace('~', "~0").replace('/', "~1");
        self.tokens.iter().try_for_each(|token| write!(formatter, "/{}", escaped(token)))
    }
}

/// The element of an array that a token names: digits without leading zeros.
#[must_use]
pub fn element(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| plain)
}

fn unescaped(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (meant, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        name.push(meant);
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of RFC 6901, section 5, and its corners.
    #[test]
    fn pointers_are_read_as_the_rfc_says() {
        for (text, tokens) in [
            ("", &[][..]),
            ("/", &[""]),
            ("/foo", &["foo"]),
            ("/foo/0", &["foo", "0"]),
            ("/a~1b", &["a/b"]),
            ("/m~0n", &["m~n"]),
            ("/~01", &["~1"]),
            ("/ /k\"l/", &[" ", "k\"l", ""]),
            ("/Grüße/-", &["Grüße", "-"]),
        ] {
            let pointer = JsonPointer::parse(text).expect(text);
            assert_eq!(pointer.tokens(), tokens, "{text}");
            assert_eq!(pointer.to_string(), text);
        }
        for other in ["foo", "#/foo", " /foo", "/~", "/~2", "/a~", "/~~0", "/~é"] {
            assert_eq!(JsonPointer::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_element_has_one_name() {
        for (token, number) in [("0", 0), ("1", 1), ("10", 10)] {
            assert_eq!(element(token), Some(number), "{token}");
        }
        for other in ["", "00", "01", "+1", "-1", "-", "1.0", " 1", "18446744073709551616"] {
            assert_eq!(element(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_pointer_reads_back_as_it_was_written(
            tokens in prop::collection::vec("[~/01a\"é]{0,4}", 0..5),
        ) {
            let pointer = JsonPointer { tokens };
            prop_assert_eq!(JsonPointer::parse(&pointer.to_string()), Some(pointer));
        }
    }
}
