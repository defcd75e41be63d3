//! Numbers as people type them on the command line, and as they read them.
//!
//! Counts are decimal (`1m` is 1,000,000), bytes are binary (`7.53K` is 7.53 × 1024), times have a unit, and numbers that only name something (a port,
//! a PID) are plain digits: [`COUNTS`], [`BYTES`], [`TIMES`] and [`NUMBERS`] say what is accepted, in every error and in docs/units.md. No suffix has
//! another meaning elsewhere by accident: each kind has its own parser. Every option that takes an integer uses one of them: what `parse` of the
//! standard library takes besides (a sign) and what it does not (groups of digits) would otherwise differ from option to option.

use std::time::{Duration, SystemTime};

use thiserror::Error;

/// What is accepted as a count. The text stands in errors and in docs/units.md.
pub const COUNTS: &str = "digits, whole or in groups of three (1024000, 1,024,000 or 1_024_000), with an optional k, m or g for powers of 1000 (64k, 1.024m)";
/// What is accepted as a number of bytes.
pub const BYTES: &str = "digits as of a count, with an optional K, M or G, also written KiB, MiB or GiB, for powers of 1024 (4096, 7.53K, 8.40 KiB)";
/// What is accepted as a time.
pub const TIMES: &str = "numbers with ns, us, ms, s, m (minutes), h or d, from the largest unit to the smallest (500ms, 1.5s, 1h30m)";
/// What is accepted as a number that names something: a port, a PID, an inode.
pub const NUMBERS: &str = "digits alone (8000)";

/// Why a number was refused. The text says what would have been accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("`{0}` is not a count: use {COUNTS}")]
    Count(String),
    #[error("`{0}` is not a number of bytes: use {BYTES}")]
    Bytes(String),
    #[error("`{0}` is not a duration: use {TIMES}")]
    Duration(String),
    #[error("`{0}` is not a number: use {NUMBERS}")]
    Number(String),
    #[error("use a number of at least 1")]
    Zero,
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Splits `7.53K` into its number, exactly, as (digits, scale by ten), and what follows it.
fn split(text: &str) -> Option<(u128, u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '_'));
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (digits, scale) = decimal(number)?;
    Some((digits, scale, suffix))
}

/// A number without sign, exactly, as its digits and how many of them stand behind the point: `7.53` is (753, 2). At most 9 do. Digits before it may be in
/// groups of three, separated by commas or by underscores.
#[must_use]
pub fn decimal(number: &str) -> Option<(u128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let digits = ungrouped(whole)? + fraction;
    if digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

/// `1,024,000` and `1_024_000` as `1024000`. `None`: no digits, or other groups than of three.
fn ungrouped(whole: &str) -> Option<String> {
    let separator = if whole.contains(',') { ',' } else { '_' };
    let mut groups = whole.split(separator);
    let first = groups.next().filter(|first| !first.is_empty())?;
    let is_grouped = whole.contains(separator);
    if is_grouped && (first.len() > 3 || groups.any(|group| group.len() != 3)) {
        return None;
    }
    Some(whole.replace(separator, ""))
}

fn scaled(text: &str, digits: u128, fraction: u32, factor: u128) -> Result<u64, UnitError> {
    let divisor = 10u128.pow(fraction);
    let product = digits.checked_mul(factor).ok_or_else(|| UnitError::TooLarge(text.into()))?;
    u64::try_from((product + divisor / 2) / divisor).map_err(|_| UnitError::TooLarge(text.into()))
}

/// A count of things, as in [`COUNTS`].
///
/// # Errors
/// It is not one, or too large.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Count(text.into());
    let (digits, fraction, suffix) = split(text).ok_or_else(wrong)?;
    let factor = match suffix {
        "" => 1,
        "k" | "K" => 1000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    // A fraction of a connection is a typing error, not something to round. No overflow: 30 digits and 9 zeros are below 2^128 but for the largest,
    // which are too large in any case.
    match digits.checked_mul(factor) {
        Some(product) if !product.is_multiple_of(10u128.pow(fraction)) => Err(wrong()),
        _ => scaled(text, digits, fraction, factor),
    }
}

/// A count, zero included, of a type that may hold less than 64 bits.
///
/// # Errors
/// It is not one, or more than the type holds.
pub fn parse_count_as<T: TryFrom<u64>>(text: &str) -> Result<T, UnitError> {
    T::try_from(parse_count(text)?).map_err(|_| UnitError::TooLarge(text.into()))
}

/// A count of at least 1 that 32 bits hold.
///
/// # Errors
/// It is not one.
pub fn parse_small_count(text: &str) -> Result<u32, UnitError> {
    match parse_count_as(text)? {
        0 => Err(UnitError::Zero),
        count => Ok(count),
    }
}

/// A number of at least 1 that names something, such as a port, a PID or an inode, as in [`NUMBERS`].
///
/// # Errors
/// It is not one, or more than the type holds.
pub fn parse_number<T: TryFrom<u64>>(text: &str) -> Result<T, UnitError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UnitError::Number(text.into()));
    }
    let too_large = || UnitError::TooLarge(text.into());
    match text.parse().map_err(|_| too_large())? {
        0 => Err(UnitError::Zero),
        number => T::try_from(number).map_err(|_| too_large()),
    }
}

