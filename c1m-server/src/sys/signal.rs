//! SIGINT and SIGTERM as something to wait for, without a handler and without a runtime.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
};

use super::check;

/// A signalfd for SIGINT and SIGTERM. While it lives (and after), they no longer end the process by themselves.
#[derive(Debug)]
pub struct Termination(OwnedFd);

impl Termination {
    /// Blocks both signals in the calling thread and in the threads that it starts from now on. Call it first in `main`.
    pub fn new() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, the rest reads it; the descriptor is fresh and owned by nobody else.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) {
                0 => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            let fd = check(libc::signalfd(-1, set.as_ptr(), flags))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The number of a signal that has come and was not taken yet. Never blocks.
    pub fn take(&self) -> io::Result<Option<u32>> {
        let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        // SAFETY: the buffer has the size that is given; all zeros are a valid value of it.
        let (count, info) = unsafe {
            let size = size_of::<libc::signalfd_siginfo>();
            let count = libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size);
            (count, info.assume_init())
        };
        if count >= 0 {
            return Ok(Some(info.ssi_signo));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        }
    }
}

impl AsRawFd for Termination {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_once() {
        // In a thread of its own: the mask is the thread's, and other tests must keep theirs.
        std::thread::spawn(|| {
            let termination = Termination::new().unwrap();
            assert_eq!(termination.take().unwrap(), None);
            // SAFETY: sends a blocked signal to the calling thread alone.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTERM) };
            assert_eq!(termination.take().unwrap(), Some(libc::SIGTERM.unsigned_abs()));
            assert_eq!(termination.take().unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
