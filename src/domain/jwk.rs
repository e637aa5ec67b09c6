//! JSON Web Key Sets (RFC 7517): the public keys that an issuer signs its tokens with.
//!
//! A key that is not understood, or not good enough, is left out: tokens that name it are
//! refused, and the others go on working.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Keys in one set.
pub const KEYS_MAX: usize = 64;
/// Shorter moduli are refused; longer ones than the second nobody verifies.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bytes of a coordinate, of P-256 as of Ed25519.
const COORDINATE_BYTES: usize = 32;

/// How a token may be signed (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA of 2048 bits or more, PKCS #1 v1.5, SHA-256.
    Rs256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256];

    /// As it is written in tokens and keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Rs256 => "RS256",
        }
    }

    /// The one that is written so.
    #[must_use]
    pub fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A public key, for one algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    /// The uncompressed point.
    Es256([u8; 1 + 2 * COORDINATE_BYTES]),
    /// The encoded point.
    EdDsa([u8; COORDINATE_BYTES]),
    /// Big-endian, without leading zeros.
    Rs256 {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
}

impl VerifyingKey {
    /// The only algorithm that it may be used with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            VerifyingKey::Es256(_) => Algorithm::Es256,
            VerifyingKey::EdDsa(_) => Algorithm::EdDsa,
            VerifyingKey::Rs256 { .. } => Algorithm::Rs256,
        }
    }

    /// Whether its holder has signed `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            VerifyingKey::Es256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
            }
            VerifyingKey::EdDsa(point) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signature)
            }
            VerifyingKey::Rs256 { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        };
        verified.is_ok()
    }
}

/// The usable keys of one issuer, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<(String, VerifyingKey)>);

/// Why a document is no key set that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFault {
    /// Not of this form.
    #[error("it is no JSON Web Key Set")]
    Form,
    /// More keys than [`KEYS_MAX`].
    #[error("it has more than {} keys", KEYS_MAX)]
    TooMany,
    /// An id and an algorithm that two keys have: which one is meant?
    #[error("two keys of one algorithm have the same kid")]
    Ambiguous,
}

/// The members of a key that matter here; there may be others.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`KeySetFault`].
    pub fn parse(document: &[u8]) -> Result<KeySet, KeySetFault> {
        let document: Result<Map<String, Value>, _> = serde_json::from_slice(document);
        let keys = document.ok().and_then(|mut document| document.remove("keys"));
        let Some(Value::Array(keys)) = keys else { return Err(KeySetFault::Form) };
        if KEYS_MAX < keys.len() {
            return Err(KeySetFault::TooMany);
        }
        let mut set = KeySet::default();
        for (kid, key) in keys.into_iter().filter_map(usable) {
            if set.get(&kid, key.algorithm()).is_some() {
                return Err(KeySetFault::Ambiguous);
            }
            set.0.push((kid, key));
        }
        Ok(set)
    }

    /// The key of this id, if it is one for this algorithm.
    #[must_use]
    pub fn get(&self, kid: &str, algorithm: Algorithm) -> Option<&VerifyingKey> {
        let found = self.0.iter().find(|(id, key)| id == kid && key.algorithm() == algorithm);
        found.map(|(_, key)| key)
    }

    /// Whether it has no usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A key and its id, if it is meant for signatures that are known here.
fn usable(value: Value) -> Option<(String, VerifyingKey)> {
    // Serde takes a list of the members' values for the members.
    if !value.is_object() {
        return None;
    }
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signs = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|one| one == "verify"));
    let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("EC", Some("P-256")) => p256(&jwk)?,
        ("OKP", Some("Ed25519")) => VerifyingKey::EdDsa(coordinate(jwk.x.as_deref())?),
        ("RSA", None) => rsa(&jwk)?,
        _ => return None,
    };
    let agrees = jwk.alg.as_deref().is_none_or(|name| name == key.algorithm().name());
    (signs && agrees && !jwk.kid.is_empty()).then_some((jwk.kid, key))
}

fn p256(jwk: &Jwk) -> Option<VerifyingKey> {
    let mut point = [4; 1 + 2 * COORDINATE_BYTES];
    let (x, y) = point[1..].split_at_mut(COORDINATE_BYTES);
    x.copy_from_slice(&coordinate(jwk.x.as_deref())?);
    y.copy_from_slice(&coordinate(jwk.y.as_deref())?);
    Some(VerifyingKey::Es256(point))
}

fn rsa(jwk: &Jwk) -> Option<VerifyingKey> {
    let [n, e] = [&jwk.n, &jwk.e].map(|number| {
        let bytes = URL_SAFE_NO_PAD.decode(number.as_deref()?).ok()?;
        // Some issuers write the sign of ASN.1's integers, although RFC 7518, 6.3.1.1 forbids it.
        let start = bytes.iter().position(|byte| *byte != 0)?;
        Some(bytes[start..].to_vec())
    });
    let (n, e) = (n?, e?);
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    RSA_BITS.contains(&bits).then_some(VerifyingKey::Rs256 { n, e })
}

