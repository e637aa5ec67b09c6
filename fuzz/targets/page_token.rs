//! Page tokens and etags: what the server did not make is refused, what it made is read
//! back, and only by the request that it was made for.
#![no_main]

use arbitrary::Arbitrary;
use hookward::domain::id::IdCodec;
use hookward::domain::page::{PageToken, arguments_hash, etag, page_size, parse_etag};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    key: [u8; 32],
    position: [i64; 2],
    method: &'a str,
    arguments: Vec<&'a [u8]>,
    other_arguments: Vec<&'a [u8]>,
    text: &'a str,
    /// Where one byte of a genuine token is replaced, and by what.
    edit: (usize, u8),
    size: i32,
}

fuzz_target!(|input: Input<'_>| {
    let Input { key, position, method, arguments, other_arguments, text, edit, size } = input;
    let hash = arguments_hash(&arguments);
    let other_hash = arguments_hash(&other_arguments);
    assert_eq!(arguments == other_arguments, hash == other_hash);
    let token = PageToken(position).encode(&key, method, &hash);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));

    let open = |token: &str, method: &str, hash: &[u8; 32]| {
        PageToken::decode(token, &key, method, hash).map_err(|invalid| invalid.field)
    };
    let refused = Err("page_token".to_owned());
    assert_eq!(open(&token, method, &hash), Ok(Some(PageToken(position))));
    if other_hash != hash {
        assert_eq!(open(&token, method, &other_hash), refused);
    }
    assert_eq!(open(&token, &format!("{method}s"), &hash), refused);
    match text {
        "" => assert_eq!(open(text, method, &hash), Ok(None)),
        // The fuzzer remembers tokens of earlier inputs: those are genuine.
        _ => match open(text, method, &hash) {
            Ok(read) => {
                assert_eq!(read.map(|read| read.encode(&key, method, &hash)), Some(text.to_owned()))
            }
            other => assert_eq!(other, refused),
        },
    }
    let mut edited = token.clone().into_bytes();
    let at = edit.0 % edited.len();
    edited[at] = edit.1;
    if let Ok(edited) = String::from_utf8(edited)
        && edited != token
    {
        assert_eq!(open(&edited, method, &hash), refused, "{edited}");
    }

    let ids = IdCodec::new(*key.first_chunk().expect("16 of 32"));
    assert_eq!(parse_etag(&ids, &etag(&ids, position[0])), Ok(Some(position[0])));
    if let Ok(Some(version)) = parse_etag(&ids, text) {
        assert_eq!(etag(&ids, version), text);
    }
    match page_size(size) {
        Ok(rows) => assert!((1..=1000).contains(&rows) && 0 <= size),
        Err(_) => assert!(size < 0),
    }
});
