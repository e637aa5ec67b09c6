//! The key of one organization.

use std::fmt;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac::{self, HMAC_SHA256};

use super::Place;
use super::aead::{self, KEY_BYTES};
use crate::domain::id::OrganizationId;

/// Names this way of deriving keys. Another way is another form of what is stored.
const SALT: &[u8] = b"hookward data key 1";
/// What the key of digests is derived for; no place is written like that.
const DIGEST: &[u8] = b"digest";

/// What is stored as a digest under the data key, where a plain hash would let whoever has
/// a copy of the database try guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digested {
    /// What a publisher chose for an event with an id of its own.
    EventContent,
    /// An event's subject, so that one person's events are found without being named.
    EventSubject,
    /// What a request with a request id asked for.
    Request,
}

impl Digested {
    fn name(self) -> &'static str {
        match self {
            Digested::EventContent => "event_key.content_hash",
            Digested::EventSubject => "event.subject",
            Digested::Request => "request_log.request_hash",
        }
    }
}

/// A data key, ready for use. `Debug` does not print it.
pub struct DataKey {
    id: i32,
    organization: OrganizationId,
    /// Gives each value its key.
    derive: Prk,
    digest: hmac::Key,
}

impl DataKey {
    pub(super) fn new(id: i32, organization: OrganizationId, bytes: &[u8; KEY_BYTES]) -> DataKey {
        let derive = Salt::new(HKDF_SHA256, SALT).extract(bytes);
        let digest = derive.expand(&[DIGEST], HMAC_SHA256).expect("one block is not too long");
        let digest = hmac::Key::from(digest);
        DataKey { id, organization, derive, digest }
    }

    /// Its number in the database, which rows carry.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Whose it is.
    #[must_use]
    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// Encrypts a value for this place; 28 bytes longer than `plain`.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn seal(&self, place: &Place, plain: &[u8]) -> Vec<u8> {
        aead::seal(&self.key(place), place.bytes(), plain)
    }

    /// Decrypts what [`DataKey::seal`] has made for the same place; `None`: it was changed,
    /// or stood somewhere else.
    #[must_use]
    pub fn open(&self, place: &Place, sealed: Vec<u8>) -> Option<Vec<u8>> {
        aead::open(&self.key(place), place.bytes(), sealed)
    }

    /// A keyed digest: the same for the same bytes, and without the key no help in guessing
    /// them.
    #[must_use]
    pub fn digest(&self, what: Digested, bytes: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.digest);
        context.update(what.name().as_bytes());
        context.update(&[0]);
        context.update(bytes);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// The key of one place: so no key seals more than the few versions of one value, and
    /// random nonces never come near their limit of 2^32 a key.
    pub(super) fn key(&self, place: &Place) -> LessSafeKey {
        let info = [place.bytes()];
        let key = self.derive.expand(&info, &AES_256_GCM).expect("one block is not too long");
        LessSafeKey::new(UnboundKey::from(key))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DataKey").field("id", &self.id).finish_non_exhaustive()
    }
}
