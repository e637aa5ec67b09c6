//! Signatures: a prepared key, what is signed, and how the result is written into
//! a header. Pure: the same input gives the same header.
//!
//! Keys are never printed, and received signatures are compared in constant time.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use http::HeaderName;
use http::HeaderValue;
use sha2::Sha256;

use super::secret::SecretRule;

/// An HMAC-SHA256 key (RFC 2104) with its padded blocks already hashed: made once
/// per secret, cloned for each signature.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

/// How a profile signs.
#[derive(Clone, Debug)]
pub struct SignatureRule {
    /// Header that carries the signature.
    pub header: HeaderName,
    /// What is signed.
    pub message: SignedMessage,
    /// How one signature is written.
    pub format: SignatureFormat,
    /// Whether every live secret signs, separated by spaces; else only one does.
    pub multiple: bool,
    /// Whether a subscription is signed when its owner does not say.
    pub signed_by_default: bool,
    /// Which secrets sign.
    pub secret: SecretRule,
}

/// What the signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedMessage {
    /// The body's bytes.
    Body,
    /// Standard Webhooks: `{id}.{timestamp}.{body}`, as the two headers say.
    Standard,
}

/// A fixed prefix and the encoded digest, such as `sha256={hex}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureFormat {
    prefix: String,
    encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Lower case.
    Hex,
    /// Standard alphabet, padded (RFC 4648, section 4).
    Base64,
}

/// The parts of a request that signatures are made of.
#[derive(Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The delivery's id; empty where the profile sends none.
    pub id: &'a str,
    /// Time of the attempt in UNIX seconds; empty where the profile sends none.
    pub timestamp: &'a str,
    /// The body's bytes.
    pub body: &'a [u8],
}

impl SigningKey {
    /// Prepares the key's state.
    ///
    /// # Panics
    ///
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn new(key: &[u8]) -> SigningKey {
        SigningKey(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// HMAC-SHA256 of the parts, one after the other.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.digest(parts).finalize().into_bytes().into()
    }

    /// Whether `signature` is the HMAC of the parts, in constant time.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.digest(parts).verify_slice(signature).is_ok()
    }

    fn digest(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey(..)")
    }
}

impl SignatureRule {
    /// The header's value: one signature, or one per key where the profile allows
    /// [several](Self::multiple). Empty when there is no key.
    ///
    /// # Panics
    ///
    /// Never: prefixes are checked when the [format](SignatureFormat::parse) is read.
    #[must_use]
    pub fn sign(&self, keys: &[SigningKey], request: SignedRequest<'_>) -> HeaderValue {
        let signing = if self.multiple { keys } else { &keys[..keys.len().min(1)] };
        let mut value = String::with_capacity(signing.len() * self.format.chars());
        for key in signing {
            if !value.is_empty() {
                value.push(' ');
            }
            let digest = self.message.with_parts(request, |parts| key.sign(parts));
            self.format.write(&digest, &mut value);
        }
        HeaderValue::try_from(value).expect("a checked prefix, hex and base64 are visible ASCII")
    }

    /// Whether a received header holds a signature of `request` by `key`.
    #[must_use]
    pub fn verify(&self, key: &SigningKey, request: SignedRequest<'_>, header: &str) -> bool {
        let good = |signature: &str| {
            self.format.read(signature).is_some_and(|digest| {
                self.message.with_parts(request, |parts| key.verify(parts, &digest))
            })
        };
        if self.multiple { header.split(' ').any(good) } else { good(header) }
    }
}

impl SignedMessage {
    fn with_parts<T>(self, request: SignedRequest<'_>, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        match self {
            SignedMessage::Body => then(&[request.body]),
            SignedMessage::Standard => then(&[
                request.id.as_bytes(),
                b".",
                request.timestamp.as_bytes(),
                b".",
                request.body,
            ]),
        }
    }
}

impl SignatureFormat {
    /// Reads a format: visible ASCII without spaces, ending in `{hex}` or `{base64}`.
    #[must_use]
    pub fn parse(format: &str) -> Option<SignatureFormat> {
        let (prefix, encoding) = match format.strip_suffix("{hex}") {
            Some(prefix) => (prefix, Encoding::Hex),
            None => (format.strip_suffix("{base64}")?, Encoding::Base64),
        };
        let plain = prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{');
        plain.then(|| SignatureFormat { prefix: prefix.to_owned(), encoding })
    }

    /// Length of a signature and the space after it.
    fn chars(&self) -> usize {
        self.prefix.len() + 65
    }

    fn write(&self, digest: &[u8; 32], out: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out.push_str(&self.prefix);
        match self.encoding {
            Encoding::Hex => {
                for byte in digest {
                    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                    out.push(char::from(DIGITS[usize::from(byte & 15)]));
                }
            }
            Encoding::Base64 => STANDARD.encode_string(digest, out),
        }
    }

    /// The digest in a received signature; strict, as it is public.
    fn read(&self, signature: &str) -> Option<Vec<u8>> {
        let text = signature.strip_prefix(self.prefix.as_str())?;
        match self.encoding {
            Encoding::Hex => text.as_bytes().chunks(2).map(hex_byte).collect(),
            Encoding::Base64 => STANDARD.decode(text).ok(),
        }
    }
}

fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let &[high, low] = pair else { return None };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(message: SignedMessage, format: &str) -> SignatureRule {
        SignatureRule {
            header: HeaderName::from_static("x-signature"),
            message,
            format: SignatureFormat::parse(format).expect("a format"),
            multiple: message == SignedMessage::Standard,
            signed_by_default: true,
            secret: SecretRule::Standard,
        }
    }

