//! Event patterns: which event types a subscription gets.
//!
//! - `*` matches every type, but for the service's own (`hookward.`): those are matched
//!   only by patterns that name them, such as `hookward.*`.
//! - `a.b.*` matches every type that begins with `a.b.`, however many segments follow;
//!   not `a.b` itself.
//! - Anything else matches the type of that spelling. Case counts.
//!
//! Where the profile has service names (contracts A8, A11; HapiHub's
//! `<service>.<method>`), two more:
//!
//! - A pattern without a full stop is also a service: `medical-encounters` matches
//!   `medical-encounters.<method>` for every method, which is one segment: not
//!   `medical-encounters.notes.create`, whose service is another, and not
//!   `medical-encounters-x.create`. `ping` stays the type `ping` alone.
//! - In `<service>.<verb>`, `create` and `created` are one verb, so are `update`,
//!   `updated`, `patch`, `patched`, and `remove`, `removed`, `delete`, `deleted`.

use std::collections::HashMap;

use super::event_type::EVENT_TYPE_CHARS_MAX;
use super::event_type::is_event_type;
use super::invalid::InvalidField;
use super::operational_event::PREFIX;
use super::operational_event::is_operational;

/// A valid pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventPattern {
    text: String,
    kind: Kind,
}

/// What a pattern means; the lengths cut its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    All,
    Exact,
    /// The text without `.*` is this long.
    Prefix(usize),
    Service,
    /// The service is this long.
    Method(usize, Verb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verb {
    Create,
    Update,
    Remove,
}

impl Verb {
    fn parse(text: &str) -> Option<Verb> {
        match text {
            "create" | "created" => Some(Verb::Create),
            "update" | "updated" | "patch" | "patched" => Some(Verb::Update),
            "remove" | "removed" | "delete" | "deleted" => Some(Verb::Remove),
            _ => None,
        }
    }
}

impl EventPattern {
    /// Reads a pattern; `service_names` is the profile's flag.
    ///
    /// # Errors
    ///
    /// `INVALID_EVENT_PATTERN`, for a field that the caller names with
    /// [`InvalidField::within`].
    pub fn parse(text: &str, service_names: bool) -> Result<EventPattern, InvalidField> {
        let kind = if text == "*" {
            Kind::All
        } else if let Some(prefix) = text.strip_suffix(".*") {
            if EVENT_TYPE_CHARS_MAX < text.len() || !is_event_type(prefix) {
                return Err(invalid(""));
            }
            Kind::Prefix(prefix.len())
        } else if !is_event_type(text) {
            return Err(invalid(""));
        } else if service_names {
            service_kind(text)
        } else {
            Kind::Exact
        };
        Ok(EventPattern { text: text.to_owned(), kind })
    }

    /// A stored pattern, as its profile reads it; `None`: it matches nothing.
    /// `operational`: whether the profile sends the service's own events.
    #[must_use]
    pub fn stored(text: &str, service_names: bool, operational: bool) -> Option<EventPattern> {
        let pattern = EventPattern::parse(text, service_names).ok()?;
        (operational || !pattern.names_operational()).then_some(pattern)
    }

    /// Reads the pattern of a list filter; the empty text and `*` filter nothing.
    ///
    /// # Errors
    ///
    /// `INVALID_EVENT_PATTERN` for field `event_type_pattern`.
    pub fn parse_filter(text: &str) -> Result<Option<EventPattern>, InvalidField> {
        if text.is_empty() || text == "*" {
            return Ok(None);
        }
        let field = |_| invalid("event_type_pattern");
        EventPattern::parse(text, false).map(Some).map_err(field)
    }

    /// As its owner wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it asks for the service's own events.
    #[must_use]
    pub fn names_operational(&self) -> bool {
        self.text.starts_with(PREFIX)
    }

    /// Whether an event of this type is wanted.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        match self.kind {
            Kind::All => !is_operational(event_type),
            Kind::Exact => event_type == self.text,
            // With the full stop, and something must follow it.
            Kind::Prefix(length) => {
                let rest = event_type.strip_prefix(&self.text[..=length]);
                rest.is_some_and(|rest| !rest.is_empty())
            }
            Kind::Service => {
                let service = event_type.rsplit_once('.').map(|(service, _)| service);
                event_type == self.text || service == Some(&self.text)
            }
            Kind::Method(length, verb) => {
                event_type.rsplit_once('.').is_some_and(|(service, method)| {
                    service == &self.text[..length] && Verb::parse(method) == Some(verb)
                })
            }
        }
    }
}

