//! Payloads that say which event they are of and when it was published.
//!
//! A JSON object of an exact size: run, number and time at fixed places behind a
//! marker, then letters that do not compress.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

const MARKER: &[u8] = br#"{"run":""#;
const RUN_DIGITS: usize = 6;
const NUMBER_DIGITS: usize = 12;
const TIME_DIGITS: usize = 16;
const NUMBER_AT: usize = MARKER.len() + RUN_DIGITS + br#"","number":""#.len();
const TIME_AT: usize = NUMBER_AT + NUMBER_DIGITS + br#"","time_us":""#.len();
const HEAD_BYTES: usize = TIME_AT + TIME_DIGITS;
/// The smallest payload.
pub(crate) const BYTES_MIN: usize = 128;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Of which run.
    pub(crate) run: u32,
    /// Which event of it, from 0.
    pub(crate) number: u64,
    /// When it was published, in microseconds of the wall clock.
    pub(crate) time_us: u64,
}

/// Makes payloads of one size.
pub(crate) struct Payloads {
    tail: String,
}

impl Payloads {
    /// Payloads of `bytes` bytes, at least [`BYTES_MIN`].
    pub(crate) fn new(bytes: usize) -> Payloads {
        let (opening, closing) = (r#"","filling":""#, r#""}"#);
        let filling = bytes.max(BYTES_MIN) - HEAD_BYTES - opening.len() - closing.len();
        let mut letters = fastrand::Rng::with_seed(7);
        let filling = std::iter::repeat_with(|| letters.alphanumeric()).take(filling);
        let tail = opening.chars().chain(filling).chain(closing.chars()).collect();
        Payloads { tail }
    }

    /// The payload of one event.
    pub(crate) fn payload(&self, mark: Mark) -> String {
        let Mark { run, number, time_us } = mark;
        let mut text = String::with_capacity(HEAD_BYTES + self.tail.len());
        text.push_str(r#"{"run":""#);
        push_digits(&mut text, u64::from(run), RUN_DIGITS);
        text.push_str(r#"","number":""#);
        push_digits(&mut text, number, NUMBER_DIGITS);
        text.push_str(r#"","time_us":""#);
        push_digits(&mut text, time_us, TIME_DIGITS);
        text.push_str(&self.tail);
        text
    }
}

/// Finds the mark in a request's body, whatever envelope stands around the payload.
/// `at` remembers where it was found, as it is at the same place every time.
pub(crate) fn read(body: &[u8], at: &mut usize) -> Option<Mark> {
    if !body.get(*at..).is_some_and(|rest| rest.starts_with(MARKER)) {
        *at = body.windows(MARKER.len()).position(|window| window == MARKER)?;
    }
    let head = body.get(*at..*at + HEAD_BYTES)?;
    Some(Mark {
        run: u32::try_from(digits(&head[MARKER.len()..][..RUN_DIGITS])?).ok()?,
        number: digits(&head[NUMBER_AT..][..NUMBER_DIGITS])?,
        time_us: digits(&head[TIME_AT..][..TIME_DIGITS])?,
    })
}

/// The wall clock: the one clock that all processes of a machine share.
pub(crate) fn now_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).expect("not so late yet")
}

fn push_digits(text: &mut String, mut value: u64, count: usize) {
    let mut digits = [b'0'; 20];
    for digit in digits[..count].iter_mut().rev() {
        *digit += u8::try_from(value % 10).expect("one digit");
        value /= 10;
    }
    text.extend(digits[..count].iter().map(|digit| char::from(*digit)));
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}
