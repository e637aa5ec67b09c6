//! Holds what came against what had to come, with the eyes of a receiver: each
//! signature is made anew from the secret and the bytes that arrived, by the
//! platform's documentation and without the code that signed.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Sha256;
use time::OffsetDateTime;

use crate::cli::receiver::Received;

use super::scenario::Endpoint;
use super::scenario::Expected;
use super::scenario::RECOVERING_WAITS_MS;
use super::scenario::Scheme;

/// How far a signed time may be from the receiver's.
const TOLERANCE_SECS: u64 = 300;

/// What has come so far.
#[derive(Debug)]
pub(super) struct Tally {
    deliveries: Vec<Tracked>,
    /// Secrets by path.
    secrets: BTreeMap<&'static str, String>,
    faults: Vec<String>,
}

/// A delivery and its requests.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) expected: Expected,
    requests: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    at: OffsetDateTime,
    /// `webhook-id`, where the profile has one.
    id: Option<String>,
}

/// What is to be said about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// `None` when nothing like it was expected.
    pub(super) event_type: Option<&'static str>,
    /// Which request of its delivery it is, from 1.
    pub(super) attempt: usize,
    /// The header that was verified, or what is wrong.
    pub(super) signature: Result<&'static str, String>,
}

impl Tally {
    /// Nothing has come; these deliveries must, signed with these secrets by path.
    pub(super) fn new(expected: Vec<Expected>, secrets: BTreeMap<&'static str, String>) -> Tally {
        let tracked = |expected| Tracked { expected, requests: Vec::new() };
        let deliveries = expected.into_iter().map(tracked).collect();
        Tally { deliveries, secrets, faults: Vec::new() }
    }

    /// Takes a request into account.
    pub(super) fn note(&mut self, received: &Received) -> Noted {
        let found = self.deliveries.iter_mut().find(|delivery| delivery.is_of(received));
        let Some(delivery) = found else {
            self.faults.push(format!("nothing like it was expected at {}", received.path));
            let signature = Err("unexpected".to_owned());
            return Noted { event_type: None, attempt: 1, signature };
        };
        let endpoint = delivery.expected.endpoint;
        let secret = self.secrets.get(endpoint.path).map_or("", String::as_str);
        let signature = verify(endpoint, secret, received);
        let id = received.header("webhook-id").map(str::to_owned);
        delivery.requests.push(Seen { at: received.at, id });
        let (event_type, attempt) = (delivery.expected.event_type, delivery.requests.len());
        let mut fault = |why: &str| {
            self.faults
                .push(format!("{event_type} at {}, request {attempt}: {why}", received.path));
        };
        if let Err(why) = &signature {
            fault(why);
        }
        if received.method != "POST" {
            fault("not a POST");
        }
        if received.header("content-type") != Some("application/json") {
            fault("its content type is not application/json");
        }
        match endpoint.answers.get(attempt - 1) {
            None => fault("more requests than were due"),
            Some(due) if *due != received.answer => fault("the receiver did not keep its script"),
            Some(_) => {}
        }
        Noted { event_type: Some(event_type), attempt, signature }
    }

    /// Whether every request has come.
    pub(super) fn is_complete(&self) -> bool {
        self.deliveries.iter().all(|delivery| delivery.missing() == 0)
    }

    /// How many requests have come that belong to a delivery.
    pub(super) fn request_count(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.requests.len()).sum()
    }

    /// The deliveries, in the order in which they were expected.
    pub(super) fn deliveries(&self) -> &[Tracked] {
        &self.deliveries
    }

    /// Everything that was not as it had to be, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        for delivery in &self.deliveries {
            let (event_type, path) =
                (delivery.expected.event_type, delivery.expected.endpoint.path);
            let mut fault = |why: String| faults.push(format!("{event_type} at {path}: {why}"));
            if 0 < delivery.missing() {
                let due = delivery.expected.endpoint.answers.len();
                fault(format!("{} of {due} requests did not come", delivery.missing()));
            }
            let mut ids = delivery.requests.iter().map(|request| &request.id);
            if let Some(first) = ids.next()
                && ids.any(|id| id != first)
            {
                fault("its id changed from request to request".to_owned());
            }
            for (pair, wait) in delivery.requests.windows(2).zip(RECOVERING_WAITS_MS) {
                if pair[1].at - pair[0].at < Duration::from_millis(wait.into()) {
                    fault(format!("it came again before {wait} ms had passed"));
                }
            }
        }
        faults
    }
}

impl Tracked {
    /// The id that its requests carried, where the profile sends one.
    pub(super) fn webhook_id(&self) -> Option<&str> {
        self.requests.first()?.id.as_deref()
    }

    fn is_of(&self, received: &Received) -> bool {
        let Expected { endpoint, body, .. } = &self.expected;
        received.path == endpoint.path && received.body.as_ref() == Some(body)
    }

    fn missing(&self) -> usize {
        self.expected.endpoint.answers.len().saturating_sub(self.requests.len())
    }
}

