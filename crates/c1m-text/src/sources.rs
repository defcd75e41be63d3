//! The addresses that connections come from: as they are typed, and as ranges without overlap.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::address::{AddressError, is_name, parse_ip};

/// What one `--source` says: an address, a CIDR block, or a range `FIRST-LAST`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRange {
    pub first: IpAddr,
    /// Of the same family as `first`, and not below it.
    pub last: IpAddr,
}

impl From<IpAddr> for SourceRange {
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for SourceRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || match text.split_once('%') {
            _ if is_name(text) => AddressError::Name(text.into()).to_string(),
            Some((_, scope)) => {
                format!(
                    "leave %{scope} out: a link-local source has the scope of what it connects to"
                )
            }
            None => format!(
                "`{text}` is not a source: use an address, a CIDR block such as 10.0.0.0/24, or a range such as 10.0.0.1-10.0.0.9"
            ),
        };
        if let Some((address, bits)) = text.split_once('/') {
            let address = parse_ip(address).ok_or_else(wrong)?;
            // Not what `parse` takes besides: a sign.
            let digits = bits.bytes().all(|byte| byte.is_ascii_digit()).then(|| bits.parse().ok());
            return digits.flatten().and_then(|bits| block(address, bits)).ok_or_else(wrong);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = parse_ip(first).ok_or_else(wrong)?;
        let last = parse_ip(last).ok_or_else(wrong)?;
        if first.is_ipv4() != last.is_ipv4() || number(first) > number(last) {
            return Err(format!(
                "`{text}` is not a range: its last address comes before its first"
            ));
        }
        Ok(Self { first, last })
    }
}

/// The addresses of a CIDR block that a host can have: outside 127.0.0.0/8, where all of them are local, an IPv4 block's
/// first and last stand for the network itself and for broadcast.
fn block(address: IpAddr, bits: u32) -> Option<SourceRange> {
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    let host_bits = width.checked_sub(bits)?;
    let mask = 1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1);
    let (mut first, mut last) = (number(address) & !mask, number(address) | mask);
    if address.is_ipv4() && !address.is_loopback() && host_bits > 1 {
        (first, last) = (first + 1, last - 1);
    }
    Some(SourceRange {
        first: address_of(first, address.is_ipv4()),
        last: address_of(last, address.is_ipv4()),
    })
}

/// The addresses of one family as ranges without overlap, so that each of them comes up once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    ipv4: bool,
    /// (first address, how many), in ascending order
    ranges: Vec<(u128, u128)>,
}

