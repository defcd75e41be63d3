//! Standard output and standard error as descriptors: no buffer stands between them and what is
//! written.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd as _},
};

use super::check;

/// A standard stream. Its errors are the kernel's, also EBADF, which std leaves out.
#[derive(Debug)]
pub struct Stream(File);

impl Stream {
    /// # Errors
    /// There is no descriptor left.
    pub fn stdout() -> io::Result<Self> {
        Self::of(io::stdout().as_fd())
    }

    /// # Errors
    /// There is no descriptor left.
    pub fn stderr() -> io::Result<Self> {
        Self::of(io::stderr().as_fd())
    }

    fn of(fd: impl AsFd) -> io::Result<Self> {
        Ok(Self(fd.as_fd().try_clone_to_owned()?.into()))
    }

    /// Waits until the other side takes something again.
    fn wait(&self) -> io::Result<()> {
        let mut wanted = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one entry, which lives through the call.
        check(unsafe { libc::poll(&raw mut wanted, 1, -1) }).map(drop)
    }
}

impl Write for Stream {
    /// Blocks until something is taken, also where another program has made the stream
    /// non-blocking: the flag is of the open file, which programs share.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
