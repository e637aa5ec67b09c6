//! JSON Web Tokens: whatever an issuer signs is taken exactly if the documentation says so,
//! and for what its claims say; a genuine token that was changed is worth nothing.
//!
//! An input is texts, separated by `%%`: the header and the claims, which are signed as they
//! stand; changes to the token, three bytes each: where, in two, and what it is replaced by;
//! and a token of the fuzzer's own. The first byte says whose key signs.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookward::domain::id::OrganizationId;
use hookward::domain::jwk::{Algorithm, KeySet};
use hookward::domain::jwt::{TOKEN_BYTES_MAX, Token, TokenFault, TokenRules, Verified};
use hookward::domain::principal::Organizations;
use hookward::domain::scope::{Scope, Scopes};
use hookward::domain::timestamp::Timestamp;
use hookward_fuzz::split;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

/// 2026-08-01T00:00:00Z.
const NOW_SECS: i64 = 1_785_542_400;
const NOW: Timestamp = Timestamp(NOW_SECS * 1_000_000);
const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;
/// A millisecond, around which times of floating point may be judged either way.
const BLUR: f64 = 0.001;
/// More could make another genuine token of one.
const CHANGES_MAX: usize = 8;
const ISSUER: &str = "https://login.example";
/// RFC 7515, A.2: a key of which nobody here has the private half.
const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJ\
    rcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL\
    -bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5Z\
    wKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuX\
    poQ";

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// An issuer and what is known of it.
struct World {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    keys: KeySet,
    rules: TokenRules,
}

/// Whose key signs: the header must say so.
#[derive(Clone, Copy)]
struct Signer {
    algorithm: &'static str,
    kid: &'static str,
}

const P256: Signer = Signer { algorithm: "ES256", kid: "p" };
const ED25519: Signer = Signer { algorithm: "EdDSA", kid: "d" };

/// What a token should open.
struct Opened {
    subject: String,
    organizations: Vec<String>,
    scopes: Scopes,
}

impl World {
    fn new() -> World {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let p256 = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        let p256 = p256.expect("its own");
        let ed25519 = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = p256.public_key().as_ref();
        let (x, y) = (text(&point[1..33]), text(&point[33..]));
        let document = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "p", "x": x, "y": y},
            {"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": text(ed25519.public_key().as_ref())},
            {"kty": "RSA", "kid": "r", "n": MODULUS, "e": "AQAB"},
        ]});
        let keys = KeySet::parse(document.to_string().as_bytes()).expect("three keys");
        let rules = TokenRules {
            issuer: ISSUER.to_owned(),
            audience: "hookward".to_owned(),
            algorithms: Algorithm::ALL.to_vec(),
            organizations_claim: "organizations".to_owned(),
            scopes_claim: "scope".to_owned(),
        };
        World { p256, ed25519, keys, rules }
    }

    fn sign(&self, signer: Signer, header: &[u8], claims: &[u8]) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let signature = if signer.kid == ED25519.kid {
            self.ed25519.sign(signed.as_bytes()).as_ref().to_vec()
        } else {
            let signature = self.p256.sign(&SystemRandom::new(), signed.as_bytes());
            signature.expect("it signs").as_ref().to_vec()
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn judge(&self, token: &str) -> Result<Verified, TokenFault> {
        let token = Token::read(token)?;
        token.verify(&self.rules, token.key(&self.rules, &self.keys)?, NOW)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, text)) = input.split_first() else { return };
    let mut parts = split(text, b"%%").into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let [header, claims, changes, own] = [next(), next(), next(), next()];
    let (world, signer) = (&*WORLD, if first & 1 == 0 { ED25519 } else { P256 });
    let token = world.sign(signer, header, claims);
    match world.judge(&token) {
        Ok(verified) => {
            assert!(token.len() <= TOKEN_BYTES_MAX);
            let opened = opened(signer, header, claims, -BLUR).expect("it must be refused");
            agrees(&verified, &opened);
        }
        Err(fault) => {
            let right = opened(signer, header, claims, BLUR).is_some();
            assert!(!right || TOKEN_BYTES_MAX < token.len(), "{fault}");
        }
    }

    let mut changed = token.clone().into_bytes();
    for change in changes.chunks_exact(3).take(CHANGES_MAX) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len();
        changed[at] = change[2];
    }
    if let Ok(changed) = String::from_utf8(changed)
        && changed != token
    {
        assert!(world.judge(&changed).is_err(), "{changed} instead of {token}");
    }

    // The fuzzer remembers tokens of earlier inputs: those are genuine.
    if let Ok(own) = std::str::from_utf8(own)
        && world.judge(own).is_ok()
    {
        let parts: Vec<Vec<u8>> =
            own.split('.').filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok()).collect();
        let genuine = [P256, ED25519].into_iter();
        let genuine = genuine.filter_map(|signer| opened(signer, &parts[0], &parts[1], -BLUR));
        assert_eq!(genuine.count(), 1, "{own}");
    }
});

