//! What is asked, and what counts as consent.

use std::collections::BTreeMap;

use super::*;
use crate::domain::attempt::Failure;
use crate::domain::payload_mode::PayloadMode;
use crate::domain::profile::Profiles;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::secret::SecretRule;

const NOON: Timestamp = Timestamp(1_750_000_000_000_000);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NO_TROUBLE: (Fault, &str) = (Fault::Receiver, "");
const STANDARD: &str = include_str!("../../../../profiles/standard.toml");

/// `standard` under another name, with this table and a fixed header.
fn profile(ownership: &str) -> std::sync::Arc<Profile> {
    let text = STANDARD.replace("\"standard\"\ndescription", "\"asking\"\ndescription");
    let text = format!("{text}\n[headers]\nx-key = \"hunter2\"\n[ownership]\n{ownership}");
    let profiles = Profiles::with_folder(vec![("asking.toml".to_owned(), text)]);
    std::sync::Arc::clone(profiles.expect("a profile").get("asking").expect("there"))
}

fn spec(signing_enabled: bool) -> SubscriptionSpec {
    SubscriptionSpec {
        account: None,
        name: String::new(),
        url: "https://receiver.example/hook".to_owned(),
        event_patterns: vec!["*".to_owned()],
        profile: "asking".to_owned(),
        signing_enabled,
        headers: BTreeMap::from([("Authorization".to_owned(), "Bearer hunter2".to_owned())]),
        attributes: BTreeMap::new(),
        send_organization_code: false,
        retry_waits: Vec::new(),
        attempt_timeout: Duration::from_secs(15),
        max_in_flight: 1,
        tls: ReceiverTls::default(),
        payload_mode: PayloadMode::Full,
        omit_trace_context: false,
    }
}

fn check(
    profile: &Profile,
    subscription: &SubscriptionSpec,
    keys: &[SigningKey],
) -> Result<Check, NotSendable> {
    let asking = Asking {
        profile,
        subscription,
        subscription_id: "sub_1",
        keys,
        seal_key: b"0123456789abcdef",
        put_offs: 0,
        now: NOON,
    };
    Check::new(profile.ownership().expect("it asks"), &asking)
}

fn names(check: &Check) -> Vec<&str> {
    check.headers.iter().map(|(name, _)| name.as_str()).collect()
}

fn value<'a>(check: &'a Check, name: &str) -> &'a str {
    let header = check.headers.iter().find(|(known, _)| known == name);
    header.expect("it is there").1.to_str().expect("ASCII")
}

fn answered(status: u16, body: &[u8]) -> Outcome {
    Outcome::Responded { status, retry_after: None, body: Bytes::copy_from_slice(body) }
}

