//! The rules of attributes, the same for events and subscriptions.

use std::collections::BTreeMap;

use super::invalid::InvalidField;

const ATTRIBUTES_MAX: usize = 64;
const KEY_CHARS_MAX: usize = 64;
const VALUE_CHARS_MAX: usize = 1024;

/// Checks attributes: at most 64; keys of 1 to 64 `[A-Za-z0-9_.-]`; values of at most 1024
/// characters, none of them a control character.
///
/// # Errors
///
/// For `attributes`, or `attributes["key"]` once the key is known to be one.
pub fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    let whole = |reason, why: &str| Err(InvalidField::new("attributes", reason, why));
    if ATTRIBUTES_MAX < attributes.len() {
        return whole("TOO_MANY_ATTRIBUTES", "at most 64 attributes");
    }
    for (key, value) in attributes {
        let fits = (1..=KEY_CHARS_MAX).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !fits {
            let why = "keys are 1 to 64 characters of A-Z, a-z, 0-9, '_', '.' and '-'";
            return whole("INVALID_ATTRIBUTE", why);
        }
        if !is_plain_text(value, VALUE_CHARS_MAX) {
            let why = "at most 1024 characters, no control characters";
            let field = format!("attributes[\"{key}\"]");
            return Err(InvalidField::new(field, "INVALID_ATTRIBUTE", why));
        }
    }
    Ok(())
}

/// Whether a text has at most so many characters and no control character, NUL included.
#[must_use]
pub fn is_plain_text(text: &str, chars_max: usize) -> bool {
    text.chars().count() <= chars_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(key: &str, value: &str) -> Option<String> {
        let attributes = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        check_attributes(&attributes).err().map(|invalid| invalid.field)
    }

    #[test]
    fn keys_and_values_keep_their_limits() {
        assert_eq!(field("organizationCode", ""), None);
        assert_eq!(field(&"k".repeat(64), &"é".repeat(1024)), None);
        for key in ["", "a b", "é", "a\"", &"k".repeat(65)] {
            assert_eq!(field(key, "v").as_deref(), Some("attributes"), "{key}");
        }
        for value in ["\0", "a\nb", "\u{85}", &"v".repeat(1025)] {
            assert_eq!(field("k", value).as_deref(), Some("attributes[\"k\"]"), "{value:?}");
        }
    }

    #[test]
    fn at_most_64_are_taken() {
        let some = |n: usize| (0..n).map(|i| (i.to_string(), String::new())).collect();
        assert_eq!(check_attributes(&some(64)), Ok(()));
        assert_eq!(check_attributes(&some(65)).expect_err("65").reason, "TOO_MANY_ATTRIBUTES");
    }
}
