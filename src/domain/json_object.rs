//! Looks into and adds to the text of a JSON object without parsing it into a
//! tree: every byte that was there stays as it was.

use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;

/// Whether a well-formed JSON text is an object.
#[must_use]
pub fn is_object(json: &[u8]) -> bool {
    json.iter().find(|byte| !is_space(**byte)) == Some(&b'{')
}

/// Whether the object has a member `key` at its top level, however the key is
/// escaped there; `None` when the text is not a JSON object.
#[must_use]
pub fn has_member(object: &[u8], key: &str) -> Option<bool> {
    let mut reader = serde_json::Deserializer::from_slice(object);
    let found = reader.deserialize_map(Members { wanted: key.as_bytes() }).ok()?;
    reader.end().ok()?;
    Some(found)
}

/// The object with `member` (`"key":value`) as its last one.
///
/// `None` when the text does not end like an object.
#[must_use]
pub fn with_last_member(object: &[u8], member: &[u8]) -> Option<Vec<u8>> {
    let end = object.iter().rposition(|byte| !is_space(*byte))?;
    let (inside, closing) = object.split_at(end);
    if !closing.starts_with(b"}") {
        return None;
    }
    // The last token of an object that has members is never `{`.
    let empty = inside.iter().rfind(|byte| !is_space(**byte))? == &b'{';
    let mut whole = Vec::with_capacity(object.len() + member.len() + usize::from(!empty));
    whole.extend_from_slice(inside);
    if !empty {
        whole.push(b',');
    }
    whole.extend_from_slice(member);
    whole.extend_from_slice(closing);
    Some(whole)
}

/// JSON's whitespace (RFC 8259, section 2).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

struct Members<'k> {
    wanted: &'k [u8],
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(same) = map.next_key_seed(Key { wanted: self.wanted })? {
            found |= same;
            map.next_value::<IgnoredAny>()?;
        }
        Ok(found)
    }
}

/// Compares one key with the wanted one. As bytes: a key with half of a surrogate
/// pair is no Rust string, but it is a JSON key.
struct Key<'k> {
    wanted: &'k [u8],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<bool, E> {
        Ok(key == self.wanted)
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key.as_bytes() == self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_however_its_key_is_spelt() {
        for (object, found) in [
            (r#"{"code":1}"#, true),
            (r#" { "a" : {"b":[]}, "code" : null } "#, true),
            (r#"{"\u0063ode":1}"#, true),
            (r#"{"\ud800":1,"code":2}"#, true),
            (r#"{"big":1e999,"code":2}"#, true),
            (r#"{"a":{"code":1}}"#, false),
            (r#"{"a":"\"code\":1"}"#, false),
            (r#"{"Code":1,"code ":2}"#, false),
            (r#"{"\ud800":1}"#, false),
            ("{}", false),
        ] {
            assert_eq!(has_member(object.as_bytes(), "code"), Some(found), "{object}");
        }
        for other in ["[]", "1", "", r#"{"code":1"#, r#"{"code":1} 2"#] {
            assert_eq!(has_member(other.as_bytes(), "code"), None, "{other}");
        }
    }

    #[test]
    fn a_member_is_added_at_the_end_and_nothing_else_changes() {
        for (object, expected) in [
            ("{}", r#"{"k":1}"#),
            ("{ \n}", "{ \n\"k\":1}"),
            (r#"{"a":"}"}"#, r#"{"a":"}","k":1}"#),
            (r#"{"a":{}}"#, r#"{"a":{},"k":1}"#),
            ("{\"a\":1.0 }\n", "{\"a\":1.0 ,\"k\":1}\n"),
        ] {
            let whole = with_last_member(object.as_bytes(), br#""k":1"#).expect("an object");
            assert_eq!(String::from_utf8_lossy(&whole), expected);
            assert_eq!(whole.capacity(), whole.len(), "one allocation");
        }
        for other in ["", "}", "[]", " "] {
            assert_eq!(with_last_member(other.as_bytes(), b"\"k\":1"), None, "{other:?}");
        }
    }

    #[test]
    fn objects_are_told_from_other_values() {
        assert!(is_object(b" \r\n\t{}"));
        for other in [&b"[{}]"[..], b"null", b"", b"\"{\""] {
            assert!(!is_object(other));
        }
    }
}
