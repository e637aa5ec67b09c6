//! When a certificate ends (X.509, RFC 5280), read from its DER. Nothing here says whether a
//! certificate is good: TLS does.

use time::{Date, Month};

use super::timestamp::Timestamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`: the version, which the first one does not name.
const VERSION: u8 = 0xa0;

/// The last second in which the certificate is good; `None` where it is none, or one of more
/// than 64 KiB.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let mut certificate = Elements(Elements(certificate).expect(SEQUENCE)?);
    let mut fields = Elements(certificate.expect(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    fields.expect(INTEGER)?;
    let [_algorithm, _issuer] = [fields.expect(SEQUENCE)?, fields.expect(SEQUENCE)?];
    let mut validity = Elements(fields.expect(SEQUENCE)?);
    let _not_before = validity.next()?;
    let (tag, text) = validity.next()?;
    time(tag, text)
}

/// Elements of ASN.1 in DER, one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// Tag and content of the next one.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
            0x82 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            0x80 | 0x83..=0xff => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Content of the next one, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5): both always in UTC, with seconds
/// and without fractions of them.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = number(year)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year)?, rest)
        }
        _ => return None,
    };
    let mut parts = [0_u8; 5];
    for (part, digits) in parts.iter_mut().zip(rest.chunks_exact(2)) {
        *part = u8::try_from(number(digits)?).ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(month).ok()?, day).ok()?;
    let moment = date.with_hms(hour, minute, second).ok()?.assume_utc();
    Some(Timestamp(moment.unix_timestamp() * 1_000_000))
}

/// Of four digits at most.
fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    /// In both ways of writing a time: with two digits of the year up to 2049.
    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, month, day, secs) in [
            (1950, 1, 1, -631_152_000),
            (1999, 12, 31, 946_598_400),
            (2026, 8, 1, 1_785_542_400),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (9999, 12, 31, 253_402_214_400),
        ] {
            let end = not_after(&certificate(year, month, day));
            assert_eq!(end, Some(Timestamp(secs * 1_000_000)), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole = certificate(2026, 8, 1);
        for cut in 0..whole.len() {
            assert_eq!(not_after(&whole[..cut]), None, "{cut} bytes of it");
        }
        for none in [&b""[..], b"-----BEGIN CERTIFICATE-----", &[0x30, 0x80], &[0x30, 0x00]] {
            assert_eq!(not_after(none), None, "{none:?}");
        }
    }

    #[test]
    fn times_are_exact_or_none() {
        assert_eq!(time(UTC_TIME, b"260801123456Z"), Some(Timestamp(1_785_587_696_000_000)));
        let same = time(GENERALIZED_TIME, b"20260801123456Z");
        assert_eq!(same, Some(Timestamp(1_785_587_696_000_000)));
        for wrong in [
            &b""[..],
            b"Z",
            b"260801123456",
            b"2608011234Z",
            b"26080112345678Z",
            b"260801123456+0000",
            b"261301123456Z",
            b"260832123456Z",
            b"260230123456Z",
            b"260801243456Z",
            b"260801126056Z",
            b"26080112345 Z",
            b"-60801123456Z",
        ] {
            assert_eq!(time(UTC_TIME, wrong), None, "{wrong:?}");
        }
        assert_eq!(time(GENERALIZED_TIME, b"260801123456Z"), None, "the other's form");
        assert_eq!(time(INTEGER, b"260801123456Z"), None);
    }
}
