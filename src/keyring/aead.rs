//! AES-256-GCM (NIST SP 800-38D) as it is stored: a random nonce of 12 bytes, the
//! ciphertext, the tag of 16 bytes.

use ring::aead::{Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce};

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// What a sealed value has more than the plain one.
pub(super) const OVERHEAD: usize = NONCE_LEN + MAX_TAG_LEN;

/// Seals `plain`; it opens only with the same `bound` bytes, which are not stored.
///
/// # Panics
///
/// When the operating system has no randomness to give.
pub(super) fn seal(key: &LessSafeKey, bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    fill(&mut nonce);
    seal_with(key, nonce, bound, plain)
}

/// The same with a nonce that this key has never sealed anything with.
pub(super) fn seal_with(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    bound: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(bound), &mut sealed[NONCE_LEN..]);
    // GCM takes 64 GiB.
    let tag = tag.expect("no value is that large");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

/// Opens what [`seal`] has made, in place; `None`: it was changed, or is bound to
/// something else.
pub(super) fn open(key: &LessSafeKey, bound: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    if sealed.len() < OVERHEAD {
        return None;
    }
    let nonce = Nonce::try_assume_unique_for_key(&sealed[..NONCE_LEN]).ok()?;
    let plain = key.open_within(nonce, Aad::from(bound), &mut sealed, NONCE_LEN..);
    let bytes = plain.ok()?.len();
    sealed.truncate(bytes);
    Some(sealed)
}

/// Randomness of the operating system.
pub(super) fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives randomness");
}
