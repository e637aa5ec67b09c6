//! The operator's keys, and data keys under them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

use super::DataKey;
use super::aead::{self, KEY_BYTES};
use super::place::within;
use crate::domain::id::OrganizationId;

/// Not the id of a key: its line says which one is the primary.
const PRIMARY: &str = "primary";
const ID_CHARS_MAX: usize = 32;
/// More than this is a mistake.
const KEYS_MAX: usize = 64;

/// The key-encryption keys that the operator gave this process; none: nothing is
/// encrypted. `Debug` prints their ids only. Cloning shares it.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Option<Arc<Keys>>,
}

struct Keys {
    /// The id of the one that wraps new data keys; it is among `by_id`.
    primary: String,
    by_id: BTreeMap<String, LessSafeKey>,
}

/// A data key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its number.
    pub id: i32,
    /// Whose it is.
    pub organization: OrganizationId,
    /// The key-encryption key that opens it.
    pub kek_id: String,
    /// The key, sealed.
    pub wrapped: Vec<u8>,
}

/// Why a data key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// The operator did not give this process the key-encryption key of this id.
    #[error("the encryption key {0} is needed and was not given")]
    Missing(String),
    /// The key-encryption key of this id does not open it: it is another key under the same
    /// id, or the row was changed.
    #[error("the encryption key {0} does not open what it should have closed")]
    Wrong(String),
}

impl Keyring {
    /// Reads keys as operators write them: entries `id = base64 of 32 bytes`, a line each
    /// or separated by semicolons; of several, `primary = id` says which one wraps new data
    /// keys. Lines that begin with `#` and empty ones say nothing. Nothing at all is an
    /// empty keyring.
    ///
    /// # Errors
    ///
    /// What is wrong, without repeating a key.
    pub fn parse(text: &str) -> Result<Keyring, String> {
        let mut primary = None;
        let mut by_id = BTreeMap::new();
        for entry in text.split(['\n', ';']).map(str::trim) {
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let Some((id, value)) = entry.split_once('=') else {
                return Err("write entries id = KEY; one has no equals sign".to_owned());
            };
            let (id, value) = (id.trim(), value.trim());
            if id == PRIMARY {
                if primary.replace(value.to_owned()).is_some() {
                    return Err("primary is said twice".to_owned());
                }
                continue;
            }
            check_id(id)?;
            if by_id.insert(id.to_owned(), read_key(id, value)?).is_some() {
                return Err(format!("{id} is there twice"));
            }
        }
        if KEYS_MAX < by_id.len() {
            return Err(format!("at most {KEYS_MAX} keys"));
        }
        let primary = match (primary, by_id.first_key_value()) {
            (None, None) => return Ok(Keyring::default()),
            (None, Some((only, _))) if by_id.len() == 1 => only.clone(),
            (None, Some(_)) => {
                let why = "of several keys one is the primary: write primary = ID";
                return Err(why.to_owned());
            }
            (Some(id), _) if by_id.contains_key(&id) => id,
            (Some(_), _) => return Err("the primary is not among the keys".to_owned()),
        };
        Ok(Keyring { keys: Some(Arc::new(Keys { primary, by_id })) })
    }

    /// The id of the key that wraps new data keys; `None`: there are no keys.
    #[must_use]
    pub fn primary(&self) -> Option<&str> {
        self.keys.as_deref().map(|keys| keys.primary.as_str())
    }

    /// Whether a key of this id is among them.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.key(id).is_some()
    }

    /// A new data key under the primary key, with the form that it is stored in; `None`:
    /// there are no keys.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn generate(&self, id: i32, organization: &OrganizationId) -> Option<WrappedKey> {
        let primary = self.primary()?;
        let mut bytes = [0; KEY_BYTES];
        aead::fill(&mut bytes);
        self.wrap(primary, id, organization, &bytes)
    }

    /// Opens a data key.
    ///
    /// # Errors
    ///
    /// [`Locked`].
    pub fn unwrap(&self, stored: &WrappedKey) -> Result<DataKey, Locked> {
        let bytes = self.open(stored)?;
        Ok(DataKey::new(stored.id, stored.organization.clone(), &bytes))
    }

    /// The same data key under the primary key.
    ///
    /// # Errors
    ///
    /// [`Locked`].
    pub fn rewrap(&self, stored: &WrappedKey) -> Result<WrappedKey, Locked> {
        let bytes = self.open(stored)?;
        let missing = || Locked::Missing(stored.kek_id.clone());
        let primary = self.primary().ok_or_else(missing)?;
        self.wrap(primary, stored.id, &stored.organization, &bytes).ok_or_else(missing)
    }

    fn open(&self, stored: &WrappedKey) -> Result<[u8; KEY_BYTES], Locked> {
        let key = self.key(&stored.kek_id);
        let key = key.ok_or_else(|| Locked::Missing(stored.kek_id.clone()))?;
        let bound = bound(&stored.kek_id, stored.id, &stored.organization);
        let bytes = aead::open(key, &bound, stored.wrapped.clone());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| Locked::Wrong(stored.kek_id.clone()))
    }

    fn wrap(
        &self,
        kek_id: &str,
        id: i32,
        organization: &OrganizationId,
        bytes: &[u8; KEY_BYTES],
    ) -> Option<WrappedKey> {
        let wrapped = aead::seal(self.key(kek_id)?, &bound(kek_id, id, organization), bytes);
        let (kek_id, organization) = (kek_id.to_owned(), organization.clone());
        Some(WrappedKey { id, organization, kek_id, wrapped })
    }

    fn key(&self, id: &str) -> Option<&LessSafeKey> {
        self.keys.as_ref()?.by_id.get(id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().flat_map(|keys| keys.by_id.keys());
        formatter.debug_set().entries(ids).finish()
    }
}

/// What a wrapped data key is bound to.
fn bound(kek_id: &str, id: i32, organization: &OrganizationId) -> Vec<u8> {
    let mut bound = within("data_key", organization, &id.to_be_bytes());
    bound.extend_from_slice(kek_id.as_bytes());
    bound
}

fn check_id(id: &str) -> Result<(), String> {
    let fits = (1..=ID_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if fits {
        return Ok(());
    }
    // Not repeated: it may be a key in the wrong place.
    Err("the id of a key is 1 to 32 characters of A-Z, a-z, 0-9, '_', '.' and '-'".to_owned())
}

fn read_key(id: &str, value: &str) -> Result<LessSafeKey, String> {
    let bytes = STANDARD.decode(value).ok();
    let key = bytes.and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok());
    let key = key.ok_or_else(|| format!("{id} is not the base64 of 32 bytes"))?;
    Ok(LessSafeKey::new(key))
}
