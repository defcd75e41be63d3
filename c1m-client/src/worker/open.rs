//! Opening connections: from a planned tuple to the first byte of the answer.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use c1m_sys::{
    epoll, errno,
    socket::{bind, connect, reset_on_close, send, set_quick_ack, take_error},
};
use socket2::{Domain, Socket, Type};

use super::{Report, TICK, Worker, micros};
use crate::{table::Stage, tuple::Tuple, workload::Opening};

/// Connections that are opened before events and commands get their turn: an opening that fails at
/// once waits for neither.
const OPENINGS_A_TURN: usize = 64;
const HELD: u32 = epoll::IN | epoll::PEER_CLOSED | epoll::EDGE;

/// Why a connection was not opened.
enum Refused {
    /// The tuple is somebody else's: another one may do.
    Taken(String),
    Failed(String),
}

fn failed(call: &str, error: &io::Error) -> Refused {
    Refused::Failed(format!("{call} {}", errno::of(error)))
}

impl Worker {
    /// The first request of the connection in `slot`.
    pub(super) fn opening(&self, slot: usize) -> Opening<'_> {
        self.shared.workload.opening(self.share.start + slot as u64)
    }

    /// Opens connections until enough are in flight, or all are opened. Returns how long the pace
    /// wants it to wait.
    pub(super) fn open_some(&mut self) -> Option<Duration> {
        let all = self.share.end - self.share.start;
        // A server that answers nobody would be asked a few at a time, each few for a whole
        // timeout.
        let stalled = self.shared.stalled.load(Relaxed);
        let in_flight = if stalled { usize::MAX } else { self.shared.in_flight };
        let mut opened = 0;
        while self.ramping && (self.table.len() as u64) < all {
            if self.in_flight >= in_flight {
                return Some(TICK);
            }
            if self.shared.closing.has_begun() {
                return None;
            }
            if opened == OPENINGS_A_TURN {
                return Some(Duration::ZERO);
            }
            let planned = match self.shared.pace.take(self.shared.start.elapsed()) {
                Ok(planned) => planned,
                // Not longer than a tick: a command can come.
                Err(wait) => return Some(wait.min(TICK)),
            };
            self.open_one(micros(planned));
            opened += 1;
        }
        if self.ramping && self.in_flight == 0 {
            self.ramping = false;
            (self.pending, self.late_us) = (Vec::new(), HashMap::new());
            let tally = std::mem::take(&mut self.tally);
            self.report(Report::Ramped(Box::new(tally)));
        }
        None
    }

    /// Opens the next connection of the share, on its own tuple or on a spare one. Millions of
    /// spare ones can be taken: a run that ends does not try them all.
    fn open_one(&mut self, planned_us: u64) {
        let slot = self.table.add();
        let mut index = self.share.start + slot as u64;
        loop {
            let name = match self.try_open(slot, index, planned_us) {
                Ok(()) => return,
                Err(Refused::Taken(name)) => {
                    index = self.shared.spare.fetch_add(1, Relaxed);
                    self.tally.errors.count(&name);
                    if self.shared.closing.has_begun() {
                        return;
                    }
                    if index < self.shared.plan.capacity() {
                        continue;
                    }
                    "no spare 4-tuple left".into()
                }
                Err(Refused::Failed(name)) => name,
            };
            return self.not_established(&name);
        }
    }

    fn try_open(&mut self, slot: usize, index: u64, planned_us: u64) -> Result<(), Refused> {
        let Some(tuple) = self.shared.plan.tuple(index) else {
            return Err(Refused::Taken("no such 4-tuple".into()));
        };
        let request = self.opening(slot).request;
        let socket = self.bound(&tuple, request.is_some())?;
        let fd = socket.as_raw_fd();
        let started_us = self.now_us();
        let connected =
            connect(fd, &tuple.destination).map_err(|error| match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL) => Refused::Taken("connect EADDRNOTAVAIL".into()),
                _ => failed("connect", &error),
            })?;
        let connected_us = self.now_us();
        // On loopback the handshake is over when `connect` comes back, whatever it says: sending
        // finds out.
        let established = match request.map(|request| send_opening(fd, request)) {
            // With nothing to send, epoll tells it without a call of its own: many at a time.
            None => connected,
            Some(Err(error)) if !connected && is_early(&error) => false,
            // The refusal of the handshake comes out here as well.
            Some(Err(error)) => return Err(failed("connect", &error)),
            Some(Ok(())) => true,
        };
        let interest = if established { HELD } else { HELD | epoll::OUT };
        self.epoll.add(fd, interest, slot as u64).map_err(|error| failed("epoll", &error))?;
        self.table.put(slot, socket);
        self.in_flight += 1;
        self.pending.push(slot);
        self.table.enter(slot, Stage::Connecting, started_us);
        if self.shared.pace.is_limited() {
            self.late_us.insert(slot, started_us.saturating_sub(planned_us));
        }
        if established {
            self.established(slot, connected_us);
        }
        Ok(())
    }

    /// A socket with the tuple's source, ready to connect, and to ask for something at once.
    fn bound(&self, tuple: &Tuple, asks: bool) -> Result<OwnedFd, Refused> {
        if tuple.source == tuple.destination {
            // It would connect to itself.
            return Err(Refused::Taken("source is the destination".into()));
        }
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new_raw(Domain::for_address(tuple.source), kind, None)
            .map_err(|error| failed("socket", &error))?;
        if self.shared.end_by_reset {
            // At once, so that even a killed client leaves neither orphans nor TIME_WAIT.
            reset_on_close(socket.as_raw_fd()).map_err(|error| failed("setsockopt", &error))?;
        }
        // Several destinations share a source port; and a bucket of ports in which everybody reuses
        // needs no search (net/ipv4/inet_connection_sock.c, inet_csk_get_port, 6.18).
        socket.set_reuse_address(true).map_err(|error| failed("setsockopt", &error))?;
        if asks {
            // The request follows at once, and the end of the handshake travels with it: one
            // segment less of eight.
            set_quick_ack(socket.as_raw_fd(), false)
                .map_err(|error| failed("setsockopt", &error))?;
        }
        bind(socket.as_raw_fd(), &tuple.source).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Refused::Taken("bind EADDRINUSE".into()),
            _ => failed("bind", &error),
        })?;
        Ok(socket.into())
    }

    /// The age of the present stage, from when it would have begun if the connection had been
    /// opened as planned: as much as the opening was late, both the handshake and the request were.
    fn since_planned_us(&self, slot: usize, now_us: u64) -> u64 {
        self.table.age_us(slot, now_us) + self.late_us.get(&slot).copied().unwrap_or(0)
    }

    /// The handshake ended at `now_us`, and the request is sent, if there is one.
    fn established(&mut self, slot: usize, now_us: u64) {
        if self.table.age_us(slot, now_us) > micros(self.shared.timeout) {
            // As if the look for timeouts had come first.
            return self.fail(slot, "connect timeout");
        }
        let took_us = self.since_planned_us(slot, now_us);
        self.tally.connect.record(took_us);
        self.counters().connect.record(took_us);
        if self.opening(slot).request.is_some() {
            self.table.enter(slot, Stage::Waiting, now_us);
        } else {
            self.table.set_stage(slot, Stage::Between);
            self.in_flight -= 1;
            self.heard();
        }
        self.counters().established.fetch_add(1, Relaxed);
        self.counters().last_us.fetch_max(now_us, Relaxed);
        self.counters().held.fetch_add(1, Relaxed);
    }

    /// The handshake has come to an end, well or not.
    pub(super) fn on_connect(&mut self, slot: usize, flags: u32) {
        let Some(fd) = self.table.fd(slot) else { return };
        let is_over = flags & (epoll::OUT | epoll::IN) != 0;
        // An error comes with its own flag (net/ipv4/tcp.c, tcp_poll, 6.18).
        let error = match flags & epoll::ERROR {
            0 => Ok(None),
            _ => take_error(fd),
        };
        let error = match (error, self.opening(slot).request) {
            (Ok(None), Some(request)) if is_over => send_opening(fd, request).err(),
            (Ok(error), _) => error,
            (Err(error), _) => Some(error),
        };
        match error {
            Some(error) if is_early(&error) => {}
            Some(error) => {
                // The kernel's own timeout is no answer.
                if error.raw_os_error() != Some(libc::ETIMEDOUT) {
                    self.heard();
                }
                self.fail(slot, &format!("connect {}", errno::of(&error)));
            }
            None if is_over => {
                self.established(slot, self.now_us());
                if flags & !(epoll::OUT) != 0 {
                    self.on_event(slot, flags);
                }
            }
            None => {}
        }
    }

    /// A connection that was never established is given up.
    fn fail(&mut self, slot: usize, name: &str) {
        self.not_established(name);
        self.in_flight -= 1;
        self.table.end(slot);
    }

    /// Counts one that has no time to connect. Also a refusal is none: a percentile of the other
    /// ones alone would be that of a server that takes all connections.
    fn not_established(&mut self, name: &str) {
        self.tally.errors.count(name);
        self.tally.connect.miss(1);
        self.counters().connect.miss();
        self.counters().failed.fetch_add(1, Relaxed);
    }

    /// A byte of the answer is there. `true`: the first one. It counts when it comes in time.
    pub(super) fn first_byte(&mut self, slot: usize) -> bool {
        match self.table.stage(slot) {
            Stage::Waiting => {
                self.in_flight -= 1;
                let now_us = self.now_us();
                if self.table.age_us(slot, now_us) > micros(self.shared.timeout) {
                    self.first_byte_timeout();
                } else {
                    let took_us = self.since_planned_us(slot, now_us);
                    self.tally.first_byte.record(took_us);
                    self.counters().first_byte.record(took_us);
                    self.counters().answered.fetch_add(1, Relaxed);
                }
            }
            // Its time was over, and was counted so.
            Stage::Overdue => {}
            _ => return false,
        }
        self.counters().pages.fetch_add(self.opening(slot).pages, Relaxed);
        self.table.set_stage(slot, Stage::Between);
        true
    }

    fn first_byte_timeout(&mut self) {
        self.tally.errors.count("first byte timeout");
        self.first_byte_missed();
    }

    /// A first request will have no answer that counts.
    pub(super) fn first_byte_missed(&mut self) {
        self.tally.first_byte.miss(1);
        self.counters().first_byte.miss();
    }

    /// Gives up the connects that take too long, and stops waiting for first bytes that do.
    pub(super) fn expire_openings(&mut self, now_us: u64) {
        let timeout_us = micros(self.shared.timeout);
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|slot| {
            let stage = self.table.stage(*slot);
            let waits = matches!(stage, Stage::Connecting | Stage::Waiting);
            let over = waits && self.table.age_us(*slot, now_us) > timeout_us;
            if over && stage == Stage::Connecting {
                self.fail(*slot, "connect timeout");
            } else if over {
                self.first_byte_timeout();
                self.in_flight -= 1;
                self.table.set_stage(*slot, Stage::Overdue);
            }
            if !waits || over {
                self.late_us.remove(slot);
            }
            waits && !over
        });
        self.pending = pending;
    }
}

/// The handshake is still under way.
fn is_early(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOTCONN | libc::EINPROGRESS))
}

/// Sends the first request, and with it the end of the handshake. What answers it is acknowledged
/// at once again: until then the server's copy is charged to tcp_mem.
fn send_opening(fd: RawFd, request: &[u8]) -> io::Result<()> {
    send_whole(fd, request)?;
    set_quick_ack(fd, true)
}

/// Sends a request in one go: it is far shorter than any send buffer, so half a request is an
/// error.
pub(super) fn send_whole(fd: RawFd, request: &[u8]) -> io::Result<()> {
    match send(fd, request)? {
        sent if sent == request.len() => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
    }
}
