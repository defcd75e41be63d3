//! epoll and eventfd, raw: one of each per worker is the point of this server.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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

    /// Waits for events, at most `timeout` (`None`: without end). EINTR is a wait that ended early,
    /// with no event.
    ///
    /// The timeout is kept to the microsecond from Linux 5.11 on; before, it is rounded up to the
    /// millisecond.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let capacity = libc::c_int::try_from(events.0.capacity()).unwrap_or(libc::c_int::MAX);
        events.0.clear();
        let result = self.wait_precisely(events, capacity, timeout).and_then(|count| match count {
            Some(count) => Ok(count),
            None => self.wait_by_milliseconds(events, capacity, timeout),
        });
        match result {
            // SAFETY: the kernel has filled `count` events, and not more than there is room for.
            Ok(count) => unsafe { events.0.set_len(usize::try_from(count).unwrap_or(0)) },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// `None`: this kernel does not know how (or a sandbox refuses the newer call).
    fn wait_precisely(
        &self,
        events: &mut Events,
        capacity: libc::c_int,
        timeout: Option<Duration>,
    ) -> io::Result<Option<libc::c_long>> {
        /// The kernel's `struct __kernel_timespec`, the same on all architectures.
        #[repr(C)]
        struct KernelTimespec {
            seconds: i64,
            nanoseconds: i64,
        }
        static REFUSED: AtomicBool = AtomicBool::new(false);
        if REFUSED.load(Relaxed) {
            return Ok(None);
        }
        let timeout = timeout.map(|t| KernelTimespec {
            seconds: t.as_secs().try_into().unwrap_or(i64::MAX),
            nanoseconds: t.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the vector has room for `capacity` events; the timeout is null or lives through
        // the call; no signal mask.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.0.as_mut_ptr(),
                capacity,
                timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if count >= 0 {
            return Ok(Some(count));
        }
        let error = io::Error::last_os_error();
        if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            REFUSED.store(true, Relaxed);
            return Ok(None);
        }
        Err(error)
    }

    fn wait_by_milliseconds(
        &self,
        events: &mut Events,
        capacity: libc::c_int,
        timeout: Option<Duration>,
    ) -> io::Result<libc::c_long> {
        // Rounded up: a wait of 0.4 ms that became 0 would spin.
        let milliseconds = timeout.map_or(-1, |t| {
            t.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: the vector has room for `capacity` events.
        check(unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.0.as_mut_ptr(), capacity, milliseconds)
        })
        .map(libc::c_long::from)
    }
}

impl std::os::fd::AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Wakes epoll loops. Created before the workers have tables of their own, so that its number means
/// the same in all of them.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the descriptor is fresh and owned by nobody else.
        Ok(Self(unsafe {
            OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?)
        }))
    }

    /// Wakes every epoll that watches this with [`EDGE`], once. Never blocks: a full counter has
    /// woken them already.
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_with_its_timeout_and_with_a_wake() {
        let (epoll, waker) = (Epoll::new().unwrap(), Waker::new().unwrap());
        epoll.add(waker.as_raw_fd(), IN | EDGE, 7).unwrap();
        let mut events = Events::with_capacity(4);
        let start = Instant::now();
        epoll.wait(&mut events, Some(Duration::from_micros(2500))).unwrap();
        assert!(events.iter().next().is_none() && start.elapsed() >= Duration::from_micros(2500));
        for _ in 0..2 {
            waker.wake();
            epoll.wait(&mut events, None).unwrap();
            assert_eq!(events.iter().collect::<Vec<_>>(), [(7, IN)]);
        }
        let capacity = libc::c_int::try_from(events.0.capacity()).unwrap();
        waker.wake();
        assert_eq!(epoll.wait_by_milliseconds(&mut events, capacity, None).unwrap(), 1);
        assert_eq!(
            epoll.wait_by_milliseconds(&mut events, capacity, Some(Duration::ZERO)).unwrap(),
            0
        );
    }
}
