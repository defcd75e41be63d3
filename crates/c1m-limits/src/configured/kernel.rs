//! What the kernel makes of a text that is written to a setting: kernel/sysctl.c, 5.10 to 6.18.
//!
//! A number may be decimal, hexadecimal (`0x`) or octal (a leading 0), and ends at a space, a tab or the end of the text. When a setting has
//! all of its numbers, the rest of the text is ignored, such as a comment. A setting of several numbers keeps the last ones when fewer are written.

use std::ops::RangeInclusive;

/// `proc_get_long` copies so many bytes of a number, and refuses one that fills them (`TMPBUFLEN`).
const LONGEST_NUMBER: usize = 21;
const INT: RangeInclusive<i128> = i32::MIN as i128..=i32::MAX as i128;

/// How the kernel reads a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// So many numbers, each within the range: `proc_dointvec`, `proc_dointvec_minmax`, `proc_doulongvec_minmax`, `proc_dou8vec_minmax`.
    /// The latter two refuse any minus sign, `-0` as well: they are not `signed`.
    Numbers { count: usize, range: RangeInclusive<i128>, signed: bool },
    /// `ipv4_local_port_range` (net/ipv4/sysctl_net_ipv4.c): two ports, not descending, the first one not below
    /// `net.ipv4.ip_unprivileged_port_start`.
    /// One port alone is the first one, beside the last port that is set already; `None`: not known.
    PortRange { first_unprivileged: u64, last: Option<i128> },
    /// `proc_do_large_bitmap`: ports and ranges such as `8080,9000-9100`, without spaces. Empty is none.
    Ports,
}

impl Kind {
    /// A C `int` without bounds of its own.
    #[must_use]
    pub fn int() -> Self {
        Self::Numbers { count: 1, range: INT, signed: true }
    }
}

/// What is set after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// As many as were written, which may be fewer than the setting has.
    Numbers(Vec<i128>),
    /// Inclusive ranges, in the order in which they were written.
    Ports(Vec<(u16, u16)>),
}

/// Why the kernel answers EINVAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub why: String,
    /// Numbers before the wrong one, which are set all the same.
    pub set: Vec<i128>,
}

impl Refused {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), set: Vec::new() }
    }
}

/// What a write of `text` comes to.
///
/// # Errors
/// The kernel refuses it.
pub fn take(kind: &Kind, text: &str) -> Result<Taken, Refused> {
    match kind {
        Kind::Numbers { count, range, signed } => {
            numbers(text, *count, range, *signed).map(Taken::Numbers)
        }
        Kind::PortRange { first_unprivileged, last } => {
            port_range(text, *first_unprivileged, *last)
        }
        Kind::Ports => ports(text).map(Taken::Ports).map_err(Refused::new),
    }
}

/// `isspace` of the kernel (lib/ctype.c), for ASCII.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn numbers(
    text: &str,
    count: usize,
    range: &RangeInclusive<i128>,
    signed: bool,
) -> Result<Vec<i128>, Refused> {
    let mut rest = text.as_bytes();
    let mut taken = Vec::new();
    while taken.len() < count {
        let skipped = rest.iter().take_while(|byte| is_space(**byte)).count();
        rest = &rest[skipped..];
        if rest.is_empty() {
            break;
        }
        let one = number(rest, b" \t\n").and_then(|(value, after)| match range.contains(&value) {
            true if signed || rest[0] != b'-' => Ok((value, after)),
            _ => Err(format!("{value} is not between {} and {}", range.start(), range.end())),
        });
        match one {
            Ok((value, after)) => {
                taken.push(value);
                rest = after;
            }
            Err(why) => return Err(Refused { why, set: taken }),
        }
    }
    if taken.is_empty() { Err(Refused::new("there is no number")) } else { Ok(taken) }
}

/// The number at the beginning of `text`, and what follows it, which begins with one of `ends` or is nothing.
fn number<'a>(text: &'a [u8], ends: &[u8]) -> Result<(i128, &'a [u8]), String> {
    let word = || {
        let end = text.iter().position(|byte| is_space(*byte)).unwrap_or(text.len());
        String::from_utf8_lossy(&text[..end]).into_owned()
    };
    let no_number = || format!("`{}` is not a number", word());
    let sign = usize::from(text.len() > 1 && text[0] == b'-');
    let digits = &text[sign..];
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return Err(no_number());
    }
    let (radix, prefix) = match digits {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => (16, 2),
        [b'0', ..] => (8, 0),
        _ => (10, 0),
    };
    let of = |byte: u8| char::from(byte).to_digit(radix);
    let length = digits[prefix..].iter().take_while(|byte| of(**byte).is_some()).count();
    let end = sign + prefix + length;
    if end >= LONGEST_NUMBER {
        return Err(format!("`{}` has too many digits", word()));
    }
    let value = digits[prefix..prefix + length]
        .iter()
        .try_fold(0u64, |sum, byte| sum.checked_mul(radix.into())?.checked_add(of(*byte)?.into()));
    let value = i128::from(value.ok_or_else(|| format!("`{}` is too large", word()))?);
    let rest = &text[end..];
    if rest.first().is_some_and(|next| !ends.contains(next)) {
        return Err(no_number());
    }
    Ok((if sign == 1 { -value } else { value }, rest))
}

