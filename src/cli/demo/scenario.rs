//! What the demo does and what must come of it, written down as each platform's own
//! documentation has it: nothing here is computed by the code that it checks.

use bytes::Bytes;

use crate::domain::catalog::Catalog;

/// Whose everything is.
pub(super) const ORGANIZATION: &str = "demo";
/// When every event happened: 2026-03-04T15:20:31.412Z, in UNIX time.
pub(super) const OCCURRED: (i64, i32) = (1_772_637_631, 412_000_000);
/// Sent along by the subscription that asks for it.
pub(super) const ORGANIZATION_CODE: &str = "demo-clinic";
/// What the receiver that fails answers.
pub(super) const RECOVERING_ANSWERS: &str = "503,503,200";
/// Waits of its subscription, in milliseconds.
pub(super) const RECOVERING_WAITS_MS: [u32; 2] = [300, 700];

/// A receiver's endpoint with its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    /// The platform whose wire profile it uses.
    pub(super) profile: &'static str,
    pub(super) patterns: &'static [&'static str],
    /// The header with the signature, in lower case.
    pub(super) signature_header: &'static str,
    pub(super) scheme: Scheme,
    /// Whether the body carries [`ORGANIZATION_CODE`].
    pub(super) organization_code: bool,
    /// What it answers, one after the other.
    pub(super) answers: &'static [u16],
}

/// How a platform signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `sha256=` and the body's HMAC in hexadecimal digits.
    Hex,
    /// `sha256=` and the body's HMAC in base64.
    Base64,
    /// Standard Webhooks, version 1.
    Standard,
}

/// One delivery that must come of what is published.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) endpoint: &'static Endpoint,
    pub(super) event_type: &'static str,
    pub(super) event_id: String,
    /// Every byte of it.
    pub(super) body: Bytes,
}

/// An event to publish.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) id: String,
    pub(super) event_type: &'static str,
    pub(super) payload: Option<String>,
}

pub(super) const ENDPOINTS: [Endpoint; 6] = [
    Endpoint {
        patterns: &["order_created", "prescription_sent_to_pharmacy"],
        ..endpoint("/telegramd", "telegramd-signature", Scheme::Hex)
    },
    Endpoint {
        patterns: &["BookAppointment", "HealthProgramActivated"],
        organization_code: true,
        ..endpoint("/azodha", "x-azodha-signature", Scheme::Hex)
    },
    Endpoint {
        patterns: &["message_sent", "user_logged_in"],
        ..endpoint("/meetinglawyers", "x-signature", Scheme::Base64)
    },
    Endpoint {
        // A bare name: every method of that service.
        patterns: &["medical-encounters", "ping"],
        ..endpoint("/hapihub", "x-hapihub-signature", Scheme::Hex)
    },
    Endpoint {
        // What others get as well: one event, two receivers.
        patterns: &["order_created", "medical-encounters.*"],
        ..endpoint("/standard", "webhook-signature", Scheme::Standard)
    },
    Endpoint {
        path: "/recovering",
        patterns: &["order_payment_collected"],
        answers: &[503, 503, 200],
        ..endpoint("/standard", "webhook-signature", Scheme::Standard)
    },
];

/// What is published, by catalogue, and which endpoints get it.
const EVENTS: [(&str, &str, &[&str]); 10] = [
    ("telegramd", "order_created", &["/telegramd", "/standard"]),
    ("telegramd", "prescription_sent_to_pharmacy", &["/telegramd"]),
    ("azodha", "BookAppointment", &["/azodha"]),
    ("azodha", "HealthProgramActivated", &["/azodha"]),
    ("meetinglawyers", "message_sent", &["/meetinglawyers"]),
    ("meetinglawyers", "user_logged_in", &["/meetinglawyers"]),
    ("hapihub", "medical-encounters.create", &["/hapihub", "/standard"]),
    ("hapihub", "medical-encounters.update", &["/hapihub", "/standard"]),
    ("hapihub", "ping", &["/hapihub"]),
    ("telegramd", "order_payment_collected", &["/recovering"]),
];

/// The events, with their catalogue's examples as payloads.
pub(super) fn publications() -> Vec<Publication> {
    let publication = |&(catalog, event_type, _): &(&str, &'static str, &[&str])| {
        let payload = example(catalog, event_type);
        Publication { id: event_id(event_type), event_type, payload }
    };
    EVENTS.iter().map(publication).collect()
}

/// The deliveries, in the order of the events.
pub(super) fn expected() -> Vec<Expected> {
    let mut expected = Vec::new();
    for (catalog, event_type, paths) in EVENTS {
        let payload = example(catalog, event_type);
        for endpoint in ENDPOINTS.iter().filter(|endpoint| paths.contains(&endpoint.path)) {
            let event_id = event_id(event_type);
            let body = body(endpoint, &event_id, event_type, payload.as_deref());
            expected.push(Expected { endpoint, event_type, event_id, body: body.into() });
        }
    }
    expected
}

/// An endpoint whose path is its profile's name.
const fn endpoint(path: &'static str, signature_header: &'static str, scheme: Scheme) -> Endpoint {
    Endpoint {
        path,
        profile: path.split_at(1).1,
        patterns: &[],
        signature_header,
        scheme,
        organization_code: false,
        answers: &[200],
    }
}

fn example(catalog: &str, event_type: &str) -> Option<String> {
    let found = Catalog::built_in().get(catalog, event_type);
    found.expect("the scenario names types of the catalogue").example_json.clone()
}

fn event_id(event_type: &str) -> String {
    format!("demo-{}", event_type.replace('.', ":"))
}

/// The body that the platform documents for this event.
fn body(endpoint: &Endpoint, id: &str, event_type: &str, payload: Option<&str>) -> String {
    match (endpoint.profile, payload) {
        ("telegramd", Some(payload)) => payload.to_owned(),
        ("azodha", Some(payload)) => {
            let open = payload.strip_suffix('}').expect("examples are objects");
            format!(r#"{open},"organizationCode":"{ORGANIZATION_CODE}"}}"#)
        }
        ("meetinglawyers", Some(payload)) => format!(
            r#"{{"type":"{event_type}","occurred_on":"2026-03-04T15:20:31.412+00:00","payload":{payload}}}"#
        ),
        ("hapihub", Some(payload)) => {
            format!(r#"{{"id":"{id}","event":"{event_type}","payload":{payload}}}"#)
        }
        ("hapihub", None) => format!(r#"{{"id":"{id}","event":"{event_type}"}}"#),
        ("standard", Some(payload)) => format!(
            r#"{{"type":"{event_type}","timestamp":"2026-03-04T15:20:31.412000Z","data":{payload}}}"#
        ),
        (profile, _) => unreachable!("the scenario sends no such thing to {profile}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::profile::BUILT_IN_NAMES;

    use super::*;

    #[test]
    fn every_built_in_profile_gets_something() {
        for profile in BUILT_IN_NAMES {
            let expected = expected();
            let mut of = expected.iter().filter(|delivery| delivery.endpoint.profile == profile);
            assert!(of.next().is_some(), "{profile}");
        }
        assert_eq!(publications().len(), 10);
        assert_eq!(expected().len(), 13);
    }

    #[test]
    fn no_two_requests_at_one_endpoint_look_alike() {
        let mut seen: Vec<_> =
            expected().into_iter().map(|one| (one.endpoint.path, one.body)).collect();
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
