//! The connections of one worker: a descriptor, a byte and a clock of 32 bits for each.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use c1m_program::http::response::{Reader, Rest};

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Never established, or ended before the hold.
    Gone,
    /// Was held, and has ended; during the hold: since it began.
    Lost,
    /// The handshake is under way.
    Connecting,
    /// Established, its first request is sent, no byte has come.
    Waiting,
    /// As `Waiting`, and its time is over: it is held, and nobody waits for it.
    Overdue,
    /// Between two responses.
    Between,
    /// Inside a chunked body that may never end.
    OpenBody,
    /// Its answer lies in the receive queue.
    Unread,
    /// In the middle of something: see the worker's exchanges.
    Busy,
    /// What came was no HTTP: only discarded from now on.
    Opaque,
}

impl Stage {
    /// Established, and not ended.
    #[must_use]
    pub fn is_held(self) -> bool {
        !matches!(self, Self::Gone | Self::Lost | Self::Connecting)
    }

    /// The reader that goes on from here, where a byte says it all.
    #[must_use]
    pub fn reader(self) -> Option<Reader> {
        match self {
            Self::Between | Self::Unread => Some(Rest::Between.into()),
            Self::OpenBody => Some(Rest::OpenBody.into()),
            _ => None,
        }
    }
}

impl From<Rest> for Stage {
    fn from(rest: Rest) -> Self {
        match rest {
            Rest::Between => Self::Between,
            Rest::OpenBody => Self::OpenBody,
        }
    }
}

/// All connections of a worker by slot, in the order of opening.
#[derive(Debug)]
pub struct Table {
    sockets: Vec<Option<OwnedFd>>,
    stages: Vec<Stage>,
    /// When the present stage began, microseconds since the start of the run, modulo 2^32 (71
    /// minutes).
    since_us: Vec<u32>,
}

impl Table {
    /// Room for `capacity` connections; its memory is touched as they come.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            sockets: Vec::with_capacity(capacity),
            stages: Vec::with_capacity(capacity),
            since_us: Vec::with_capacity(capacity),
        }
    }

    /// Slots in use, those of ended connections included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stages.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Adds a slot without a connection.
    pub fn add(&mut self) -> usize {
        self.sockets.push(None);
        self.stages.push(Stage::Gone);
        self.since_us.push(0);
        self.len() - 1
    }

    pub fn put(&mut self, slot: usize, socket: OwnedFd) {
        self.sockets[slot] = Some(socket);
    }

    /// Closes a connection that was not established.
    pub fn end(&mut self, slot: usize) {
        self.sockets[slot] = None;
        self.stages[slot] = Stage::Gone;
    }

    /// Closes a connection that was held.
    pub fn lose(&mut self, slot: usize) {
        self.sockets[slot] = None;
        self.stages[slot] = Stage::Lost;
    }

    /// From now on only connections that are held now can be lost.
    pub fn begin_hold(&mut self) {
        for stage in self.stages.iter_mut().filter(|stage| **stage == Stage::Lost) {
            *stage = Stage::Gone;
        }
    }

    #[must_use]
    pub fn fd(&self, slot: usize) -> Option<RawFd> {
        self.sockets.get(slot)?.as_ref().map(|socket| socket.as_raw_fd())
    }

    /// A slot that does not exist is `Gone`.
    #[must_use]
    pub fn stage(&self, slot: usize) -> Stage {
        self.stages.get(slot).copied().unwrap_or(Stage::Gone)
    }

    pub fn set_stage(&mut self, slot: usize, stage: Stage) {
        self.stages[slot] = stage;
    }

    /// Enters `stage` at `now_us`, for [`Self::age_us`].
    pub fn enter(&mut self, slot: usize, stage: Stage, now_us: u64) {
        self.stages[slot] = stage;
        self.since_us[slot] = wrapped(now_us);
    }

    /// Microseconds since [`Self::enter`]; right up to 71 minutes.
    #[must_use]
    pub fn age_us(&self, slot: usize, now_us: u64) -> u64 {
        u64::from(wrapped(now_us).wrapping_sub(self.since_us[slot]))
    }

    /// The slots of connections that are held.
    pub fn held(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|slot| self.stages[*slot].is_held())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the clock is modulo 2^32")]
fn wrapped(now_us: u64) -> u32 {
    now_us as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_nine_bytes() {
        assert_eq!((size_of::<Option<OwnedFd>>(), size_of::<Stage>()), (4, 1));
    }

    #[test]
    fn ages_survive_the_turn_of_the_clock() {
        let mut table = Table::with_capacity(1);
        let slot = table.add();
        table.enter(slot, Stage::Waiting, (1 << 32) - 10);
        assert_eq!(table.age_us(slot, (1 << 32) + 5), 15);
    }

    #[test]
    fn only_established_connections_are_held() {
        let mut table = Table::with_capacity(4);
        for stage in [Stage::Gone, Stage::Connecting, Stage::Waiting, Stage::Opaque, Stage::Lost] {
            let slot = table.add();
            table.set_stage(slot, stage);
        }
        assert_eq!(table.held().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(table.stage(99), Stage::Gone);
    }

    #[test]
    fn what_was_lost_before_the_hold_is_gone() {
        let mut table = Table::with_capacity(2);
        let (first, second) = (table.add(), table.add());
        table.lose(first);
        table.begin_hold();
        table.lose(second);
        assert_eq!([first, second].map(|slot| table.stage(slot)), [Stage::Gone, Stage::Lost]);
    }
}
