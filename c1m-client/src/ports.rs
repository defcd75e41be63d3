//! The source ports that this host gives to clients.

use std::ops::RangeInclusive;

/// The source ports that this host gives to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// net.ipv4.ip_local_port_range, which IPv6 shares
    pub range: RangeInclusive<u16>,
    /// Those of the range that are not in net.ipv4.ip_local_reserved_ports, ascending.
    pub usable: Vec<u16>,
}

impl Ports {
    /// Reads both sysctls of this network namespace.
    pub fn read() -> std::io::Result<Self> {
        let read = |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let (range, reserved) = (read("ip_local_port_range")?, read("ip_local_reserved_ports")?);
        Self::parse(&range, &reserved).ok_or_else(|| {
            std::io::Error::other(format!("can't read the port range `{}`", range.trim()))
        })
    }

    /// `range` as in `32768 60999`, `reserved` as in `8080,9000-9100` or empty.
    #[must_use]
    pub fn parse(range: &str, reserved: &str) -> Option<Self> {
        let (first, last) = range.trim().split_once(char::is_whitespace)?;
        let range: RangeInclusive<u16> = first.parse().ok()?..=last.trim().parse().ok()?;
        let mut usable: Vec<u16> = range.clone().collect();
        for part in reserved.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let taken: RangeInclusive<u16> = first.parse().ok()?..=last.parse().ok()?;
            usable.retain(|port| !taken.contains(port));
        }
        Some(Self { range, usable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_range_without_the_reserved_ones() {
        let ports = Ports::parse("1000\t1009\n", "900-1001,1005,1008-2000\n").unwrap();
        assert_eq!(ports.usable, [1002, 1003, 1004, 1006, 1007]);
        assert_eq!(Ports::parse("1000", ""), None);
        assert_eq!(Ports::parse("1000 1009", "x"), None);
    }
}
