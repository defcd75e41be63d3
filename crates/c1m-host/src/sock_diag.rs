//! Every TCP socket of this network namespace with its memory, by sock_diag: what anybody may ask
//! for.
//!
//! The kernel tells those that are in its tables: no closed one, whatever it still holds.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use crate::inet_diag::Dump;
use crate::inet_diag::{self, INET_DIAG_SKMEMINFO, MESSAGE_BYTES, Query, attribute, half, word};

/// struct inet_diag_msg: include/uapi/linux/inet_diag.h
const STATE_AT: usize = 1;
const LOCAL_PORT_AT: usize = 4;
const REMOTE_PORT_AT: usize = 6;
const REMOTE_AT: usize = 24;
const INODE_AT: usize = 68;
/// Words of INET_DIAG_SKMEMINFO: include/uapi/linux/sock_diag.h, SK_MEMINFO_*
const RMEM_ALLOC: usize = 0;
const FWD_ALLOC: usize = 4;
const WMEM_QUEUED: usize = 5;
const BACKLOG: usize = 7;
/// Every state, with its memory.
const EVERY_SOCKET: Query = Query { states: u32::MAX, attributes: 1 << (INET_DIAG_SKMEMINFO - 1) };

/// One socket, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagSocket {
    /// include/net/tcp_states.h
    pub state: u8,
    pub local_port: u16,
    pub remote_port: u16,
    pub remote: IpAddr,
    /// 0: nobody can have a descriptor of it.
    pub inode: u32,
    pub receive_bytes: u32,
    pub backlog_bytes: u32,
    pub send_bytes: u32,
    pub forward_bytes: i32,
    /// A minisock and a request hold nothing.
    pub is_full: bool,
}

/// Asks for all of them, and gathers them in a `T`. A dump that the kernel calls interrupted is
/// begun anew, with another `T`, a few times.
///
/// # Errors
/// The kernel has no sock_diag for TCP, or a sandbox keeps it away.
pub fn sockets<T: Default>(mut take: impl FnMut(&mut T, DiagSocket)) -> io::Result<Dump<T>> {
    inet_diag::dump(EVERY_SOCKET, |value, message| {
        take(value, socket(message)?);
        Some(())
    })
}

fn socket(message: &[u8]) -> Option<DiagSocket> {
    let address = message.get(REMOTE_AT..REMOTE_AT + 16)?;
    let remote = match i32::from(*message.first()?) {
        libc::AF_INET6 => {
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)).to_canonical()
        }
        _ => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&address[..4]).ok()?)),
    };
    let memory = attribute(message.get(MESSAGE_BYTES..)?, INET_DIAG_SKMEMINFO);
    let is_full = memory.is_some();
    let memory = memory.unwrap_or_default();
    let amount = |index: usize| word(memory, index * 4).unwrap_or(0);
    Some(DiagSocket {
        state: *message.get(STATE_AT)?,
        local_port: half(message, LOCAL_PORT_AT).map(u16::from_be)?,
        remote_port: half(message, REMOTE_PORT_AT).map(u16::from_be)?,
        remote,
        inode: word(message, INODE_AT)?,
        receive_bytes: amount(RMEM_ALLOC),
        backlog_bytes: amount(BACKLOG),
        send_bytes: amount(WMEM_QUEUED),
        forward_bytes: amount(FWD_ALLOC).cast_signed(),
        is_full,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connection_is_dumped_with_what_it_holds() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        server.peek(&mut [0]).unwrap();
        let all = sockets(|all: &mut Vec<DiagSocket>, socket| all.push(socket)).unwrap().value;
        let port = client.local_addr().unwrap().port();
        let end = all.iter().find(|it| it.remote_port == port && it.state == 1).unwrap();
        let link = format!("/proc/self/fd/{}", server.as_raw_fd());
        assert_eq!(u64::from(end.inode), std::fs::metadata(link).unwrap().ino());
        assert_eq!(end.remote, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(end.local_port, listener.local_addr().unwrap().port());
        let memory = c1m_sys::socket::mem_info(server.as_raw_fd()).unwrap();
        assert_eq!((end.receive_bytes, end.send_bytes), (memory.rmem_alloc, memory.wmem_queued));
        assert!(end.receive_bytes > 0);
        let listening = all.iter().find(|it| it.local_port == end.local_port && it.state == 10);
        assert_eq!(listening.unwrap().remote_port, 0);
    }

    proptest! {
        #[test]
        fn any_message_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = socket(&bytes);
        }
    }
}
