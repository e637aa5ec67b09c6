//! Who the events of a measurement are for: the organization that publishes them and
//! the subscriptions that they go to.

use std::net::SocketAddr;

use crate::protocol::Subscribing;

/// Subscriptions of one organization that all get the same events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    /// Whose events.
    pub(crate) organization: &'static str,
    /// What happened; nothing else matches it.
    pub(crate) event_type: &'static str,
    /// How many subscriptions get each event.
    pub(crate) fan_out: u32,
    /// Where they point at the receiver.
    path: &'static str,
}

/// One subscription.
pub(crate) const ONE: Audience =
    Audience { organization: "bench", event_type: "bench.published", fan_out: 1, path: "/hook" };
/// Ten subscriptions.
pub(crate) const TEN: Audience = Audience { fan_out: 10, ..ONE };
/// None: the organization's subscriptions are for other events.
pub(crate) const NOBODY: Audience = Audience { event_type: "nobody.listens", fan_out: 0, ..ONE };
/// One subscription whose receiver refuses connections.
pub(crate) const DEAD: Audience = Audience { event_type: "dead.published", ..ONE };
/// One subscription with TLS, beside the others.
pub(crate) const SECURE: Audience = Audience { organization: "bench-https", ..ONE };
/// One subscription of a stranger.
pub(crate) const NEIGHBOUR: Audience = Audience { organization: "neighbour", ..ONE };
/// 200 subscriptions of the worst receivers. Each kind is an organization's own: it may
/// have 128 requests under way, and all of them together leave as many for the others.
pub(crate) const HOSTILE: [Audience; 3] = [
    Audience { organization: "hang", fan_out: 67, path: "/hang", ..ONE },
    Audience { organization: "drip", fan_out: 67, path: "/drip", ..ONE },
    Audience { organization: "endless", fan_out: 66, path: "/endless", ..ONE },
];

impl Audience {
    /// Its subscriptions, at this door of the receiver.
    pub(crate) fn at(&self, scheme: &str, door: SocketAddr) -> Subscribing {
        let url = |number| format!("{scheme}://{door}{}/{number}", self.path);
        Subscribing {
            organization: self.organization.to_owned(),
            event_pattern: self.event_type.to_owned(),
            urls: (0..self.fan_out).map(url).collect(),
        }
    }
}
