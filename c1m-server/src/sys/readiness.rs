//! Descriptors of aya's objects in tokio's reactor.

use std::{io, os::fd::AsRawFd};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// Lets tokio wait for entries of a ring buffer. Needs a tokio runtime.
pub fn ring(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its map's descriptor, and gives it back unchanged until it is dropped.
    unsafe { register(ring) }
}

/// Lets tokio wait for lines of aya-log. Needs a tokio runtime.
pub fn logger<L: log::Log>(logger: EbpfLogger<L>) -> io::Result<AsyncFd<EbpfLogger<L>>> {
    // SAFETY: the logger owns its ring buffer, as above.
    unsafe { register(logger) }
}

/// # Safety
/// `object.as_raw_fd()` must return the same open descriptor for as long as `object` lives.
unsafe fn register<T: AsRawFd>(object: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the caller's promise.
    unsafe { AsyncFd::register(object) }.map_err(|error| error.into_parts().1)
}
