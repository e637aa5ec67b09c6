//! Whether bytes are one JSON text (RFC 8259), without building anything of it; and the
//! same text with some of its values masked.
//!
//! Accepts exactly what `serde_json` skips as `IgnoredAny`, if it is UTF-8 and nested
//! at most [`DEPTH_MAX`] deep. So numbers of any size and escapes of lone surrogates
//! pass: payloads travel byte for byte, and what is well-formed is not ours to judge.
//! Linear time, no allocation: every event passes here.

mod mask;

pub use self::mask::masked;

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
    let mut scanner = Scanner::at(text, end_of_value(text, 0)?);
    scanner.skip_space();
    if scanner.at == text.len() { Ok(()) } else { scanner.fault() }
}

/// Where the value ends that begins at this byte, or behind white space there.
fn end_of_value(text: &[u8], at: usize) -> Result<usize, JsonFault> {
    let mut scanner = Scanner::at(text, at);
    loop {
        if scanner.value()? == Step::Complete && scanner.close()? == Step::Complete {
            return Ok(scanner.at);
        }
    }
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

impl<'a> Scanner<'a> {
    /// One that stands before a value.
    fn at(text: &'a [u8], at: usize) -> Scanner<'a> {
        Scanner { text, at, depth: 0, objects: 0 }
    }

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
mod tests;
