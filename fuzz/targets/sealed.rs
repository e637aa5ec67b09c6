//! Sealed values, data keys and the operator's own: what was sealed opens where it stood
//! and nowhere else, and anything else is refused and never a panic.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookward::domain::id::OrganizationId;
use hookward::keyring::{Column, Keyring, Locked, Place, WrappedKey};
use libfuzzer_sys::fuzz_target;

/// Of two, the first wraps.
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let [a, b] = [1, 2].map(|byte| STANDARD.encode([byte; 32]));
    Keyring::parse(&format!("a = {a}; b = {b}; primary = a")).expect("two keys")
});
static STORED: LazyLock<WrappedKey> =
    LazyLock::new(|| KEYRING.generate(7, &organization("clinic")).expect("there is a key"));

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Column and row.
    places: [(u8, [i64; 2]); 2],
    plain: &'a [u8],
    /// Where one byte of what was made is replaced, and by what.
    edit: (usize, u8),
    random: Vec<u8>,
    key_id: i32,
    kek_id: &'a str,
    file: &'a str,
}

fn organization(name: &str) -> OrganizationId {
    OrganizationId::parse(name).expect("a name")
}

fn place((column, row): (u8, [i64; 2])) -> (Column, Place) {
    let column = Column::ALL[usize::from(column) % Column::ALL.len()];
    (column, Place::keyed(column, &organization("clinic"), row))
}

/// `made` with a byte replaced, unless it is the same byte.
fn edited(made: &[u8], (at, byte): (usize, u8)) -> Option<Vec<u8>> {
    let mut edited = made.to_vec();
    edited[at % made.len()] = byte;
    (edited != made).then_some(edited)
}

fuzz_target!(|input: Input<'_>| {
    let Input { places, plain, edit, random, key_id, kek_id, file } = input;
    let key = KEYRING.unwrap(&STORED).expect("it was wrapped for this");
    let [(column, here), (other_column, there)] = places.map(place);

    let sealed = key.seal(&here, plain);
    assert_eq!(sealed.len(), plain.len() + 28);
    assert_eq!(key.open(&here, sealed.clone()).as_deref(), Some(plain));
    if (column, places[0].1) != (other_column, places[1].1) {
        assert_eq!(key.open(&there, sealed.clone()), None);
    }
    if let Some(edited) = edited(&sealed, edit) {
        assert_eq!(key.open(&here, edited), None);
    }
    assert_eq!(key.open(&here, random.clone()), None);

    let locked = |stored: WrappedKey| KEYRING.unwrap(&stored).err();
    let wrong = Some(Locked::Wrong("a".to_owned()));
    let with = |wrapped: Vec<u8>| WrappedKey { wrapped, ..STORED.clone() };
    assert_eq!(locked(with(random)), wrong);
    if let Some(edited) = edited(&STORED.wrapped, edit) {
        assert_eq!(locked(with(edited)), wrong);
    }
    let foreign = WrappedKey { organization: organization("lab"), ..STORED.clone() };
    assert_eq!(locked(foreign), wrong);
    if key_id != STORED.id {
        assert_eq!(locked(WrappedKey { id: key_id, ..STORED.clone() }), wrong);
    }
    let expected = match kek_id {
        "a" => None,
        "b" => Some(Locked::Wrong("b".to_owned())),
        _ => Some(Locked::Missing(kek_id.to_owned())),
    };
    assert_eq!(locked(WrappedKey { kek_id: kek_id.to_owned(), ..STORED.clone() }), expected);

    match Keyring::parse(file) {
        Ok(keyring) => assert!(keyring.primary().is_none_or(|primary| file.contains(primary))),
        Err(why) => assert!(!why.is_empty()),
    }
});
