//! Which number is which system call: of this machine's architecture.

use c1m_ebpf::{
    CALL_ACCEPT, CALL_BIND, CALL_CONNECT, CALL_DESCRIPTOR, CALL_EPOLL, CALL_NUMBERS, CALL_OTHER,
    CALL_RECEIVE, CALL_SEND, CALL_SOCKET, ERRNOS,
};

/// Kinds by number; what is not among these is [`CALL_OTHER`].
const KINDS: &[(libc::c_long, u32)] = &[
    (libc::SYS_socket, CALL_SOCKET),
    (libc::SYS_socketpair, CALL_SOCKET),
    (libc::SYS_accept, CALL_ACCEPT),
    (libc::SYS_accept4, CALL_ACCEPT),
    (libc::SYS_bind, CALL_BIND),
    (libc::SYS_connect, CALL_CONNECT),
    (libc::SYS_sendto, CALL_SEND),
    (libc::SYS_sendmsg, CALL_SEND),
    (libc::SYS_sendmmsg, CALL_SEND),
    (libc::SYS_write, CALL_SEND),
    (libc::SYS_writev, CALL_SEND),
    (libc::SYS_sendfile, CALL_SEND),
    (libc::SYS_splice, CALL_SEND),
    (libc::SYS_recvfrom, CALL_RECEIVE),
    (libc::SYS_recvmsg, CALL_RECEIVE),
    (libc::SYS_recvmmsg, CALL_RECEIVE),
    (libc::SYS_read, CALL_RECEIVE),
    (libc::SYS_readv, CALL_RECEIVE),
    (libc::SYS_epoll_ctl, CALL_EPOLL),
    (libc::SYS_openat, CALL_DESCRIPTOR),
    (libc::SYS_openat2, CALL_DESCRIPTOR),
    (libc::SYS_dup, CALL_DESCRIPTOR),
    (libc::SYS_dup3, CALL_DESCRIPTOR),
    (libc::SYS_fcntl, CALL_DESCRIPTOR),
    (libc::SYS_pipe2, CALL_DESCRIPTOR),
    (libc::SYS_eventfd2, CALL_DESCRIPTOR),
    (libc::SYS_epoll_create1, CALL_DESCRIPTOR),
    (libc::SYS_timerfd_create, CALL_DESCRIPTOR),
    (libc::SYS_signalfd4, CALL_DESCRIPTOR),
    (libc::SYS_inotify_init1, CALL_DESCRIPTOR),
    (libc::SYS_memfd_create, CALL_DESCRIPTOR),
    (libc::SYS_pidfd_open, CALL_DESCRIPTOR),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, CALL_DESCRIPTOR),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, CALL_DESCRIPTOR),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_dup2, CALL_DESCRIPTOR),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pipe, CALL_DESCRIPTOR),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_eventfd, CALL_DESCRIPTOR),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_create, CALL_DESCRIPTOR),
];

/// What the program is to know: the kind of each number.
pub(super) fn table() -> impl Iterator<Item = (u32, u32)> {
    (0..CALL_NUMBERS).map(|number| {
        let kind = KINDS.iter().find(|(of, _)| *of == libc::c_long::from(number));
        (number, kind.map_or(CALL_OTHER, |(_, kind)| *kind))
    })
}

/// `CALL_*` in a record.
#[must_use]
pub fn name(kind: u32) -> &'static str {
    match kind {
        CALL_SOCKET => "socket",
        CALL_ACCEPT => "accept",
        CALL_BIND => "bind",
        CALL_CONNECT => "connect",
        CALL_SEND => "send",
        CALL_RECEIVE => "receive",
        CALL_EPOLL => "epoll_ctl",
        CALL_DESCRIPTOR => "descriptor",
        _ => "other",
    }
}

/// `ERROR_*` as an errno; `None`: there is no such one.
#[must_use]
pub fn errno(error: u32) -> Option<i32> {
    ERRNOS.get(usize::try_from(error).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use c1m_ebpf::{
        ERROR_EADDRNOTAVAIL, ERROR_EMFILE, ERROR_ENFILE, ERROR_ENOBUFS, ERROR_ENOMEM, ERROR_ENOSPC,
        is_of_a_limit,
    };

    use super::*;

    #[test]
    fn errors_are_this_machines() {
        let expected = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EADDRNOTAVAIL,
            libc::ENOSPC,
        ];
        assert_eq!(ERRNOS, expected);
        assert_eq!((errno(ERROR_ENOSPC), errno(6)), (Some(libc::ENOSPC), None));
    }

    #[test]
    fn numbers_that_are_told_apart_are_in_the_table() {
        let known: Vec<_> = table().filter(|(_, kind)| *kind != CALL_OTHER).collect();
        assert_eq!(known.len(), KINDS.len(), "a number beyond {CALL_NUMBERS}, or twice");
        let accept4 = u32::try_from(libc::SYS_accept4).unwrap();
        assert!(known.contains(&(accept4, CALL_ACCEPT)));
    }

    #[test]
    fn a_full_disk_is_no_limit_of_connections() {
        assert!(!is_of_a_limit(CALL_SEND, ERROR_ENOSPC) && is_of_a_limit(CALL_EPOLL, ERROR_ENOSPC));
        assert!(
            !is_of_a_limit(CALL_RECEIVE, ERROR_ENOBUFS) && is_of_a_limit(CALL_SEND, ERROR_ENOBUFS)
        );
        assert!(
            !is_of_a_limit(CALL_OTHER, ERROR_ENOMEM) && is_of_a_limit(CALL_ACCEPT, ERROR_ENOMEM)
        );
        assert!(
            is_of_a_limit(CALL_OTHER, ERROR_EMFILE) && is_of_a_limit(CALL_DESCRIPTOR, ERROR_ENFILE)
        );
        assert!(
            is_of_a_limit(CALL_CONNECT, ERROR_EADDRNOTAVAIL)
                && !is_of_a_limit(CALL_SEND, ERROR_EADDRNOTAVAIL)
        );
    }
}
