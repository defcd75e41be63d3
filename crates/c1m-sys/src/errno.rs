//! Error numbers by the names that kernel documentation uses.

use std::io;

macro_rules! names {
    ($($name:ident),* $(,)?) => {
        /// The symbolic name of an error number, such as `EMFILE`; `EUNKNOWN` for one that sockets
        /// do not return.
        #[must_use]
        pub fn name(number: i32) -> &'static str {
            match number {
                $(libc::$name => stringify!($name),)*
                _ => "EUNKNOWN",
            }
        }
    };
}

names!(
    EPERM,
    ENOENT,
    EINTR,
    EIO,
    EBADF,
    EAGAIN,
    ENOMEM,
    EACCES,
    EFAULT,
    EBUSY,
    EEXIST,
    EINVAL,
    ENFILE,
    EMFILE,
    ENOSPC,
    EPIPE,
    ENOSYS,
    ENOTSOCK,
    EMSGSIZE,
    EPROTO,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EAFNOSUPPORT,
    EADDRINUSE,
    EADDRNOTAVAIL,
    ENETDOWN,
    ENETUNREACH,
    ECONNABORTED,
    ECONNRESET,
    ENOBUFS,
    EISCONN,
    ENOTCONN,
    ETIMEDOUT,
    ECONNREFUSED,
    EHOSTDOWN,
    EHOSTUNREACH,
    ENONET,
    EALREADY,
    EINPROGRESS,
    ESRCH,
    E2BIG,
);

/// The symbolic name of an I/O error.
#[must_use]
pub fn of(error: &io::Error) -> &'static str {
    error.raw_os_error().map_or("EUNKNOWN", name)
}
