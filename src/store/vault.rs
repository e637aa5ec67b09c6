//! Data keys in memory, and the columns that are sealed with them.
//!
//! A sealed column stands beside two others, `*_key_id` and `*_version` ([`Form`]): the
//! number of the data key and how the value is written. Version 0 is plaintext: what was
//! stored without keys goes on being read. The keys themselves are read from the database
//! once ([`super::data_key`]), so that a row costs no trip of its own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::StoreError;
use crate::domain::id::OrganizationId;
use crate::keyring::{Column, DataKey, Keyring, Place};

/// Failures are logged at most this often: a destroyed key leaves many rows behind.
const TELL_EVERY: Duration = Duration::from_secs(1);

const PLAIN: i16 = 0;
const SEALED: i16 = 1;

/// How a value is written: the two columns beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) key_id: i32,
    pub(super) version: i16,
}

impl Form {
    pub(super) const PLAIN: Form = Form { key_id: 0, version: PLAIN };

    /// Sealed with this key.
    pub(super) fn of(key: &DataKey) -> Form {
        Form { key_id: key.id(), version: SEALED }
    }

    pub(super) fn is_plain(self) -> bool {
        self.version == PLAIN
    }
}

/// Why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its data key is gone")]
    KeyGone,
    #[error("it does not open: it was changed, or comes from another row")]
    Damaged,
}

impl From<Unreadable> for StoreError {
    fn from(why: Unreadable) -> StoreError {
        match why {
            Unreadable::KeyGone => StoreError::Shredded,
            Unreadable::Damaged => StoreError::Corrupt("sealed value"),
        }
    }
}

/// The operator's keys and the data keys that were opened with them so far.
#[derive(Debug, Default)]
pub(super) struct Vault {
    keyring: ArcSwap<Keyring>,
    known: RwLock<Known>,
    failures: AtomicU64,
    /// When a failure was logged last.
    told: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<i32, Arc<DataKey>>,
    /// What seals an organization's new values.
    current: HashMap<OrganizationId, Arc<DataKey>>,
    /// Destroyed: an answer that was under way meanwhile must not bring one back.
    destroyed: HashSet<i32>,
}

impl Vault {
    pub(super) fn new(keyring: Keyring) -> Vault {
        Vault { keyring: ArcSwap::from_pointee(keyring), ..Vault::default() }
    }

    pub(super) fn keyring(&self) -> Keyring {
        Keyring::clone(&self.keyring.load())
    }

    /// Goes on with other keys; data keys that were opened stay open.
    pub(super) fn use_keyring(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
    }

    /// Whether new values are sealed.
    pub(super) fn is_on(&self) -> bool {
        self.keyring.load().primary().is_some()
    }

    pub(super) fn key(&self, id: i32) -> Option<Arc<DataKey>> {
        self.known().by_id.get(&id).cloned()
    }

    pub(super) fn current(&self, organization: &OrganizationId) -> Option<Arc<DataKey>> {
        self.known().current.get(organization).cloned()
    }

    /// Those of the data keys that are not in memory.
    pub(super) fn unknown(&self, ids: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
        let known = self.known();
        ids.into_iter().filter(|id| *id != 0 && !known.by_id.contains_key(id)).collect()
    }

    pub(super) fn keep(&self, key: Arc<DataKey>) {
        let mut known = self.known_mut();
        if !known.destroyed.contains(&key.id()) {
            known.by_id.insert(key.id(), key);
        }
    }

    pub(super) fn keep_current(&self, key: Arc<DataKey>) {
        let mut known = self.known_mut();
        if known.destroyed.contains(&key.id()) {
            return;
        }
        known.by_id.insert(key.id(), Arc::clone(&key));
        known.current.insert(key.organization().clone(), key);
    }

    /// Forgets a key that was destroyed, for good.
    pub(super) fn forget(&self, id: i32) {
        let mut known = self.known_mut();
        known.destroyed.insert(id);
        if let Some(key) = known.by_id.remove(&id)
            && known.current.get(key.organization()).is_some_and(|current| current.id() == id)
        {
            known.current.remove(key.organization());
        }
    }

    /// The plain bytes of a value. Its data key must have been looked for before.
    pub(super) fn open(
        &self,
        form: Form,
        column: Column,
        place: impl FnOnce(Column) -> Place,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, Unreadable> {
        let opened = match form.version {
            PLAIN => return Ok(bytes),
            SEALED => match self.key(form.key_id) {
                Some(key) => key.open(&place(column), bytes).ok_or(Unreadable::Damaged),
                None => Err(Unreadable::KeyGone),
            },
            // Of a later version, or no row of ours.
            _ => Err(Unreadable::Damaged),
        };
        opened.inspect_err(|why| self.failed(column, form.key_id, *why))
    }

    /// The same of a column of text, where sealed values are base64.
    pub(super) fn open_text(
        &self,
        form: Form,
        column: Column,
        place: impl FnOnce(Column) -> Place,
        text: String,
    ) -> Result<String, Unreadable> {
        if form.is_plain() {
            return Ok(text);
        }
        let damaged = || {
            self.failed(column, form.key_id, Unreadable::Damaged);
            Unreadable::Damaged
        };
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| damaged())?;
        let plain = self.open(form, column, place, bytes)?;
        String::from_utf8(plain).map_err(|_| damaged())
    }

    /// Counts a value that could not be read, and says so in the log.
    fn failed(&self, column: Column, key_id: i32, why: Unreadable) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| TELL_EVERY <= told.elapsed()) {
            *told = Some(Instant::now());
            let column = column.name();
            tracing::error!(column, data_key = key_id, %why, "a stored value cannot be decrypted");
        }
    }

    /// Values that could not be read so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        // Two maps of keys: half a change is a key that is looked for again.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value of a column of text, sealed.
pub(super) fn seal_text(key: &DataKey, place: &Place, plain: &str) -> String {
    STANDARD_NO_PAD.encode(key.seal(place, plain.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_key_does_not_come_back_with_an_answer_that_was_under_way() {
        let keyring = Keyring::parse("a = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
        let vault = Vault::new(keyring.expect("one key"));
        let clinic = OrganizationId::stored("clinic");
        let stored = vault.keyring().generate(7, &clinic).expect("there is a key");
        let key = Arc::new(vault.keyring().unwrap(&stored).expect("it opens"));
        vault.keep_current(Arc::clone(&key));
        assert!(vault.current(&clinic).is_some());
        vault.forget(7);
        vault.keep(Arc::clone(&key));
        vault.keep_current(key);
        assert!(vault.key(7).is_none() && vault.current(&clinic).is_none());
    }
}