fn agrees(verified: &Verified, opened: &Opened) {
    let principal = &verified.principal;
    assert_eq!(principal.name, format!("{ISSUER} {}", opened.subject));
    assert_eq!(principal.scopes, opened.scopes);
    let Organizations::Some(these) = &principal.organizations else {
        panic!("no token opens every organization");
    };
    assert!(these.iter().map(OrganizationId::as_str).eq(&opened.organizations));
    assert!(NOW <= verified.end, "it is over");
    assert!(verified.end <= NOW.plus(Duration::from_secs(86_400 + 2 * 60 + 1)));
}

/// What the documentation says of such a token, its times judged so much more strictly, in
/// seconds; `None` where it is to be refused.
fn opened(signer: Signer, header: &[u8], claims: &[u8], blur: f64) -> Option<Opened> {
    let header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(claims).ok()?;
    let refused = ["jku", "jwk", "x5u", "x5c", "crit"];
    let said = header.get("alg")? == signer.algorithm && header.get("kid")? == signer.kid;
    if !said || refused.iter().any(|name| header.contains_key(*name)) {
        return None;
    }
    if claims.get("iss")? != ISSUER || !words(claims.get("aud")?)?.contains(&"hookward") {
        return None;
    }
    in_its_time(&claims, blur)?;
    let subject = claims
        .get("sub")?
        .as_str()
        .filter(|text| (1..=255).contains(&text.len()) && !text.contains(char::is_control))?;
    let mut organizations = words(claims.get("organizations")?)?;
    let is_name = |name: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        (1..=64).contains(&name.len()) && name.bytes().all(plain)
    };
    if !(1..=1000).contains(&organizations.len()) || !organizations.iter().all(is_name) {
        return None;
    }
    organizations.sort_unstable();
    organizations.dedup();
    let scopes = words(claims.get("scope")?)?.join(" ");
    let scopes = Scope::ALL
        .into_iter()
        .filter(|scope| scopes.split(' ').any(|word| word == scope.name()))
        .collect();
    Some(Opened {
        subject: subject.to_owned(),
        organizations: organizations.into_iter().map(str::to_owned).collect(),
        scopes,
    })
}

/// Whether it has begun, has not ended, and does not live too long.
fn in_its_time(claims: &Map<String, Value>, blur: f64) -> Option<()> {
    let now = NOW_SECS as f64;
    // Claims that are there must be times, even if nothing depends on them.
    let time = |claim: &str| match claims.get(claim) {
        None => Some(None),
        Some(value) => value.as_f64().filter(|time| 0.0 <= *time).map(Some),
    };
    let (end, from, made) = (time("exp")??, time("nbf")?, time("iat")?);
    let begun = [from, made].into_iter().flatten().all(|begin| begin <= now + MINUTE - blur);
    let ends = now - MINUTE + blur < end && end <= now + DAY + MINUTE - blur;
    let short = made.is_none_or(|made| end - made <= DAY - blur);
    (begun && ends && short).then_some(())
}

/// One text, or a list of nothing but texts.
fn words(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(word) => Some(vec![word]),
        Value::Array(words) => words.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
