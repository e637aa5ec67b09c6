//! Pages of lists, and etags.
//!
//! A page token tells where the next page begins. It is bound to its method and to the
//! request's other arguments, its organization among them, and sealed: edited tokens and
//! tokens of other requests are refused, and positions, which are keys that tell times,
//! cannot be read from it. It carries no authority: whoever presents it is checked like
//! anyone else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::id::IdCodec;
use super::invalid::InvalidField;

const PAGE_SIZE_DEFAULT: usize = 50;
const PAGE_SIZE_MAX: usize = 1000;

/// Of the token's layout; another one is refused.
const VERSION: u8 = 1;
const SEAL_BYTES: usize = 16;
const POSITION_BYTES: usize = 16;

/// How many items a page has (AIP-158): 0 means 50, more than 1000 means 1000.
///
/// # Errors
///
/// For field `page_size` when it is negative.
pub fn page_size(asked: i32) -> Result<usize, InvalidField> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => Err(InvalidField::new("page_size", "INVALID_PAGE_SIZE", "0 or more")),
    }
}

/// A digest of the arguments that must stay the same from page to page, in an order that
/// the method fixes.
#[must_use]
pub fn arguments_hash(arguments: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for argument in arguments {
        // With lengths, so that ("ab", "c") is not ("a", "bc").
        digest.update((argument.len() as u64).to_le_bytes());
        digest.update(argument);
    }
    digest.finalize().into()
}

/// Where a page begins, in the words of the list's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageToken(pub [i64; 2]);

impl PageToken {
    /// The token as callers see it: URL-safe.
    #[must_use]
    pub fn encode(self, key: &[u8], method: &str, arguments: &[u8; 32]) -> String {
        let mut position = [0; POSITION_BYTES];
        position[..8].copy_from_slice(&self.0[0].to_le_bytes());
        position[8..].copy_from_slice(&self.0[1].to_le_bytes());
        let seal = seal(key, method, arguments, &position);
        // The seal is unique to the position, so it serves as the mask's nonce.
        let masked = masked(key, &seal, position);
        URL_SAFE_NO_PAD.encode([&[VERSION][..], &seal, &masked].concat())
    }

    /// The position in a request's `page_token`; `None` when the token is empty, which
    /// asks for the first page.
    ///
    /// # Errors
    ///
    /// `INVALID_PAGE_TOKEN` for field `page_token` unless [`PageToken::encode`] made it
    /// with the same key, method and arguments.
    pub fn decode(
        token: &str,
        key: &[u8],
        method: &str,
        arguments: &[u8; 32],
    ) -> Result<Option<PageToken>, InvalidField> {
        if token.is_empty() {
            return Ok(None);
        }
        let opened = open(token, key, method, arguments).map(Some);
        opened.ok_or_else(|| {
            let why = "the next_page_token of a request that was otherwise the same";
            InvalidField::new("page_token", "INVALID_PAGE_TOKEN", why)
        })
    }
}

fn open(token: &str, key: &[u8], method: &str, arguments: &[u8; 32]) -> Option<PageToken> {
    // Longer ones are not worth decoding.
    if token.len() != (1 + SEAL_BYTES + POSITION_BYTES).div_ceil(3) * 4 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (&[version], rest) = bytes.split_first_chunk::<1>()?;
    let (presented, rest) = rest.split_first_chunk::<SEAL_BYTES>()?;
    let position = masked(key, presented, *rest.as_array::<POSITION_BYTES>()?);
    let expected = seal(key, method, arguments, &position);
    let genuine = bool::from(expected.ct_eq(presented)) && version == VERSION;
    let (first, second) = position.split_at(8);
    let word = |bytes: &[u8]| bytes.as_array().map(|bytes| i64::from_le_bytes(*bytes));
    genuine.then_some(PageToken([word(first)?, word(second)?]))
}

fn seal(
    key: &[u8],
    method: &str,
    arguments: &[u8; 32],
    position: &[u8; POSITION_BYTES],
) -> [u8; SEAL_BYTES] {
    // The method comes last, so that no length is needed to tell the parts apart.
    half_mac(key, &[b"page seal", &[VERSION], arguments, position, method.as_bytes()])
}

/// Masks a position, or unmasks it.
fn masked(
    key: &[u8],
    seal: &[u8; SEAL_BYTES],
    mut position: [u8; POSITION_BYTES],
) -> [u8; POSITION_BYTES] {
    for (byte, mask) in position.iter_mut().zip(half_mac(key, &[b"page mask", seal])) {
        *byte ^= mask;
    }
    position
}

/// HMAC-SHA256 cut to half, as RFC 2104, section 5 permits.
fn half_mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    let mac: [u8; 32] = mac.finalize().into_bytes().into();
    *mac.first_chunk().expect("16 of 32")
}

/// The strong etag (RFC 9110, 8.8.3) of an object's version.
#[must_use]
pub fn etag(ids: &IdCodec, version: i64) -> String {
    format!("\"{}\"", ids.version(version))
}

