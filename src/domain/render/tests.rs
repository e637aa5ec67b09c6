//! Every built-in profile's request, byte for byte, and what cannot be one.

use std::time::Duration;

use super::*;
use crate::domain::event::EventSummary;
use crate::domain::event::TraceContext;
use crate::domain::id::AccountId;
use crate::domain::id::EventKey;
use crate::domain::id::OrganizationId;
use crate::domain::profile::Profiles;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::signature::SignedRequest;

const IDS: RenderIds<'_> = RenderIds { delivery_id: "dlv_0123456789abc0123456789abc" };
const NOW: Timestamp = Timestamp(1_772_637_700_999_999);

fn event(event_type: &str, payload: Payload) -> Event {
    let summary = EventSummary {
        key: EventKey(1),
        id: "order:17".to_owned(),
        organization: OrganizationId::parse("acme").expect("a name"),
        account: None,
        event_type: event_type.to_owned(),
        occur_time: Timestamp(1_772_637_631_412_345),
        publish_time: NOW,
        expire_time: None,
        content_type: "text/csv; charset=utf-8".to_owned(),
        payload_bytes: 0,
        attributes: [].into(),
        subject: String::new(),
        trace: TraceContext::default(),
        purge_time: None,
        publisher: "".into(),
    };
    Event { summary, payload }
}

fn json(text: &'static str) -> Payload {
    Payload::Json(Bytes::from_static(text.as_bytes()))
}

fn subscription(profile: &str) -> SubscriptionSpec {
    SubscriptionSpec {
        account: None,
        name: String::new(),
        url: "https://receiver.example/".to_owned(),
        event_patterns: vec!["*".to_owned()],
        profile: profile.to_owned(),
        signing_enabled: false,
        headers: [].into(),
        attributes: [].into(),
        send_organization_code: false,
        retry_waits: Vec::new(),
        attempt_timeout: Duration::from_secs(15),
        max_in_flight: 16,
        tls: ReceiverTls::default(),
        payload_mode: PayloadMode::Full,
        omit_trace_context: false,
    }
}

fn with_code(code: &str) -> SubscriptionSpec {
    let attributes = [("organizationCode".to_owned(), code.to_owned())].into();
    SubscriptionSpec { send_organization_code: true, attributes, ..subscription("azodha") }
}

fn rendered(
    spec: &SubscriptionSpec,
    event: &Event,
    keys: &[SigningKey],
) -> Result<Rendered, NotSendable> {
    let profiles = Profiles::built_in();
    let profile = profiles.get(&spec.profile).expect("built in");
    render(profile, event, spec, keys, IDS, NOW)
}

fn body_of(spec: &SubscriptionSpec, event: &Event) -> Result<String, NotSendable> {
    let rendered = rendered(spec, event, &[])?;
    Ok(String::from_utf8(rendered.body.to_vec()).expect("UTF-8"))
}

fn header<'a>(rendered: &'a Rendered, name: &str) -> Option<&'a str> {
    let mut found = rendered.headers.iter().filter(|(set, _)| set.as_str() == name);
    let value = found.next().map(|(_, value)| value.to_str().expect("ASCII"));
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

