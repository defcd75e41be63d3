//! What happens on one connection after it was accepted.
//!
//! A connection that is idle has no object here: its descriptor number is its epoll token, and one bit says whether a
//! chunked body is open on it. Only what is half done (a request half read, a response half sent, an end that waits for
//! the peer) has an entry, for as long as it lasts.

use std::{
    io,
    os::fd::{IntoRawFd as _, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    accept,
    bits::Bits,
    counters::{Counters, ErrorName},
    http,
    partial::{Partial, Partials, READ},
    shared::{Notifier, Shared},
    timers::Timers,
};
use c1m_sys::{
    epoll::Epoll,
    errno,
    socket::{close, receive, reset_on_close, shutdown_write},
};

mod answer;

use answer::{Clock, TURN, Turn};

/// One read: twice the longest head, so that a head that is too long shows in one. Shared by all connections of a worker.
const READ_BYTES: usize = 2 * http::MAX_HEAD_BYTES;
/// Heads that took too long are answered so many at a time.
const OVERDUE: usize = 256;
/// Pause after epoll said writable and send said no: above tcp_mem high both are true of an empty queue, for as long as
/// the host is short (net/ipv4/tcp.c, tcp_sendmsg_locked and tcp_poll, 6.18), and no event tells when that is over.
const RETRY: Duration = Duration::from_millis(50);
/// After the last response the connection is read until its end, so that unread bytes do not make close(2) a reset that
/// takes the response with it. At most for this long, and so many bytes.
const DRAIN_TIME: Duration = Duration::from_secs(1);
const DRAIN_BYTES: u64 = 1 << 18;

/// How one step on a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Close,
}

/// The connections of one worker.
pub(super) struct Connections {
    epoll: Epoll,
    shared: Arc<Shared>,
    index: usize,
    notifier: Notifier,
    buffer: Box<[u8]>,
    /// By descriptor: a chunked body is open.
    open_bodies: Bits,
    partials: Partials,
    timers: Timers,
    /// Of the connection that is worked on.
    turn: Turn,
    clock: Clock,
    /// Closed since [`Connections::take_closed`].
    closed: u64,
    highest: RawFd,
}

impl Connections {
    pub(super) fn new(epoll: Epoll, shared: Arc<Shared>, index: usize) -> Self {
        let partials = Partials::new(shared.header_timeout);
        Self {
            epoll,
            shared,
            index,
            notifier: Notifier::default(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            open_bodies: Bits::default(),
            partials,
            timers: Timers::default(),
            turn: TURN,
            clock: Clock::default(),
            closed: 0,
            highest: 0,
        }
    }

    pub(super) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }

    /// Counts an error, and tells the user where something can be done about it.
    pub(super) fn error(&mut self, name: ErrorName) {
        self.counters().error(name);
        if let ErrorName::Accept(text) | ErrorName::Epoll(text) = name
            && let Some(remedy) = accept::remedy(text)
        {
            self.notifier.post(&self.shared.notices, text, || remedy.into());
        }
    }

    /// Takes over a connection fresh from accept.
    pub(super) fn admit(&mut self, connection: OwnedFd) {
        let fd = connection.into_raw_fd();
        self.highest = self.highest.max(fd);
        self.counters().accepted();
        if let Err(error) = self.epoll.add(fd, READ, token(fd)) {
            self.error(ErrorName::Epoll(errno::of(&error)));
            self.close(fd);
        }
    }

    /// Something happened on `fd`.
    pub(super) fn ready(&mut self, fd: RawFd) {
        let mut partial = self.partials.remove(fd).unwrap_or_default();
        self.turn = TURN;
        let step = match partial.write.take() {
            Some((response, sent)) => self.resume(fd, &mut partial, response, sent),
            None if partial.has_more => self.go_on(fd, &mut partial),
            None => self.read(fd, &mut partial),
        };
        self.apply(fd, partial, step);
    }

    /// How long the worker may sleep for all that its connections know.
    pub(super) fn timeout(&self) -> Option<Duration> {
        [self.timers.timeout(), self.partials.timeout()].into_iter().flatten().min()
    }

    /// A batch of events is done: goes on with the connections whose time has come.
    pub(super) fn expire(&mut self) {
        self.expire_timers();
        for _ in 0..OVERDUE {
            let Some((fd, mut partial)) = self.partials.overdue() else { break };
            self.turn = TURN;
            let step = self.head_is_overdue(fd, &mut partial);
            self.apply(fd, partial, step);
        }
        self.clock.is_read = false;
    }

