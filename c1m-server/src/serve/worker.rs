//! One worker: its own descriptor table, listener and epoll.

use std::{
    io,
    os::fd::{AsRawFd as _, RawFd},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use super::{
    accept::{Action, action},
    connection::{Connections, token},
    counters::ErrorName,
    group::steering_refused,
    plan::Plan,
    room::Room,
    shared::{Shared, order},
};
use crate::sys::{
    epoll::{self, Epoll, Events},
    errno,
    socket::accept,
};

/// Events that one wait returns at most.
const EVENTS: usize = 256;
/// How long accept is left alone after the host ran short of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the listener is out of epoll for now. Its queue is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parked {
    /// Until a connection of this worker closes.
    TableFull,
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
            shared,
            room: Room::new(plan.table, plan.margin),
            parked: None,
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
            Some(Parked::Until(due)) => Some(due.saturating_duration_since(Instant::now())),
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
                    self.connections.admit(connection);
                    used += 1;
                }
                Err(error) => match self.accept_failed(&error) {
                    Action::Next => {}
                    Action::Drained => break,
                    Action::TableFull => {
                        park = Some(self.table_is_full());
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
        if self.shared.slots.settle(reserved, used) {
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
        if action != Action::Drained {
            self.connections.error(ErrorName::Accept(errno::name(number)));
        }
        action
    }

    /// The kernel's word goes above the plan's: the limit may have been lowered from outside.
    fn table_is_full(&mut self) -> Parked {
        let held = self.connections.counters().held();
        self.room.shrink_to(held);
        // Without a connection of its own no close will ever tell that there is room.
        if held > 0 { Parked::TableFull } else { Parked::Until(Instant::now() + PAUSE) }
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
        if self.parked == Some(Parked::TableFull) {
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

    fn end_pause(&mut self) -> io::Result<()> {
        match self.parked {
            Some(Parked::Until(due)) if due <= Instant::now() => self.unpark(),
            _ => Ok(()),
        }
    }

    /// Changing what is watched cannot fail for want of anything, as taking the listener out and adding it again can.
    fn park(&mut self, reason: Parked) -> io::Result<()> {
        self.connections.epoll().modify(self.listener, 0, token(self.listener))?;
        self.parked = Some(reason);
        Ok(())
    }

    fn unpark(&mut self) -> io::Result<()> {
        if self.parked.take() == Some(Parked::NoSlot) {
            self.shared.slots.stop_waiting();
        }
        self.connections.epoll().modify(self.listener, epoll::IN, token(self.listener))
    }
}
