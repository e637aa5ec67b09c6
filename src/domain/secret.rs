//! Signing secrets: what a profile accepts as one, how one is made, and which key
//! bytes it stands for.
//!
//! A secret's value never appears in an error. Randomness is the operating
//! system's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::invalid::InvalidField;
use super::signature::SigningKey;

/// What the text of a Standard Webhooks secret starts with.
pub const STANDARD_PREFIX: &str = "whsec_";

const STANDARD_BYTES_MIN: usize = 24;
const STANDARD_BYTES_MAX: usize = 64;
const STANDARD_BYTES_GENERATED: usize = 32;

/// Which secrets a profile signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRule {
    /// Standard Webhooks: `whsec_` and the padded standard base64 of 24 to 64 key
    /// bytes (<https://www.standardwebhooks.com/>, "Signature scheme").
    Standard,
    /// A text of the platform; its UTF-8 bytes are the key.
    Text {
        /// Length of a generated secret.
        generate_chars: usize,
        /// Fewest characters (Unicode scalar values) that are accepted.
        chars_min: usize,
        /// Most characters that are accepted.
        chars_max: usize,
    },
}

impl SecretRule {
    /// Whether `secret` may sign for this profile.
    ///
    /// # Errors
    ///
    /// `INVALID_SECRET` of the field `signing_secret`.
    pub fn check(&self, secret: &str) -> Result<(), InvalidField> {
        self.key_bytes(secret).map(drop)
    }

    /// The key that `secret` stands for, ready to sign.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn key(&self, secret: &str) -> Result<SigningKey, InvalidField> {
        self.key_bytes(secret).map(|bytes| SigningKey::new(&bytes))
    }

    /// A new random secret.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give: a server that cannot
    /// make secrets must not make guessable ones.
    #[must_use]
    pub fn generate(&self) -> String {
        match self {
            SecretRule::Standard => {
                let mut key = [0; STANDARD_BYTES_GENERATED];
                fill(&mut key);
                format!("{STANDARD_PREFIX}{}", STANDARD.encode(key))
            }
            SecretRule::Text { generate_chars, .. } => alphanumeric(*generate_chars),
        }
    }

    fn key_bytes(&self, secret: &str) -> Result<Vec<u8>, InvalidField> {
        match self {
            SecretRule::Standard => standard_key(secret).ok_or_else(|| {
                invalid(format!(
                    "must be `{STANDARD_PREFIX}` and the padded base64 of \
                     {STANDARD_BYTES_MIN} to {STANDARD_BYTES_MAX} bytes"
                ))
            }),
            SecretRule::Text { chars_min, chars_max, .. } => {
                // A pasted line break is invisible and breaks every signature.
                let accepted = (*chars_min..=*chars_max).contains(&secret.chars().count())
                    && !secret.contains(char::is_control);
                let why =
                    || format!("must have {chars_min} to {chars_max} characters, none of control");
                accepted.then(|| secret.as_bytes().to_vec()).ok_or_else(|| invalid(why()))
            }
        }
    }
}

fn standard_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(STANDARD_PREFIX)?).ok()?;
    (STANDARD_BYTES_MIN..=STANDARD_BYTES_MAX).contains(&key.len()).then_some(key)
}

fn invalid(why: String) -> InvalidField {
    InvalidField::new("signing_secret", "INVALID_SECRET", why)
}

fn alphanumeric(chars: usize) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut secret = String::with_capacity(chars);
    let mut random = [0; 64];
    while secret.len() < chars {
        fill(&mut random);
        // 6 bits name one of 64; the two without a letter are thrown away, so that
        // every letter is equally likely.
        let letters = random.iter().filter_map(|byte| LETTERS.get(usize::from(byte & 63)));
        secret.extend(letters.take(chars - secret.len()).map(|letter| char::from(*letter)));
    }
    secret
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives randomness");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meetinglawyers() -> SecretRule {
        SecretRule::Text { generate_chars: 32, chars_min: 16, chars_max: 32 }
    }

    #[test]
    fn a_generated_secret_is_accepted_and_not_made_twice() {
        for rule in [SecretRule::Standard, meetinglawyers()] {
            let secret = rule.generate();
            assert_eq!(rule.check(&secret), Ok(()));
            assert_ne!(secret, rule.generate());
        }
        assert_eq!(meetinglawyers().generate().len(), 32);
        assert_eq!(standard_key(&SecretRule::Standard.generate()).map(|key| key.len()), Some(32));
    }

    #[test]
    fn every_letter_turns_up_in_generated_text() {
        let secret = alphanumeric(10_000);
        assert_eq!(secret.len(), 10_000);
        let mut letters: Vec<char> = secret.chars().collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), 62);
    }

    #[test]
    fn standard_secrets_hold_24_to_64_bytes_in_strict_base64() {
        for (bytes, accepted) in [(23, false), (24, true), (64, true), (65, false)] {
            let secret = format!("whsec_{}", STANDARD.encode(vec![0xfb; bytes]));
            assert_eq!(SecretRule::Standard.check(&secret).is_ok(), accepted, "{bytes} bytes");
        }
        let good = format!("whsec_{}", STANDARD.encode([0xfb; 25]));
        for wrong in [
            good.trim_end_matches('=').to_owned(),
            good.replace('+', "-"),
            format!("{good}\n"),
            good.replace("whsec_", ""),
            String::new(),
        ] {
            assert!(SecretRule::Standard.check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn platform_secrets_are_counted_in_characters() {
        for (secret, accepted) in [
            ("é".repeat(15), false),
            ("é".repeat(16), true),
            ("é".repeat(32), true),
            ("é".repeat(33), false),
            (format!("{}\n", "x".repeat(20)), false),
        ] {
            assert_eq!(meetinglawyers().check(&secret).is_ok(), accepted, "{secret:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_rule_and_not_the_value() {
        let refusal = meetinglawyers().check("hunter2").expect_err("too short");
        assert_eq!((refusal.field.as_str(), refusal.reason), ("signing_secret", "INVALID_SECRET"));
        assert!(refusal.why.contains("16 to 32"), "{}", refusal.why);
        assert!(!refusal.to_string().contains("hunter2"));
    }
}
