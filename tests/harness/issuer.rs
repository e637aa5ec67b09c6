//! Somebody who makes tokens, with keys of its own, and publishes these.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// A signing key and its id.
pub(crate) struct SigningKey {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    pub(crate) fn new(kid: &'static str) -> SigningKey {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        SigningKey { kid, pair: pair.expect("its own") }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": x, "y": y})
    }

    /// The token with these claims, and this header's parameters besides the usual ones.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let mut whole = json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        for (name, value) in header.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        let [header, claims] =
            [&whole, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.expect("it signs").as_ref()))
    }

    /// The token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({}), claims)
    }
}

/// What is published: the public halves.
pub(crate) fn key_set(keys: &[&SigningKey]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// Seconds since 1970.
pub(crate) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs()
}

/// What a good token says, for this organization and these scopes.
pub(crate) fn claims(organization: &str, scopes: &str) -> Value {
    json!({
        "iss": "https://login.example",
        "aud": "hookward",
        "sub": "scheduler",
        "iat": now_secs(),
        "exp": now_secs() + 3600,
        "organizations": [organization],
        "scope": scopes,
    })
}

/// The table of `--auth-file` that believes it; `keys` says where these are.
pub(crate) fn table(keys: &str) -> String {
    format!(
        "[[issuer]]\nissuer = \"https://login.example\"\naudience = \"hookward\"\n\
         algorithms = [\"ES256\"]\n{keys}\n"
    )
}
