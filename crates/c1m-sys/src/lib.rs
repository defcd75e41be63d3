//! System calls that neither std nor socket2 wraps, each with its safety argument, shared by server
//! and client.
//!
//! Everything that is `unsafe` in user space stands in this crate.

pub mod clock;
pub mod confine;
pub mod epoll;
pub mod errno;
pub mod files;
pub mod inherited;
pub mod interface;
pub mod mapping;
pub mod netns;
pub mod process;
pub mod readable;
pub mod signal;
pub mod socket;
pub mod stream;
pub mod thread;

use std::io;

/// Turns the `-1` convention into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
