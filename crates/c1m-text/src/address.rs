//! Addresses as people type them: `127.0.0.1:8000`, `[::1]:8000`, `[fe80::1%eth0]:8000`, `localhost:8000`.
//!
//! A link-local address is on one link, and the same one may be on another, so it is typed with its scope, the interface that leads to the link: as RFC
//! 4007, section 11, writes it, by name or by number. Digits are always the number, also where an interface has digits for a name. Names of hosts are
//! not looked up: a static program has no resolver of the system's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use c1m_sys::{errno, interface};
use thiserror::Error;

/// What is accepted as an address with a port. The text stands in errors and in docs/units.md.
pub const ADDRESSES: &str =
    "ADDR:PORT, such as 127.0.0.1:8000, [::1]:8000, [fe80::1%eth0]:8000 or localhost:8000";

/// Why an address was refused. The text says what to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("`{0}` is not an address: write {ADDRESSES}")]
    Address(String),
    #[error("the address in front of the port is missing: write {ADDRESSES}")]
    NoAddress,
    #[error("the port is missing: write ADDR:PORT, such as {0}:8000")]
    NoPort(String),
    #[error("`{text}` is not a port: use a number from {least} to 65535")]
    Port { text: String, least: u16 },
    #[error("the ports {0}-{1} are in the wrong order: write the lower one first")]
    Order(u16, u16),
    #[error("an IPv6 address has brackets around it: write [ADDR]:PORT, such as [::1]:8000")]
    NoBrackets,
    #[error("brackets are for IPv6 addresses alone: write {0} without them")]
    Brackets(Ipv4Addr),
    #[error(
        "names are not looked up, but for localhost: give an address, such as one that `getent hosts {0}` prints"
    )]
    Name(String),
    #[error(
        "a link-local address needs the interface that leads to it: write [ADDR%INTERFACE]:PORT, such as [{0}%eth0]:8000 (`ip -brief link` lists interfaces)"
    )]
    NoScope(Ipv6Addr),
    #[error(
        "{address} has no scope, which link-local addresses (fe80::/10) alone have: leave %{scope} out"
    )]
    Scope { address: Ipv6Addr, scope: String },
    #[error("this host has no interface `{0}`: use a name or a number that `ip -brief link` lists")]
    NoInterface(String),
    #[error("can't look the interface `{name}` up ({error})")]
    Interface { name: String, error: &'static str },
}

/// An address with a port. Port 0 leaves the choice to the kernel.
///
/// # Errors
/// It is none, or has the scope of an interface that this host does not have.
pub fn parse(text: &str) -> Result<SocketAddr, AddressError> {
    let (host, port) = split(text)?;
    Ok(host.with_port(parse_port(port, 0)?))
}

/// An address with its first port, and the last one: `127.0.0.1:8000-8009`, or both the same. No port is 0.
///
/// # Errors
/// As of [`parse`], or the ports descend.
pub fn parse_with_ports(text: &str) -> Result<(SocketAddr, u16), AddressError> {
    let (host, ports) = split(text)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (parse_port(first, 1)?, parse_port(last, 1)?);
    match first <= last {
        true => Ok((host.with_port(first), last)),
        false => Err(AddressError::Order(first, last)),
    }
}

/// An address without port and scope: `10.0.0.1`, `fe80::1`, `localhost`. `None`: it is none.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().map(IpAddr::V6).or_else(|_| parse_ipv4(text).map(IpAddr::V4)).ok()
}

/// Whether the kernel takes this address with a scope alone, and answers EINVAL without (net/ipv6/af_inet6.c, `__inet6_bind`, and net/ipv6/tcp_ipv6.c,
/// `tcp_v6_connect`, 6.18): `fe80::/10`. Addresses of IPv4 have none, 169.254.0.0/16 included.
#[must_use]
pub fn needs_scope(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// `ip` and `port` at this end of connections to `peer`: a link-local address is on the peer's link.
#[must_use]
pub fn beside(peer: &SocketAddr, ip: IpAddr, port: u16) -> SocketAddr {
    match (ip, peer) {
        (IpAddr::V6(v6), SocketAddr::V6(peer)) if needs_scope(ip) => {
            SocketAddrV6::new(v6, port, 0, peer.scope_id()).into()
        }
        _ => SocketAddr::new(ip, port),
    }
}

/// The same for somebody else, to whom the number of an interface of this host means nothing, as in the Host field of a request.
#[must_use]
pub fn without_scope(address: &SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// As it stands in a URL, where a scope begins with `%25` (RFC 6874).
#[must_use]
pub fn in_url(address: &SocketAddr) -> String {
    address.to_string().replace('%', "%25")
}

/// What stands in front of the port.
#[derive(Debug, Clone, Copy)]
enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr, u32),
}