#[test]
fn each_profile_has_its_platforms_body() {
    let payload = "{ \"n\":1.0,\"é\":null }";
    for (profile, expected) in [
        (
            "standard",
            r#"{"type":"a.b","timestamp":"2026-03-04T15:20:31.412345Z","data":{ "n":1.0,"é":null }}"#,
        ),
        ("telegramd", payload),
        ("azodha", payload),
        (
            "meetinglawyers",
            r#"{"type":"a.b","occurred_on":"2026-03-04T15:20:31.412+00:00","payload":{ "n":1.0,"é":null }}"#,
        ),
        ("hapihub", r#"{"id":"order:17","event":"a.b","payload":{ "n":1.0,"é":null }}"#),
    ] {
        let body = body_of(&subscription(profile), &event("a.b", json(payload)));
        assert_eq!(body.as_deref(), Ok(expected), "{profile}");
    }
}

#[test]
fn an_event_without_payload_is_sent_where_the_profile_says_how() {
    for (profile, expected) in [
        (
            "standard",
            Ok(r#"{"type":"ping","timestamp":"2026-03-04T15:20:31.412345Z","data":null}"#
                .to_owned()),
        ),
        ("hapihub", Ok(r#"{"id":"order:17","event":"ping"}"#.to_owned())),
        ("telegramd", Err(NotSendable::PayloadMissing)),
        ("azodha", Err(NotSendable::PayloadMissing)),
        ("meetinglawyers", Err(NotSendable::PayloadMissing)),
    ] {
        let body = body_of(&subscription(profile), &event("ping", Payload::None));
        assert_eq!(body, expected, "{profile}");
    }
}

#[test]
fn only_standard_sends_json_that_is_no_object_and_raw_bytes() {
    for profile in ["telegramd", "azodha", "meetinglawyers", "hapihub"] {
        let spec = subscription(profile);
        let body = body_of(&spec, &event("t", json(" [{}]")));
        assert_eq!(body, Err(NotSendable::PayloadNotObject), "{profile}");
        let body = body_of(&spec, &event("t", Payload::Raw(Bytes::from_static(b"{}"))));
        assert_eq!(body, Err(NotSendable::RawPayload), "{profile}");
    }
    let body = body_of(&subscription("standard"), &event("t", json("7"))).expect("any JSON");
    assert!(body.ends_with(r#""data":7}"#), "{body}");

    let raw = event("t", Payload::Raw(Bytes::from_static(b"\xff,1\r\n")));
    let sent = rendered(&subscription("standard"), &raw, &[]).expect("raw");
    assert_eq!(sent.body, &b"\xff,1\r\n"[..]);
    assert_eq!(header(&sent, "content-type"), Some("text/csv; charset=utf-8"));
}

fn shown_as(profile: &str, payload_mode: PayloadMode) -> SubscriptionSpec {
    SubscriptionSpec { payload_mode, ..subscription(profile) }
}

fn masking(profile: &str, pointers: &[&str]) -> SubscriptionSpec {
    let pointers = pointers.iter().map(|text| JsonPointer::parse(text).expect("a pointer"));
    shown_as(profile, PayloadMode::Masked(pointers.collect()))
}

#[test]
fn a_receiver_of_ids_gets_the_same_whatever_the_payload() {
    let payloads = [
        Payload::None,
        json(r#"{"name":"Robin"}"#),
        json("[7]"),
        Payload::Raw(Bytes::from_static(b"Robin")),
    ];
    for payload in payloads {
        let event = event("a.b", payload);
        let sent = rendered(&shown_as("standard", PayloadMode::IdOnly), &event, &[]).expect("fits");
        assert_eq!(
            sent.body,
            r#"{"type":"a.b","timestamp":"2026-03-04T15:20:31.412345Z","data":{"id":"order:17"}}"#
        );
        assert_eq!(header(&sent, "content-type"), Some("application/json"));
        let body = body_of(&shown_as("hapihub", PayloadMode::IdOnly), &event);
        assert_eq!(body.as_deref(), Ok(r#"{"id":"order:17","event":"a.b"}"#));
        for profile in ["telegramd", "azodha", "meetinglawyers"] {
            let body = body_of(&shown_as(profile, PayloadMode::IdOnly), &event);
            assert_eq!(body, Err(NotSendable::IdOnlyUnsupported), "{profile}");
        }
    }
}

#[test]
fn what_is_masked_is_null_in_every_profile_and_in_what_is_signed() {
    let payload = "{ \"n\":1.0,\"patient\":{ \"name\" : \"Robin\", \"age\":7 } }";
    let masked = "{ \"n\":1.0,\"patient\":{ \"name\" : null, \"age\":7 } }";
    for profile in ["standard", "telegramd", "azodha", "meetinglawyers", "hapihub"] {
        let spec = masking(profile, &["/patient/name", "/absent"]);
        let body = body_of(&spec, &event("t", json(payload)));
        let expected = body_of(&subscription(profile), &event("t", json(masked)));
        assert_eq!(body, expected, "{profile}");
    }
    let spec = SubscriptionSpec { signing_enabled: true, ..masking("azodha", &["/patient/name"]) };
    let plain = SubscriptionSpec { signing_enabled: true, ..subscription("azodha") };
    let keys = [SigningKey::new(b"az-test-secret")];
    let sent = rendered(&spec, &event("t", json(payload)), &keys).expect("fits");
    let same = rendered(&plain, &event("t", json(masked)), &keys).expect("fits");
    assert_eq!(header(&sent, "x-azodha-signature"), header(&same, "x-azodha-signature"));
}

#[test]
fn what_cannot_be_masked_is_not_sent() {
    let spec = masking("standard", &["/name"]);
    for payload in [Payload::Raw(Bytes::from_static(b"{\"name\":1}")), json("{\"name\":1")] {
        assert_eq!(body_of(&spec, &event("t", payload)), Err(NotSendable::NotMaskable));
    }
    let nothing = body_of(&spec, &event("t", Payload::None)).expect("nothing is masked");
    assert!(nothing.ends_with(r#""data":null}"#), "{nothing}");
    // Nothing is copied where nothing is hidden.
    let event = event("t", json(r#"{"a":1}"#));
    let sent = rendered(&masking("telegramd", &["/b"]), &event, &[]).expect("an object");
    assert_eq!(sent.body.as_ptr(), event.payload.bytes().as_ptr());
}

#[test]
fn raw_bytes_have_a_content_type_that_a_header_can_hold() {
    let mut raw = event("t", Payload::Raw(Bytes::from_static(b"x")));
    raw.summary.content_type.clear();
    let sent = rendered(&subscription("standard"), &raw, &[]).expect("raw");
    assert_eq!(header(&sent, "content-type"), Some("application/octet-stream"));
    raw.summary.content_type = "text/plain\r\nx: y".to_owned();
    let refused = rendered(&subscription("standard"), &raw, &[]).map(drop);
    assert_eq!(refused, Err(NotSendable::ContentTypeInvalid));
}

#[test]
fn a_payload_that_is_the_body_is_not_copied() {
    let event = event("t", json(r#"{"a":1}"#));
    let sent = rendered(&subscription("telegramd"), &event, &[]).expect("an object");
    assert_eq!(sent.body.as_ptr(), event.payload.bytes().as_ptr());
}

#[test]
fn an_envelope_is_one_allocation_of_its_size() {
    let profiles = Profiles::built_in();
    let event = event("a.b", json(r#"{"a":1}"#));
    for name in ["standard", "meetinglawyers", "hapihub"] {
        let BodyKind::Envelope(fields) = &profiles.get(name).expect("built in").body().kind else {
            panic!("{name} is an envelope");
        };
        let payload = Some(event.payload.bytes());
        let body = Envelope { fields, event: &event, payload, ids: IDS, code: None }.write();
        assert_eq!(body.capacity(), body.len(), "{name}");
    }
}

#[test]
fn an_operators_envelope_may_name_everything_and_leave_a_missing_account_out() {
    let file = r#"
        name = "own"
        description = ""
        content_type = "application/json"
        [body]
        kind = "envelope"
        fields = [
            ["account", "event.account_id"],
            ["organization \"id\"", "event.organization_id"],
            ["delivery", "delivery.id"],
            ["at", "event.occur_time"],
            ["data", "event.payload"],
        ]
        time_format = "unix-seconds"
        payload = "json"
        absent_payload = "omit"
        organization_code_key = "code"
    "#;
    let profiles = Profiles::with_folder(vec![("own.toml".to_owned(), file.to_owned())]);
    let profiles = profiles.expect("a profile");
    let profile = profiles.get("own").expect("there");
    let mut event = event("t", Payload::None);
    let spec = with_code("x\"y");
    let body = |event: &Event| render(profile, event, &spec, &[], IDS, NOW).expect("fits").body;
    assert_eq!(
        body(&event),
        r#"{"organization \"id\"":"acme","delivery":"dlv_0123456789abc0123456789abc","at":1772637631,"code":"x\"y"}"#
    );
    event.summary.account = Some(AccountId::parse("a-1").expect("a name"));
    event.payload = json("[null]");
    assert_eq!(
        body(&event),
        r#"{"account":"a-1","organization \"id\"":"acme","delivery":"dlv_0123456789abc0123456789abc","at":1772637631,"data":[null],"code":"x\"y"}"#
    );
}

/// Vector `azodha-counter-orgcode`: the signature covers the body with the code in it.
#[test]
fn the_organization_code_is_appended_last_and_signed() {
    let counter = r#"{"count":12,"eventName":"HealthRecordCounter","patientId":4101}"#;
    let spec = SubscriptionSpec { signing_enabled: true, ..with_code("EXAMPLE-ORG") };
    let keys = [SigningKey::new(b"az-test-secret")];
    let sent = rendered(&spec, &event("HealthRecordCounter", json(counter)), &keys).expect("fits");
    assert_eq!(
        sent.body,
        r#"{"count":12,"eventName":"HealthRecordCounter","patientId":4101,"organizationCode":"EXAMPLE-ORG"}"#
    );
    assert_eq!(
        header(&sent, "x-azodha-signature"),
        Some("sha256=77eb751b2377a9d72d4698c48d548b9dd1f296833032d23407ee8ebef2dd423a")
    );
    assert_eq!(
        body_of(&with_code("x"), &event("t", json("{}"))).as_deref(),
        Ok(r#"{"organizationCode":"x"}"#)
    );
}

#[test]
fn an_organization_code_without_a_place_is_not_sent() {
    for taken in [r#"{"organizationCode":null}"#, r#"{"a":{},"\u006frganizationCode":1}"#] {
        let body = body_of(&with_code("x"), &event("t", json(taken)));
        assert_eq!(body, Err(NotSendable::OrganizationCodeTaken), "{taken}");
    }
    let inside = r#"{"a":{"organizationCode":1}}"#;
    assert!(body_of(&with_code("x"), &event("t", json(inside))).is_ok());

    let event = event("t", json("{}"));
    assert_eq!(body_of(&with_code(""), &event), Err(NotSendable::OrganizationCodeMissing));
    let elsewhere = SubscriptionSpec { profile: "hapihub".to_owned(), ..with_code("x") };
    assert_eq!(body_of(&elsewhere, &event), Err(NotSendable::OrganizationCodeUnsupported));
}

/// Vectors `meetinglawyers-*` and `hapihub-ping`, from the event on.
#[test]
fn signatures_cover_the_bytes_that_are_sent() {
    let null = r#"{"installation_id":"0f4b8a6d-2c1e-4d73-9a58-6e7f1b3c5d90","user_id":null}"#;
    let mut ping = event("ping", Payload::None);
    ping.summary.id = "64f0c3a1b2d4e5f607182940".to_owned();
    for (profile, event, secret, name, value) in [
        (
            "meetinglawyers",
            event("app_uninstalled", json(null)),
            "ml-test-secret-16+",
            "x-signature",
            "sha256=IqjguPm9WbW4gT0Z0uZbGv9tNmAadtLFDn+UW176UPk=",
        ),
        (
            "hapihub",
            ping,
            "hh-test-secret",
            "x-hapihub-signature",
            "sha256=70624da6962bca4d43009acf0136beded9012391b90240cfd2edc24d87bb98dc",
        ),
    ] {
        let spec = SubscriptionSpec { signing_enabled: true, ..subscription(profile) };
        let keys = [SigningKey::new(secret.as_bytes())];
        let sent = rendered(&spec, &event, &keys).expect("fits");
        assert_eq!(header(&sent, name), Some(value), "{profile}");
        let unsigned = rendered(&subscription(profile), &event, &keys).expect("fits");
        assert_eq!(header(&unsigned, name), None, "{profile}");
    }
}

#[test]
fn standard_signs_id_time_and_body_with_every_key() {
    let spec = SubscriptionSpec { signing_enabled: true, ..subscription("standard") };
    let event = event("t", json("{}"));
    let keys = [SigningKey::new(b"old"), SigningKey::new(b"new")];
    let sent = rendered(&spec, &event, &keys).expect("fits");
    assert_eq!(header(&sent, "webhook-id"), Some(IDS.delivery_id));
    assert_eq!(header(&sent, "webhook-timestamp"), Some("1772637700"));
    let value = header(&sent, "webhook-signature").expect("signed");
    assert_eq!(value.split(' ').count(), 2);
    let profiles = Profiles::built_in();
    let rule = profiles.get("standard").and_then(|profile| profile.signature()).expect("signs");
    let request = SignedRequest { id: IDS.delivery_id, timestamp: "1772637700", body: &sent.body };
    assert!(keys.iter().all(|key| rule.verify(key, request, value)));

    let unsigned = rendered(&subscription("standard"), &event, &keys).expect("fits");
    assert_eq!(header(&unsigned, "webhook-id"), Some(IDS.delivery_id));
    assert_eq!(header(&unsigned, "webhook-timestamp"), Some("1772637700"));
    assert_eq!(header(&unsigned, "webhook-signature"), None);
}

#[test]
fn a_request_that_must_be_signed_is_not_sent_unsigned() {
    let spec = SubscriptionSpec { signing_enabled: true, ..subscription("standard") };
    let refused = rendered(&spec, &event("t", json("{}")), &[]).map(drop);
    assert_eq!(refused, Err(NotSendable::SecretMissing));
}

#[test]
fn custom_headers_are_sent_but_never_in_place_of_our_own() {
    let headers = [
        ("Content-Type", "text/plain"),
        ("USER-AGENT", "other"),
        ("TelegraMD-Signature", "sha256=forged"),
        ("X-Api-Key", "hunter2"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let spec = SubscriptionSpec { headers, ..subscription("telegramd") };
    let event = event("t", json("{}"));
    for signing_enabled in [false, true] {
        let spec = SubscriptionSpec { signing_enabled, ..spec.clone() };
        let sent = rendered(&spec, &event, &[SigningKey::new(b"key")]).expect("fits");
        assert_eq!(header(&sent, "content-type"), Some("application/json"));
        assert_eq!(header(&sent, "user-agent"), Some("TelegraMD Webhooks"));
        assert_eq!(header(&sent, "x-api-key"), Some("hunter2"));
        let signature = header(&sent, "telegramd-signature");
        assert_eq!(signature.is_some(), signing_enabled);
        assert_ne!(signature, Some("sha256=forged"));
        assert!(!format!("{sent:?}").contains("hunter2"));
    }
    let headers = [("X-A".to_owned(), "1\r\nX-B: 2".to_owned())].into();
    let refused = rendered(&SubscriptionSpec { headers, ..spec }, &event, &[]).map(drop);
    assert_eq!(refused, Err(NotSendable::HeaderInvalid));
}

#[test]
fn a_profiles_own_headers_are_on_every_request() {
    let file = include_str!("../../../profiles/azodha.toml")
        .replace("\"azodha\"", "\"own\"")
        .replace("[body]", "[headers]\nAccept = \"application/json\"\n[body]");
    let profiles = Profiles::with_folder(vec![("own.toml".to_owned(), file)]).expect("a profile");
    let headers = [("accept".to_owned(), "text/html".to_owned())].into();
    let spec = SubscriptionSpec { headers, ..subscription("own") };
    let profile = profiles.get("own").expect("there");
    let sent = render(profile, &event("t", json("{}")), &spec, &[], IDS, NOW).expect("fits");
    assert_eq!(header(&sent, "accept"), Some("application/json"));
}

/// Every ping is an event that its own profile can send.
#[test]
fn every_ping_can_be_sent() {
    for profile in Profiles::built_in().iter() {
        if let Some(ping) = profile.ping() {
            let payload = ping.payload.clone().map_or(Payload::None, Payload::Json);
            let body = body_of(&subscription(profile.name()), &event(&ping.event_type, payload));
            assert!(body.is_ok(), "{}: {body:?}", profile.name());
        }
    }
}

proptest::proptest! {
    #[test]
    fn an_envelope_reads_back_and_holds_the_payload_as_it_was(
        event_type in ".{1,40}",
        id in ".{1,40}",
        members in proptest::collection::btree_map(".{0,12}", ".{0,12}", 0..6),
        padding in "[ \t\r\n]{0,3}",
    ) {
        let payload = padding.clone() + &serde_json::to_string(&members).expect("JSON") + &padding;
        let mut event = event(&event_type, Payload::Json(Bytes::from(payload.clone())));
        event.summary.id.clone_from(&id);
        for (profile, keys) in [
            ("standard", ["type", "timestamp", "data"]),
            ("meetinglawyers", ["type", "occurred_on", "payload"]),
            ("hapihub", ["event", "id", "payload"]),
        ] {
            let body = body_of(&subscription(profile), &event).expect("an object fits");
            proptest::prop_assert!(body.contains(&payload));
            let read: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let object = read.as_object().expect("an object");
            proptest::prop_assert_eq!(object.len(), 3);
            proptest::prop_assert_eq!(&read[keys[0]], &event_type);
            let inner: std::collections::BTreeMap<String, String> =
                serde_json::from_value(read[keys[2]].clone()).expect("the members");
            proptest::prop_assert_eq!(&inner, &members);
        }
    }
}
