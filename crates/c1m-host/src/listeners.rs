//! The accept queues of this network namespace, by sock_diag. The kernel walks its listeners alone
//! for it, however many connections there are (net/ipv4/inet_diag.c, inet_diag_dump_icsk, 6.18).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::inet_diag::{self, INET_DIAG_SKMEMINFO, MESSAGE_BYTES, Query, attribute, half, word};

const TCP_LISTEN: u32 = 10;
const LISTENERS: Query =
    Query { states: 1 << TCP_LISTEN, attributes: 1 << (INET_DIAG_SKMEMINFO - 1) };
/// struct inet_diag_msg: include/uapi/linux/inet_diag.h. `idiag_sport` and `idiag_src` are in
/// network order.
const PORT_AT: usize = 4;
const ADDRESS_AT: usize = 8;
/// Of `idiag_rqueue` and `idiag_wqueue`: of a listener its queue's length, and how long it may be.
const QUEUED_AT: usize = 56;
const MOST_AT: usize = 60;
const INODE_AT: usize = 68;
/// Attribute of that name: there of every IPv6 listener, whether it was asked for or not
/// (net/ipv4/inet_diag.c, inet_diag_msg_attrs_fill).
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Word of INET_DIAG_SKMEMINFO: include/uapi/linux/sock_diag.h, SK_MEMINFO_DROPS
const DROPS: usize = 8;

/// One listener and its accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    /// An IPv6 one that takes no IPv4.
    pub is_v6_only: bool,
    /// As in /proc/PID/fd, of which the kernel tells 32 bits here.
    pub inode: u32,
    /// Connections that wait for accept.
    pub queued: u64,
    /// It is full when more than these wait.
    pub most: u64,
    /// SYNs and ends of handshakes that it dropped since it was made, for whatever reason
    /// (include/net/tcp.h, tcp_listendrop, 6.18). The kernel counts them in 32 bits.
    pub drops: Option<u64>,
}

impl Listener {
    /// Whether it may take connections to `target`: the address is its own, or it listens on every
    /// one.
    #[must_use]
    pub fn takes(&self, target: IpAddr) -> bool {
        let own = self.address.ip();
        match (own, target.to_canonical()) {
            (own, target) if own.to_canonical() == target => true,
            (IpAddr::V4(own), IpAddr::V4(_)) => own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V6(_)) => own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && !self.is_v6_only,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// Every listener.
///
/// # Errors
/// The kernel has no sock_diag for TCP, a sandbox keeps it away, or listeners came and went during
/// each attempt, so that some may be missing.
pub fn all() -> io::Result<Vec<Listener>> {
    let dump = inet_diag::dump(LISTENERS, |all: &mut Vec<Listener>, message| {
        all.push(listener(message)?);
        Some(())
    })?;
    if dump.is_interrupted {
        return Err(io::Error::other("the listeners changed while they were read"));
    }
    Ok(dump.value)
}

/// The one whose queue is nearest to being full. `None`: there is none.
#[must_use]
pub fn fullest(listeners: &[Listener]) -> Option<&Listener> {
    let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
    listeners
        .iter()
        .max_by(|a, b| product(a.queued, b.most.max(1)).cmp(&product(b.queued, a.most.max(1))))
}

/// An inode as sock_diag tells it: its low 32 bits.
#[must_use]
pub fn low_inode(inode: u64) -> u32 {
    u32::try_from(inode & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn listener(message: &[u8]) -> Option<Listener> {
    let address = message.get(ADDRESS_AT..ADDRESS_AT + 16)?;
    let ip = match i32::from(*message.first()?) {
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
        _ => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&address[..4]).ok()?)),
    };
    let attributes = message.get(MESSAGE_BYTES..)?;
    let memory = attribute(attributes, INET_DIAG_SKMEMINFO);
    let v6_only = attribute(attributes, INET_DIAG_SKV6ONLY);
    Some(Listener {
        address: SocketAddr::new(ip, half(message, PORT_AT).map(u16::from_be)?),
        is_v6_only: v6_only.and_then(|flag| flag.first()).is_some_and(|flag| *flag != 0),
        inode: word(message, INODE_AT)?,
        queued: word(message, QUEUED_AT)?.into(),
        most: word(message, MOST_AT)?.into(),
        drops: memory.and_then(|memory| word(memory, DROPS * 4)).map(u64::from),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    };

    use proptest::prelude::*;
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn of(listener: &TcpListener) -> Listener {
        let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let inode = std::fs::metadata(link).unwrap().ino();
        *all().unwrap().iter().find(|it| u64::from(it.inode) == inode).unwrap()
    }

    #[test]
    fn connections_that_wait_are_counted_beside_what_fits() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        // One more than the backlog fits.
        let _waiting: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        let now = of(&listener);
        assert_eq!((now.address, now.queued, now.most, now.drops), (address, 2, 1, Some(0)));
        let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        late.set_nonblocking(true).unwrap();
        assert!(late.connect(&address.into()).is_err(), "on its way");
        // The SYN is dropped before connect returns: loopback delivers in the same call.
        assert!(of(&listener).drops > Some(0));
    }

    #[test]
    fn the_fullest_is_the_nearest_to_its_limit() {
        let of = |queued, most| Listener {
            address: "127.0.0.1:1".parse().unwrap(),
            is_v6_only: false,
            inode: 1,
            queued,
            most,
            drops: None,
        };
        assert_eq!(fullest(&[of(5, 100), of(2, 3), of(0, 1)]), Some(&of(2, 3)));
        assert_eq!(fullest(&[]), None);
    }

    #[test]
    fn a_listener_takes_its_own_address_or_every_one() {
        let of = |address: &str, is_v6_only| Listener {
            address: address.parse().unwrap(),
            is_v6_only,
            inode: 1,
            queued: 0,
            most: 1,
            drops: None,
        };
        for (address, is_v6_only, target, takes) in [
            ("127.0.0.1:1", false, "127.0.0.1", true),
            ("127.0.0.2:1", false, "127.0.0.1", false),
            ("0.0.0.0:1", false, "127.0.0.1", true),
            ("0.0.0.0:1", false, "::1", false),
            ("[::]:1", false, "127.0.0.1", true),
            ("[::]:1", true, "127.0.0.1", false),
            ("[::]:1", true, "::1", true),
            ("[::ffff:127.0.0.1]:1", false, "127.0.0.1", true),
        ] {
            let takes_it = of(address, is_v6_only).takes(target.parse().unwrap());
            assert_eq!(takes_it, takes, "{address} {is_v6_only} {target}");
        }
    }

    #[test]
    fn an_ipv6_listener_says_whether_it_takes_ipv4() {
        for only in [false, true] {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            // A kernel without IPv6 has no such listener.
            let Ok(()) = socket.set_only_v6(only) else { return };
            if socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).is_err() {
                return;
            }
            socket.listen(1).unwrap();
            assert_eq!(of(&TcpListener::from(socket)).is_v6_only, only);
        }
    }

    proptest! {
        #[test]
        fn any_message_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = listener(&bytes);
        }
    }
}