impl Host {
    fn with_port(self, port: u16) -> SocketAddr {
        match self {
            Self::V4(address) => (address, port).into(),
            Self::V6(address, scope) => SocketAddrV6::new(address, port, 0, scope).into(),
        }
    }
}

/// The address, and the text of its port or ports.
fn split(text: &str) -> Result<(Host, &str), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        // The last one: an interface may have one in its name.
        let (inside, behind) = rest.rsplit_once(']').ok_or(AddressError::NoBrackets)?;
        return Ok((parse_ipv6(inside)?, port_of(behind, &text[..inside.len() + 2])?));
    }
    if text.contains('/') {
        return Err(wrong(text));
    }
    if is_bare_ipv6(text) {
        return Err(AddressError::NoBrackets);
    }
    let (host, port) = text.split_at(text.rfind(':').unwrap_or(text.len()));
    match host.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if text.is_empty() => Err(wrong(text)),
        true => Err(AddressError::NoAddress),
        false => Ok((Host::V4(parse_ipv4(host)?), port_of(port, host)?)),
    }
}

/// With or without a port and a scope: in `::1:80` there may be either.
fn is_bare_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    let without_port = address.rsplit_once(':').map_or("", |(address, _)| address);
    [address, without_port].iter().any(|it| it.parse::<Ipv6Addr>().is_ok())
}

/// What follows the colon behind the address, which is there for the error.
fn port_of<'a>(behind: &'a str, address: &str) -> Result<&'a str, AddressError> {
    match behind.strip_prefix(':') {
        Some(port) if !port.is_empty() => Ok(port),
        _ => Err(AddressError::NoPort(address.into())),
    }
}

fn parse_port(text: &str, least: u16) -> Result<u16, AddressError> {
    // Not what `parse` takes besides: a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
    digits
        .flatten()
        .filter(|port| *port >= least)
        .ok_or_else(|| AddressError::Port { text: text.into(), least })
}

fn parse_ipv4(text: &str) -> Result<Ipv4Addr, AddressError> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) if text.eq_ignore_ascii_case("localhost") => Ok(Ipv4Addr::LOCALHOST),
        Err(_) if is_name(text) => Err(AddressError::Name(text.into())),
        Err(_) => Err(wrong(text)),
    }
}

/// What stands between brackets.
fn parse_ipv6(text: &str) -> Result<Host, AddressError> {
    let (address, scope) = match text.split_once('%') {
        Some((address, scope)) => (address, Some(scope).filter(|scope| !scope.is_empty())),
        None => (text, None),
    };
    let address = match address.parse() {
        Ok(IpAddr::V6(address)) => address,
        Ok(IpAddr::V4(address)) => return Err(AddressError::Brackets(address)),
        Err(_) => return Err(wrong(&format!("[{text}]"))),
    };
    match (needs_scope(address.into()), scope) {
        (true, Some(scope)) => Ok(Host::V6(address, parse_scope(scope)?)),
        (true, None) => Err(AddressError::NoScope(address)),
        (false, Some(scope)) => Err(AddressError::Scope { address, scope: scope.into() }),
        (false, None) => Ok(Host::V6(address, 0)),
    }
}

/// The number of an interface of this host.
fn parse_scope(text: &str) -> Result<u32, AddressError> {
    let failed =
        |error: io::Error| AddressError::Interface { name: text.into(), error: errno::of(&error) };
    let number = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => match text.parse() {
            Ok(number) => interface::exists(number).map_err(failed)?.then_some(number),
            Err(_) => None,
        },
        false => interface::number_of(text).map_err(failed)?,
    };
    number.ok_or_else(|| AddressError::NoInterface(text.into()))
}

/// Whether it can be the name of a host: with a letter, since digits and points alone are a wrong address.
pub(crate) fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && text.chars().any(char::is_alphabetic)
}

