//! Calls as the fuzzer makes them up: mostly of values that mean something, so that many
//! get past the first check.

use arbitrary::Arbitrary;

/// A text of a request.
#[derive(Arbitrary, Clone, Debug)]
pub enum Text {
    /// One of those that mean something in its place.
    Usual(u8),
    Empty,
    Raw(String),
    Long(u16),
}

impl Text {
    pub fn of(&self, usual: &[String]) -> String {
        match self {
            Text::Usual(_) if usual.is_empty() => String::new(),
            Text::Usual(number) => usual[usize::from(*number) % usual.len()].clone(),
            Text::Empty => String::new(),
            Text::Raw(text) => text.clone(),
            Text::Long(length) => "a".repeat(usize::from(*length)),
        }
    }

    pub fn one_of(&self, usual: &[&str]) -> String {
        self.of(&usual.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }
}

/// A duration or a time.
#[derive(Arbitrary, Clone, Debug)]
pub enum Time {
    Millis(u16),
    /// Around now.
    Hours(i8),
    Raw(i64, i32),
}

impl Time {
    pub fn duration(&self) -> prost_types::Duration {
        let (seconds, nanos) = match self {
            Time::Millis(millis) => {
                (i64::from(millis / 1000), i32::from(millis % 1000) * 1_000_000)
            }
            Time::Hours(hours) => (i64::from(*hours) * 3600, 0),
            Time::Raw(seconds, nanos) => (*seconds, *nanos),
        };
        prost_types::Duration { seconds, nanos }
    }

    pub fn timestamp(&self) -> prost_types::Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or_default();
        let (seconds, nanos) = match self {
            Time::Millis(millis) => (now, i32::from(*millis)),
            Time::Hours(hours) => (now + i64::from(*hours) * 3600, 0),
            Time::Raw(seconds, nanos) => (*seconds, *nanos),
        };
        prost_types::Timestamp { seconds, nanos }
    }
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Draft {
    pub id: Text,
    pub organization: Text,
    pub account: Text,
    pub name: Text,
    pub url: Text,
    pub patterns: Vec<Text>,
    pub profile: Text,
    pub signing: Option<bool>,
    pub headers: Vec<(Text, Text)>,
    pub attributes: Vec<(Text, Text)>,
    pub sends_code: bool,
    pub waits: Option<Vec<Time>>,
    pub timeout: Option<Time>,
    pub max_in_flight: u32,
    pub state: i32,
    pub etag: Text,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct EventDraft {
    pub id: Text,
    pub organization: Text,
    pub account: Text,
    pub event_type: Text,
    pub occur_time: Option<Time>,
    pub expire_time: Option<Time>,
    pub payload: Option<Payload>,
    pub content_type: Text,
    pub attributes: Vec<(Text, Text)>,
    pub subject: Text,
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Payload {
    Json(Text),
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Page {
    pub size: i32,
    pub token: Text,
}

/// What is the same in two lists.
#[derive(Arbitrary, Clone, Debug)]
pub struct Filter {
    pub account: Text,
    pub pattern: Text,
    pub range: Option<(Option<Time>, Option<Time>)>,
    pub states: Vec<i32>,
    pub page: Page,
}

/// What an owner does to a subscription that takes no more than its id.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Switch {
    Pause,
    Resume,
    Activate,
    Deactivate,
    Ping,
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Method {
    CreateSubscription {
        draft: Draft,
        secret: Text,
        request_id: Text,
        validate_only: bool,
    },
    /// A subscription of everything that keeps every rule.
    Subscribe,
    GetSubscription(Text),
    ListSubscriptions {
        filter: Filter,
        event_type: Text,
        profile: Text,
    },
    UpdateSubscription {
        draft: Draft,
        mask: Option<Vec<Text>>,
        validate_only: bool,
    },
    DeleteSubscription {
        id: Text,
        etag: Text,
        allow_missing: bool,
    },
    Switch(Switch, Text),
    RotateSecret {
        id: Text,
        overlap: Option<Time>,
        secret: Text,
        request_id: Text,
    },
    ListSecrets(Text),
    RevokeSecret {
        id: Text,
        secret: Text,
    },
    ListProfiles,
    Publish(Vec<EventDraft>),
    GetEvent {
        id: Text,
        with_payload: bool,
    },
    ListEvents {
        filter: Filter,
        with_payload: bool,
    },
    GetDelivery(Text),
    ListDeliveries {
        filter: Filter,
        subscription: Text,
        event: Text,
    },
    ListAttempts {
        id: Text,
        with_body: bool,
        page: Page,
    },
    Retry {
        id: Text,
        request_id: Text,
    },
    Cancel(Text),
    GetEventType {
        catalog: Text,
        name: Text,
    },
    ListEventTypes {
        catalog: Text,
        page: Page,
    },
    PurgeEvent(Text),
    PurgeSubject {
        subject: Text,
        token: Text,
    },
    ListAuditEntries {
        filter: Filter,
    },
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Call {
    /// `None`: the caller's own.
    pub organization: Option<Text>,
    pub method: Method,
}
