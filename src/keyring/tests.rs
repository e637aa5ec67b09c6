//! Keys against vectors of other implementations, and against whoever changes a bit.

use proptest::prelude::*;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

use super::*;
use crate::domain::id::OrganizationId;

/// 32 times 0x42.
const KEY: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";
/// 32 times 0x43.
const OTHER: &str = "Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";
const NONCE: [u8; 12] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab];

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn clinic() -> OrganizationId {
    OrganizationId::stored("clinic-7")
}

/// The data key 00 01 … 1f.
fn data_key(organization: OrganizationId) -> DataKey {
    DataKey::new(77, organization, &std::array::from_fn(|at| u8::try_from(at).expect("small")))
}

fn payload() -> Place {
    Place::keyed(Column::EventPayload, &clinic(), [0x0102_0304_0506_0708])
}

/// Test case 16 of "The Galois/Counter Mode of Operation", the submission that NIST
/// took up.
#[test]
fn aes_256_gcm_is_the_published_one() {
    let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes"));
    let nonce = hex("cafebabefacedbaddecaf888").try_into().expect("12 bytes");
    let bound = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let expected = "cafebabefacedbaddecaf888\
        522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
        8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662\
        76fc6ece0f4e1768cddf8853bb2d551b";
    let sealed = aead::seal_with(&key, nonce, &bound, &plain);
    assert_eq!(sealed, hex(expected));
    assert_eq!(aead::open(&key, &bound, sealed), Some(plain));
}