fn wrong(text: &str) -> AddressError {
    AddressError::Address(text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The loopback interface has a number in every network namespace, and it is not always 1.
    fn lo() -> u32 {
        interface::number_of("lo").unwrap().unwrap()
    }

    #[test]
    fn an_address_is_shown_as_it_is_read() {
        let by_number = format!("[fe80::1%{}]:80", lo());
        for (text, shown) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::]:65535", "[::]:65535"),
            ("[2001:DB8::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("LocalHost:80", "127.0.0.1:80"),
            ("[fe80::1%lo]:80", &by_number),
            (&by_number, &by_number),
            ("169.254.0.1:80", "169.254.0.1:80"),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(parse(shown), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_gets_one_sentence_that_says_what_to_write() {
        for (text, says) in [
            ("", "`` is not an address: write ADDR:PORT, such as 127.0.0.1:8000, [::1]:8000"),
            (":", "the address in front of the port is missing"),
            (":80", "the address in front of the port is missing"),
            ("80", "the address in front of the port is missing"),
            ("127.0.0.1", "the port is missing: write ADDR:PORT, such as 127.0.0.1:8000"),
            ("127.0.0.1:", "the port is missing"),
            ("localhost", "the port is missing: write ADDR:PORT, such as localhost:8000"),
            ("[::1]", "the port is missing: write ADDR:PORT, such as [::1]:8000"),
            ("[::1]:", "the port is missing"),
            ("[::1]80", "the port is missing"),
            ("127.0.0.1:65536", "`65536` is not a port: use a number from 0 to 65535"),
            ("127.0.0.1:+80", "`+80` is not a port"),
            ("127.0.0.1:http", "`http` is not a port"),
            ("127.0.0.1:80-81", "`80-81` is not a port"),
            ("[::1]:-1", "`-1` is not a port"),
            ("::1:80", "brackets around it: write [ADDR]:PORT, such as [::1]:8000"),
            ("::1", "brackets around it"),
            ("2001:db8::1:8000", "brackets around it"),
            ("1:2:3:4:5:6:7:8:80", "brackets around it"),
            ("fe80::1%eth0:80", "brackets around it"),
            ("fe80::1%eth0", "brackets around it"),
            ("[::1:80", "brackets around it"),
            ("[127.0.0.1]:80", "brackets are for IPv6 addresses alone: write 127.0.0.1 without"),
            ("example.org:80", "names are not looked up"),
            ("example.org", "`getent hosts example.org`"),
            ("bücher.example:80", "`getent hosts bücher.example`"),
            ("my_host-1:80", "`getent hosts my_host-1`"),
            ("http://127.0.0.1:80/", "`http://127.0.0.1:80/` is not an address"),
            ("example.org:80/path", "is not an address"),
            ("127.0.0.1:80:90", "`127.0.0.1:80` is not an address"),
            ("256.0.0.1:80", "`256.0.0.1` is not an address"),
            ("10.0.0:80", "`10.0.0` is not an address"),
            (" 127.0.0.1:80", "` 127.0.0.1` is not an address"),
            ("user@host:80", "`user@host` is not an address"),
            ("[]:80", "`[]` is not an address"),
            ("[localhost]:80", "`[localhost]` is not an address"),
            ("[::g]:80", "`[::g]` is not an address"),
            ("[%lo]:80", "`[%lo]` is not an address"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains('\n') && !error.contains(". "), "{text}: {error}");
        }
    }

    #[test]
    fn a_scope_is_an_interface_of_this_host_behind_a_link_local_address() {
        for (text, says) in [
            ("[fe80::1]:80", "needs the interface that leads to it: write [ADDR%INTERFACE]:PORT"),
            ("[fe80::1]:80", "such as [fe80::1%eth0]:8000"),
            ("[febf::9%]:80", "such as [febf::9%eth0]:8000"),
            ("[fe80::1%no-such0]:80", "this host has no interface `no-such0`"),
            ("[fe80::1%4294967295]:80", "this host has no interface `4294967295`"),
            ("[fe80::1%4294967296]:80", "this host has no interface `4294967296`"),
            ("[fe80::1%0]:80", "this host has no interface `0`"),
            ("[fe80::1%+1]:80", "this host has no interface `+1`"),
            ("[fe80::1%lo ]:80", "this host has no interface `lo `"),
            ("[fe80::1%]]:80", "this host has no interface `]`"),
            ("[fe80::1%an-interface-name-of-30-bytes]:80", "this host has no interface"),
            ("[::1%lo]:80", "::1 has no scope"),
            ("[fd00::1%eth0]:80", "leave %eth0 out"),
            ("[fec0::1%1]:80", "leave %1 out"),
        ] {
            for error in [parse(text).unwrap_err(), parse_with_ports(text).unwrap_err()] {
                assert!(error.to_string().contains(says), "{text}: {error}");
            }
        }
        assert!(needs_scope("fe80::1".parse().unwrap()) && needs_scope("febf::".parse().unwrap()));
        for other in ["fec0::1", "::1", "::ffff:169.254.0.1", "169.254.0.1"] {
            assert!(!needs_scope(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_range_of_ports_ascends_and_has_no_port_0() {
        let range = |text: &str| parse_with_ports(text).map(|(at, last)| (at.to_string(), last));
        assert_eq!(range("127.0.0.1:80"), Ok(("127.0.0.1:80".into(), 80)));
        assert_eq!(range("localhost:80-89"), Ok(("127.0.0.1:80".into(), 89)));
        assert_eq!(range("[::1]:80-80"), Ok(("[::1]:80".into(), 80)));
        let scoped = format!("[fe80::1%{}]:1", lo());
        assert_eq!(range("[fe80::1%lo]:1-65535"), Ok((scoped, 65535)));
        for (text, says) in [
            ("127.0.0.1:9-8", "the ports 9-8 are in the wrong order"),
            ("127.0.0.1:9-", "`` is not a port"),
            ("127.0.0.1:-9", "`` is not a port"),
            ("127.0.0.1:1-2-3", "`2-3` is not a port"),
            ("127.0.0.1:0", "`0` is not a port: use a number from 1 to 65535"),
            ("127.0.0.1:0-9", "`0` is not a port"),
            ("127.0.0.1-127.0.0.9:80", "`127.0.0.1-127.0.0.9` is not an address"),
            ("[fe80::1%br-lan]:80", "this host has no interface `br-lan`"),
        ] {
            let error = range(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_scope_goes_with_link_local_addresses_to_the_peer_and_to_nobody_else() {
        let own = |ip: &str, peer: &str| {
            beside(&peer.parse().unwrap(), ip.parse().unwrap(), 9).to_string()
        };
        assert_eq!(own("fe80::2", "[fe80::1%7]:80"), "[fe80::2%7]:9");
        assert_eq!(own("fd00::2", "[fe80::1%7]:80"), "[fd00::2]:9");
        assert_eq!(own("fe80::2", "[fd00::1]:80"), "[fe80::2]:9");
        assert_eq!(own("10.0.0.1", "10.0.0.2:80"), "10.0.0.1:9");
        let peer: SocketAddr = "[fe80::1%7]:80".parse().unwrap();
        assert_eq!(without_scope(&peer).to_string(), "[fe80::1]:80");
        assert_eq!(in_url(&peer), "[fe80::1%257]:80");
        assert_eq!(in_url(&"[::1]:80".parse().unwrap()), "[::1]:80");
    }

    #[test]
    fn the_docs_have_what_errors_say() {
        let docs = include_str!("../../../docs/units.md");
        assert!(docs.contains(ADDRESSES), "docs/units.md lacks: {ADDRESSES}");
    }

    proptest! {
        #[test]
        fn what_is_taken_can_be_typed_as_it_is_shown(text in "(\\[|\\]|%|:|-|[0-9a-f]{1,4}|lo|\\.|\\PC){0,12}") {
            if let Ok(address) = parse(&text) {
                prop_assert_eq!(parse(&address.to_string()), Ok(address));
            }
            if let Some(ip) = parse_ip(&text) {
                prop_assert_eq!(parse_ip(&ip.to_string()), Some(ip));
            }
            if let Ok(range) = text.parse::<crate::sources::SourceRange>() {
                let sources = crate::sources::Sources::merge(&[range]);
                prop_assert!(sources.is_some_and(|sources| sources.count() > 0), "{text}");
            }
            if let Ok((first, last)) = parse_with_ports(&text) {
                prop_assert!(first.port() > 0 && first.port() <= last);
            }
        }

        #[test]
        fn what_is_shown_can_be_typed(bits: u128, v4: bool, port: u16) {
            let v6 = |bits| SocketAddrV6::new(Ipv6Addr::from_bits(bits), port, 0, 0);
            let plain = match v4 {
                true => SocketAddr::from((Ipv4Addr::from_bits(port.into()), port)),
                false => v6(bits).into(),
            };
            let mut scoped = v6(bits >> 10 | 0xfe80 << 112);
            scoped.set_scope_id(lo());
            prop_assume!(!needs_scope(plain.ip()));
            for address in [plain, scoped.into()] {
                prop_assert_eq!(parse(&address.to_string()), Ok(address));
            }
        }
    }
}