/// A number of bytes, as in [`BYTES`]; rounded to the nearest byte.
///
/// # Errors
/// It is not one, or too large.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Bytes(text.into());
    let (digits, fraction, suffix) = split(text).ok_or_else(wrong)?;
    let unit = suffix.strip_prefix(' ').filter(|unit| !unit.is_empty()).unwrap_or(suffix);
    let factor = match unit {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    scaled(text, digits, fraction, factor)
}

/// Units of time and their nanoseconds, from the largest on.
const UNITS: [(&str, u128); 8] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("µs", 1000),
    ("ns", 1),
];

/// A span of time, as in [`TIMES`]. A zero needs no unit.
///
/// # Errors
/// It is not one, or too long.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.into());
    let too_large = || UnitError::TooLarge(text.into());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total_ns, mut smaller_than) = (text, 0u128, u128::MAX);
    while !rest.is_empty() || smaller_than == u128::MAX {
        let (digits, fraction, behind) = split(rest).ok_or_else(wrong)?;
        let end = behind.find(|c: char| c.is_ascii_digit() || c == ' ').unwrap_or(behind.len());
        let (unit, after) = behind.split_at(end);
        let each = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ns)| *ns);
        let each = each.filter(|ns| *ns < smaller_than).ok_or_else(wrong)?;
        let (all, divisor) =
            (digits.checked_mul(each).ok_or_else(too_large)?, 10u128.pow(fraction));
        if !all.is_multiple_of(divisor) {
            return Err(wrong());
        }
        total_ns = total_ns.checked_add(all / divisor).ok_or_else(too_large)?;
        smaller_than = each;
        // One blank between two parts, none at the end.
        rest = match after.strip_prefix(' ') {
            Some("") => return Err(wrong()),
            Some(after) => after,
            None => after,
        };
    }
    let seconds = u64::try_from(total_ns / 1_000_000_000).map_err(|_| too_large())?;
    let nanoseconds = u32::try_from(total_ns % 1_000_000_000).map_err(|_| too_large())?;
    Ok(Duration::new(seconds, nanoseconds))
}

/// 1024000 as 1,024,000.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people read them, in binary units.
#[must_use]
pub fn bytes(count: f64) -> String {
    match count.abs() {
        size if size >= 1_099_511_627_776.0 => format!("{:.2} TiB", count / 1_099_511_627_776.0),
        size if size >= 1_073_741_824.0 => format!("{:.2} GiB", count / 1_073_741_824.0),
        size if size >= 1_048_576.0 => format!("{:.1} MiB", count / 1_048_576.0),
        size if size >= 1_024.0 => format!("{:.2} KiB", count / 1_024.0),
        _ => format!("{count:.1} B"),
    }
}

/// A whole number of bytes as people read it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
pub fn size(count: u64) -> String {
    if count < 1024 { format!("{count} B") } else { bytes(count as f64) }
}

/// As [`size`], of a number that can be below zero.
#[must_use]
pub fn signed_size(count: i64) -> String {
    let sign = if count < 0 { "-" } else { "" };
    format!("{sign}{}", size(count.unsigned_abs()))
}