/// Computed with Python: `hmac` for RFC 5869, and the AES-GCM of the package
/// `cryptography` 48. What was stored once must open for ever.
#[test]
fn what_is_stored_keeps_its_form() {
    let key = data_key(clinic());
    let seal =
        |place: &Place, plain: &[u8]| aead::seal_with(&key.key(place), NONCE, place.bytes(), plain);
    let expected = "a0a1a2a3a4a5a6a7a8a9aaab615d8a7f0cd3fcbe7ca07375fc0bb6f5\
        6919341106c3e6ad6479d0238527eff3613598";
    assert_eq!(seal(&payload(), br#"{"patient":"Robin"}"#), hex(expected));
    let body = Place::keyed(Column::AttemptResponseBody, &clinic(), [1, 2, 3]);
    let expected = "a0a1a2a3a4a5a6a7a8a9aaab4aa940edcdfe8d681496105aa78df613";
    assert_eq!(seal(&body, b""), hex(expected));
    let expected = "47e7d2d0daf099f7380f5a947044fd0ac01196c30675b3cc3e4069ddec138dad";
    assert_eq!(key.digest(Digested::EventContent, &[7; 32]).to_vec(), hex(expected));

    let wrapped = "a0a1a2a3a4a5a6a7a8a9aaabad326d112030c871bd3c806c4d8ff2786b9cc426\
        ff9770f332bfb15e60afdc5df1cec3b79cc5fbb5426793dc3eee3705";
    let stored = WrappedKey {
        id: 77,
        organization: clinic(),
        kek_id: "2026-11".to_owned(),
        wrapped: hex(wrapped),
    };
    let keyring = Keyring::parse(&format!("2026-11 = {KEY}")).expect("one key");
    let opened = keyring.unwrap(&stored).expect("its own key");
    let sealed = key.seal(&payload(), b"x");
    assert_eq!(opened.open(&payload(), sealed).as_deref(), Some(&b"x"[..]), "the same key");
}

#[test]
fn the_same_value_is_sealed_differently_each_time() {
    let key = data_key(clinic());
    let (one, other) = (key.seal(&payload(), b"x"), key.seal(&payload(), b"x"));
    assert_ne!(one, other);
    assert_eq!(one.len(), 1 + aead::OVERHEAD);
}

#[test]
fn a_value_opens_at_its_own_place_only() {
    let key = data_key(clinic());
    let sealed = key.seal(&payload(), b"x");
    let row = 0x0102_0304_0506_0708;
    let elsewhere = [
        Place::keyed(Column::EventDetails, &clinic(), [row]),
        Place::keyed(Column::EventPayload, &clinic(), [row + 1]),
        Place::keyed(Column::EventPayload, &OrganizationId::stored("clinic-8"), [row]),
        Place::keyed(Column::EventPayload, &OrganizationId::stored("clinic"), [row]),
        Place::keyed(Column::EventPayload, &clinic(), [row, 0]),
    ];
    for place in elsewhere {
        assert_eq!(key.open(&place, sealed.clone()), None, "{place:?}");
    }
    // Another organization's data key, should two ever have the same number.
    let bytes = [9; aead::KEY_BYTES];
    assert_eq!(DataKey::new(77, clinic(), &bytes).open(&payload(), sealed.clone()), None);
    assert_eq!(key.open(&payload(), sealed).as_deref(), Some(&b"x"[..]));
}

#[test]
fn no_two_columns_share_a_name() {
    let names: std::collections::BTreeSet<_> = Column::ALL.map(Column::name).into();
    assert_eq!(names.len(), Column::ALL.len());
}

#[test]
fn digests_tell_organizations_and_uses_apart() {
    let key = data_key(clinic());
    let content = key.digest(Digested::EventContent, b"x");
    assert_eq!(content, data_key(clinic()).digest(Digested::EventContent, b"x"));
    assert_ne!(content, key.digest(Digested::EventSubject, b"x"));
    assert_ne!(content, key.digest(Digested::Request, b"x"));
    let other = DataKey::new(78, clinic(), &[9; aead::KEY_BYTES]);
    assert_ne!(content, other.digest(Digested::EventContent, b"x"));
}

#[test]
fn data_keys_go_from_one_encryption_key_to_another() {
    let old = Keyring::parse(&format!("a = {KEY}")).expect("one key");
    let both = Keyring::parse(&format!("# both\n\na={KEY};b={OTHER}\nprimary = b"));
    let both = both.expect("two keys");
    let new = Keyring::parse(&format!("b = {OTHER}")).expect("one key");
    let stored = old.generate(5, &clinic()).expect("there is a key");
    let moved = both.rewrap(&stored).expect("it has both");
    assert_eq!((&*moved.kek_id, moved.id), ("b", 5));
    let sealed = old.unwrap(&stored).expect("opens").seal(&payload(), b"x");
    let opened = new.unwrap(&moved).expect("opens").open(&payload(), sealed);
    assert_eq!(opened.as_deref(), Some(&b"x"[..]));

    assert_eq!(new.unwrap(&stored).expect_err("gone"), Locked::Missing("a".to_owned()));
    let namesake = Keyring::parse(&format!("a = {OTHER}")).expect("one key");
    assert_eq!(namesake.unwrap(&stored).expect_err("differs"), Locked::Wrong("a".to_owned()));
    let foreign = WrappedKey { organization: OrganizationId::stored("other"), ..stored.clone() };
    assert_eq!(old.unwrap(&foreign).expect_err("moved"), Locked::Wrong("a".to_owned()));
    let renumbered = WrappedKey { id: 6, ..stored };
    assert_eq!(old.unwrap(&renumbered).expect_err("moved"), Locked::Wrong("a".to_owned()));
    assert_eq!(Keyring::default().generate(5, &clinic()), None);
}

#[test]
fn faults_of_keys_are_told_without_the_keys() {
    let two = format!("a = {KEY}\nb = {OTHER}");
    for (text, told) in [
        (KEY.to_owned(), "the id of a key"),
        ("a".to_owned(), "no equals sign"),
        (format!("a b = {KEY}"), "the id of a key"),
        ("a = QkJC".to_owned(), "a is not the base64 of 32 bytes"),
        (format!("a = {}", &KEY[..43]), "a is not the base64 of 32 bytes"),
        (format!("a = {KEY}; a = {OTHER}"), "a is there twice"),
        (two.clone(), "primary = ID"),
        (format!("{two}; primary = c"), "the primary is not among the keys"),
        (format!("{two}; primary = a; primary = b"), "primary is said twice"),
        ("primary = a".to_owned(), "the primary is not among the keys"),
    ] {
        let refused = Keyring::parse(&text).expect_err("it is wrong");
        assert!(refused.contains(told), "{told}: {refused}");
        assert!(!refused.contains("QkJC") && !refused.contains("Q0ND"), "{refused}");
    }
    for nothing in ["", " \n", "# none yet\n"] {
        assert_eq!(Keyring::parse(nothing).expect("is allowed").primary(), None);
    }
    let keyring = Keyring::parse(&format!("{two}; primary = b")).expect("two keys");
    assert_eq!(keyring.primary(), Some("b"));
    assert_eq!(format!("{keyring:?}"), r#"{"a", "b"}"#);
}

proptest! {
    /// Whatever is sealed opens, and not once any bit of it is another: not in the nonce,
    /// the ciphertext or the tag, nor if it is cut or longer.
    #[test]
    fn what_was_touched_does_not_open(
        plain in prop::collection::vec(any::<u8>(), 0..300),
        touched in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let key = data_key(clinic());
        let sealed = key.seal(&payload(), &plain);
        prop_assert_eq!(key.open(&payload(), sealed.clone()), Some(plain));
        let at = touched.index(sealed.len());
        let mut changed = sealed.clone();
        changed[at] ^= 1 << bit;
        prop_assert_eq!(key.open(&payload(), changed), None);
        prop_assert_eq!(key.open(&payload(), sealed[..at].to_vec()), None);
        let mut longer = sealed;
        longer.push(0);
        prop_assert_eq!(key.open(&payload(), longer), None);
    }

    /// No two places write the same bytes, so that none has another's key.
    #[test]
    fn places_are_told_apart(
        one in ("[a-z0-9]{1,4}", "[a-z0-9]{0,4}"),
        other in ("[a-z0-9]{1,4}", "[a-z0-9]{0,4}"),
    ) {
        let place = |(organization, name): &(String, String)| {
            let organization = OrganizationId::stored(organization);
            Place::named(Column::RequestLogResponse, &organization, name).bytes().to_vec()
        };
        prop_assert_eq!(place(&one) == place(&other), one == other);
    }
}
