//! A dump of this network namespace's TCP sockets by sock_diag, message by message: what asks,
//! reads, and knows an end from an error.

use std::{io, os::fd::AsRawFd as _, time::Duration};

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
pub(crate) const MESSAGE_BYTES: usize = 72;
/// Attribute of that name.
pub(crate) const INET_DIAG_SKMEMINFO: u16 = 7;
/// Dumps that are begun until one is not interrupted. On a host where sockets never stand still
/// none may be.
const ATTEMPTS: usize = 3;
/// The kernel answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which sockets, and what of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    /// A bit for each state of include/net/tcp_states.h.
    pub(crate) states: u32,
    /// `idiag_ext`: bit N - 1 asks for attribute N.
    pub(crate) attributes: u8,
}

/// What came of all sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dump<T> {
    pub value: T,
    /// The kernel said of every attempt that the sockets changed while they were told: some may be
    /// missing, or be there twice.
    pub is_interrupted: bool,
}

/// Asks for the sockets of both families; `take` gets each struct inet_diag_msg with its
/// attributes, and says `None` to one that it does not understand. A dump that the kernel calls
/// interrupted is begun anew, with another `T`, a few times.
///
/// # Errors
/// The kernel has no sock_diag for TCP, a sandbox keeps it away, or the answer is not understood.
pub(crate) fn dump<T: Default>(
    query: Query,
    mut take: impl FnMut(&mut T, &[u8]) -> Option<()>,
) -> io::Result<Dump<T>> {
    repeated(|value| {
        let mut is_interrupted = false;
        for family in [libc::AF_INET, libc::AF_INET6] {
            is_interrupted |= of_family(family, query, &mut |message| take(value, message))?;
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
fn of_family(
    family: i32,
    query: Query,
    take: &mut impl FnMut(&[u8]) -> Option<()>,
) -> io::Result<bool> {
    let socket = Socket::new_raw(
        Domain::from(libc::AF_NETLINK),
        Type::DGRAM.cloexec(),
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    send(socket.as_raw_fd(), &request(family, query))?;
    datagrams(|buffer| receive(socket.as_raw_fd(), buffer), take)
}

/// Takes datagrams until the last of all. Was the dump interrupted?
fn datagrams(
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    take: &mut impl FnMut(&[u8]) -> Option<()>,
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

fn request(family: i32, query: Query) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    bytes.extend(u32::try_from(HEADER_BYTES + REQUEST_BYTES).unwrap_or(0).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.push(u8::try_from(family).unwrap_or(0));
    bytes.push(u8::try_from(libc::IPPROTO_TCP).unwrap_or(0));
    bytes.extend([query.attributes, 0]);
    bytes.extend(query.states.to_ne_bytes());
    bytes.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    bytes
}

/// Takes the messages of one datagram; `false` after the last of all.
fn messages(
    mut bytes: &[u8],
    is_interrupted: &mut bool,
    take: &mut impl FnMut(&[u8]) -> Option<()>,
) -> io::Result<bool> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or_else(invalid)? as usize;
        let message = bytes.get(HEADER_BYTES..length).ok_or_else(invalid)?;
        *is_interrupted |= half(bytes, 6).ok_or_else(invalid)? & NLM_F_DUMP_INTR != 0;
        match half(bytes, 4).ok_or_else(invalid)? {
            // It has the error that ended the dump, or 0 (net/netlink/af_netlink.c,
            // netlink_dump_done, 6.18).
            NLMSG_DONE => match word(message, 0).map_or(0, u32::cast_signed) {
                errno @ ..0 => return Err(io::Error::from_raw_os_error(errno.saturating_neg())),
                _ => return Ok(false),
            },
            NLMSG_ERROR => {
                let errno = word(message, 0).ok_or_else(invalid)?.cast_signed();
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => take(message).ok_or_else(invalid)?,
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// The content of the attribute of this kind: struct rtattr.
pub(crate) fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(bytes, 0)?);
        let content = bytes.get(4..length)?;
        if half(bytes, 2)? == kind {
            return Some(content);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_is_told() {
        let mut message = vec![20, 0, 0, 0, 2, 0, 0, 0];
        message.extend([0; 8]);
        message.extend((-libc::ENOENT).to_ne_bytes());
        let error = messages(&message, &mut false, &mut |_| Some(())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        // The end of a dump that failed on its way has the same number.
        message[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        let error = messages(&message, &mut false, &mut |_| Some(())).unwrap_err();
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
        datagrams(receive, &mut |_| {
            *count += 1;
            Some(())
        })
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

    #[test]
    fn a_message_that_is_not_understood_is_an_error() {
        let socket = message(SOCK_DIAG_BY_FAMILY, 0, &[2; 10]);
        let error = messages(&socket, &mut false, &mut |_| None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_answer_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = messages(&bytes, &mut false, &mut |_| Some(()));
            let _ = attribute(&bytes, 7);
        }
    }
}
