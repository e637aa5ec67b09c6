//! Every way in which a token can be wrong, each signed as it should be.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

/// 2026-08-01T00:00:00Z.
const NOW_SECS: i64 = 1_785_542_400;
const NOW: Timestamp = Timestamp(NOW_SECS * 1_000_000);

/// An issuer with a key of each kind that can be made here.
struct Issuer {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let document = document.expect("a key");
        let p256 =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        let document = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let ed25519 = Ed25519KeyPair::from_pkcs8(document.as_ref());
        Issuer { p256: p256.expect("its own"), ed25519: ed25519.expect("its own") }
    }

    fn keys(&self) -> KeySet {
        let point = self.p256.public_key().as_ref();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let document = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "p", "x": text(&point[1..33]), "y": text(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": text(self.ed25519.public_key().as_ref())},
        ]});
        KeySet::parse(document.to_string().as_bytes()).expect("two keys")
    }

    /// The token with this header and these claims, signed by the key for `alg`.
    fn sign(&self, header: &Value, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(&header.to_string()), part(claims));
        let signature = if header["alg"] == "EdDSA" {
            self.ed25519.sign(signed.as_bytes()).as_ref().to_vec()
        } else {
            let signature = self.p256.sign(&SystemRandom::new(), signed.as_bytes());
            signature.expect("it signs").as_ref().to_vec()
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn rules() -> TokenRules {
    TokenRules {
        issuer: "https://login.example".to_owned(),
        audience: "hookward".to_owned(),
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
        organizations_claim: "organizations".to_owned(),
        scopes_claim: "scope".to_owned(),
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "p", "typ": "JWT"})
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example",
        "aud": "hookward",
        "sub": "scheduler",
        "exp": NOW_SECS + 3600,
        "organizations": ["clinic-7", "clinic-8"],
        "scope": "openid events:publish deliveries:read",
    })
}

fn judged(issuer: &Issuer, token: &str) -> Result<Verified, TokenFault> {
    let token = Token::read(token)?;
    let (rules, keys) = (rules(), issuer.keys());
    token.verify(&rules, token.key(&rules, &keys)?, NOW)
}

/// What becomes of a token with one thing changed: `null` takes a claim away.
fn with(issuer: &Issuer, claim: &str, value: Value) -> Result<Verified, TokenFault> {
    let mut claims = claims();
    let object = claims.as_object_mut().expect("an object");
    if value.is_null() {
        object.remove(claim);
    } else {
        object.insert(claim.to_owned(), value);
    }
    judged(issuer, &issuer.sign(&header(), &claims.to_string()))
}

#[test]
fn a_right_token_says_who_is_calling() {
    let issuer = Issuer::new();
    let verified = judged(&issuer, &issuer.sign(&header(), &claims().to_string()));
    let verified = verified.expect("it is right");
    let principal = verified.principal;
    assert_eq!(principal.name, "https://login.example scheduler");
    assert_eq!(verified.end, NOW.plus(Duration::from_mins(61)));
    for (organization, expected) in [("clinic-7", true), ("clinic-8", true), ("clinic-9", false)] {
        assert_eq!(principal.acts_for(&OrganizationId::stored(organization)), expected);
    }
    assert!(principal.may(Scope::EventsPublish) && principal.may(Scope::DeliveriesRead));
    assert!(!principal.may(Scope::EventsRead) && !principal.may(Scope::Admin));

    let header = json!({"alg": "EdDSA", "kid": "d"});
    assert!(judged(&issuer, &issuer.sign(&header, &claims().to_string())).is_ok());
}

#[test]
fn every_wrong_header_is_refused() {
    let issuer = Issuer::new();
    let refused =
        |header: Value| judged(&issuer, &issuer.sign(&header, &claims().to_string())).err();
    for (header, fault) in [
        (json!({"kid": "p"}), TokenFault::Algorithm),
        (json!({"alg": 7, "kid": "p"}), TokenFault::Algorithm),
        (json!({"alg": "none", "kid": "p"}), TokenFault::Algorithm),
        (json!({"alg": "None", "kid": "p"}), TokenFault::Algorithm),
        (json!({"alg": "HS256", "kid": "p"}), TokenFault::Algorithm),
        (json!({"alg": "es256", "kid": "p"}), TokenFault::Algorithm),
        // Known, and not among this issuer's.
        (json!({"alg": "RS256", "kid": "p"}), TokenFault::Algorithm),
        (json!({"alg": "ES256"}), TokenFault::NoKey),
        (json!({"alg": "ES256", "kid": ""}), TokenFault::NoKey),
        (json!({"alg": "ES256", "kid": ["p"]}), TokenFault::NoKey),
        (json!({"alg": "ES256", "kid": "q"}), TokenFault::UnknownKey),
        // The key is there, for another algorithm.
        (json!({"alg": "EdDSA", "kid": "p"}), TokenFault::UnknownKey),
    ] {
        assert_eq!(refused(header.clone()), Some(fault), "{header}");
    }
    for parameter in ["jku", "jwk", "x5u", "x5c", "crit"] {
        for value in [json!("https://evil.example"), json!({}), json!([]), Value::Null] {
            let mut header = header();
            header[parameter] = value;
            assert_eq!(refused(header), Some(TokenFault::Parameter), "{parameter}");
        }
    }
}

