//! When a run begins: `--start-at`, so that hosts begin together without speaking to each other.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Who waits longer has mistyped the time, or has given milliseconds.
const LONGEST: Duration = Duration::from_hours(7 * 24);

/// An instant of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartAt(SystemTime);

/// What to do about a start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It comes after this time.
    In(Duration),
    /// It was so long ago.
    Late(Duration),
    /// It is further away than anybody waits.
    TooFar,
}

impl StartAt {
    /// As seen at `now`.
    #[must_use]
    pub fn from(self, now: SystemTime) -> Start {
        match self.0.duration_since(now) {
            Ok(wait) if wait > LONGEST => Start::TooFar,
            Ok(wait) => Start::In(wait),
            Err(late) => Start::Late(late.duration()),
        }
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_micros(self.0))
    }
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unix(text).or_else(|| rfc3339(text)).map(Self).ok_or_else(|| {
            "use RFC 3339 with an offset, such as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00, or seconds since 1970, such as \
             1769860800"
                .into()
        })
    }
}

/// Seconds since 1970, with or without a fraction.
fn unix(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_empty() || fraction.len() > 9 || !are_digits(seconds) || !are_digits(fraction) {
        return None;
    }
    // 9999-12-31T23:59:59Z, the last second that RFC 3339 can tell.
    let seconds = seconds.parse().ok().filter(|seconds| *seconds <= 253_402_300_799)?;
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// humantime reads what ends in `Z` alone.
fn rfc3339(text: &str) -> Option<SystemTime> {
    // `T` and `Z` may be small, and a blank may stand for the T (RFC 3339, 5.6).
    let text = text.to_ascii_uppercase();
    if text.ends_with('Z') {
        return humantime::parse_rfc3339_weak(&text).ok();
    }
    let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str, below: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().filter(|number: &u64| *number < below)
    };
    let offset = Duration::from_secs(number(hours, 24)? * 3600 + number(minutes, 60)? * 60);
    let local = humantime::parse_rfc3339_weak(&format!("{time}Z")).ok()?;
    match sign {
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> f64 {
        let StartAt(time) = text.parse().unwrap();
        time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
    }

    #[test]
    fn one_instant_is_written_in_several_ways() {
        for text in [
            "1769860800",
            "1769860800.000",
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T06:30:00-05:30",
            "2026-02-01T11:59:00+23:59",
        ] {
            assert!((seconds(text) - 1_769_860_800.0).abs() < 1e-9, "{text}");
        }
        assert!((seconds("1769860800.25") - 1_769_860_800.25).abs() < 1e-6);
        assert!((seconds("2026-01-31T12:00:00.25Z") - 1_769_860_800.25).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "-1",
            "+1",
            "1.",
            "1e9",
            "1769860800000000",
            "2026-01-31",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+00:60",
            "2026-01-31T12:00:00*00:00",
            "2026-13-31T12:00:00Z",
            "12:00:00",
        ] {
            assert!(text.parse::<StartAt>().is_err(), "{text}");
        }
    }

    #[test]
    fn late_soon_and_never_are_told_apart() {
        let at = |text: &str| text.parse::<StartAt>().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(at("1000060").from(now), Start::In(Duration::from_mins(1)));
        assert_eq!(at("1000000").from(now), Start::In(Duration::ZERO));
        assert_eq!(at("999999").from(now), Start::Late(Duration::from_secs(1)));
        // Milliseconds.
        assert_eq!(at("1000000000").from(now), Start::TooFar);
    }

    proptest! {
        #[test]
        fn only_digits_and_signs_of_a_time_are_taken(text in "[0-9]{0,12}[-+.:TZtz 0-9]{0,24}|\\PC{0,40}") {
            let is_of_a_time = |c: char| c.is_ascii_digit() || "-+.:TZtz ".contains(c);
            prop_assert!(text.parse::<StartAt>().is_err() || text.chars().all(is_of_a_time), "{text}");
        }

        #[test]
        fn what_is_shown_is_read_back(micros in 0u64..4_000_000_000_000_000, hours in 0u32..24, minutes in 0u32..60) {
            let time = StartAt(UNIX_EPOCH + Duration::from_micros(micros));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            // The same wall clock, further to the east: earlier.
            let east = time.to_string().replace('Z', &format!("+{hours:02}:{minutes:02}"));
            let earlier = Duration::from_secs(u64::from(hours) * 3600 + u64::from(minutes) * 60);
            if let Ok(StartAt(east)) = east.parse() {
                prop_assert_eq!(east + earlier, time.0);
            }
        }
    }
}
