//! One worker: its own descriptor table, listener and epoll.

use std::{
    io,
    os::fd::{AsRawFd as _, RawFd},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use c1m_preflight::plan::{self, Plan};

use super::{
    accept::{Action, action},
    connection::{Connections, token},
    counters::ErrorName,
    group::steering_refused,
    room::Room,
    shared::{Shared, order},
};
use c1m_sys::{
    epoll::{self, Epoll, Events},
    errno,
    process::nofile,
    socket::accept,
};

/// Events that one wait returns at most.
const EVENTS: usize = 256;
/// How long accept is left alone after the host ran short of something.
const PAUSE: Duration = Duration::from_millis(100);
/// How long accept is left alone after it found the descriptor table full: the limit may be raised from outside (prlimit), and no event tells.
const RETRY_FULL: Duration = Duration::from_secs(1);

/// Why the listener is out of epoll for now. Its queue is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parked {
    /// Until a connection of this worker closes, or it is time to try again. Then the listener is watched again: who has an empty queue sleeps
    /// on without a timeout.
    TableFull(Instant),
    /// Until a slot comes free anywhere.
    NoSlot,
    Until(Instant),
    /// The server ends.
    Forever,
}

pub(super) struct Worker {
    index: usize,
    listener: RawFd,
    shared: Arc<Shared>,
    connections: Connections,
    room: Room,
    parked: Option<Parked>,
    /// The last accept found no descriptor free.
    table_is_full: bool,
    /// The limit of open files that `room` is for.
    nofile: u64,
}

impl Worker {
    /// To be called in the worker's own thread: the epoll instance belongs to its table.
    pub(super) fn new(
        index: usize,
        listener: RawFd,
        shared: Arc<Shared>,
        plan: &Plan,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let waker = shared.waker.as_raw_fd();
        epoll.add(waker, epoll::IN | epoll::EDGE, token(waker))?;
        epoll.add(listener, epoll::IN, token(listener))?;
        Ok(Self {
            index,
            listener,
            connections: Connections::new(epoll, Arc::clone(&shared), index),
            room: Room::new(plan.table, plan.margin),
            parked: None,
            table_is_full: false,
            nofile: shared.nofile.load(SeqCst),
            shared,
        })
    }

