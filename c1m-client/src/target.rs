//! Where to connect to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use c1m_server::units::parse_number;

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

    /// Destination number `position`, counted from the first port; past the last one it begins again.
    #[must_use]
    pub fn nth(&self, position: u64) -> SocketAddr {
        let offset = u16::try_from(position % self.count()).unwrap_or(0);
        let mut address = self.first;
        address.set_port(self.first.port() + offset);
        address
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`{text}` is not a target: use ADDR:PORT or ADDR:PORT-PORT, such as 127.0.0.1:8000-8009 or [::1]:8000"
            )
        };
        // Only a port can follow the last colon: in [::1] no dash comes before it.
        let (first, last) = match text.rsplit_once('-') {
            Some((first, last)) => (first, Some(last)),
            None => (text, None),
        };
        let first: SocketAddr = first.parse().map_err(|_| wrong())?;
        let last_port = match last {
            Some(last) => parse_number(last).map_err(|_| wrong())?,
            None => first.port(),
        };
        if first.port() == 0 || last_port < first.port() {
            return Err(wrong());
        }
        Ok(Self { first, last_port })
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
