//! Signals as something to wait for, without a handler and without a runtime.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use super::check;

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub number: libc::c_int,
    /// The kernel sent it, such as a terminal's Ctrl-C, which its whole foreground group gets; else a process did.
    pub by_kernel: bool,
}

/// A signalfd for a choice of signals, which no longer do anything by themselves while it lives (and after).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks them in the calling thread and in the threads that it starts from now on. A program that it starts has them blocked as well, unless
    /// [`super::inherited::spawn`] starts it.
    pub fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        signal_fd(signals).map(Self)
    }

    /// One that has come and was not taken yet. Never blocks.
    pub fn take(&self) -> io::Result<Option<Taken>> {
        let Some(info) = read(&self.0)? else { return Ok(None) };
        let by_kernel = info.ssi_code == libc::SI_KERNEL;
        Ok(Some(Taken { number: info.ssi_signo.cast_signed(), by_kernel }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signalfd for SIGINT and SIGTERM. While it lives (and after), they no longer end the process by themselves.
#[derive(Debug)]
pub struct Termination(OwnedFd);

impl Termination {
    /// Blocks both signals in the calling thread and in the threads that it starts from now on. Call it first in `main`.
    pub fn new() -> io::Result<Self> {
        signal_fd(&[libc::SIGINT, libc::SIGTERM]).map(Self)
    }

    /// The number of a signal that has come and was not taken yet. Never blocks.
    pub fn take(&self) -> io::Result<Option<u32>> {
        Ok(read(&self.0)?.map(|info| info.ssi_signo))
    }
}

impl AsRawFd for Termination {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, the rest reads it; the descriptor is fresh and owned by nobody else.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            check(libc::sigaddset(set.as_mut_ptr(), *signal))?;
        }
        match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = check(libc::signalfd(-1, set.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn read(fd: &OwnedFd) -> io::Result<Option<libc::signalfd_siginfo>> {
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    // SAFETY: the buffer has the size that is given; all zeros are a valid value of it.
    let (count, info) = unsafe {
        let size = size_of::<libc::signalfd_siginfo>();
        let count = libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size);
        (count, info.assume_init())
    };
    if count >= 0 {
        return Ok(Some(info));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
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

    #[test]
    fn who_sent_it_is_told() {
        std::thread::spawn(|| {
            let signals = Signals::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
            // SAFETY: sends a blocked signal to the calling thread alone.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            let taken = Taken { number: libc::SIGUSR2, by_kernel: false };
            assert_eq!(signals.take().unwrap(), Some(taken));
            assert_eq!(signals.take().unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
