//! Every TCP socket of this network namespace with its memory, by sock_diag: what anybody may ask for.
//!
//! The kernel tells those that are in its tables: no closed one, whatever it still holds.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    time::Duration,
};

use c1m_sys::socket::{receive, send};
use socket2::{Domain, Protocol, Socket, Type};

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 0x301;
/// What a dump tells may have changed while it was told: include/uapi/linux/netlink.h
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr
const HEADER_BYTES: usize = 16;
/// struct inet_diag_req_v2
const REQUEST_BYTES: usize = 56;
/// struct inet_diag_msg: include/uapi/linux/inet_diag.h
const MESSAGE_BYTES: usize = 72;
const STATE_AT: usize = 1;
const LOCAL_PORT_AT: usize = 4;
const REMOTE_PORT_AT: usize = 6;
const REMOTE_AT: usize = 24;
const INODE_AT: usize = 68;
/// Attribute of that name, and its bit in a request.
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Words of it: include/uapi/linux/sock_diag.h, SK_MEMINFO_*
const RMEM_ALLOC: usize = 0;
const FWD_ALLOC: usize = 4;
const WMEM_QUEUED: usize = 5;
const BACKLOG: usize = 7;
/// Dumps that are begun until one is not interrupted. On a host where sockets never stand still none may be.
const ATTEMPTS: usize = 3;
/// The kernel answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(5);

/// One socket, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
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

/// What came of all sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dump<T> {
    pub value: T,
    /// The kernel said of every attempt that the sockets changed while they were told: some may be missing, or be there twice.
    pub is_interrupted: bool,
}

/// Asks for all of them, and gathers them in a `T`. A dump that the kernel calls interrupted is begun anew, with another `T`, a few times.
///
/// # Errors
/// The kernel has no sock_diag for TCP, or a sandbox keeps it away.
pub fn sockets<T: Default>(mut take: impl FnMut(&mut T, Told)) -> io::Result<Dump<T>> {
    repeated(|value| {
        let mut is_interrupted = false;
        for family in [libc::AF_INET, libc::AF_INET6] {
            is_interrupted |= dump(family, &mut |told| take(value, told))?;
        }
        Ok(is_interrupted)
    })
}

fn repeated<T: Default>(mut dump: impl FnMut(&mut T) -> io::Result<bool>) -> io::Result<Dump<T>> {
    let mut last = Dump::default();
    for _ in 0..ATTEMPTS {
        let mut value = T::default();
        let is_interrupted = dump(&mut value)?;
        last = Dump { value, is_interrupted };
        if !is_interrupted {
            break;
        }
    }
    Ok(last)
}