    /// Serves until it is told to end. Its connections are still open then.
    ///
    /// # Errors
    /// The listener or the epoll instance does not work any more.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let (listener, waker) = (token(self.listener), token(self.shared.waker.as_raw_fd()));
        // An order may have come before this epoll watched the waker.
        if self.obey()? {
            return Ok(());
        }
        loop {
            self.connections.epoll().wait(&mut events, self.timeout())?;
            let (mut queued, mut woken) = (false, false);
            for (token, _) in events.iter() {
                if token == listener {
                    queued = true;
                } else if token == waker {
                    woken = true;
                } else if let Ok(fd) = RawFd::try_from(token) {
                    self.connections.ready(fd);
                }
            }
            self.connections.expire();
            self.after_closes()?;
            if woken && self.obey()? {
                return Ok(());
            }
            self.end_pause()?;
            // After the connections, so that what they freed is there to be used.
            if queued && self.parked.is_none() {
                self.accept()?;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let pause = match self.parked {
            Some(Parked::Until(due) | Parked::TableFull(due)) => {
                Some(due.saturating_duration_since(Instant::now()))
            }
            _ => None,
        };
        [self.connections.timeout(), pause].into_iter().flatten().min()
    }

    /// Takes what is queued, one batch at most.
    fn accept(&mut self) -> io::Result<()> {
        let Some(reserved) = self.shared.slots.take() else {
            return self.park(Parked::NoSlot);
        };
        let (mut used, mut park) = (0, None);
        // Each round takes something out of the queue or ends the loop, so it is bounded.
        for _ in 0..reserved {
            match accept(self.listener) {
                Ok(connection) => {
                    self.table_is_full = false;
                    self.connections.admit(connection);
                    used += 1;
                }
                Err(error) => match self.accept_failed(&error) {
                    Action::Next => {}
                    Action::Drained => break,
                    Action::TableFull => {
                        park = Some(self.found_full());
                        break;
                    }
                    Action::Pause => {
                        park = Some(Parked::Until(Instant::now() + PAUSE));
                        break;
                    }
                    Action::Fatal => return Err(error),
                },
            }
        }
        if self.shared.slots.give_back(reserved, used) {
            self.shared.waker.wake();
        }
        if let Some(reason) = park {
            self.park(reason)?;
        }
        self.after_closes()?;
        self.report_room();
        Ok(())
    }

    fn accept_failed(&mut self, error: &io::Error) -> Action {
        let number = error.raw_os_error().unwrap_or(0);
        let action = action(number);
        let name = ErrorName::Accept(errno::name(number));
        match action {
            Action::Drained => {}
            // The user was told when the table filled. Trying again is counted, and is no news.
            Action::TableFull if self.table_is_full => self.connections.counters().error(name),
            _ => self.connections.error(name),
        }
        action
    }

    /// The kernel's word goes above the plan's: the limit may have been lowered from outside.
    fn found_full(&mut self) -> Parked {
        self.table_is_full = true;
        self.read_limit();
        self.room.shrink_to(self.connections.counters().held());
        Parked::TableFull(Instant::now() + RETRY_FULL)
    }

    /// Looks whether the limit of open files is another one than before, and tells the other workers, whose queues may be empty.
    fn read_limit(&self) {
        // Where it can't be read, what accept says has to do.
        let Ok((soft, _)) = nofile() else { return };
        if self.shared.nofile.swap(soft, SeqCst) != soft {
            self.shared.waker.wake();
        }
    }

    /// Hands on what closed connections have freed.
    fn after_closes(&mut self) -> io::Result<()> {
        let closed = self.connections.take_closed();
        if closed == 0 {
            return Ok(());
        }
        if self.shared.slots.close(closed) {
            self.shared.waker.wake();
        }
        if matches!(self.parked, Some(Parked::TableFull(_))) {
            self.unpark()?;
        }
        self.report_room();
        Ok(())
    }

    fn report_room(&mut self) {
        let Some(step) = self.room.update(self.connections.counters().held()) else { return };
        if let Err(error) = self.shared.group.report(self.index, step, self.listener) {
            self.shared.notices.post(errno::of(&error), steering_refused(&error).into());
        }
    }

    /// `true`: the worker ends.
    fn obey(&mut self) -> io::Result<bool> {
        match self.shared.order.load(SeqCst) {
            order::RUN => {
                if self.parked == Some(Parked::NoSlot) {
                    self.unpark()?;
                }
                self.follow_limit();
            }
            order::STOP_ACCEPTING => self.park(Parked::Forever)?,
            order::FINISH => return Ok(true),
            _ => {
                self.connections.reset_on_close();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a table holds follows the limit of open files, when that was changed while the server runs.
    fn follow_limit(&mut self) {
        let nofile = self.shared.nofile.load(SeqCst);
        if nofile != self.nofile {
            self.nofile = nofile;
            self.room.resize(plan::table(nofile));
            self.report_room();
        }
    }

    fn end_pause(&mut self) -> io::Result<()> {
        match self.parked {
            Some(Parked::Until(due)) if due <= Instant::now() => self.unpark(),
            Some(Parked::TableFull(due)) if due <= Instant::now() => {
                self.read_limit();
                self.follow_limit();
                self.unpark()
            }
            _ => Ok(()),
        }
    }

    /// Changing what is watched cannot fail for want of anything, as taking the listener out and adding it again can.
    fn park(&mut self, reason: Parked) -> io::Result<()> {
        let before = self.parked.replace(reason);
        self.no_longer(before);
        match before == Some(reason) {
            true => Ok(()),
            false => self.connections.epoll().modify(self.listener, 0, token(self.listener)),
        }
    }

    fn unpark(&mut self) -> io::Result<()> {
        let before = self.parked.take();
        self.no_longer(before);
        self.connections.epoll().modify(self.listener, epoll::IN, token(self.listener))
    }

    /// A worker counted as waiting for a slot has every close of every worker wake all of them.
    fn no_longer(&self, parked: Option<Parked>) {
        if parked == Some(Parked::NoSlot) {
            self.shared.slots.stop_waiting();
        }
    }
}

#[cfg(test)]
mod tests;
