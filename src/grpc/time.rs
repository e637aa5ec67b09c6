//! Times and spans between protobuf and the domain. Total: whatever a caller sends is
//! either a value of the domain or a field that breaks a rule.

use std::time::Duration;

use crate::domain::invalid::InvalidField;
use crate::domain::timestamp::Timestamp;

const NANOS_PER_MICRO: i64 = 1000;
const MICROS_PER_SECOND: i64 = 1_000_000;
/// The longest Duration that protobuf knows: about 10,000 years.
const SPAN_SECONDS_MAX: i64 = 315_576_000_000;

/// The time in `field`, cut to microseconds.
///
/// # Errors
///
/// `INVALID_TIME` unless it is a Timestamp from 1970 to 9999.
pub(super) fn timestamp(
    field: &str,
    time: prost_types::Timestamp,
) -> Result<Timestamp, InvalidField> {
    let micros = i64::from(time.nanos) / NANOS_PER_MICRO;
    let whole = time.seconds.checked_mul(MICROS_PER_SECOND);
    let read = whole.and_then(|whole| whole.checked_add(micros)).map(Timestamp);
    let in_range = |read: &Timestamp| (Timestamp::MIN..=Timestamp::MAX).contains(read);
    read.filter(in_range)
        .filter(|_| (0..=999_999_999).contains(&time.nanos))
        .ok_or_else(|| InvalidField::new(field, "INVALID_TIME", "a time from 1970 to 9999"))
}

/// As [`timestamp`], where the field may be left out.
pub(super) fn optional_timestamp(
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, InvalidField> {
    time.map(|time| timestamp(field, time)).transpose()
}

/// A time for callers.
pub(super) fn to_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.0.rem_euclid(MICROS_PER_SECOND) * NANOS_PER_MICRO;
    let nanos = i32::try_from(nanos).expect("less than a second");
    prost_types::Timestamp { seconds: time.secs(), nanos }
}

/// The span in `field`.
///
/// # Errors
///
/// `INVALID_DURATION` unless it is a Duration that is not negative.
pub(super) fn duration(field: &str, span: prost_types::Duration) -> Result<Duration, InvalidField> {
    let seconds = u64::try_from(span.seconds).ok().filter(|_| span.seconds <= SPAN_SECONDS_MAX);
    let nanos = u32::try_from(span.nanos).ok().filter(|nanos| *nanos <= 999_999_999);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        (Some(_) | None, _) => {
            Err(InvalidField::new(field, "INVALID_DURATION", "a span that is not negative"))
        }
    }
}

/// The span in `field`, cut to milliseconds: what the store keeps of a setting.
///
/// # Errors
///
/// As [`duration`].
pub(super) fn millis(field: &str, span: prost_types::Duration) -> Result<Duration, InvalidField> {
    let span = duration(field, span)?;
    // A Duration of protobuf has fewer milliseconds than an i64 holds.
    Ok(Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}

/// A span for callers.
pub(super) fn to_duration(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(SPAN_SECONDS_MAX).min(SPAN_SECONDS_MAX);
    let nanos = i32::try_from(span.subsec_nanos()).expect("less than a second");
    prost_types::Duration { seconds, nanos }
}

/// The two ends of a stretch of time in `field`, either of which may be open.
///
/// # Errors
///
/// As [`timestamp`]; `INVALID_TIME_RANGE` when it ends before it starts.
pub(super) fn range(
    field: &str,
    range: Option<super::pb::TimeRange>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), InvalidField> {
    let Some(range) = range else { return Ok((None, None)) };
    let start = optional_timestamp("start_time", range.start_time);
    let start = start.map_err(|invalid| invalid.within(field))?;
    let end = optional_timestamp("end_time", range.end_time);
    let end = end.map_err(|invalid| invalid.within(field))?;
    if start.zip(end).is_some_and(|(start, end)| end < start) {
        let field = format!("{field}.start_time");
        return Err(InvalidField::new(field, "INVALID_TIME_RANGE", "not later than end_time"));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::super::pb;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_timestamp_is_a_time_or_a_breach(seconds: i64, nanos: i32) {
            check_timestamp(seconds, nanos)?;
        }

        #[test]
        fn timestamps_near_the_edges_are_too(
            seconds in prop_oneof![-2..2_i64, 253_402_300_798..253_402_300_802_i64],
            nanos in prop_oneof![-2..2_i32, 999_999_998..1_000_000_002_i32],
        ) {
            check_timestamp(seconds, nanos)?;
        }

        #[test]
        fn every_duration_is_a_span_or_a_breach(seconds: i64, nanos: i32) {
            check_duration(seconds, nanos)?;
        }

        #[test]
        fn durations_near_the_edges_are_too(
            seconds in prop_oneof![-2..2_i64, 315_575_999_999..315_576_000_002_i64],
            nanos in prop_oneof![-2..2_i32, 999_999_998..1_000_000_002_i32],
        ) {
            check_duration(seconds, nanos)?;
        }
    }

    fn check_timestamp(seconds: i64, nanos: i32) -> Result<(), TestCaseError> {
        let valid = (0..=253_402_300_799).contains(&seconds) && (0..=999_999_999).contains(&nanos);
        match timestamp("at", prost_types::Timestamp { seconds, nanos }) {
            Ok(time) => {
                prop_assert!(valid);
                let back = to_timestamp(time);
                prop_assert_eq!(back.seconds, seconds);
                prop_assert_eq!(back.nanos, nanos / 1000 * 1000);
            }
            Err(invalid) => {
                prop_assert!(!valid);
                prop_assert_eq!((&*invalid.field, invalid.reason), ("at", "INVALID_TIME"));
            }
        }
        Ok(())
    }

    fn check_duration(seconds: i64, nanos: i32) -> Result<(), TestCaseError> {
        let valid = (0..=315_576_000_000).contains(&seconds) && (0..=999_999_999).contains(&nanos);
        match duration("for", prost_types::Duration { seconds, nanos }) {
            Ok(span) => {
                prop_assert!(valid);
                prop_assert_eq!(to_duration(span), prost_types::Duration { seconds, nanos });
            }
            Err(invalid) => {
                prop_assert!(!valid);
                prop_assert_eq!((&*invalid.field, invalid.reason), ("for", "INVALID_DURATION"));
            }
        }
        Ok(())
    }

    fn at(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn a_range_may_be_empty_but_not_turned_round() {
        let read = |start_time, end_time| {
            range("publish_time", Some(pb::TimeRange { start_time, end_time }))
        };
        let seven = Some(Timestamp(7_000_000));
        assert_eq!(range("publish_time", None), Ok((None, None)));
        assert_eq!(read(Some(at(7)), Some(at(7))), Ok((seven, seven)));
        assert_eq!(read(None, Some(at(7))), Ok((None, seven)));
        let turned = read(Some(at(8)), Some(at(7))).expect_err("it ends before it starts");
        assert_eq!(turned.field, "publish_time.start_time");
        let early = read(None, Some(at(-1))).expect_err("before 1970");
        assert_eq!(early.field, "publish_time.end_time");
    }

    #[test]
    fn settings_keep_whole_milliseconds() {
        let span = prost_types::Duration { seconds: 1, nanos: 500_999_999 };
        assert_eq!(millis("attempt_timeout", span), Ok(Duration::from_millis(1500)));
    }
}
