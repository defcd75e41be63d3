//! Where to connect to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use c1m_text::address::{AddressError, parse_with_ports};

/// Where to connect to: one address, and one port or a range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The address with the first port.
    pub first: SocketAddr,
    /// Not below the first port.
    pub last_port: u16,
}

impl Target {
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.first.ip()
    }

    /// How many destination ports there are, at least 1.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.last_port - self.first.port()) + 1
    }

    /// Destination number `position`, counted from the first port; past the last one it begins
    /// again.
    #[must_use]
    pub fn nth(&self, position: u64) -> SocketAddr {
        let offset = u16::try_from(position % self.count()).unwrap_or(0);
        let mut address = self.first;
        address.set_port(self.first.port() + offset);
        address
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_with_ports(text).map(|(first, last_port)| Self { first, last_port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last_port != self.first.port() { write!(f, "-{}", self.last_port) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let target: Target = "127.0.0.1:8000-8009".parse().unwrap();
        assert_eq!((target.count(), target.to_string()), (10, "127.0.0.1:8000-8009".into()));
        assert_eq!(target.nth(9).port(), 8009);
        let target: Target = "[::1]:8000".parse().unwrap();
        assert_eq!((target.count(), target.to_string()), (1, "[::1]:8000".into()));
        let target: Target = "localhost:8000-8001".parse().unwrap();
        assert_eq!((target.count(), target.to_string()), (2, "127.0.0.1:8000-8001".into()));
        let target: Target = "[fe80::1%lo]:8000-8009".parse().unwrap();
        assert_eq!(target.to_string().parse(), Ok(target));
        let SocketAddr::V6(last) = target.nth(9) else { panic!("{target:?}") };
        assert!(last.scope_id() > 0 && last.port() == 8009);
        for text in [
            "",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:9-8",
            "127.0.0.1:9-",
            "127.0.0.1:9-+10",
            "::1:80",
            "host:80",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text} was taken for a target");
        }
    }
}
