//! `Retry-After`: any bytes at any time give nothing or a wait of at most a day.
#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::Arbitrary;
use hookward::domain::retry::{RETRY_AFTER_MAX, parse_retry_after};
use hookward::domain::timestamp::Timestamp;
use libfuzzer_sys::fuzz_target;

/// The last second that an HTTP date can say.
const LAST_SECOND: u64 = 253_402_300_799;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// In seconds since 1970: of a date, and now.
    date: u64,
    now: i64,
    value: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let now = Timestamp(input.now);
    let wait = parse_retry_after(input.value, now);
    assert!(wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
    let digits = input.value.iter().all(u8::is_ascii_digit);
    if digits && (1..=9).contains(&input.value.len()) {
        let seconds = input.value.iter().fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
        assert_eq!(wait, Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX)));
    }

    let seconds = input.date % (LAST_SECOND + 1);
    let date = SystemTime::from(UNIX_EPOCH + Duration::from_secs(seconds));
    let text = httpdate::fmt_http_date(date);
    let expected = i128::from(seconds) * 1_000_000 - i128::from(input.now);
    let expected = expected.clamp(0, 86_400_000_000);
    let read = parse_retry_after(text.as_bytes(), now).expect("a date is read");
    assert_eq!(read.as_micros() as i128, expected, "{text}");
});