/// `1 socket`, `1,024,000 sockets`
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// A count of which the first digits are enough: `71.7m`, with the suffixes of [`COUNTS`].
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
pub fn rounded(count: u64) -> String {
    match count {
        0..10_000_000 => grouped(count),
        10_000_000..1_000_000_000 => format!("{:.1}m", count as f64 / 1e6),
        _ => format!("{:.1}g", count as f64 / 1e9),
    }
}

/// A count as people read it, or that it is not known.
#[must_use]
pub fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "unknown".into(), grouped)
}

/// A number of something, without its unit. Pages are their bytes, where the size of a page is known; bytes have a unit of their own.
#[must_use]
pub fn quantity(count: u64, unit: &str, page_bytes: Option<u64>) -> String {
    match (unit, page_bytes) {
        ("pages", Some(page)) => size(count.saturating_mul(page)),
        ("bytes", _) => size(count),
        _ => grouped(count),
    }
}

/// The unit behind a [`quantity`]; `None`: it has one.
#[must_use]
pub fn unit_of(unit: &str, page_bytes: Option<u64>) -> Option<&str> {
    match (unit, page_bytes) {
        ("pages", Some(_)) | ("bytes", _) => None,
        _ => Some(unit),
    }
}

/// A span of time as people read it, from milliseconds.
#[must_use]
pub fn span_ms(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1000.0) }
}

