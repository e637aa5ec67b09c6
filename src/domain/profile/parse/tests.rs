//! What a profile file may not say, and how the refusal reads.

use super::*;

const MEETINGLAWYERS: &str = include_str!("../../../../profiles/meetinglawyers.toml");
const AZODHA: &str = include_str!("../../../../profiles/azodha.toml");
const STANDARD: &str = include_str!("../../../../profiles/standard.toml");
const HAPIHUB: &str = include_str!("../../../../profiles/hapihub.toml");

/// The refusal of a file in which `old` says `new`.
fn refusal(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old}");
    let error = Profile::parse("own.toml", &text.replace(old, new)).expect_err(new);
    assert_eq!(error.file, "own.toml");
    format!("{}: {}", error.key, error.why)
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    for header in ["name =", "kind = \"envelope\"", "algorithm =", "statuses =", "event_type ="] {
        let refusal = refusal(MEETINGLAWYERS, header, &format!("surprise = 1\n{header}"));
        assert!(refusal.contains("`surprise`"), "{refusal}");
        assert!(refusal.starts_with("line "), "{refusal}");
    }
    for (old, new) in [
        ("service = true", "service = true\nsurprise = 1"),
        ("[patterns]", "[surprise]"),
        ("kind = \"text\"", "kind = \"text\", surprise = 1"),
        ("[ping]", "[ownership]\nkind = \"challenge\"\nsurprise = 1\n[ping]"),
    ] {
        assert!(refusal(HAPIHUB, old, new).contains("surprise"), "{new}");
    }
    for (old, new) in [
        ("kind = \"standard\"", "kind = \"standard\", surprise = 1"),
        ("id = \"webhook-id\"", "id = \"webhook-id\"\nsurprise = 1"),
    ] {
        assert!(refusal(STANDARD, old, new).contains("surprise"), "{new}");
    }
}

