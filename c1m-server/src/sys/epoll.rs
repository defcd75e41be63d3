//! epoll and eventfd, raw: one of each per worker is the point of this server.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use super::check;

pub const IN: u32 = libc::EPOLLIN as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;
pub const PEER_CLOSED: u32 = libc::EPOLLRDHUP as u32;
pub const ERROR: u32 = libc::EPOLLERR as u32;
pub const HANGUP: u32 = libc::EPOLLHUP as u32;
#[expect(clippy::cast_sign_loss, reason = "EPOLLET is the sign bit of a C int")]
pub const EDGE: u32 = libc::EPOLLET as u32;

/// One epoll instance. Tokens are the caller's: they come back as they were given.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// A batch of events, filled by [`Epoll::wait`].
pub struct Events(Vec<libc::epoll_event>);

impl Events {
    /// Room for `capacity` events a call; the memory is touched only as far as events arrive.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// (token, readiness) of each event of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.0.iter().map(|event| (event.u64, event.events))
    }
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the descriptor is fresh and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) }))
    }

    /// Watches `fd`. ENOSPC means that `fs.epoll.max_user_watches` is used up.
    pub fn add(&self, fd: RawFd, interest: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest, token)
    }

    pub fn modify(&self, fd: RawFd, interest: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest, token)
    }

    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        events: u32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` lives through the call; a wrong descriptor is answered with EBADF.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) })
            .map(drop)
    }

    /// Waits for events, at most `timeout` (`None`: without end). EINTR is a wait that ended early, with no event.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up: a wait of 0.4 ms that became 0 would spin.
        let milliseconds = timeout.map_or(-1, |t| {
            t.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX)
        });
        let capacity = libc::c_int::try_from(events.0.capacity()).unwrap_or(libc::c_int::MAX);
        events.0.clear();
        // SAFETY: the vector has room for `capacity` events; its length is set to what the kernel filled.
        let result = unsafe {
            check(libc::epoll_wait(
                self.0.as_raw_fd(),
                events.0.as_mut_ptr(),
                capacity,
                milliseconds,
            ))
            .map(|count| events.0.set_len(usize::try_from(count).unwrap_or(0)))
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }
}

impl std::os::fd::AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Wakes epoll loops. Created before the workers have tables of their own, so that its number means the same in all of them.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the descriptor is fresh and owned by nobody else.
        Ok(Self(unsafe {
            OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?)
        }))
    }

    /// Wakes every epoll that watches this with [`EDGE`], once. Never blocks: a full counter has woken them already.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from a local; the result does not matter, see above.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

impl std::os::fd::AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
