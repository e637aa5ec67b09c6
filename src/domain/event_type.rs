//! The alphabet of event types, shared by events and patterns.

/// Longest event type and longest pattern, in characters.
pub const EVENT_TYPE_CHARS_MAX: usize = 128;

/// Whether the text is an event type: 1 to 128 of `[A-Za-z0-9_.:/-]`, with no empty
/// segment between full stops.
#[must_use]
pub fn is_event_type(text: &str) -> bool {
    text.len() <= EVENT_TYPE_CHARS_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b))
        && text.split('.').all(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platforms_types_pass_and_others_do_not() {
        let long = "a".repeat(128);
        let good = ["ping", "message_sent", "medical-encounters.create", "a:b/c.d", &long];
        for text in good {
            assert!(is_event_type(text), "{text}");
        }
        let longer = "a".repeat(129);
        for text in ["", ".", ".a", "a.", "a..b", "a b", "a*", "é", "a\0", "a\n", &longer] {
            assert!(!is_event_type(text), "{text:?}");
        }
    }
}
