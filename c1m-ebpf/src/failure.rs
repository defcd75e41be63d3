//! System calls that fail because of a limit: which calls, which errors.

/// Kinds of system calls, index into [`crate::Counters::call_errors`]. User space tells which number is which.
pub const CALL_SOCKET: u32 = 0;
pub const CALL_ACCEPT: u32 = 1;
pub const CALL_BIND: u32 = 2;
pub const CALL_CONNECT: u32 = 3;
pub const CALL_SEND: u32 = 4;
pub const CALL_RECEIVE: u32 = 5;
pub const CALL_EPOLL: u32 = 6;
pub const CALL_DESCRIPTOR: u32 = 7;
pub const CALL_OTHER: u32 = 8;
pub const CALLS: usize = 9;
/// System calls that user space can tell the kind of: the numbers below this one.
pub const CALL_NUMBERS: u32 = 512;

/// Errors that limits have, index into [`crate::Counters::call_errors`]. The numbers are those of x86_64 and aarch64.
pub const ERROR_EMFILE: u32 = 0;
pub const ERROR_ENFILE: u32 = 1;
pub const ERROR_ENOBUFS: u32 = 2;
pub const ERROR_ENOMEM: u32 = 3;
pub const ERROR_EADDRNOTAVAIL: u32 = 4;
pub const ERROR_ENOSPC: u32 = 5;
pub const ERRNOS: [i32; 6] = [24, 23, 105, 12, 99, 28];

/// Can this call fail with that error because of a limit of connections? Of calls that have nothing to do with them, only errors that
/// any call with a descriptor shares are of interest: no disk that is full, and no netlink queue that ran over.
#[inline(always)]
#[must_use]
pub const fn is_of_a_limit(call: u32, error: u32) -> bool {
    match error {
        ERROR_EMFILE | ERROR_ENFILE => true,
        ERROR_ENOBUFS => {
            matches!(call, CALL_SOCKET | CALL_ACCEPT | CALL_BIND | CALL_CONNECT | CALL_SEND)
        }
        ERROR_ENOMEM => call != CALL_OTHER,
        ERROR_EADDRNOTAVAIL => matches!(call, CALL_BIND | CALL_CONNECT),
        ERROR_ENOSPC => call == CALL_EPOLL,
        _ => false,
    }
}