/// Was it interrupted?
fn dump(family: i32, take: &mut impl FnMut(Told)) -> io::Result<bool> {
    let socket = Socket::new_raw(
        Domain::from(libc::AF_NETLINK),
        Type::DGRAM.cloexec(),
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    send(socket.as_raw_fd(), &request(family))?;
    datagrams(|buffer| receive(socket.as_raw_fd(), buffer), take)
}

/// Takes datagrams until the last of all. Was the dump interrupted?
fn datagrams(
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    take: &mut impl FnMut(Told),
) -> io::Result<bool> {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_interrupted = false;
    loop {
        let length = match receive(&mut buffer) {
            Ok(length) => length,
            // A signal, which is not this dump's: what the kernel has for us is still there.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        if !messages(bytes, &mut is_interrupted, take)? {
            return Ok(is_interrupted);
        }
    }
}

fn request(family: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    bytes.extend(u32::try_from(HEADER_BYTES + REQUEST_BYTES).unwrap_or(0).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.push(u8::try_from(family).unwrap_or(0));
    bytes.push(u8::try_from(libc::IPPROTO_TCP).unwrap_or(0));
    bytes.extend([1 << (INET_DIAG_SKMEMINFO - 1), 0]);
    // Every state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    bytes
}

/// Takes the messages of one datagram; `false` after the last of all.
fn messages(
    mut bytes: &[u8],
    is_interrupted: &mut bool,
    take: &mut impl FnMut(Told),
) -> io::Result<bool> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or_else(invalid)? as usize;
        let message = bytes.get(HEADER_BYTES..length).ok_or_else(invalid)?;
        *is_interrupted |= half(bytes, 6).ok_or_else(invalid)? & NLM_F_DUMP_INTR != 0;
        match half(bytes, 4).ok_or_else(invalid)? {
            // It has the error that ended the dump, or 0 (net/netlink/af_netlink.c, netlink_dump_done, 6.18).
            NLMSG_DONE => match word(message, 0).map_or(0, u32::cast_signed) {
                errno @ ..0 => return Err(io::Error::from_raw_os_error(errno.saturating_neg())),
                _ => return Ok(false),
            },
            NLMSG_ERROR => {
                let errno = word(message, 0).ok_or_else(invalid)?.cast_signed();
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => take(told(message).ok_or_else(invalid)?),
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn told(message: &[u8]) -> Option<Told> {
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
    Some(Told {
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

/// The content of the attribute of this kind: struct rtattr.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(bytes, 0)?);
        let content = bytes.get(4..length)?;
        if half(bytes, 2)? == kind {
            return Some(content);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
        os::unix::fs::MetadataExt as _,
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connection_is_told_with_what_it_holds() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        server.peek(&mut [0]).unwrap();
        let all = sockets(|all: &mut Vec<Told>, told| all.push(told)).unwrap().value;
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

    #[test]
    fn an_error_is_told() {
        let mut message = vec![20, 0, 0, 0, 2, 0, 0, 0];
        message.extend([0; 8]);
        message.extend((-libc::ENOENT).to_ne_bytes());
        let error = messages(&message, &mut false, &mut |_| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        // The end of a dump that failed on its way has the same number.
        message[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        let error = messages(&message, &mut false, &mut |_| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    /// A message of the kernel: header and content.
    fn message(kind: u16, flags: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER_BYTES + content.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(content);
        bytes
    }

    /// A dump of two sockets, with these flags on the first message; a signal comes in between.
    fn told_of(flags: u16, count: &mut u64) -> io::Result<bool> {
        let socket = message(SOCK_DIAG_BY_FAMILY, flags, &[2; MESSAGE_BYTES]);
        let mut answers = [
            Ok(socket),
            Err(io::Error::from_raw_os_error(libc::EINTR)),
            Ok(message(SOCK_DIAG_BY_FAMILY, 0, &[2; MESSAGE_BYTES])),
            Ok(message(NLMSG_DONE, 0, &0i32.to_ne_bytes())),
        ]
        .into_iter();
        let receive = |buffer: &mut [u8]| {
            let bytes = answers.next().expect("nothing is read behind the end")?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        };
        datagrams(receive, &mut |_| *count += 1)
    }

    #[test]
    fn a_signal_does_not_end_a_dump() {
        let mut count = 0;
        assert!(!told_of(2, &mut count).unwrap());
        assert_eq!(count, 2);
    }

    #[test]
    fn a_dump_that_was_interrupted_is_begun_anew_and_then_said() {
        let mut attempts = 0;
        let of = |flags: &mut dyn FnMut(usize) -> u16, attempts: &mut usize| {
            *attempts = 0;
            repeated(|count: &mut u64| {
                *attempts += 1;
                told_of(flags(*attempts), count)
            })
            .unwrap()
        };
        let once = of(&mut |attempt| if attempt == 1 { NLM_F_DUMP_INTR } else { 0 }, &mut attempts);
        assert_eq!((once, attempts), (Dump { value: 2, is_interrupted: false }, 2));
        let always = of(&mut |_| NLM_F_DUMP_INTR | 2, &mut attempts);
        assert_eq!((always, attempts), (Dump { value: 2, is_interrupted: true }, ATTEMPTS));
    }

    proptest! {
        #[test]
        fn any_answer_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = messages(&bytes, &mut false, &mut |_| ());
            let _ = told(&bytes);
        }
    }
}
