//! How a point in time is written into a body: the handful of ways that receivers
//! expect. Always UTC.

use time::OffsetDateTime;

use super::timestamp::Timestamp;

/// A way to write a time as a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFormat {
    /// `"2026-03-04T15:20:31.412000Z"` (RFC 3339).
    Rfc3339MicrosZ,
    /// `"2026-03-04T15:20:31.412Z"` (RFC 3339).
    Rfc3339MillisZ,
    /// `"2026-03-04T15:20:31.412+00:00"` (RFC 3339; contracts, `MeetingLawyers`).
    Rfc3339MillisOffset,
    /// `"2026-03-04T15:20:31+0000"` (PHP `Y-m-d\TH:i:sO`; contracts, A6).
    Iso8601SecondsOffset,
    /// `1772637631`
    UnixSeconds,
}

impl TimeFormat {
    /// How many bytes [`Self::write`] adds.
    #[must_use]
    pub fn len(self, time: Timestamp) -> usize {
        match self {
            TimeFormat::Rfc3339MicrosZ => 29,
            TimeFormat::Rfc3339MillisZ | TimeFormat::Iso8601SecondsOffset => 26,
            TimeFormat::Rfc3339MillisOffset => 31,
            TimeFormat::UnixSeconds => 1 + within_limits(time).secs().max(1).ilog10() as usize,
        }
    }

    /// Adds `time` to a JSON text. Times outside what callers may name
    /// ([`Timestamp::MIN`] to [`Timestamp::MAX`]) become the nearest that they may.
    pub fn write(self, time: Timestamp, out: &mut Vec<u8>) {
        let time = within_limits(time);
        match self {
            TimeFormat::Rfc3339MicrosZ => quoted(time, 6, b"Z", out),
            TimeFormat::Rfc3339MillisZ => quoted(time, 3, b"Z", out),
            TimeFormat::Rfc3339MillisOffset => quoted(time, 3, b"+00:00", out),
            TimeFormat::Iso8601SecondsOffset => quoted(time, 0, b"+0000", out),
            TimeFormat::UnixSeconds => out.extend_from_slice(time.secs().to_string().as_bytes()),
        }
    }
}

fn within_limits(time: Timestamp) -> Timestamp {
    time.clamp(Timestamp::MIN, Timestamp::MAX)
}

/// By hand: three times as fast as a format description, on every request.
fn quoted(time: Timestamp, fraction_digits: u32, zone: &[u8], out: &mut Vec<u8>) {
    let moment = OffsetDateTime::from_unix_timestamp(time.secs()).expect("1970 to 9999");
    let (date, clock) = (moment.date(), moment.time());
    out.push(b'"');
    let year = date.year().unsigned_abs();
    for (value, width, after) in [
        (year, 4, b'-'),
        (u32::from(u8::from(date.month())), 2, b'-'),
        (u32::from(date.day()), 2, b'T'),
        (u32::from(clock.hour()), 2, b':'),
        (u32::from(clock.minute()), 2, b':'),
    ] {
        digits(value, width, out);
        out.push(after);
    }
    digits(u32::from(clock.second()), 2, out);
    if fraction_digits > 0 {
        let micros = u32::try_from(time.0.rem_euclid(1_000_000)).expect("under a million");
        out.push(b'.');
        digits(micros / 10_u32.pow(6 - fraction_digits), fraction_digits, out);
    }
    out.extend_from_slice(zone);
    out.push(b'"');
}

fn digits(value: u32, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b"0123456789"[(value / 10_u32.pow(place) % 10) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: TimeFormat, time: Timestamp) -> String {
        let mut out = Vec::new();
        format.write(time, &mut out);
        assert_eq!(out.len(), format.len(time), "{format:?}");
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn each_format_writes_what_its_receivers_expect() {
        let time = Timestamp(1_772_637_631_412_345);
        for (format, expected) in [
            (TimeFormat::Rfc3339MicrosZ, r#""2026-03-04T15:20:31.412345Z""#),
            (TimeFormat::Rfc3339MillisZ, r#""2026-03-04T15:20:31.412Z""#),
            (TimeFormat::Rfc3339MillisOffset, r#""2026-03-04T15:20:31.412+00:00""#),
            (TimeFormat::Iso8601SecondsOffset, r#""2026-03-04T15:20:31+0000""#),
            (TimeFormat::UnixSeconds, "1772637631"),
        ] {
            assert_eq!(written(format, time), expected);
        }
    }

    #[test]
    fn the_ends_of_time_are_written_and_not_passed() {
        let first = r#""1970-01-01T00:00:00.000000Z""#;
        let last = r#""9999-12-31T23:59:59.999999Z""#;
        for (micros, expected) in
            [(0, first), (i64::MIN, first), (Timestamp::MAX.0, last), (i64::MAX, last)]
        {
            assert_eq!(written(TimeFormat::Rfc3339MicrosZ, Timestamp(micros)), expected);
        }
        assert_eq!(written(TimeFormat::UnixSeconds, Timestamp(0)), "0");
        assert_eq!(written(TimeFormat::UnixSeconds, Timestamp(9_000_000)), "9");
        assert_eq!(written(TimeFormat::UnixSeconds, Timestamp(10_000_000)), "10");
    }

    proptest::proptest! {
        #[test]
        fn rfc_3339_times_read_back_as_they_were(micros in 0..=Timestamp::MAX.0) {
            use time::format_description::well_known::Rfc3339;
            let text = written(TimeFormat::Rfc3339MicrosZ, Timestamp(micros));
            let read = OffsetDateTime::parse(text.trim_matches('"'), &Rfc3339).expect("RFC 3339");
            proptest::prop_assert_eq!(read.unix_timestamp_nanos(), i128::from(micros) * 1000);
        }
    }
}