#[test]
fn values_outside_the_closed_sets_are_refused_with_the_line() {
    for (old, new) in [
        ("\"hmac-sha256\"", "\"hmac-sha1\""),
        ("\"rfc3339-millis-offset\"", "\"rfc3339\""),
        ("\"event.type\"", "\"event.name\""),
        ("payload = \"object\"", "payload = \"list\""),
        ("statuses = \"2xx\"", "statuses = \"3xx\""),
        ("signed_by_default = true", "signed_by_default = 1"),
        ("content_type =", "omit_trace_context = \"no\"\ncontent_type ="),
        ("[ping]", "[ownership]\nkind = \"options\"\n[ping]"),
    ] {
        assert!(refusal(MEETINGLAWYERS, old, new).starts_with("line "), "{new}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused_by_name() {
    for (text, old, new, key) in [
        (STANDARD, "timestamp = \"webhook-timestamp\"", "", "signature.message"),
        (STANDARD, "id = \"webhook-id\"", "id = \"Webhook-Signature\"", "headers"),
        (STANDARD, "\"webhook-signature\"", "\"Content-Length\"", "signature.header"),
        (STANDARD, "v1,{base64}", "v1,{base32}", "signature.format"),
        (STANDARD, "payload = '{}'", "payload = '{'", "ping.payload"),
        (STANDARD, "payload = '{}'", "payload = '{} {}'", "ping.payload"),
        (MEETINGLAWYERS, "payload = '{}'", "payload = '[]'", "ping.payload"),
        (MEETINGLAWYERS, "payload = '{}'", "", "ping.payload"),
        (MEETINGLAWYERS, "time_format = \"rfc3339-millis-offset\"", "", "body.time_format"),
        (MEETINGLAWYERS, "[\"occurred_on\"", "[\"type\"", "body.fields"),
        (MEETINGLAWYERS, "\"event.payload\"", "\"event.id\"", "body.fields"),
        (
            MEETINGLAWYERS,
            "payload = \"object\"",
            "payload = \"object\"\norganization_code_key = \"type\"",
            "body.organization_code_key",
        ),
        (MEETINGLAWYERS, "[16, 32]", "[7, 32]", "signature.secret.accept_chars"),
        (MEETINGLAWYERS, "[16, 32]", "[16, 31]", "signature.secret.generate_chars"),
        (MEETINGLAWYERS, "\"meetinglawyers\"", "\"Meeting Lawyers\"", "name"),
        (MEETINGLAWYERS, "\"application/json\"", "\"application/json\\n\"", "content_type"),
        (AZODHA, "payload = \"object\"", "payload = \"json\"", "body.organization_code_key"),
        (
            AZODHA,
            "kind = \"payload\"",
            "kind = \"payload\"\nabsent_payload = \"null\"",
            "body.absent_payload",
        ),
        (
            AZODHA,
            "kind = \"payload\"",
            "kind = \"payload\"\ntime_format = \"unix-seconds\"",
            "body.fields",
        ),
        (AZODHA, "[body]", "[headers]\na = \"1\"\nA = \"2\"\n[body]", "headers"),
        (AZODHA, "kind = \"payload\"", "kind = \"payload\"\nid_only = \"id\"", "body.id_only"),
        (HAPIHUB, "absent_payload = \"omit\"", "", "body.id_only"),
        (HAPIHUB, "[\"id\", \"event.id\"], ", "", "body.id_only"),
        (HAPIHUB, "[ping]", "[ownership]\nkind = \"handshake\"\n[ping]", "ownership.origin"),
        (
            HAPIHUB,
            "[ping]",
            "[ownership]\nkind = \"handshake\"\norigin = \"https://a.example\"\n[ping]",
            "ownership.origin",
        ),
        (
            HAPIHUB,
            "[ping]",
            "[ownership]\nkind = \"challenge\"\norigin = \"a.example\"\n[ping]",
            "ownership.origin",
        ),
        (
            HAPIHUB,
            "[ping]",
            "[headers]\nWebHook-Request-Origin = \"b.example\"\n[ownership]\nkind = \"handshake\"\norigin = \"a.example\"\n[ping]",
            "headers",
        ),
        (HAPIHUB, "[200]", "[]", "success.statuses"),
        (HAPIHUB, "[200]", "[200, 404]", "success.statuses"),
    ] {
        let refusal = refusal(text, old, new);
        assert!(refusal.starts_with(&format!("{key}: ")), "{new}: {refusal}");
    }
}

#[test]
fn headers_that_something_else_decides_are_refused() {
    for name in ["Host", "Keep-Alive", "Trailer", "TraceParent", "tracestate"] {
        let table = format!("[headers]\n{name} = \"a\"\n[body]");
        let refusal = refusal(AZODHA, "[body]", &table);
        assert!(refusal.starts_with(&format!("headers.{name}: ")), "{refusal}");
    }
}

#[test]
fn a_ping_has_a_type_that_events_may_have() {
    for wrong in ["", "endpoint..ping", "a ping", "hookward.ping"] {
        let refusal = refusal(STANDARD, "\"ping\"", &format!("\"{wrong}\""));
        assert!(refusal.starts_with("ping.event_type: "), "{wrong}: {refusal}");
    }
}

#[test]
fn a_refusal_does_not_repeat_a_headers_value() {
    let secret = "[headers]\nx-api-key = \"hunter2\\n\"\n[body]";
    assert!(!refusal(AZODHA, "[body]", secret).contains("hunter2"));
    let number = refusal(AZODHA, "[body]", "[headers]\nx-api-key = 4711\n[body]");
    assert_eq!(number, "headers.x-api-key: must be visible ASCII");
    let broken = "[headers]\nx-api-key = \"hunter2\n[body]";
    assert!(!refusal(AZODHA, "[body]", broken).contains("hunter2"));
}

/// As `CloudEvents` asks (HTTP 1.1 Web Hooks 1.0.2, section 4.1.2).
#[test]
fn a_handshake_fixes_the_origin_of_every_request() {
    let table = "[headers]\nX-Version = \"2\"\n[ownership]\nkind = \"handshake\"\norigin = \"Hooks.Example\"\n[ping]";
    let profile = Profile::parse("own.toml", &HAPIHUB.replace("[ping]", table)).expect("a profile");
    let fixed: Vec<_> = profile
        .fixed_headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
        .collect();
    assert_eq!(fixed, [("webhook-request-origin", "Hooks.Example"), ("x-version", "2")]);
    let reserved = profile.signature_header_names();
    assert!(reserved.iter().any(|name| name == REQUEST_ORIGIN), "no subscription may set it");

    let table = "[ownership]\nkind = \"challenge\"\n[ping]";
    let profile = Profile::parse("own.toml", &HAPIHUB.replace("[ping]", table)).expect("a profile");
    assert_eq!(profile.ownership(), Some(&OwnershipRule::Challenge));
    assert!(profile.fixed_headers().is_empty());
}

/// Files from before there was the key say nothing of it.
#[test]
fn a_profile_sends_trace_context_unless_it_says_no() {
    let [no, yes] = ["omit_trace_context = false", "omit_trace_context = true"];
    for (key, omits) in [("", false), (no, false), (yes, true)] {
        let text = HAPIHUB.replace("content_type =", &format!("{key}\ncontent_type ="));
        let profile = Profile::parse("own.toml", &text).expect("a profile");
        assert_eq!(profile.omits_trace_context(), omits, "{key}");
    }
}

#[test]
fn no_built_in_profile_asks() {
    for text in [MEETINGLAWYERS, AZODHA, STANDARD, HAPIHUB] {
        assert_eq!(Profile::parse("own.toml", text).expect("a profile").ownership(), None);
    }
}
