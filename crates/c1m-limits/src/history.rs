//! The samples so far, as far as they are kept: the first, the newest ones, and how near each limit came.

use std::collections::VecDeque;

use c1m_record::LimitName;

use crate::reading::{Peak, Readings};

pub(crate) const LIMITS: usize = LimitName::ALL.len();

/// What is kept of one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) readings: Readings,
    /// By [`LimitName`].
    pub(crate) used: [Option<u64>; LIMITS],
}

impl Point {
    pub(crate) fn connections(&self) -> u64 {
        self.readings.connections
    }
}

/// The samples so far. [`crate::forecast`] adds them, and says what they come to.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub(crate) first: Option<Point>,
    pub(crate) recent: VecDeque<Point>,
    /// By [`LimitName`], as `past_at`.
    pub(crate) peaks: [Option<Peak>; LIMITS],
    /// Connections when each was first past.
    pub(crate) past_at: [Option<u64>; LIMITS],
    /// tcp_mem was above its first value, where pressure ends.
    pub(crate) past_low: bool,
    pub(crate) sockets_max: u64,
    pub(crate) available_bytes_min: Option<u64>,
}

impl History {
    /// The newest sample; nothing is known before the first.
    #[must_use]
    pub fn now(&self) -> Readings {
        self.recent.back().map(|point| point.readings).unwrap_or_default()
    }

    /// The reading that was nearest to its ceiling, or past it.
    #[must_use]
    pub fn peak(&self, limit: LimitName) -> Option<Peak> {
        self.peaks[limit as usize]
    }

    /// tcp_mem usage was above the value at which pressure ends.
    #[must_use]
    pub fn was_past_low(&self) -> bool {
        self.past_low
    }

    /// The most TCP sockets of any sample, TIME_WAIT included.
    #[must_use]
    pub fn sockets_max(&self) -> u64 {
        self.sockets_max
    }

    /// The least memory that was available in any sample.
    #[must_use]
    pub fn available_bytes_min(&self) -> Option<u64> {
        self.available_bytes_min
    }
}