/// The time of day in UTC, as lines for people begin with it: `08:16:54.123`.
#[must_use]
pub fn clock(time: SystemTime) -> String {
    let stamp = humantime::format_rfc3339_millis(time).to_string();
    // 2026-11-22T08:16:54.123Z
    stamp.get(11..23).unwrap_or(&stamp).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_are_decimal() {
        assert_eq!(parse_count("1024000"), Ok(1_024_000));
        assert_eq!(parse_count("1_024_000"), Ok(1_024_000));
        assert_eq!(parse_count("1m"), Ok(1_000_000));
        assert_eq!(parse_count("1.024M"), Ok(1_024_000));
        assert_eq!(parse_count("64k"), Ok(64_000));
        assert_eq!(parse_count("1,024,000"), Ok(1_024_000));
        assert_eq!(parse_count("1,024k"), Ok(1_024_000));
        assert_eq!(parse_small_count("64k"), Ok(64_000));
        assert_eq!(parse_small_count("0"), Err(UnitError::Zero));
        assert_eq!(parse_small_count("5g"), Err(UnitError::TooLarge("5g".into())));
        assert!(parse_small_count("+5").is_err());
        assert_eq!(parse_count_as("0"), Ok(0_usize));
        assert_eq!(parse_count_as::<u8>("256"), Err(UnitError::TooLarge("256".into())));
    }

    #[test]
    fn numbers_that_name_something_are_digits_alone() {
        assert_eq!(parse_number("8000"), Ok(8000_u16));
        assert_eq!(parse_number::<u16>("0"), Err(UnitError::Zero));
        for text in ["65536", "99999999999999999999"] {
            assert_eq!(parse_number::<u16>(text), Err(UnitError::TooLarge(text.into())));
        }
        for text in ["", "+5", "-5", "1_", "1_024", "1,024", "1k", " 5", "5 ", "0x5", "٥"] {
            assert_eq!(parse_number::<u32>(text), Err(UnitError::Number(text.into())));
        }
    }

    #[test]
    fn bytes_are_binary() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("7.53K"), Ok(7711));
        assert_eq!(parse_bytes("1M"), Ok(1 << 20));
        assert_eq!(parse_bytes("8.40 KiB"), Ok(8602));
        assert_eq!(parse_bytes("17.3 B"), Ok(17));
        assert!(parse_bytes("1kB").is_err() && parse_bytes("1 ").is_err());
    }

    #[test]
    fn times_have_a_unit_and_no_month() {
        let ms = Duration::from_millis;
        for (text, time) in [
            ("0", ms(0)),
            ("0s", ms(0)),
            ("500ms", ms(500)),
            ("1.5s", ms(1500)),
            ("5m", ms(300_000)),
            ("1h30m", ms(5_400_000)),
            ("1h 30m", ms(5_400_000)),
            ("1d", ms(86_400_000)),
            ("7us", Duration::from_micros(7)),
            ("7µs", Duration::from_micros(7)),
            ("1s1ns", Duration::new(1, 1)),
        ] {
            assert_eq!(parse_duration(text), Ok(time), "{text}");
        }
        for text in [
            "1M",
            "1",
            "",
            "s",
            "1month",
            "1y",
            "1_s",
            "30m1h",
            "1s1s",
            "1s ",
            "1 s",
            "-1s",
            "0.5ns",
            "1S",
            "99999999999999999999999d",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(
                error.contains("m (minutes)") || error.contains("too large"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_docs_have_what_errors_say() {
        let docs = include_str!("../../../docs/units.md");
        for accepted in [COUNTS, BYTES, TIMES, NUMBERS] {
            assert!(docs.contains(accepted), "docs/units.md lacks: {accepted}");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (64_000, "64,000"), (1_024_000, "1,024,000")]
        {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!(bytes(17.26), "17.3 B");
        assert_eq!(bytes(8_601.6), "8.40 KiB");
        assert_eq!(bytes(-2_097_152.0), "-2.0 MiB");
        assert_eq!(bytes(17_179_869_184.0), "16.00 GiB");
        assert_eq!(
            [0, 1023, 1024, 1 << 20, 3 << 40].map(size),
            ["0 B", "1023 B", "1.00 KiB", "1.0 MiB", "3.00 TiB"]
        );
        assert_eq!([-12, 4096].map(signed_size), ["-12 B", "4.00 KiB"]);
        assert_eq!([0.25, 999.94, 2345.0].map(span_ms), ["0.2 ms", "999.9 ms", "2.35 s"]);
        assert_eq!(
            [0, 1, 2000].map(|it| counted(it, "port")),
            ["0 ports", "1 port", "2,000 ports"]
        );
        assert_eq!(
            [9_999_999, 71_655_425, 473_647_078_257].map(rounded),
            ["9,999,999", "71.7m", "473.6g"]
        );
        assert_eq!([None, Some(1000)].map(known), ["unknown", "1,000"]);
        for (unit, page, text, behind) in [
            ("pages", Some(65_536), "64.0 MiB", None),
            ("pages", None, "1,024", Some("pages")),
            ("bytes", None, "1.00 KiB", None),
            ("files", Some(4096), "1,024", Some("files")),
        ] {
            assert_eq!((quantity(1024, unit, page).as_str(), unit_of(unit, page)), (text, behind));
        }
    }

    #[test]
    fn the_clock_is_the_time_of_day() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_000 + 45_296_789);
        assert_eq!(clock(time), "12:34:56.789");
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for text in [
            "",
            "1_",
            "1__000",
            "1,24",
            "1,0240",
            "1024,000",
            "1,024_000",
            ",024",
            "1,",
            "k",
            "-1",
            "1.5",
            "1..5k",
            ".5k",
            "1.k",
            "_1",
            "1kk",
            "1e6",
            "0x10",
            "1 000",
            "１",
        ] {
            assert!(parse_count(text).is_err(), "{text} was taken for a count");
        }
        assert_eq!(
            parse_count("99999999999999999999"),
            Err(UnitError::TooLarge("99999999999999999999".into()))
        );
        assert_eq!(parse_bytes("20000000000g"), Err(UnitError::TooLarge("20000000000g".into())));
    }

    proptest! {
        #[test]
        fn what_does_not_begin_like_a_number_is_none(text in "[0-9.,_]{0,8}[kmgKMGBibsd]{0,3}|\\PC*") {
            let is_number = text.starts_with(|c: char| c.is_ascii_digit());
            prop_assert!(is_number || parse_count(&text).is_err(), "{text:?}");
            prop_assert!(is_number || parse_bytes(&text).is_err(), "{text:?}");
            prop_assert!(is_number || parse_duration(&text).is_err(), "{text:?}");
        }

        #[test]
        fn plain_digits_stand_for_themselves(n: u64) {
            prop_assert_eq!(parse_count(&n.to_string()), Ok(n));
            prop_assert_eq!(parse_bytes(&n.to_string()), Ok(n));
            prop_assert_eq!(parse_count(&grouped(n)), Ok(n));
        }
    }
}
