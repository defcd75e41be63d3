//! The few connections that wait for a time rather than for an event.

use std::{
    collections::BTreeSet,
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// Empty for a server that only holds connections; then the worker waits without a timeout.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, RawFd)>);

impl Timers {
    pub(super) fn set(&mut self, due: Instant, fd: RawFd) {
        self.0.insert((due, fd));
    }

    pub(super) fn cancel(&mut self, due: Instant, fd: RawFd) {
        self.0.remove(&(due, fd));
    }

    /// How long until the first one is due.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.0.first().map(|(due, _)| due.saturating_duration_since(Instant::now()))
    }

    /// Takes one that is due at `now`.
    pub(super) fn expired(&mut self, now: Instant) -> Option<RawFd> {
        self.0.first().filter(|(due, _)| *due <= now)?;
        self.0.pop_first().map(|(_, fd)| fd)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_expire_in_their_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        assert_eq!(timers.timeout(), None);
        timers.set(at(30), 5);
        timers.set(at(10), 7);
        timers.set(at(20), 6);
        timers.cancel(at(20), 6);
        assert_eq!(timers.expired(at(9)), None);
        assert_eq!(timers.expired(at(30)), Some(7));
        assert_eq!(timers.expired(at(30)), Some(5));
        assert!(timers.is_empty());
    }
}
