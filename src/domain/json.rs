//! Whether bytes are one JSON text (RFC 8259), without building anything of it.
//!
//! Accepts exactly what `serde_json` skips as `IgnoredAny`, if it is UTF-8 and nested
//! at most [`DEPTH_MAX`] deep. So numbers of any size and escapes of lone surrogates
//! pass: payloads travel byte for byte, and what is well-formed is not ours to judge.
//! Linear time, no allocation: every event passes here.

/// Arrays and objects inside each other, at most.
pub const DEPTH_MAX: u32 = 128;

/// Why bytes are not an acceptable JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not JSON, noticed at this byte, counted from 0.
    #[error("not well-formed JSON at byte {0}")]
    Syntax(usize),
    /// More than [`DEPTH_MAX`] arrays and objects inside each other.
    #[error("nested more than 128 levels deep")]
    TooDeep,
}

/// Checks one JSON text, with white space around it.
///
/// # Errors
///
/// [`JsonFault`] says what is wrong; of the text it tells only a position.
pub fn check_json(text: &[u8]) -> Result<(), JsonFault> {
    if std::str::from_utf8(text).is_err() {
        return Err(JsonFault::NotUtf8);
    }
    let mut scanner = Scanner { text, at: 0, depth: 0, objects: 0 };
    loop {
        if scanner.value()? == Step::Complete && scanner.close()? == Step::Complete {
            break;
        }
    }
    scanner.skip_space();
    if scanner.at == text.len() { Ok(()) } else { scanner.fault() }
}

#[derive(PartialEq, Eq)]
enum Step {
    /// Another value must follow.
    ValueNext,
    /// The value has ended.
    Complete,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    /// One bit a level, the innermost lowest: 1 for an object, 0 for an array.
    objects: u128,
}