fn coordinate(text: Option<&str>) -> Option<[u8; COORDINATE_BYTES]> {
    URL_SAFE_NO_PAD.decode(text?).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, A.3.
    const P256: &str = r#"{"kty":"EC","crv":"P-256","kid":"p",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const P256_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAs\
        DQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4Ga\
        wxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// RFC 8037, A.4.
    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"d",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const ED25519_TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0\
        il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    /// RFC 7515, A.2.
    const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJ\
        rcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL\
        -bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5Z\
        wKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuX\
        poQ";
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQ\
        ogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9\
        g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4\
        BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d\
        O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5A\
        XLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    fn set(keys: &[&str]) -> Result<KeySet, KeySetFault> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    fn rsa_key(modulus: &str) -> String {
        format!(r#"{{"kty":"RSA","kid":"r","n":"{modulus}","e":"AQAB"}}"#)
    }

    #[test]
    fn the_signatures_of_the_standards_are_right_and_a_changed_one_is_not() {
        let rsa = rsa_key(MODULUS);
        let keys = set(&[P256, ED25519, &rsa]).expect("three keys");
        for (kid, algorithm, token) in [
            ("p", Algorithm::Es256, P256_TOKEN),
            ("d", Algorithm::EdDsa, ED25519_TOKEN),
            ("r", Algorithm::Rs256, RSA_TOKEN),
        ] {
            let key = keys.get(kid, algorithm).expect("it is in the set");
            let (message, signature) = token.rsplit_once('.').expect("three parts");
            let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
            assert!(key.verifies(message.as_bytes(), &signature), "{kid}");
            assert!(!key.verifies(&message.as_bytes()[1..], &signature), "{kid}");
            let mut other = signature.clone();
            other[7] ^= 1;
            assert!(!key.verifies(message.as_bytes(), &other), "{kid}");
            assert!(!key.verifies(message.as_bytes(), &[]), "{kid}");
        }
        assert_eq!(keys.get("p", Algorithm::EdDsa), None, "a key is for one algorithm");
        assert_eq!(keys.get("x", Algorithm::Es256), None);
    }

    #[test]
    fn keys_that_are_no_use_are_left_out_and_the_others_stay() {
        let (short, point) =
            (URL_SAFE_NO_PAD.encode([0xff_u8; 255]), URL_SAFE_NO_PAD.encode([7_u8; 32]));
        let with = |member: &str| ED25519.replacen("\"kty\"", &format!("{member},\"kty\""), 1);
        let useless = [
            "7".to_owned(),
            format!(r#"["OKP","d",null,null,null,"Ed25519","{point}",null,null,null]"#),
            r#"{"kty":"oct","kid":"o","k":"c2VjcmV0"}"#.to_owned(),
            ED25519.replace(r#""kid":"d","#, ""),
            ED25519.replace(r#""kid":"d""#, r#""kid":7"#),
            ED25519.replace(r#""kid":"d""#, r#""kid":"""#),
            ED25519.replace("Ed25519", "X25519"),
            ED25519.replace("PcHURo", "PcHUR"),
            P256.replace("P-256", "P-384"),
            P256.replace("\"y\"", "\"z\""),
            with(r#""use":"enc""#),
            with(r#""alg":"ES256""#),
            with(r#""key_ops":["sign"]"#),
            rsa_key(&short),
            rsa_key(""),
            rsa_key("!"),
        ];
        for useless in &useless {
            let keys = set(&[useless, P256]).expect("the rest is right");
            assert_eq!(keys.0.len(), 1, "{useless}");
        }
        for useful in
            [with(r#""use":"sig""#), with(r#""alg":"EdDSA""#), with(r#""key_ops":["verify"]"#)]
        {
            assert!(set(&[&useful]).expect("it is right").get("d", Algorithm::EdDsa).is_some());
        }
        let signed = URL_SAFE_NO_PAD.encode([&[0_u8][..], &[0xff; 256]].concat());
        assert!(!set(&[&rsa_key(&signed)]).expect("it is right").is_empty());
        assert!(set(&[]).expect("a set of none").is_empty());
    }

    #[test]
    fn sets_that_are_none_too_large_or_ambiguous_are_refused() {
        let list = format!("[[{ED25519}]]");
        for none in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]} x"#, &list] {
            assert_eq!(KeySet::parse(none.as_bytes()), Err(KeySetFault::Form), "{none}");
        }
        let keys: Vec<String> =
            (0..=KEYS_MAX).map(|n| ED25519.replace(r#""d""#, &format!("\"{n}\""))).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(set(&keys), Err(KeySetFault::TooMany));
        assert!(set(&keys[1..]).is_ok());
        assert_eq!(set(&[ED25519, ED25519]), Err(KeySetFault::Ambiguous));
        // The same id for keys of different algorithms is no riddle.
        assert!(set(&[ED25519, &P256.replace(r#""p""#, r#""d""#)]).is_ok());
    }
}