/// Both ports are checked before either is set.
fn port_range(
    text: &str,
    first_unprivileged: u64,
    present_last: Option<i128>,
) -> Result<Taken, Refused> {
    let ports =
        numbers(text, 2, &(1..=65_535), true).map_err(|refused| Refused::new(refused.why))?;
    let all: Vec<i128> = match ports.as_slice() {
        [first] => [*first].into_iter().chain(present_last).collect(),
        both => both.to_vec(),
    };
    match all.as_slice() {
        [first, ..] if *first < i128::from(first_unprivileged) => Err(Refused::new(format!(
            "{first} is below net.ipv4.ip_unprivileged_port_start={first_unprivileged}"
        ))),
        [first, last] if last < first => {
            Err(Refused::new(format!("the last port {last} is below the first one {first}")))
        }
        _ => Ok(Taken::Numbers(ports)),
    }
}

fn ports(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let mut rest = text.trim_start_matches('\n').as_bytes();
    let mut all = Vec::new();
    let port = |value: i128| u16::try_from(value).map_err(|_| format!("{value} is not a port"));
    let unsigned = |rest: &[u8]| match rest.first() {
        Some(b'-') => Err("a port has no sign".to_owned()),
        _ => Ok(()),
    };
    while !rest.is_empty() {
        unsigned(rest)?;
        let (first, after) = number(rest, b"-,\n")?;
        let mut last = first;
        rest = after.get(1..).unwrap_or_default();
        if after.first() == Some(&b'-') {
            unsigned(rest)?;
            let (end, after) = number(rest, b",\n")?;
            last = end;
            rest = after.get(1..).unwrap_or_default();
        }
        if last < first {
            return Err(format!("the range {first}-{last} descends"));
        }
        all.push((port(first)?, port(last)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        let one = |text| take(&Kind::int(), text).ok();
        let taken = |value| Some(Taken::Numbers(vec![value]));
        for (text, value) in [
            ("8192 # for many", 8192),
            ("0x4000", 16_384),
            ("0100", 64),
            ("-5", -5),
            ("5 ;", 5),
            ("6 yes", 6),
            ("\x0b7", 7),
            ("00000000000000000077", 63),
        ] {
            assert_eq!(one(text), taken(value), "{text}");
        }
        for text in [
            "",
            " ",
            "yes",
            "+5",
            "5;",
            "08",
            "0x",
            "\"5\"",
            "3_000",
            "2147483648",
            "7\r",
            "\u{a0}7",
            "-",
            "000000000000000000077",
        ] {
            assert_eq!(one(text), None, "{text}");
        }
    }

    #[test]
    fn what_came_before_a_wrong_number_is_set() {
        let three = Kind::Numbers { count: 3, range: 1..=i128::from(i32::MAX), signed: true };
        assert_eq!(take(&three, "4096\t87380"), Ok(Taken::Numbers(vec![4096, 87_380])));
        assert_eq!(take(&three, "4096 x 7").unwrap_err().set, [4096]);
        assert!(take(&three, "0 1 2").unwrap_err().why.contains("not between"));
    }

    #[test]
    fn ranges_of_ports_have_rules_of_their_own() {
        let range = Kind::PortRange { first_unprivileged: 1024, last: Some(60_999) };
        assert_eq!(take(&range, "1024 65535 x"), Ok(Taken::Numbers(vec![1024, 65_535])));
        assert_eq!(take(&range, "60999"), Ok(Taken::Numbers(vec![60_999])));
        let unknown = Kind::PortRange { first_unprivileged: 1024, last: None };
        assert_eq!(take(&unknown, "65535"), Ok(Taken::Numbers(vec![65_535])));
        for (text, why) in [
            ("65535", "the last port 60999 is below"),
            ("500 65535", "ip_unprivileged_port_start=1024"),
            ("1024-65535", "not a number"),
            ("1024 70000", "not between"),
            ("3000 2999", "below the first"),
            ("4000 yes", "not a number"),
        ] {
            let refused = take(&range, text).unwrap_err();
            assert!(refused.why.contains(why) && refused.set.is_empty(), "{text}: {refused:?}");
        }
        assert_eq!(take(&Kind::Ports, "80,0x50-0x60,"), Ok(Taken::Ports(vec![(80, 80), (80, 96)])));
        for text in ["80, 90", "90-80", "80 90", "70000", "80-", "-0", "-80", ",80"] {
            assert!(take(&Kind::Ports, text).is_err(), "{text}");
        }
        assert_eq!(take(&Kind::Ports, ""), Ok(Taken::Ports(Vec::new())));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,30}|[-0-9a-fx ,\t;]{0,40}") {
            for kind in [Kind::int(), Kind::PortRange { first_unprivileged: 1024, last: Some(60_999) }, Kind::Ports] {
                if let Ok(Taken::Numbers(numbers)) = take(&kind, &text) {
                    prop_assert!(!numbers.is_empty());
                }
            }
        }
    }
}