fn allowing(values: &[&'static str]) -> HeaderMap {
    let name = HeaderName::from_static(ALLOWED_ORIGIN);
    values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn handshake() -> Check {
    let profile = profile("kind = \"handshake\"\norigin = \"hooks.example.com\"");
    check(&profile, &spec(true), &[]).expect("it needs no key")
}

#[test]
fn a_handshake_carries_the_origin_and_nothing_else() {
    let check = handshake();
    assert_eq!(check.method, Method::OPTIONS);
    assert_eq!(names(&check), ["user-agent", "webhook-request-origin"]);
    assert_eq!(value(&check, REQUEST_ORIGIN), "hooks.example.com");
    assert!(check.body.is_empty());
}

#[test]
fn a_handshake_is_answered_by_naming_the_sender_or_everybody() {
    let check = handshake();
    let result = |status, headers: &HeaderMap| {
        check.judge(&answered(status, b""), headers, NO_TROUBLE, NOON).result
    };
    for good in ["hooks.example.com", "Hooks.Example.COM", "*", " * "] {
        for status in [200, 204] {
            assert_eq!(result(status, &allowing(&[good])), CheckResult::Proven, "{good}");
        }
    }
    let wrong: [&[&str]; 7] = [
        &[],
        &[""],
        &["example.com"],
        &["hooks.example.com."],
        &["*.example.com"],
        &["hooks.example.com, *"],
        &["hooks.example.com", "other.example"],
    ];
    for values in wrong {
        assert_eq!(result(200, &allowing(values)), CheckResult::Refused, "{values:?}");
    }
    for status in [100, 199, 301, 307, 403, 405, 500] {
        assert_eq!(result(status, &allowing(&["*"])), CheckResult::Refused, "{status}");
    }
}

#[test]
fn a_refusal_says_why_and_what_the_endpoint_asked_for() {
    let check = handshake();
    let outcome = Outcome::Responded {
        status: 429,
        retry_after: Some(Duration::from_mins(1)),
        body: Bytes::from_static(b"patient 4711"),
    };
    let finding = check.judge(&outcome, &HeaderMap::new(), NO_TROUBLE, NOON);
    assert_eq!(finding.reason, "The endpoint answered with status 429.");
    assert_eq!((finding.retry_after, finding.gone), (Duration::from_mins(1), false));
    assert!(check.judge(&answered(410, b""), &HeaderMap::new(), NO_TROUBLE, NOON).gone);
    let silent = Outcome::NoResponse(Failure::BlockedAddress);
    let why = (Fault::Receiver, "The address may not be called.");
    let finding = check.judge(&silent, &HeaderMap::new(), why, NOON);
    assert_eq!(finding.result, CheckResult::NoAnswer);
    assert_eq!(finding.reason, "The address may not be called.");
    let not_asked = Outcome::NotAsked { wait: Duration::from_secs(7) };
    let why = (Fault::Ours, "Our proxy does not work.");
    let finding = check.judge(&not_asked, &HeaderMap::new(), why, NOON);
    assert_eq!(finding.result, CheckResult::NotSent);
    assert_eq!((finding.put_off, finding.gone), (Some(Duration::from_secs(7)), false));
    let nameless = Outcome::NoResponse(Failure::Dns);
    let finding = check.judge(&nameless, &HeaderMap::new(), (Fault::Ours, "No word."), NOON);
    assert_eq!(finding.result, CheckResult::NotSent);
    assert_eq!((finding.put_off, &*finding.reason), (Some(OUR_FAULT_WAIT), "No word."));
}

#[test]
fn who_cannot_be_asked_by_our_fault_is_tried_ever_more_seldom() {
    let waits = [0, 1, 2, 4, 5, 100, u32::MAX].map(our_fault_wait);
    assert_eq!(waits.map(|wait| wait.as_secs()), [30, 60, 120, 480, 900, 900, 900]);
}

#[test]
fn a_challenge_is_signed_as_a_delivery_is() {
    let profile = profile("kind = \"challenge\"");
    let key = SecretRule::Standard.key(SECRET).expect("a secret");
    let check = check(&profile, &spec(true), std::slice::from_ref(&key)).expect("it signs");
    assert_eq!(check.method, Method::POST);
    let expected =
        ["content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature"];
    assert_eq!(names(&check), expected);
    let (id, timestamp) = (value(&check, "webhook-id"), value(&check, "webhook-timestamp"));
    assert!(id.starts_with("chk_") && !id.contains('.'), "{id}");
    assert_eq!(timestamp, "1750000000");
    let rule = profile.signature().expect("it signs");
    let request = SignedRequest { id, timestamp, body: &check.body };
    assert!(rule.verify(&key, request, value(&check, "webhook-signature")));
}

#[test]
fn a_challenge_is_answered_by_repeating_it_in_time() {
    let profile = profile("kind = \"challenge\"");
    let check = check(&profile, &spec(false), &[]).expect("it need not sign");
    assert!(!names(&check).contains(&"webhook-signature"));
    let body: serde_json::Value = serde_json::from_slice(&check.body).expect("JSON");
    let challenge = body["challenge"].as_str().expect("a text").as_bytes();
    let result =
        |outcome: &Outcome, now| check.judge(outcome, &HeaderMap::new(), NO_TROUBLE, now).result;
    let good = answered(200, challenge);
    let last = NOON.plus(Duration::from_secs(20));
    assert_eq!(result(&good, last), CheckResult::Proven);
    assert_eq!(result(&good, Timestamp(last.0 + 1)), CheckResult::Refused);
    assert_eq!(result(&answered(201, b"ok"), NOON), CheckResult::Refused);
    assert_eq!(result(&answered(500, challenge), NOON), CheckResult::Refused);
    assert_eq!(body["expire_time"], 1_750_000_020);
}

#[test]
fn a_challenge_that_cannot_be_signed_is_not_sent() {
    let profile = profile("kind = \"challenge\"");
    let why = check(&profile, &spec(true), &[]).expect_err("no key");
    let finding = Finding::not_sent(why);
    assert_eq!(finding.result, CheckResult::NotSent);
    assert!(finding.reason.contains("no signing secret"), "{}", finding.reason);
}

#[test]
fn no_check_carries_a_fixed_header() {
    for kind in ["kind = \"handshake\"\norigin = \"a.example\"", "kind = \"challenge\""] {
        let profile = profile(kind);
        let check = check(&profile, &spec(false), &[]).expect("it need not sign");
        assert!(profile.fixed_headers().iter().any(|(name, _)| name == "x-key"));
        let mut values = check.headers.iter().map(|(_, value)| value.as_bytes());
        assert!(values.all(|value| !value.ends_with(b"hunter2")), "{kind}");
    }
}