fn verify(endpoint: &Endpoint, secret: &str, received: &Received) -> Result<&'static str, String> {
    let header = |name: &str| received.header(name).ok_or_else(|| format!("no {name} header"));
    let claimed = header(endpoint.signature_header)?;
    let body = received.body.as_deref().unwrap_or_default();
    let made = match endpoint.scheme {
        Scheme::Hex => {
            let digits = hmac(secret.as_bytes(), &[body]).map(|byte| format!("{byte:02x}"));
            format!("sha256={}", digits.concat())
        }
        Scheme::Base64 => {
            format!("sha256={}", STANDARD.encode(hmac(secret.as_bytes(), &[body])))
        }
        Scheme::Standard => {
            let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
            let signed: i64 = timestamp.parse().map_err(|_| "its timestamp is no number")?;
            if TOLERANCE_SECS < received.at.unix_timestamp().abs_diff(signed) {
                return Err("its timestamp is not of now".to_owned());
            }
            let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap_or_default();
            let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
            format!("v1,{}", STANDARD.encode(hmac(&key, &parts)))
        }
    };
    // Not in constant time: the demo's only stranger is itself.
    if claimed == made { Ok(endpoint.signature_header) } else { Err("wrong signature".to_owned()) }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;
    use time::macros::datetime;

    use crate::cli::demo::scenario::ENDPOINTS;
    use crate::cli::demo::scenario::expected;

    use super::*;

    const SECRET: &str = "0123456789abcdef";
    const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn tally() -> Tally {
        let secret = |endpoint: &Endpoint| match endpoint.scheme {
            Scheme::Hex | Scheme::Base64 => SECRET.to_owned(),
            Scheme::Standard => STANDARD_SECRET.to_owned(),
        };
        let secrets = ENDPOINTS.iter().map(|endpoint| (endpoint.path, secret(endpoint)));
        Tally::new(expected(), secrets.collect())
    }

    /// What a right server sends.
    fn request(delivery: &Expected, number: usize) -> Received {
        let endpoint = delivery.endpoint;
        let wait: u32 = RECOVERING_WAITS_MS[..number].iter().sum();
        let at = datetime!(2026-03-04 15:20:32 UTC) + Duration::from_millis(wait.into());
        let timestamp = at.unix_timestamp().to_string();
        let mut headers = vec![("content-type", "application/json".to_owned())];
        let rules = crate::domain::profile::Profiles::built_in();
        let rule = rules.get(endpoint.profile).and_then(|profile| profile.signature().cloned());
        let rule = rule.expect("every platform signs");
        let (id, secret) = match endpoint.scheme {
            Scheme::Hex | Scheme::Base64 => ("", SECRET),
            Scheme::Standard => ("dlv_1", STANDARD_SECRET),
        };
        if !id.is_empty() {
            headers.push(("webhook-id", id.to_owned()));
            headers.push(("webhook-timestamp", timestamp.clone()));
        }
        let key = rule.secret.key(secret).expect("a secret");
        let signed = crate::domain::signature::SignedRequest {
            id,
            timestamp: &timestamp,
            body: &delivery.body,
        };
        let signature = rule.sign(&[key], signed);
        let header = |(name, value): (&'static str, String)| {
            (HeaderName::from_static(name), HeaderValue::try_from(value).expect("ASCII"))
        };
        let mut headers: Vec<_> = headers.into_iter().map(header).collect();
        headers.push((rule.header.clone(), signature));
        Received {
            at,
            method: "POST".to_owned(),
            path: endpoint.path.to_owned(),
            headers,
            body: Some(delivery.body.clone()),
            answer: endpoint.answers[number],
        }
    }

    fn requests() -> Vec<Received> {
        let all = |delivery: &Expected| {
            let numbers = 0..delivery.endpoint.answers.len();
            numbers.map(|number| request(delivery, number)).collect::<Vec<_>>()
        };
        expected().iter().flat_map(all).collect()
    }

    #[test]
    fn what_a_right_server_sends_has_no_fault() {
        let mut tally = tally();
        for received in requests() {
            assert!(!tally.is_complete());
            assert_eq!(tally.note(&received).signature.map(|_| ()), Ok(()));
        }
        assert!(tally.is_complete());
        assert_eq!(tally.faults(), Vec::<String>::new());
        assert_eq!(tally.request_count(), 15);
    }

    #[test]
    fn every_wrong_is_named() {
        type Change = fn(&mut Vec<Received>);
        let changes: [(&str, Change); 10] = [
            ("1 of 3 requests did not come", |all| drop(all.pop())),
            ("more requests than were due", |all| all.push(all[0].clone())),
            ("nothing like it was expected", |all| all[0].body = Some("{}".into())),
            ("nothing like it was expected", |all| all[0].path = "/azodha".to_owned()),
            ("not a POST", |all| all[0].method = "PUT".to_owned()),
            ("content type", |all| drop(all[0].headers.remove(0))),
            ("no telegramd-signature header", |all| drop(all[0].headers.pop())),
            ("wrong signature", |all| {
                let other = all.iter().rfind(|one| one.path == "/telegramd").expect("several");
                all[0].headers = other.headers.clone();
            }),
            ("its id changed", |all| {
                let last = all.last_mut().expect("the recovering one");
                last.headers[1].1 = HeaderValue::from_static("dlv_2");
            }),
            ("before 700 ms had passed", |all| {
                let last = all.last_mut().expect("the recovering one");
                last.at -= Duration::from_millis(1);
            }),
        ];
        for (wrong, change) in changes {
            let mut requests = requests();
            change(&mut requests);
            let mut tally = tally();
            for received in &requests {
                tally.note(received);
            }
            let faults = tally.faults();
            assert!(faults.iter().any(|fault| fault.contains(wrong)), "{wrong}: {faults:?}");
        }
    }

    /// Made with `printf '{}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn the_digest_is_that_of_openssl() {
        let digits = hmac(SECRET.as_bytes(), &[b"{}"]).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(digits, "f91e3e9f05cc2df64ac1c26f8adccdffda8d1e4a7a8c50a1a08eeadac6ddfec5");
    }
}
