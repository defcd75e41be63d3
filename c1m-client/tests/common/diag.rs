//! What the kernel says of TCP sockets, asked over netlink (sock_diag(7)), as `ss -tm` does.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use socket2::{Domain, Socket, Type};

/// States of include/net/tcp_states.h.
pub(crate) const ESTABLISHED: u8 = 1;
pub(crate) const TIME_WAIT: u8 = 6;

/// One TCP socket of this network namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpSocket {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Bytes that wait to be read.
    pub(crate) unread_bytes: u32,
    /// tcp_mem that it holds: queued skbs in both directions, and what was bought for later.
    pub(crate) charged_bytes: u32,
}

/// All IPv4 TCP sockets in this state.
pub(crate) fn sockets(state: u8) -> Vec<TcpSocket> {
    const SOCK_DIAG: i32 = 4;
    const NETLINK: i32 = 16;
    let mut socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(SOCK_DIAG.into())).unwrap();
    socket.write_all(&request(state)).unwrap();
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = socket.read(&mut buffer).unwrap();
        let mut messages = &buffer[..count];
        while messages.len() >= 16 {
            let length = usize::try_from(u32_at(messages, 0)).unwrap();
            match u16_at(messages, 4) {
                // NLMSG_ERROR, NLMSG_DONE
                2 => panic!("the kernel refused to dump sockets: {:?}", &messages[..length]),
                3 => return found,
                _ => found.push(parse(&messages[16..length])),
            }
            messages = &messages[length.next_multiple_of(4).min(messages.len())..];
        }
    }
}

/// nlmsghdr and inet_diag_req_v2: a dump, with INET_DIAG_SKMEMINFO.
fn request(state: u8) -> Vec<u8> {
    const LENGTH: u32 = 16 + 56;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    const INET: u8 = 2;
    const TCP: u8 = 6;
    const SKMEMINFO: u8 = 7;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST_AND_DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([INET, TCP, 1 << (SKMEMINFO - 1), 0]);
    message.extend((1u32 << state).to_ne_bytes());
    message.resize(LENGTH as usize, 0);
    message
}

/// inet_diag_msg, and its attributes.
fn parse(message: &[u8]) -> TcpSocket {
    const HEAD: usize = 72;
    let address = |ip: usize, port: usize| {
        let ip: [u8; 4] = message[ip..ip + 4].try_into().unwrap();
        SocketAddr::from((ip, u16::from_be_bytes([message[port], message[port + 1]])))
    };
    let mut socket = TcpSocket {
        local: address(8, 4),
        remote: address(24, 6),
        unread_bytes: u32_at(message, 56),
        charged_bytes: 0,
    };
    let mut attributes = &message[HEAD..];
    while attributes.len() >= 4 {
        let length = usize::from(u16_at(attributes, 0));
        if u16_at(attributes, 2) == 7 {
            // rmem_alloc, fwd_alloc and wmem_queued of the SK_MEMINFO_* values
            let value = |index: usize| u32_at(attributes, 4 + 4 * index);
            socket.charged_bytes = value(0) + value(4) + value(5);
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    socket
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