impl Sources {
    /// Merges `ranges`, which must be of one family. `None`: they are not, or there is none.
    #[must_use]
    pub fn merge(ranges: &[SourceRange]) -> Option<Self> {
        let ipv4 = ranges.first()?.first.is_ipv4();
        if ranges.iter().any(|range| range.first.is_ipv4() != ipv4) {
            return None;
        }
        let mut ends: Vec<_> =
            ranges.iter().map(|range| (number(range.first), number(range.last))).collect();
        ends.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in ends {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let counted =
            merged.into_iter().map(|(first, last)| (first, (last - first).saturating_add(1)));
        Some(Self { ipv4, ranges: counted.collect() })
    }

    /// How many addresses; `u64::MAX` stands for that many or more, as in an IPv6 block.
    #[must_use]
    pub fn count(&self) -> u64 {
        let sum = self.ranges.iter().fold(0u128, |sum, (_, count)| sum.saturating_add(*count));
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    /// The address number `position`, in ascending order. `None`: there are not so many.
    #[must_use]
    pub fn nth(&self, position: u64) -> Option<IpAddr> {
        let mut left = u128::from(position);
        for (first, count) in &self.ranges {
            if left < *count {
                return Some(address_of(first + left, self.ipv4));
            }
            left -= count;
        }
        None
    }
}

/// Two of the ranges that have an address in common, the one that begins first in front. `None`: there are none.
#[must_use]
pub fn overlap(ranges: &[SourceRange]) -> Option<(SourceRange, SourceRange)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| {
        (range.first.is_ipv4(), number(range.first), u128::MAX - number(range.last))
    });
    sorted.windows(2).find_map(|pair| {
        let [a, b] = *pair else { return None };
        (a.first.is_ipv4() == b.first.is_ipv4() && number(b.first) <= number(a.last))
            .then_some((a, b))
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// `number` must be below 2^32 for IPv4: it always comes from addresses of that family.
fn address_of(number: u128, ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(v4) if ipv4 => Ipv4Addr::from(v4).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> SourceRange {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_blocks_and_ranges_are_read() {
        for (text, shown) in [
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3-10.1.2.9", "10.1.2.3-10.1.2.9"),
            ("127.0.1.0/24", "127.0.1.0-127.0.1.255"),
            ("10.1.2.3/24", "10.1.2.1-10.1.2.254"),
            ("10.1.2.3/31", "10.1.2.2-10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.1-255.255.255.254"),
            ("fd00::/126", "fd00::-fd00::3"),
            ("::1", "::1"),
            ("localhost", "127.0.0.1"),
        ] {
            assert_eq!(parse(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.1/33",
            "10.0.0.1/",
            "::/129",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.1:80",
            "[::1]",
        ] {
            let error = text.parse::<SourceRange>().unwrap_err();
            assert!(error.contains("is not a"), "{text}: {error}");
        }
        for (text, says) in [
            ("source.example", "`getent hosts source.example`"),
            ("my-host", "`getent hosts my-host`"),
            ("fe80::1%eth0", "leave %eth0 out"),
            ("fe80::1-fe80::9%2", "leave %2 out"),
        ] {
            let error = text.parse::<SourceRange>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_whole_of_ipv6_is_many() {
        let all = Sources::merge(&[parse("::/0")]).unwrap();
        assert_eq!(all.count(), u64::MAX);
        assert_eq!(all.nth(1), Some("::1".parse().unwrap()));
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(Sources::merge(&[parse("10.0.0.1"), parse("::1")]), None);
        assert_eq!(Sources::merge(&[]), None);
    }

    #[test]
    fn what_is_given_twice_is_found() {
        let overlap = |texts: &[&str]| {
            overlap(&texts.iter().map(|text| parse(text)).collect::<Vec<_>>())
                .map(|(a, b)| (a.to_string(), b.to_string()))
        };
        assert_eq!(overlap(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.7"]), None);
        assert_eq!(
            overlap(&["10.0.0.0/16", "192.168.0.1", "10.0.7.0/24"]),
            Some(("10.0.0.1-10.0.255.254".into(), "10.0.7.1-10.0.7.254".into()))
        );
        assert_eq!(overlap(&["::1", "0.0.0.1"]), None, "of two families");
        assert_eq!(overlap(&["::1", "::1"]), Some(("::1".into(), "::1".into())));
        assert_eq!(overlap(&[]), None);
    }

    proptest! {
        #[test]
        fn merged_ranges_hold_every_address_once(pairs in prop::collection::vec((0u32..300, 0u32..40), 1..12)) {
            let ranges: Vec<_> = pairs.iter().map(|(first, more)| SourceRange {
                first: Ipv4Addr::from(*first).into(),
                last: Ipv4Addr::from(first + more).into(),
            }).collect();
            let expected: std::collections::BTreeSet<IpAddr> = pairs.iter()
                .flat_map(|(first, more)| *first..=first + more)
                .map(|number| Ipv4Addr::from(number).into())
                .collect();
            let merged = Sources::merge(&ranges).unwrap();
            let listed: Vec<_> = (0..merged.count()).map(|n| merged.nth(n).unwrap()).collect();
            prop_assert_eq!(listed, expected.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(merged.nth(merged.count()), None);
        }
    }
}
