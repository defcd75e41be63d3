//! System calls that fail because of a limit: which calls, and with which errors.

/// Kinds of system calls, index into [`crate::Counters::call_errors`]. User space maps the numbers
/// of system calls to them.
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
/// System calls with a number below this one have an entry in that map.
pub const CALL_NUMBERS: u32 = 512;

/// Errors that limits have, index into [`crate::Counters::call_errors`]. The numbers are those of
/// x86_64 and aarch64.
pub const ERROR_EMFILE: u32 = 0;
pub const ERROR_ENFILE: u32 = 1;
pub const ERROR_ENOBUFS: u32 = 2;
pub const ERROR_ENOMEM: u32 = 3;
pub const ERROR_EADDRNOTAVAIL: u32 = 4;
pub const ERROR_ENOSPC: u32 = 5;
pub const ERRNOS: [i32; 6] = [24, 23, 105, 12, 99, 28];

/// The index among [`ERRNOS`] of the error that a system call returned (-errno). `None`: another
/// error, or none.
#[inline(always)]
#[must_use]
pub fn error_of(ret: i64) -> Option<u32> {
    let mut index = 0;
    while index < ERRNOS.len() {
        if ret == -(ERRNOS[index] as i64) {
            return Some(index as u32);
        }
        index += 1;
    }
    None
}

/// Can this call fail with this error because of a limit on connections? Calls that are not about
/// connections count for EMFILE and ENFILE alone: not for a full disk or a full netlink queue.
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
