//! API keys: `whk_`, the key's id, `_`, and 43 letters and digits that only its holder
//! knows. Kept are its id and the SHA-256 of the 43: they are 256 random bits, so that
//! nobody guesses them from a fast hash.

use std::fmt;

use sha2::{Digest, Sha256};

use super::id::ApiKeyId;
use super::principal::Principal;
use super::timestamp::Timestamp;

/// 62 to the 43rd is more than 2 to the 256th.
const SECRET_CHARS: usize = 43;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a key's holder knows. Shown once.
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// A new one, from the operating system's randomness.
    ///
    /// # Panics
    ///
    /// When there is none: nothing can be kept secret then.
    #[must_use]
    pub fn generate() -> Self {
        let mut secret = String::with_capacity(SECRET_CHARS);
        while secret.len() < SECRET_CHARS {
            let mut bytes = [0; 64];
            getrandom::fill(&mut bytes).expect("the operating system has randomness");
            // A byte above the last whole multiple of 62 would favour some letters.
            let fair = bytes.iter().filter(|byte| **byte < 248);
            let letters = fair.map(|byte| char::from(LETTERS[usize::from(*byte % 62)]));
            secret.extend(letters.take(SECRET_CHARS - secret.len()));
        }
        ApiKeySecret(secret)
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }

    /// What its holder sends, given the key's public id.
    #[must_use]
    pub fn token(&self, id: &str) -> String {
        format!("{id}_{}", self.0)
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// The public id and the hash of the secret in what a caller sent; `None` when it has not
/// the form of a key.
#[must_use]
pub fn read_token(token: &str) -> Option<(&str, [u8; 32])> {
    let (id, secret) = token.rsplit_once('_')?;
    let fits = secret.len() == SECRET_CHARS && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| (id, hash(secret)))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A key, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// For people.
    pub label: String,
    /// Who calls with it.
    pub principal: Principal,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// By the database's clock.
    pub create_time: Timestamp,
    /// From then on it is refused.
    pub expire_time: Option<Timestamp>,
    /// Since then it is refused.
    pub revoke_time: Option<Timestamp>,
    /// To the minute.
    pub last_use_time: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it is good at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoke_time.is_none() && self.expire_time.is_none_or(|end| now < end)
    }
}

/// Without the hash, which would show up in whatever prints it.
impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiKey")
            .field("id", &self.id)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_the_id_and_the_hash_that_are_kept() {
        let secret = ApiKeySecret::generate();
        let token = secret.token("whk_0123456789abc");
        assert_eq!(token.len(), 17 + 1 + 43);
        assert_eq!(read_token(&token), Some(("whk_0123456789abc", secret.hash())));
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_none() {
        let token = ApiKeySecret::generate().token("whk_0123456789abc");
        for wrong in [
            "",
            "_",
            "whk_",
            &token[1..token.len() - 1],
            &format!("{token}x"),
            &token.replace('_', "-"),
        ] {
            assert_eq!(read_token(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_secret_is_another() {
        let secrets: std::collections::BTreeSet<[u8; 32]> =
            (0..1000).map(|_| ApiKeySecret::generate().hash()).collect();
        assert_eq!(secrets.len(), 1000);
    }
}