#[test]
fn every_wrong_claim_is_refused() {
    let issuer = Issuer::new();
    let table = [
        (
            "iss",
            vec![json!("https://login.example/"), json!("HTTPS://login.example")],
            TokenFault::Issuer,
        ),
        ("iss", vec![Value::Null, json!(7), json!(["https://login.example"])], TokenFault::Issuer),
        (
            "aud",
            vec![json!("other"), json!(["a", "b"]), json!([]), json!("hookward2")],
            TokenFault::Audience,
        ),
        (
            "aud",
            vec![Value::Null, json!(7), json!(["hookward", 7]), json!({})],
            TokenFault::Claim("aud"),
        ),
        (
            "exp",
            vec![Value::Null, json!("1785546000"), json!([NOW_SECS]), json!(-1), json!(true)],
            TokenFault::Claim("exp"),
        ),
        ("exp", vec![json!(0), json!(NOW_SECS - 60), json!(1)], TokenFault::Expired),
        ("exp", vec![json!(NOW_SECS + 86_461), json!(1e18)], TokenFault::TooLongLived),
        ("iat", vec![json!(NOW_SECS - 86_400)], TokenFault::TooLongLived),
        ("iat", vec![json!(NOW_SECS + 61)], TokenFault::NotYet),
        ("iat", vec![json!("now")], TokenFault::Claim("iat")),
        ("nbf", vec![json!(NOW_SECS + 61), json!(1_785_542_461.5)], TokenFault::NotYet),
        ("nbf", vec![json!("0"), json!({})], TokenFault::Claim("nbf")),
        (
            "sub",
            vec![
                Value::Null,
                json!(""),
                json!(7),
                json!(["a"]),
                json!("s".repeat(256)),
                json!("a\t"),
            ],
            TokenFault::Claim("sub"),
        ),
        (
            "organizations",
            vec![Value::Null, json!([]), json!(""), json!("*"), json!(7)],
            TokenFault::Organizations,
        ),
        (
            "organizations",
            vec![json!(["clinic-7", 7]), json!(["clinic 7"]), json!({"a": 1})],
            TokenFault::Organizations,
        ),
        ("organizations", vec![json!(vec!["a"; 1001])], TokenFault::Organizations),
        ("scope", vec![Value::Null, json!(7), json!([7]), json!({})], TokenFault::Scopes),
    ];
    for (claim, values, fault) in table {
        for value in values {
            let refused = with(&issuer, claim, value.clone()).err();
            assert_eq!(refused, Some(fault), "{claim}: {value}");
        }
    }
    // What is null is there, and of the wrong type.
    let null = claims().to_string().replacen('{', "{\"nbf\":null,", 1);
    let refused = judged(&issuer, &issuer.sign(&header(), &null)).err();
    assert_eq!(refused, Some(TokenFault::Claim("nbf")));
}

#[test]
fn what_just_keeps_the_rules_is_taken() {
    let issuer = Issuer::new();
    for (claim, value) in [
        ("aud", json!(["other", "hookward"])),
        ("exp", json!(NOW_SECS - 59)),
        ("exp", json!(NOW_SECS + 86_460)),
        ("exp", json!(1_785_546_000.5)),
        ("iat", json!(NOW_SECS + 60)),
        ("iat", json!(NOW_SECS + 3600 - 86_400)),
        ("nbf", json!(NOW_SECS + 60)),
        ("sub", json!("s".repeat(255))),
        ("organizations", json!("clinic-7")),
        ("scope", json!(["events:publish", "openid"])),
        ("scope", json!("")),
        ("more", json!({"is": ["ignored"]})),
    ] {
        assert!(with(&issuer, claim, value.clone()).is_ok(), "{claim}: {value}");
    }
}

#[test]
fn what_has_not_the_form_of_a_token_is_refused() {
    let issuer = Issuer::new();
    let token = issuer.sign(&header(), &claims().to_string());
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = [parts[0], parts[1], parts[2]];
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for wrong in [
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{header}.{claims}"),
        format!("{token}."),
        format!("{token}.{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}.{signature} "),
        format!("{}.{claims}.{signature}", encoded("[]")),
        format!("{header}.{}.{signature}", encoded("{}{}")),
    ] {
        assert_eq!(judged(&issuer, &wrong).err(), Some(TokenFault::Form), "{wrong}");
    }
    let long = format!("{header}.{claims}.{}", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(judged(&issuer, &long).err(), Some(TokenFault::TooLong));
}

#[test]
fn what_was_signed_by_another_or_changed_is_refused() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let token = issuer.sign(&header(), &claims().to_string());
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let (head, _) = signed.split_once('.').expect("three parts");
    let more = claims().to_string().replace("clinic-7", "clinic-1");
    for wrong in [
        other.sign(&header(), &claims().to_string()),
        format!("{signed}."),
        format!("{signed}.{}", &signature[4..]),
        format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(more)),
        // Both halves zero: a classic that some verifiers take for right.
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0_u8; 64])),
    ] {
        assert_eq!(judged(&issuer, &wrong).err(), Some(TokenFault::Signature), "{wrong}");
    }
}
