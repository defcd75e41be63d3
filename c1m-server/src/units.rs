//! Numbers as people type them on the command line, and as they read them.
//!
//! Counts are decimal (`1m` is 1,000,000), bytes are binary (`7.53K` is 7.53 × 1024): that is how the
//! field speaks of connections and of memory. The two never share a parser.

use std::time::Duration;

use thiserror::Error;

/// Why a number was refused. The text says what would have been accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error(
        "`{0}` is not a count: use digits, with an optional k, m or g (powers of 1000), such as 1024000 or 1m"
    )]
    Count(String),
    #[error(
        "`{0}` is not a number of bytes: use digits, with an optional K, M or G (powers of 1024), such as 7.53K"
    )]
    Bytes(String),
    #[error("`{0}` is not a duration: use a number and a unit, such as 500ms, 60s or 5m")]
    Duration(String),
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Splits `7.53K` into its number, exactly, as (digits, scale by ten) and the suffix.
fn split(text: &str) -> Option<(u128, u32, Option<char>)> {
    let (number, suffix) = match text.chars().last()? {
        last if last.is_ascii_alphabetic() => {
            (&text[..text.len() - 1], Some(last.to_ascii_lowercase()))
        }
        _ => (text, None),
    };
    let (digits, scale) = decimal(number)?;
    Some((digits, scale, suffix))
}

/// A number without sign, exactly, as its digits and how many of them stand behind the point: `7.53` is (753, 2). At most 9 do.
#[must_use]
pub fn decimal(number: &str) -> Option<(u128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let digits: String = whole.chars().filter(|c| *c != '_').chain(fraction.chars()).collect();
    if whole.starts_with('_') || digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

fn scaled(text: &str, base: u128, wrong: fn(String) -> UnitError) -> Result<u64, UnitError> {
    let (digits, fraction, suffix) = split(text).ok_or_else(|| wrong(text.into()))?;
    let factor = match suffix {
        None => 1,
        Some('k') => base,
        Some('m') => base.pow(2),
        Some('g') => base.pow(3),
        Some(_) => return Err(wrong(text.into())),
    };
    let divisor = 10u128.pow(fraction);
    let product = digits.checked_mul(factor).ok_or_else(|| UnitError::TooLarge(text.into()))?;
    u64::try_from((product + divisor / 2) / divisor).map_err(|_| UnitError::TooLarge(text.into()))
}

/// A count of things: `1024000`, `1_024_000`, `64k`, `1.024m`. Suffixes are powers of 1000.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    let (digits, fraction, suffix) = split(text).ok_or_else(|| UnitError::Count(text.into()))?;
    let thousands = match suffix {
        None => 0,
        Some('k') => 3,
        Some('m') => 6,
        Some('g') => 9,
        Some(_) => return Err(UnitError::Count(text.into())),
    };
    // A fraction of a connection is a typing error, not something to round.
    if !(digits * 10u128.pow(thousands)).is_multiple_of(10u128.pow(fraction)) {
        return Err(UnitError::Count(text.into()));
    }
    scaled(text, 1000, UnitError::Count)
}

/// A number of bytes: `4096`, `7.53K`, `1M`. Suffixes are powers of 1024; rounded to the nearest byte.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    scaled(text, 1024, UnitError::Bytes)
}

/// A span of time: `500ms`, `1s`, `5m`, `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text).map_err(|_| UnitError::Duration(text.into()))
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
        size if size >= 1_073_741_824.0 => format!("{:.2} GiB", count / 1_073_741_824.0),
        size if size >= 1_048_576.0 => format!("{:.1} MiB", count / 1_048_576.0),
        size if size >= 1_024.0 => format!("{:.2} KiB", count / 1_024.0),
        _ => format!("{count:.1} B"),
    }
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
    }

    #[test]
    fn bytes_are_binary() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("7.53K"), Ok(7711));
        assert_eq!(parse_bytes("1M"), Ok(1 << 20));
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
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for text in
            ["", "k", "-1", "1.5", "1..5k", ".5k", "1.k", "_1", "1kk", "1e6", "0x10", "1 000", "１"]
        {
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
        fn any_text_is_answered(text in "\\PC*") {
            let _ = (parse_count(&text), parse_bytes(&text), parse_duration(&text));
        }

        #[test]
        fn plain_digits_stand_for_themselves(n: u64) {
            prop_assert_eq!(parse_count(&n.to_string()), Ok(n));
            prop_assert_eq!(parse_bytes(&n.to_string()), Ok(n));
        }
    }
}
