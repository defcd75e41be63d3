//! The accept queues of this network namespace, by sock_diag. The kernel walks its listeners alone for it, however many connections
//! there are (net/ipv4/inet_diag.c, inet_diag_dump_icsk, 6.18).

use std::{io, os::fd::AsRawFd as _, time::Duration};

use c1m_sys::socket::{receive, send};
use socket2::{Domain, Protocol, Socket, Type};

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCP_LISTEN: u32 = 10;
/// struct nlmsghdr
const HEADER_BYTES: usize = 16;
/// struct inet_diag_req_v2
const REQUEST_BYTES: usize = 56;
/// Of `idiag_sport` in struct inet_diag_msg, which is in network order.
const PORT_AT: usize = 4;
/// Of `idiag_rqueue` and `idiag_wqueue` in struct inet_diag_msg: of a listener its queue's length, and how long it may be.
const QUEUED_AT: usize = 56;
const MOST_AT: usize = 60;
/// The kernel answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(1);

/// One listener's accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    pub port: u16,
    /// Connections that wait for accept.
    pub queued: u64,
    /// It is full when more than these wait.
    pub most: u64,
}

/// What all of them come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// The queue that is nearest to being full.
    pub fullest: Queue,
    /// `most` of the queue that may be longest.
    pub longest: u64,
}

/// The queue of every listener.
///
/// # Errors
/// The kernel has no sock_diag for TCP, or a sandbox keeps it away.
pub fn all() -> io::Result<Vec<Queue>> {
    let mut queues = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(family, &mut queues)?;
    }
    Ok(queues)
}

/// Asks for the queues of every listener. `None`: nobody listens.
///
/// # Errors
/// As [`all`].
pub fn queues() -> io::Result<Option<Queues>> {
    let queues = all()?;
    let longest = queues.iter().map(|queue| queue.most).max();
    let fullest = queues.into_iter().max_by(|a, b| {
        let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
        product(a.queued, b.most.max(1)).cmp(&product(b.queued, a.most.max(1)))
    });
    Ok(fullest.zip(longest).map(|(fullest, longest)| Queues { fullest, longest }))
}

fn dump(family: i32, queues: &mut Vec<Queue>) -> io::Result<()> {
    let kind = Type::DGRAM.cloexec();
    let socket = Socket::new_raw(
        Domain::from(libc::AF_NETLINK),
        kind,
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    send(socket.as_raw_fd(), &request(family))?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = receive(socket.as_raw_fd(), &mut buffer)?;
        if !take(&buffer[..length], queues)? {
            return Ok(());
        }
    }
}

fn request(family: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    let length = u32::try_from(HEADER_BYTES + REQUEST_BYTES).unwrap_or(0);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([
        u8::try_from(family).unwrap_or(0),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or(0),
        0,
        0,
    ]);
    bytes.extend((1u32 << TCP_LISTEN).to_ne_bytes());
    bytes.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    bytes
}

/// Takes the messages of one datagram; `false` after the last of all.
fn take(mut bytes: &[u8], queues: &mut Vec<Queue>) -> io::Result<bool> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    while !bytes.is_empty() {
        let length = number(bytes, 0).ok_or_else(invalid)? as usize;
        let message = bytes.get(HEADER_BYTES..length).ok_or_else(invalid)?;
        match u16::from_ne_bytes([bytes[4], bytes[5]]) {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let errno = number(message, 0).ok_or_else(invalid)?.cast_signed();
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => {
                let queued = number(message, QUEUED_AT).ok_or_else(invalid)?.into();
                let most = number(message, MOST_AT).ok_or_else(invalid)?.into();
                let port = message.get(PORT_AT..PORT_AT + 2).and_then(|it| it.try_into().ok());
                let port = port.map(u16::from_be_bytes).ok_or_else(invalid)?;
                queues.push(Queue { port, queued, most });
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn connections_that_wait_are_counted_beside_what_fits() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        // One more than the backlog fits, and then no other listener can be fuller.
        let _waiting: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        let Queues { fullest, longest } = queues().unwrap().unwrap();
        assert!(fullest.queued > fullest.most, "{fullest:?}");
        assert!(longest >= 1);
    }

    #[test]
    fn an_error_is_told() {
        let mut message = vec![20, 0, 0, 0, 2, 0, 0, 0];
        message.extend([0; 8]);
        message.extend((-libc::ENOENT).to_ne_bytes());
        let error = take(&message, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn any_answer_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = take(&bytes, &mut Vec::new());
        }
    }
}