fn service_kind(text: &str) -> Kind {
    match text.rsplit_once('.') {
        None if text == "ping" => Kind::Exact,
        None => Kind::Service,
        Some((service, method)) => match Verb::parse(method) {
            Some(verb) => Kind::Method(service.len(), verb),
            None => Kind::Exact,
        },
    }
}

fn invalid(field: &str) -> InvalidField {
    let why = "an event type, a prefix followed by '.*', or '*'; at most 128 characters \
               of A-Z, a-z, 0-9, '_', '.', ':', '/' and '-', without empty segments";
    InvalidField::new(field, "INVALID_EVENT_PATTERN", why)
}

/// The patterns of one organization, arranged so that a type finds its takers by a few
/// look-ups, one for each of its segments, however many patterns there are.
#[derive(Debug)]
pub struct PatternIndex<T> {
    takers: Vec<T>,
    all: Vec<usize>,
    exact: HashMap<String, Vec<usize>>,
    prefixes: HashMap<String, Vec<usize>>,
    services: HashMap<String, Vec<usize>>,
    methods: HashMap<String, Vec<(Verb, usize)>>,
}

impl<T> PatternIndex<T> {
    /// An index of takers, each with its patterns.
    pub fn new<'a, P>(takers: impl IntoIterator<Item = (P, T)>) -> Self
    where
        P: IntoIterator<Item = &'a EventPattern>,
    {
        let mut index = PatternIndex {
            takers: Vec::new(),
            all: Vec::new(),
            exact: HashMap::new(),
            prefixes: HashMap::new(),
            services: HashMap::new(),
            methods: HashMap::new(),
        };
        for (patterns, taker) in takers {
            for pattern in patterns {
                index.insert(pattern, index.takers.len());
            }
            index.takers.push(taker);
        }
        index
    }

    /// Who gets events of this type: each taker once, in the order they were given in.
    #[must_use]
    pub fn matching(&self, event_type: &str) -> Vec<&T> {
        let mut found = if is_operational(event_type) { Vec::new() } else { self.all.clone() };
        found.extend(self.exact.get(event_type).into_iter().flatten());
        for (at, _) in event_type.match_indices('.') {
            if at + 1 < event_type.len() {
                found.extend(self.prefixes.get(&event_type[..at]).into_iter().flatten());
            }
        }
        found.extend(self.services.get(event_type).into_iter().flatten());
        if let Some((service, method)) = event_type.rsplit_once('.') {
            found.extend(self.services.get(service).into_iter().flatten());
            if let Some(verb) = Verb::parse(method) {
                let takers = self.methods.get(service).into_iter().flatten();
                found.extend(takers.filter(|(wanted, _)| *wanted == verb).map(|(_, taker)| taker));
            }
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|taker| &self.takers[taker]).collect()
    }

    fn insert(&mut self, pattern: &EventPattern, taker: usize) {
        let text = &pattern.text;
        match pattern.kind {
            Kind::All => self.all.push(taker),
            Kind::Exact => self.exact.entry(text.clone()).or_default().push(taker),
            Kind::Prefix(length) => {
                self.prefixes.entry(text[..length].to_owned()).or_default().push(taker);
            }
            Kind::Service => self.services.entry(text.clone()).or_default().push(taker),
            Kind::Method(length, verb) => {
                self.methods.entry(text[..length].to_owned()).or_default().push((verb, taker));
            }
        }
    }
}

#[cfg(test)]
mod tests;
