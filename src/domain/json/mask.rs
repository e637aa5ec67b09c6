//! `null` in the place of what must not be seen; every other byte stays as it was.

use std::borrow::Cow;
use std::ops::Range;

use super::JsonFault;
use super::Scanner;
use super::end_of_value;
use crate::domain::json_pointer::JsonPointer;
use crate::domain::json_pointer::element;

const NULL: &[u8] = b"null";

/// The text with `null` for each value that one of the pointers names. A key is compared
/// as it is meant, however it is escaped; where an object has it twice, both values go. A
/// pointer that names nothing here changes nothing.
///
/// # Errors
///
/// When it is not one JSON text. What was not understood to the end must not be sent.
pub fn masked<'a>(text: &'a [u8], pointers: &[JsonPointer]) -> Result<Cow<'a, [u8]>, JsonFault> {
    let mut walk = Walk { scanner: Scanner::at(text, 0), found: Vec::new() };
    let wanted: Vec<&[String]> = pointers.iter().map(JsonPointer::tokens).collect();
    walk.value(&wanted)?;
    walk.scanner.skip_space();
    if walk.scanner.at != text.len() {
        return walk.scanner.fault();
    }
    Ok(without(text, &walk.found))
}

/// The text with `null` for each of the spans, which ascend.
fn without<'a>(text: &'a [u8], spans: &[Range<usize>]) -> Cow<'a, [u8]> {
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    let gone: usize = spans.iter().map(|span| span.end - span.start).sum();
    let mut whole = Vec::with_capacity(text.len() - gone + NULL.len() * spans.len());
    let mut from = 0;
    for span in spans {
        whole.extend_from_slice(&text[from..span.start]);
        whole.extend_from_slice(NULL);
        from = span.end;
    }
    whole.extend_from_slice(&text[from..]);
    Cow::Owned(whole)
}

/// Looks for values, no deeper than the pointers go.
struct Walk<'a> {
    /// Only where it is counts, not how deep.
    scanner: Scanner<'a>,
    found: Vec<Range<usize>>,
}

impl Walk<'_> {
    /// Reads a value. `wanted`: what is left of each pointer that led here.
    fn value(&mut self, wanted: &[&[String]]) -> Result<(), JsonFault> {
        self.scanner.skip_space();
        let start = self.scanner.at;
        match self.scanner.peek() {
            _ if wanted.iter().any(|rest| rest.is_empty()) => {
                self.skip()?;
                self.found.push(start..self.scanner.at);
                Ok(())
            }
            Some(b'{') if !wanted.is_empty() => self.object(wanted),
            Some(b'[') if !wanted.is_empty() => self.array(wanted),
            Some(_) | None => self.skip(),
        }
    }

    fn object(&mut self, wanted: &[&[String]]) -> Result<(), JsonFault> {
        let text = self.scanner.text;
        if self.opens_empty(b'}') {
            return Ok(());
        }
        loop {
            self.scanner.skip_space();
            let start = self.scanner.at;
            if self.scanner.peek() != Some(b'"') {
                return self.scanner.fault();
            }
            self.scanner.string()?;
            let key = unescaped(&text[start..self.scanner.at]);
            self.scanner.skip_space();
            self.scanner.word(b":")?;
            self.value(&behind(wanted, |token| key.as_deref() == Some(token)))?;
            if self.closes(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, wanted: &[&[String]]) -> Result<(), JsonFault> {
        if self.opens_empty(b']') {
            return Ok(());
        }
        let mut number = 0;
        loop {
            self.value(&behind(wanted, |token| element(token) == Some(number)))?;
            if self.closes(b']')? {
                return Ok(());
            }
            number += 1;
        }
    }

    /// Reads the beginning of an object or array, and its end if nothing is in it.
    fn opens_empty(&mut self, end: u8) -> bool {
        self.scanner.at += 1;
        self.scanner.skip_space();
        let empty = self.scanner.peek() == Some(end);
        self.scanner.at += usize::from(empty);
        empty
    }

    /// Reads a comma, or the end.
    fn closes(&mut self, end: u8) -> Result<bool, JsonFault> {
        self.scanner.skip_space();
        let closes = match self.scanner.peek() {
            Some(b',') => false,
            Some(byte) if byte == end => true,
            Some(_) | None => return self.scanner.fault(),
        };
        self.scanner.at += 1;
        Ok(closes)
    }

    fn skip(&mut self) -> Result<(), JsonFault> {
        self.scanner.at = end_of_value(self.scanner.text, self.scanner.at)?;
        Ok(())
    }
}

/// What is left of the pointers whose next token `leads` here.
fn behind<'p>(wanted: &[&'p [String]], leads: impl Fn(&str) -> bool) -> Vec<&'p [String]> {
    let next = wanted.iter().filter_map(|rest| rest.split_first());
    next.filter(|(token, _)| leads(token)).map(|(_, rest)| rest).collect()
}

/// The key in its quotation marks, as it is meant. `None` for one with half of a surrogate
/// pair, which is no text, so that no pointer names it.
fn unescaped(quoted: &[u8]) -> Option<Cow<'_, str>> {
    if quoted.contains(&b'\\') {
        return serde_json::from_slice::<String>(quoted).ok().map(Cow::Owned);
    }
    let inside = quoted.get(1..quoted.len() - 1)?;
    std::str::from_utf8(inside).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests;