    fn expire_timers(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(fd) = self.timers.expired(now) {
            let Some(mut partial) = self.partials.remove(fd) else { continue };
            partial.due = None;
            self.turn = TURN;
            let step = match partial.write.take() {
                Some((response, sent)) => self.resume(fd, &mut partial, response, sent),
                // The peer had its time to end the connection.
                None => Step::Close,
            };
            self.apply(fd, partial, step);
        }
    }

    /// How many were closed since this was last asked.
    pub(super) fn take_closed(&mut self) -> u64 {
        std::mem::take(&mut self.closed)
    }

    /// From now on closing any of the connections sends a reset.
    pub(super) fn reset_on_close(&self) {
        for fd in 3..=self.highest {
            // Numbers that are no connection, or none any more, answer with an error; that is all that happens.
            let _ = reset_on_close(fd);
        }
    }

    fn read(&mut self, fd: RawFd, partial: &mut Partial) -> Step {
        // Taken out and put back, because the code that understands the bytes needs `self` too.
        let mut buffer = std::mem::take(&mut self.buffer);
        let step = match receive(fd, &mut buffer) {
            Ok(0) => Step::Close,
            Ok(count) => self.input(fd, partial, &buffer[..count]),
            Err(error) => self.failed(&error),
        };
        self.buffer = buffer;
        step
    }

    /// New bytes arrived.
    fn input(&mut self, fd: RawFd, partial: &mut Partial, bytes: &[u8]) -> Step {
        if let Some(left) = &mut partial.drain_bytes {
            *left = left.saturating_sub(bytes.len() as u64);
            return if *left == 0 { Step::Close } else { Step::Keep };
        }
        if partial.input.is_empty() {
            return self.requests(fd, partial, bytes);
        }
        let mut input = std::mem::take(&mut partial.input);
        input.extend_from_slice(bytes);
        self.requests(fd, partial, &input)
    }

    /// Sends the end of the stream, and waits for the peer's.
    fn drain(&mut self, fd: RawFd, partial: &mut Partial) -> Step {
        if shutdown_write(fd).is_err() {
            return Step::Close;
        }
        *partial = Partial {
            drain_bytes: Some(DRAIN_BYTES),
            interest: partial.interest,
            ..Partial::default()
        };
        self.wait(fd, partial, DRAIN_TIME);
        Step::Keep
    }

    /// What an error of a connection's own means. ENOBUFS is what a socket says instead of EAGAIN when the host is short.
    fn failed(&mut self, error: &io::Error) -> Step {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Step::Keep,
            // It is closed already, and epoll goes on telling of it for as long as somebody else has the file: whoever looks at the
            // descriptors of this process (iterators, lsof) has each for a moment.
            Some(libc::EBADF) => Step::Keep,
            _ => {
                self.counters().error(ErrorName::Connection(errno::of(error)));
                Step::Close
            }
        }
    }

    fn apply(&mut self, fd: RawFd, mut partial: Partial, step: Step) {
        let wanted = partial.wanted_interest();
        let mut step = step;
        if step == Step::Keep && wanted != partial.interest {
            partial.interest = wanted;
            if let Err(error) = self.epoll.modify(fd, wanted, token(fd)) {
                self.error(ErrorName::Epoll(errno::of(&error)));
                step = Step::Close;
            }
        }
        match step {
            Step::Close => {
                self.cancel(fd, &mut partial);
                self.close(fd);
            }
            Step::Keep if partial.is_idle() => {}
            Step::Keep => {
                self.partials.insert(fd, partial);
            }
        }
    }

    fn wait(&mut self, fd: RawFd, partial: &mut Partial, time: Duration) {
        self.cancel(fd, partial);
        let due = Instant::now() + time;
        self.timers.set(due, fd);
        partial.due = Some(due);
    }

    fn cancel(&mut self, fd: RawFd, partial: &mut Partial) {
        if let Some(due) = partial.due.take() {
            self.timers.cancel(due, fd);
        }
    }

    fn close(&mut self, fd: RawFd) {
        self.open_bodies.take(index(fd));
        // Closing the last descriptor of a socket takes it out of epoll.
        close(fd);
        self.counters().closed();
        self.closed += 1;
    }
}

/// The epoll token of a descriptor is its number, which the kernel never makes negative.
pub(super) fn token(fd: RawFd) -> u64 {
    u64::from(fd.unsigned_abs())
}

fn index(fd: RawFd) -> usize {
    fd.unsigned_abs() as usize
}

#[cfg(test)]
mod tests;
