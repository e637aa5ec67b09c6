//! Signing secrets and signatures: a secret is strict base64 of 24 to 64 bytes, a signature
//! verifies, and none does of which a bit was changed, or of whose request.
#![no_main]

use arbitrary::Arbitrary;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hookward::domain::secret::SecretRule;
use hookward::domain::signature::{
    SignatureFormat, SignatureRule, SignedMessage, SignedRequest, SigningKey,
};
use http::HeaderName;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    secret: &'a str,
    keys: [&'a [u8]; 2],
    id: &'a str,
    timestamp: u64,
    body: &'a [u8],
    header: &'a str,
    hex: bool,
    standard: bool,
    multiple: bool,
    /// Which bit is changed.
    bit: usize,
}

/// Reads base64 as loosely as can be: what is strict is written like that again.
const LOOSE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn is_standard(secret: &str) -> bool {
    let Some(text) = secret.strip_prefix("whsec_") else { return false };
    let Ok(key) = LOOSE.decode(text) else { return false };
    (24..=64).contains(&key.len()) && LOOSE.encode(&key) == text
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let bit = bit % (8 * bytes.len());
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fuzz_target!(|input: Input<'_>| {
    let Input { secret, keys, id, timestamp, body, header, hex, standard, multiple, bit } = input;
    let rule = SecretRule::Standard;
    let checked = rule.check(secret);
    assert_eq!(checked.is_ok(), is_standard(secret));
    assert_eq!(rule.key(secret).is_ok(), checked.is_ok());
    // A refusal says nothing of the secret: it is the same for all.
    assert_eq!(checked.err(), rule.check("").err().filter(|_| !is_standard(secret)));

    let format = if hex { "sha256={hex}" } else { "v1,{base64}" };
    let rule = SignatureRule {
        header: HeaderName::from_static("webhook-signature"),
        message: if standard { SignedMessage::Standard } else { SignedMessage::Body },
        format: SignatureFormat::parse(format).expect("a format"),
        multiple,
        signed_by_default: true,
        secret: rule,
    };
    let [key, second] = keys.map(SigningKey::new);
    let timestamp = timestamp.to_string();
    let request = SignedRequest { id, timestamp: &timestamp, body };
    let signed = rule.sign(&[key.clone(), second.clone()], request);
    let signed = signed.to_str().expect("visible ASCII");
    assert!(rule.verify(&key, request, signed));
    if multiple {
        assert!(rule.verify(&second, request, signed));
        assert_eq!(signed.split(' ').count(), 2);
    }

    let alone = rule.sign(std::slice::from_ref(&key), request);
    let alone = alone.to_str().expect("visible ASCII");
    if let Ok(changed) = String::from_utf8(flipped(alone.as_bytes(), bit)) {
        assert!(!rule.verify(&key, request, &changed), "{changed}");
    }
    if !body.is_empty() {
        let body = flipped(body, bit);
        assert!(!rule.verify(&key, SignedRequest { body: &body, ..request }, alone));
    }
    if standard {
        let later = format!("{timestamp}0");
        assert!(!rule.verify(&key, SignedRequest { timestamp: &later, ..request }, alone));
        let other = format!("{id}a");
        assert!(!rule.verify(&key, SignedRequest { id: &other, ..request }, alone));
    }
    for end in 0..alone.len() {
        assert!(!rule.verify(&key, request, &alone[..end]), "the first {end} characters");
    }
    // Of a stranger's making only what is a signature of it would do, and nobody guesses one.
    assert!(header.contains(alone) || !rule.verify(&key, request, header));
});
