//! One subscription changed in one place at a time: accepted or refused.

use super::*;
use crate::domain::address::AddressPolicy;

fn profile() -> ProfileRules {
    ProfileRules {
        name: "azodha".to_owned(),
        signed_by_default: true,
        content_type: "application/json".to_owned(),
        signature_headers: vec!["X-Azodha-Signature".to_owned()],
        service_patterns: false,
        organization_code: true,
        operational_events: false,
    }
}

fn changed(
    change: impl FnOnce(&mut SubscriptionInput, &mut ProfileRules),
) -> Result<SubscriptionSpec, InvalidField> {
    let mut profile = profile();
    let mut input = SubscriptionInput {
        url: "https://Example.com/hook".to_owned(),
        event_patterns: vec!["BookAppointment".to_owned()],
        ..SubscriptionInput::default()
    };
    let policy = AddressPolicy::default();
    let mut stored = input.clone().check(&profile, policy.rules(None), None).expect("valid");
    stored.headers = map("Api-Key", "stored");
    change(&mut input, &mut profile);
    input.check(&profile, policy.rules(None), Some(&stored))
}

fn map(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn secs(waits: &[u64]) -> Vec<Duration> {
    waits.iter().map(|&wait| Duration::from_secs(wait)).collect()
}

#[test]
fn what_is_left_out_gets_its_default() {
    let spec = changed(|_, _| {}).expect("valid");
    assert_eq!(spec.url, "https://example.com/hook");
    assert_eq!((&*spec.profile, spec.signing_enabled), ("azodha", true));
    assert_eq!(spec.retry_waits, DEFAULT_WAITS);
    assert_eq!(spec.attempt_timeout, Duration::from_secs(15));
    assert_eq!((spec.max_in_flight, spec.account), (16, None));
    assert_eq!(spec.payload_mode, PayloadMode::Full);
}

#[test]
fn what_is_given_is_kept() {
    let spec = changed(|input, profile| {
        input.account_id = "ward-3".to_owned();
        input.event_patterns = (0..100).map(|i| format!("type{i}.*")).collect();
        input.signing_enabled = Some(false);
        input.headers = map("api-key", "***");
        input.attributes = map("organization_code", "42");
        input.send_organization_code = true;
        input.retry_waits = Some(secs(&[86_400; 8]));
        input.attempt_timeout = Some(Duration::from_secs(30));
        input.max_in_flight = 256;
        input.payload_mode = PayloadModeKind::Masked;
        input.masked_pointers = vec!["/patient/name".to_owned()];
        input.omit_trace_context = true;
        input.event_patterns[7] = "hookward.*".to_owned();
        profile.service_patterns = true;
        profile.operational_events = true;
    });
    let spec = spec.expect("valid");
    assert_eq!(spec.payload_mode.pointers(), ["/patient/name"]);
    assert!(spec.omit_trace_context);
    assert_eq!(spec.account, Some(AccountId::stored("ward-3")));
    assert_eq!(spec.headers, map("api-key", "stored"));
    assert_eq!(spec.retry_waits.len(), 8);
    assert_eq!((spec.signing_enabled, spec.max_in_flight), (false, 256));
    let once = changed(|input, _| input.retry_waits = Some(secs(&[]))).expect("valid");
    assert!(once.retry_waits.is_empty(), "one attempt only");
}

type Case = (fn(&mut SubscriptionInput, &mut ProfileRules), &'static str, &'static str);

fn assert_refused(cases: &[Case]) {
    for (number, (change, field, reason)) in cases.iter().enumerate() {
        let invalid = changed(change).expect_err(reason);
        assert_eq!((&*invalid.field, invalid.reason), (*field, *reason), "case {number}");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_by_field_and_reason() {
    let cases: [Case; 15] = [
        (|i, _| i.account_id = "a b".to_owned(), "account_id", "INVALID_ID"),
        (|i, _| i.name = "n".repeat(257), "name", "INVALID_NAME"),
        (|i, _| i.name = "a\nb".to_owned(), "name", "INVALID_NAME"),
        (|i, _| i.url.clear(), "url", "URL_SYNTAX"),
        (|i, _| i.url = "https://10.0.0.1/".to_owned(), "url", "URL_BLOCKED_ADDRESS"),
        (|i, _| i.event_patterns.clear(), "event_patterns", "EVENT_PATTERNS_COUNT"),
        (
            |i, _| i.event_patterns = (0..101).map(|n| n.to_string()).collect(),
            "event_patterns",
            "EVENT_PATTERNS_COUNT",
        ),
        (
            |i, _| i.event_patterns = ["a", "b", "a*"].map(str::to_owned).to_vec(),
            "event_patterns[2]",
            "INVALID_EVENT_PATTERN",
        ),
        (
            |i, _| i.event_patterns = ["a", "a"].map(str::to_owned).to_vec(),
            "event_patterns[1]",
            "DUPLICATE_EVENT_PATTERN",
        ),
        (
            |i, _| i.event_patterns = ["a", "hookward.*"].map(str::to_owned).to_vec(),
            "event_patterns[1]",
            "OPERATIONAL_EVENTS_UNSUPPORTED",
        ),
        (
            |i, _| i.event_patterns = vec!["hookward.delivery.dead".to_owned()],
            "event_patterns[0]",
            "OPERATIONAL_EVENTS_UNSUPPORTED",
        ),
        (|i, _| i.headers = map("Host", "x"), "headers[\"Host\"]", "HEADER_RESERVED"),
        (
            |i, _| i.headers = map("x-azodha-signature", "x"),
            "headers[\"x-azodha-signature\"]",
            "HEADER_RESERVED",
        ),
        (|i, _| i.headers = map("X-Token", "***"), "headers[\"X-Token\"]", "HEADER_VALUE"),
        (|i, _| i.attributes = map("a b", "x"), "attributes", "INVALID_ATTRIBUTE"),
    ];
    assert_refused(&cases);
}

#[test]
fn codes_waits_and_limits_out_of_range_are_refused() {
    let cases: [Case; 8] = [
        (
            |i, _| {
                i.send_organization_code = true;
                i.attributes = map("organizationCode", "");
            },
            "send_organization_code",
            "ORGANIZATION_CODE_MISSING",
        ),
        (
            |i, p| {
                i.send_organization_code = true;
                i.attributes = map("organizationCode", "42");
                p.organization_code = false;
            },
            "send_organization_code",
            "ORGANIZATION_CODE_UNSUPPORTED",
        ),
        (|i, _| i.retry_waits = Some(secs(&[1; 50])), "retry_policy.waits", "INVALID_RETRY_POLICY"),
        (
            |i, _| i.retry_waits = Some(secs(&[1, 1, 1, 0])),
            "retry_policy.waits[3]",
            "INVALID_RETRY_POLICY",
        ),
        (
            |i, _| i.retry_waits = Some(secs(&[86_401])),
            "retry_policy.waits[0]",
            "INVALID_RETRY_POLICY",
        ),
        (
            |i, _| i.retry_waits = Some(secs(&[80_000; 9])),
            "retry_policy.waits",
            "INVALID_RETRY_POLICY",
        ),
        (
            |i, _| i.attempt_timeout = Some(Duration::from_millis(30_001)),
            "attempt_timeout",
            "INVALID_ATTEMPT_TIMEOUT",
        ),
        (|i, _| i.max_in_flight = 257, "max_in_flight", "INVALID_MAX_IN_FLIGHT"),
    ];
    assert_refused(&cases);
}

#[test]
fn certificates_need_tls() {
    let authority = rcgen::KeyPair::generate().expect("a key");
    let authority = rcgen::CertificateParams::default().self_signed(&authority);
    let authority = authority.expect("a certificate").pem();
    let with = |url: &str| {
        let policy = AddressPolicy {
            allow: vec!["127.0.0.1".parse().expect("entry")],
            ..AddressPolicy::default()
        };
        let input = SubscriptionInput {
            url: url.to_owned(),
            event_patterns: vec!["*".to_owned()],
            tls: TlsInput { certificate_authorities: authority.clone(), ..TlsInput::default() },
            ..SubscriptionInput::default()
        };
        input.check(&profile(), policy.rules(None), None).map_err(|invalid| invalid.reason)
    };
    assert!(with("https://127.0.0.1/").is_ok());
    assert_eq!(with("http://127.0.0.1/").map(drop), Err("TLS_NEEDS_HTTPS"));
}

#[test]
fn attributes_have_sixteen_kibibytes_together() {
    let filled = |bytes: usize| {
        changed(|input, _| {
            let full = (0..16).map(|i| (format!("k{i:03}"), "v".repeat(1000)));
            input.attributes = full.collect();
            let left = bytes - 16 * 1004 - "last".len();
            input.attributes.insert("last".to_owned(), "v".repeat(left));
        })
    };
    assert!(filled(16 << 10).is_ok());
    let refused = filled((16 << 10) + 1).expect_err("a byte more");
    assert_eq!((&*refused.field, refused.reason), ("attributes", "ATTRIBUTES_TOO_LARGE"));
}