/// The version in an etag that a caller sends back; `None` when it is empty, which
/// accepts any version.
///
/// # Errors
///
/// `INVALID_ETAG` for field `etag` when it is not one that [`etag`] made.
pub fn parse_etag(ids: &IdCodec, text: &str) -> Result<Option<i64>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let version = digits.and_then(|digits| ids.parse_version(digits));
    version.map(Some).ok_or_else(|| {
        let why = "the etag of an answer, with its quotation marks, or nothing";
        InvalidField::new("etag", "INVALID_ETAG", why)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef";

    fn decode(token: &str) -> Result<Option<PageToken>, &'static str> {
        let arguments = arguments_hash(&[b"org"]);
        PageToken::decode(token, KEY, "List", &arguments).map_err(|invalid| invalid.reason)
    }

    #[test]
    fn page_sizes_follow_aip_158() {
        for (asked, size) in [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
            assert_eq!(page_size(asked), Ok(size), "{asked}");
        }
        assert_eq!(page_size(-1).expect_err("negative").field, "page_size");
    }

    #[test]
    fn a_token_is_good_for_its_own_request_only() {
        let arguments = arguments_hash(&[b"org"]);
        let token = PageToken([7, -1]).encode(KEY, "List", &arguments);
        assert_eq!(decode(&token), Ok(Some(PageToken([7, -1]))));
        assert_eq!(decode(""), Ok(None), "the first page");

        let other = arguments_hash(&[b"other"]);
        let refused = [
            PageToken::decode(&token, KEY, "ListOthers", &arguments),
            PageToken::decode(&token, KEY, "List", &other),
            PageToken::decode(&token, b"another key     ", "List", &arguments),
        ];
        for result in refused {
            let invalid = result.expect_err("another request");
            assert_eq!((&*invalid.field, invalid.reason), ("page_token", "INVALID_PAGE_TOKEN"));
        }
    }

    #[test]
    fn arguments_are_told_apart() {
        assert_ne!(arguments_hash(&[b"ab", b"c"]), arguments_hash(&[b"a", b"bc"]));
        assert_ne!(arguments_hash(&[b"a"]), arguments_hash(&[b"a", b""]));
    }

    #[test]
    fn a_token_does_not_show_its_position() {
        let arguments = arguments_hash(&[]);
        let token = PageToken([0, 0]).encode(KEY, "List", &arguments);
        let bytes = URL_SAFE_NO_PAD.decode(token).expect("base64");
        assert!(!bytes.windows(4).any(|window| window == [0; 4]));
    }

    #[test]
    fn a_piece_of_a_token_is_none() {
        let token = PageToken([7, 9]).encode(KEY, "List", &arguments_hash(&[b"org"]));
        for end in 1..token.len() {
            assert_eq!(decode(&token[..end]), Err("INVALID_PAGE_TOKEN"), "the first {end}");
            assert_eq!(decode(&token[end..]), Err("INVALID_PAGE_TOKEN"), "from {end} on");
        }
        for longer in [format!("{token}A"), format!("{token}{token}"), format!(" {token}")] {
            assert_eq!(decode(&longer), Err("INVALID_PAGE_TOKEN"), "{longer}");
        }
    }

    #[test]
    fn etags_read_back_and_nothing_else_does() {
        let ids = IdCodec::new([7; 16]);
        for version in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(parse_etag(&ids, &etag(&ids, version)), Ok(Some(version)));
        }
        assert_eq!(parse_etag(&ids, ""), Ok(None));
        let seven = etag(&ids, 7);
        let bare = seven.trim_matches('"');
        let weak = format!("W/{seven}");
        let wrong = ["7", "\"", "\"\"", "\"7\"", "\"zzzzzzzzzzzzz\"", bare, &weak, &seven[1..]];
        for text in wrong {
            assert_eq!(parse_etag(&ids, text).expect_err(text).reason, "INVALID_ETAG");
        }
    }

    #[test]
    fn etags_do_not_count_what_others_change() {
        let ids = IdCodec::new([7; 16]);
        let digits = |version| etag(&ids, version).trim_matches('"').to_owned();
        let (one, next) = (digits(1000), digits(1001));
        let same = one.bytes().zip(next.bytes()).filter(|(a, b)| a == b).count();
        assert!(same < 5, "{one} and {next}");
        assert_ne!(etag(&IdCodec::new([8; 16]), 1000), etag(&ids, 1000));
    }

    proptest! {
        #[test]
        fn positions_survive_and_edited_tokens_do_not(
            position: [i64; 2], at: prop::sample::Index, bit in 0..8,
        ) {
            let token = PageToken(position).encode(KEY, "List", &arguments_hash(&[b"org"]));
            prop_assert_eq!(decode(&token), Ok(Some(PageToken(position))));
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(decode(&URL_SAFE_NO_PAD.encode(bytes)), Err("INVALID_PAGE_TOKEN"));
        }

        #[test]
        fn no_text_is_taken_for_a_token(text in "\\PC{1,60}", digits in "[A-Za-z0-9_-]{44}") {
            prop_assert!(decode(&text).is_err());
            prop_assert!(decode(&digits).is_err());
        }
    }
}
