//! The source ports that this host gives to clients.

use std::{io, ops::RangeInclusive};

use super::sysctl::{Name, SysctlError, Tree};

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
    ///
    /// # Errors
    /// They can't be read, or are not understood.
    pub fn read() -> io::Result<Self> {
        Self::at(&Tree::at(Tree::KERNEL))
    }

    /// The same below another folder than /proc/sys.
    ///
    /// # Errors
    /// As [`Ports::read`].
    pub fn at(tree: &Tree) -> io::Result<Self> {
        let read = |name| -> Result<String, SysctlError> { tree.read(&Name::new(name)?) };
        let range = read("net.ipv4.ip_local_port_range").map_err(io::Error::other)?;
        let reserved = read("net.ipv4.ip_local_reserved_ports").map_err(io::Error::other)?;
        Self::parse(&range, &reserved)
            .ok_or_else(|| io::Error::other(format!("can't read the port range `{range}`")))
    }

    /// `range` as in `32768 60999`, `reserved` as in `8080,9000-9100` or empty.
    #[must_use]
    pub fn parse(range: &str, reserved: &str) -> Option<Self> {
        let (first, last) = range.trim().split_once(char::is_whitespace)?;
        let range: RangeInclusive<u16> = first.parse().ok()?..=last.trim().parse().ok()?;
        let mut is_reserved = vec![false; 1 << 16];
        for part in reserved.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let taken: RangeInclusive<u16> = first.parse().ok()?..=last.parse().ok()?;
            taken.for_each(|port| is_reserved[usize::from(port)] = true);
        }
        let usable = range.clone().filter(|port| !is_reserved[usize::from(*port)]).collect();
        Some(Self { range, usable })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_are_the_range_without_the_reserved_ones() {
        let ports = Ports::parse("1000\t1009\n", "900-1001,1005,1008-2000\n").unwrap();
        assert_eq!(ports.usable, [1002, 1003, 1004, 1006, 1007]);
        assert!(Ports::parse("1000 1009", "1-65535").unwrap().usable.is_empty());
        assert_eq!(Ports::parse("32768 60999", "").unwrap().usable.len(), 28_232);
        assert_eq!(Ports::parse("1000", ""), None);
        assert_eq!(Ports::parse("1000 1009", "x"), None);
        assert!(!Ports::read().unwrap().usable.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(
            range in "\\PC*|[0-9]{0,22} [0-9]{0,22}",
            reserved in "\\PC*|([0-9]{0,22}[-,]){0,4}[0-9]{0,6}",
        ) {
            let ports = Ports::parse(&range, &reserved);
            prop_assert!(ports.is_none_or(|ports| ports.usable.iter().all(|it| ports.range.contains(it))));
        }
    }
}