    fn of_body(body: &[u8]) -> SignedRequest<'_> {
        SignedRequest { id: "", timestamp: "", body }
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Vector {
        name: String,
        secret_utf8: String,
        body_utf8: String,
        body_bytes: usize,
        encoding: String,
        value: String,
    }

    /// `tests/data/vectors`: made with openssl; the last is case 2 of RFC 4231.
    #[test]
    fn agrees_with_every_platform_vector() {
        let text = include_str!("../../tests/data/vectors/signatures.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).expect("vectors");
        assert_eq!(vectors.len(), 7);
        for vector in vectors {
            let rule = rule(SignedMessage::Body, &format!("sha256={{{}}}", vector.encoding));
            let key = SigningKey::new(vector.secret_utf8.as_bytes());
            let request = of_body(vector.body_utf8.as_bytes());
            assert_eq!(request.body.len(), vector.body_bytes, "{}", vector.name);
            let value = rule.sign(std::slice::from_ref(&key), request);
            assert_eq!(value, vector.value, "{}", vector.name);
            assert!(rule.verify(&key, request, &vector.value), "{}", vector.name);
        }
    }

    /// The vector that every Standard Webhooks library is tested against
    /// (<https://github.com/standard-webhooks/standard-webhooks>).
    #[test]
    fn agrees_with_the_published_standard_webhooks_vector() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let key = SecretRule::Standard.key(secret).expect("a secret");
        let request = SignedRequest {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp: "1614265330",
            body: br#"{"test": 2432232314}"#,
        };
        let value = rule(SignedMessage::Standard, "v1,{base64}").sign(&[key], request);
        assert_eq!(value, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn the_standard_webhooks_library_accepts_each_of_several_signatures() {
        let secrets = [SecretRule::Standard.generate(), SecretRule::Standard.generate()];
        let keys = secrets.clone().map(|secret| SecretRule::Standard.key(&secret).expect("made"));
        let timestamp = time::OffsetDateTime::now_utc().unix_timestamp().to_string();
        let request =
            SignedRequest { id: "dlv_1", timestamp: &timestamp, body: b"{\"a\":\"\xc3\xa9\"}" };
        let rule = rule(SignedMessage::Standard, "v1,{base64}");

        let value = rule.sign(&keys, request);

        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", HeaderValue::from_static("dlv_1"));
        headers.insert("webhook-timestamp", timestamp.parse().expect("digits"));
        headers.insert("webhook-signature", value.clone());
        for (secret, key) in secrets.iter().zip(&keys) {
            let theirs = standardwebhooks::Webhook::new(secret).expect("a secret");
            theirs.verify(request.body, &headers).expect("accepted");
            assert!(rule.verify(key, request, value.to_str().expect("ASCII")));
        }
        let stranger = SigningKey::new(b"another");
        assert!(!rule.verify(&stranger, request, value.to_str().expect("ASCII")));
    }

    #[test]
    fn a_profile_with_one_signature_signs_with_the_first_key() {
        let rule = rule(SignedMessage::Body, "sha256={hex}");
        let keys = [SigningKey::new(b"first"), SigningKey::new(b"second")];
        assert_eq!(rule.sign(&keys, of_body(b"x")), rule.sign(&keys[..1], of_body(b"x")));
    }

    #[test]
    fn a_changed_signature_or_body_is_refused() {
        let rule = rule(SignedMessage::Body, "sha256={hex}");
        let key = SigningKey::new(b"key");
        let value = rule.sign(std::slice::from_ref(&key), of_body(b"body"));
        let value = value.to_str().expect("ASCII");
        assert!(rule.verify(&key, of_body(b"body"), value));
        assert!(!rule.verify(&key, of_body(b"bodY"), value));
        let raw = value.replace("sha256=", "");
        let upper = format!("sha256={}", raw.to_uppercase());
        for wrong in
            [&value[..value.len() - 1], &value[..value.len() - 2], &raw, &upper, "", "sha256="]
        {
            assert!(!rule.verify(&key, of_body(b"body"), wrong), "{wrong}");
        }
    }

    #[test]
    fn formats_end_in_one_encoding() {
        for wrong in ["", "sha256=", "{hex}x", "a b{hex}", "{hex}{hex}", "{HEX}", "é{hex}"] {
            assert_eq!(SignatureFormat::parse(wrong), None, "{wrong}");
        }
        assert!(SignatureFormat::parse("{base64}").is_some());
    }

    #[test]
    fn debug_does_not_print_the_key() {
        assert_eq!(format!("{:?}", SigningKey::new(b"hunter2")), "SigningKey(..)");
    }
}
