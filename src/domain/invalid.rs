//! What is wrong with an input, so that its sender can mend it.

use std::fmt;

/// A field that breaks a rule. Names the field and the rule, never the value:
/// values may be patient data or secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Path in proto names, such as `subscription.url` or `events[3].type`.
    pub field: String,
    /// Stable and machine-readable, such as `URL_SCHEME`.
    pub reason: &'static str,
    /// A sentence for people: what is allowed.
    pub why: String,
}

impl InvalidField {
    /// A breach of the rule `reason` in `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, reason: &'static str, why: impl Into<String>) -> Self {
        InvalidField { field: field.into(), reason, why: why.into() }
    }

    /// The same breach, seen from the message that holds the field.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{parent}{separator}{}", self.field);
        self
    }
}

impl fmt::Display for InvalidField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.why)
    }
}

impl std::error::Error for InvalidField {}