impl Scanner<'_> {
    /// Reads a scalar, an empty array or object, or up to the first value inside one.
    fn value(&mut self) -> Result<Step, JsonFault> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'{') => {
                self.open(1)?;
                if self.peek() != Some(b'}') {
                    self.key()?;
                    return Ok(Step::ValueNext);
                }
                self.leave();
            }
            Some(b'[') => {
                self.open(0)?;
                if self.peek() != Some(b']') {
                    return Ok(Step::ValueNext);
                }
                self.leave();
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            Some(_) | None => return self.fault(),
        }
        Ok(Step::Complete)
    }

    /// Reads what stands behind a value: ends of arrays and objects, or a comma.
    fn close(&mut self) -> Result<Step, JsonFault> {
        while self.depth != 0 {
            self.skip_space();
            let in_object = self.objects & 1 == 1;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if in_object {
                        self.skip_space();
                        self.key()?;
                    }
                    return Ok(Step::ValueNext);
                }
                Some(b'}') if in_object => self.leave(),
                Some(b']') if !in_object => self.leave(),
                Some(_) | None => return self.fault(),
            }
        }
        Ok(Step::Complete)
    }

    fn open(&mut self, object: u128) -> Result<(), JsonFault> {
        if self.depth == DEPTH_MAX {
            return Err(JsonFault::TooDeep);
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | object;
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        self.at += 1;
    }

    fn key(&mut self) -> Result<(), JsonFault> {
        if self.peek() != Some(b'"') {
            return self.fault();
        }
        self.string()?;
        self.skip_space();
        self.word(b":")
    }

    fn string(&mut self) -> Result<(), JsonFault> {
        self.at += 1;
        loop {
            self.skip_plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0x20..) => self.at += 1,
                Some(..0x20) | None => return self.fault(),
            }
        }
    }

    /// Eight bytes at a time over what neither ends nor escapes nor is forbidden.
    fn skip_plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        while let Some(chunk) = self.text.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*chunk);
            let quote = word ^ (ONES * 0x22);
            let backslash = word ^ (ONES * 0x5c);
            // The lowest flagged byte is exact; later ones may be flagged by a borrow.
            let flags = (quote.wrapping_sub(ONES) & !quote)
                | (backslash.wrapping_sub(ONES) & !backslash)
                | (word.wrapping_sub(ONES * 0x20) & !word);
            let flags = flags & HIGH;
            if flags != 0 {
                self.at += flags.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.fault();
                    }
                    self.at += 1;
                }
            }
            Some(_) | None => return self.fault(),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if start == self.at { self.fault() } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonFault> {
        if !self.text[self.at..].starts_with(word) {
            return self.fault();
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn fault<T>(&self) -> Result<T, JsonFault> {
        Err(JsonFault::Syntax(self.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn well_formed_texts_pass() {
        let texts = [
            "null",
            " true ",
            "\t\r\n0\n",
            "-0.0e-0",
            "1e400",
            "123456789012345678901234567890",
            r#""""#,
            r#""\u00e9\ud800\"\\\/\b\f\n\r\t""#,
            "\"Grüße, 世界 and more than eight bytes\"",
            "[]",
            "{ }",
            r#"{"a":1,"a":2}"#,
            r#" { "a" : [ 1 , { } , [ ] ] , "b" : false } "#,
            "\"\u{7f}\"",
        ];
        for text in texts {
            assert_eq!(check_json(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused_at_the_byte() {
        let texts = [
            ("", 0),
            (" ", 1),
            ("\u{feff}1", 0),
            ("nul", 0),
            ("truex", 4),
            ("01", 1),
            ("-", 1),
            ("+1", 0),
            (".5", 0),
            ("1.", 2),
            ("1e", 2),
            ("1e+", 3),
            ("NaN", 0),
            ("'a'", 0),
            ("\"a", 2),
            ("\"a\nb\"", 2),
            ("\"abcdefgh\u{1}ijklmnopq\"", 9),
            (r#""\x""#, 2),
            (r#""\u12g4""#, 5),
            (r#""\u12"#, 5),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[", 1),
            ("]", 0),
            ("[}", 1),
            ("{]", 1),
            ("{1:2}", 1),
            (r#"{"a"}"#, 4),
            (r#"{"a":}"#, 5),
            (r#"{"a":1,}"#, 7),
            (r#"{"a":1]"#, 6),
            ("1 2", 2),
            ("// x\n1", 0),
        ];
        for (text, at) in texts {
            assert_eq!(check_json(text.as_bytes()), Err(JsonFault::Syntax(at)), "{text}");
        }
        assert_eq!(check_json(b"\"\xff\""), Err(JsonFault::NotUtf8));
        assert_eq!(check_json(b"\"\xed\xa0\x80\""), Err(JsonFault::NotUtf8), "a surrogate");
    }

    #[test]
    fn nesting_ends_at_128_levels() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let levels = if open.len() == 6 { 64 } else { 128 };
            let nested = |n: usize| format!("{}[]{}", open.repeat(n), close.repeat(n));
            let inner = if levels == 64 { 63 } else { 127 };
            assert_eq!(check_json(nested(inner).as_bytes()), Ok(()), "{open}");
            assert_eq!(check_json(nested(levels).as_bytes()), Err(JsonFault::TooDeep), "{open}");
        }
        let wide = format!("[{}[]]", "[],".repeat(1000));
        assert_eq!(check_json(wide.as_bytes()), Ok(()));
    }

    fn agrees_with_serde(text: &str) -> bool {
        check_json(text.as_bytes()).is_ok() == serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    proptest! {
        #[test]
        fn agrees_with_serde_on_near_json(
            text in "([\\[\\]{},:\" \\\\u0-9a-f.eE+-]|true|null|\"a\":|\"long enough for a chunk\"){0,24}",
        ) {
            prop_assert!(agrees_with_serde(&text), "{}", text);
        }

        #[test]
        fn agrees_with_serde_on_one_string(inside in "\\PC{0,40}", broken in "[\\x00-\\x7f]{0,12}") {
            let quoted = format!("\"{inside}{broken}\"");
            prop_assert!(agrees_with_serde(&quoted), "{}", quoted);
        }

        #[test]
        fn whatever_serde_writes_passes_until_a_byte_is_lost(
            strings in proptest::collection::vec("\\PC{0,20}", 1..6), number: f64, cut: prop::sample::Index,
        ) {
            let value = serde_json::json!({ "strings": strings, "number": number, "none": null });
            let text = value.to_string();
            prop_assert_eq!(check_json(text.as_bytes()), Ok(()));
            let shorter = &text.as_bytes()[..cut.index(text.len())];
            prop_assert!(check_json(shorter).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            prop_assert!(check_json(&bytes).is_err() || serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
        }
    }
}
