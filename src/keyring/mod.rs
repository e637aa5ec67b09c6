//! Encryption of what is stored: keys, sealing and opening. Pure but for randomness; the
//! store says what is sealed and where the keys lie.
//!
//! Two kinds of keys. *Key-encryption keys* are the operator's and never in the database
//! ([`Keyring`]); they encrypt nothing but data keys. A *data key* ([`DataKey`]) is one
//! organization's; the database holds it wrapped by a key-encryption key ([`WrappedKey`]).
//! Every value is sealed with a key of its own, derived from the data key and from the
//! place that the value has in the database ([`Place`]): moved anywhere else, it does not
//! open. `docs/decisions/0021-encryption-at-rest.md` has the reasons.

mod aead;
mod data_key;
mod kek;
mod place;
#[cfg(test)]
mod tests;

pub use self::data_key::{DataKey, Digested};
pub use self::kek::{Keyring, Locked, WrappedKey};
pub use self::place::{Column, Place};
