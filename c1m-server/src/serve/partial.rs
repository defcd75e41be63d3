//! What is half done on a connection, and how long a request head may be that.

use std::{
    collections::BTreeMap,
    os::fd::RawFd,
    time::{Duration, Instant},
};

use super::response::Response;
use c1m_sys::epoll;

/// What an idle connection is watched for.
pub(super) const READ: u32 = epoll::IN | epoll::PEER_CLOSED;

/// What is half done on a connection. The default is an idle one, which is not stored.
#[derive(Debug)]
pub(super) struct Partial {
    /// Read and not yet understood, or waiting behind `write`. Bounded: nothing is read while a response waits.
    pub(super) input: Vec<u8>,
    /// `input` may end with the beginning of a request head, of which the first byte came then.
    pub(super) head_since: Option<Instant>,
    /// `input` has not been looked through: the connection had its turn.
    pub(super) has_more: bool,
    /// Bytes of a request's body still to be read and dropped.
    pub(super) discard_bytes: u64,
    /// A response and how much of it was sent.
    pub(super) write: Option<(Response, u64)>,
    /// Bytes that may still be dropped before the connection is closed in any case.
    pub(super) drain_bytes: Option<u64>,
    pub(super) due: Option<Instant>,
    /// What epoll was told to watch for.
    pub(super) interest: u32,
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            input: Vec::new(),
            head_since: None,
            has_more: false,
            discard_bytes: 0,
            write: None,
            drain_bytes: None,
            due: None,
            interest: READ,
        }
    }
}

impl Partial {
    pub(super) fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.discard_bytes == 0
            && self.write.is_none()
            && self.drain_bytes.is_none()
            && self.due.is_none()
    }

    pub(super) fn wanted_interest(&self) -> u32 {
        match (&self.write, self.due) {
            // Its next turn comes when the others had theirs, and it is writable.
            (None, _) if self.has_more => epoll::OUT,
            (None, _) => READ,
            (Some(_), None) => epoll::OUT,
            // Retried by the clock; errors are reported all the same.
            (Some(_), Some(_)) => 0,
        }
    }
}

/// Looks for overdue heads in the time that a head may take, at most: what one takes too long is at most a 64th of it.
const LOOKS: u32 = 64;

/// What is half done on the connections of one worker. Who has nothing half done is not in it.
#[derive(Debug)]
pub(super) struct Partials {
    entries: BTreeMap<RawFd, Box<Partial>>,
    /// How long a request head may take from its first byte to its last.
    head_timeout: Duration,
    /// Entries with the beginning of a head. Without one there is no tick.
    heads: usize,
    next_look: Option<Instant>,
    /// Found by the last look, and not given out yet.
    overdue: Vec<RawFd>,
}

impl Partials {
    pub(super) fn new(head_timeout: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            head_timeout,
            heads: 0,
            next_look: None,
            overdue: Vec::new(),
        }
    }

    pub(super) fn remove(&mut self, fd: RawFd) -> Option<Partial> {
        if self.entries.is_empty() {
            return None;
        }
        let partial = *self.entries.remove(&fd)?;
        self.heads -= usize::from(partial.head_since.is_some());
        Some(partial)
    }

    pub(super) fn insert(&mut self, fd: RawFd, partial: Partial) {
        if let Some(since) = partial.head_since {
            // A time that no clock reaches is none.
            let due = since.checked_add(self.head_timeout);
            let earlier = self.next_look.filter(|_| self.heads > 0);
            self.next_look = [due, earlier].into_iter().flatten().min();
            self.heads += 1;
        }
        self.entries.insert(fd, Box::new(partial));
    }

    /// How long until there is something to look for.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if !self.overdue.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.next_look.filter(|_| self.heads > 0)?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// One connection whose request head took too long, taken out.
    pub(super) fn overdue(&mut self) -> Option<(RawFd, Partial)> {
        if self.heads == 0 {
            self.overdue.clear();
            return None;
        }
        let now = Instant::now();
        if self.overdue.is_empty() && self.next_look.is_some_and(|next| next <= now) {
            self.look(now);
        }
        let is_late = |since: Instant| now.saturating_duration_since(since) >= self.head_timeout;
        while let Some(fd) = self.overdue.pop() {
            // It may have gone on since, or be another connection.
            let since = self.entries.get(&fd).and_then(|partial| partial.head_since);
            if since.is_some_and(is_late) {
                return self.remove(fd).map(|partial| (fd, partial));
            }
        }
        None
    }

    fn look(&mut self, now: Instant) {
        let mut next = None;
        for (fd, partial) in &self.entries {
            let due = partial.head_since.and_then(|since| since.checked_add(self.head_timeout));
            match due {
                Some(due) if due <= now => self.overdue.push(*fd),
                Some(due) => next = Some(next.map_or(due, |next: Instant| next.min(due))),
                None => {}
            }
        }
        let soonest = now + (self.head_timeout / LOOKS).min(Duration::from_secs(60));
        self.next_look = next.map(|next| next.max(soonest));
    }
}

#[cfg(test)]
impl Partials {
    pub(super) fn get(&self, fd: RawFd) -> Option<&Partial> {
        self.entries.get(&fd).map(|partial| &**partial)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn head(age: Duration) -> Partial {
        let since = Instant::now().checked_sub(age);
        Partial { input: b"GET".to_vec(), head_since: since, ..Partial::default() }
    }

    #[test]
    fn overdue_heads_come_out_and_then_there_is_no_tick() {
        let mut partials = Partials::new(TIMEOUT);
        assert_eq!(partials.timeout(), None);
        partials.insert(4, Partial { discard_bytes: 9, ..Partial::default() });
        assert_eq!(partials.timeout(), None, "only heads have a time");
        partials.insert(5, head(Duration::from_secs(3)));
        partials.insert(6, head(2 * TIMEOUT));
        partials.insert(7, head(TIMEOUT));
        assert_eq!(partials.timeout(), Some(Duration::ZERO));
        let mut out = [(); 2].map(|()| partials.overdue().unwrap().0);
        out.sort_unstable();
        assert_eq!(out, [6, 7]);
        assert!(partials.overdue().is_none());
        assert!(
            partials.timeout().is_some_and(|left| left > TIMEOUT / LOOKS / 2 && left < TIMEOUT)
        );
        assert!(partials.remove(5).is_some());
        assert_eq!((partials.timeout(), partials.len()), (None, 1));
        assert!(partials.overdue().is_none());
    }

    #[test]
    fn what_went_on_after_the_look_is_left_alone() {
        let mut partials = Partials::new(TIMEOUT);
        for fd in [5, 6, 7] {
            partials.insert(fd, head(TIMEOUT));
        }
        assert_eq!(partials.overdue().unwrap().0, 7);
        // One was answered, and the number of the other is a new connection's.
        partials.remove(6).unwrap();
        partials.insert(6, Partial { discard_bytes: 1, ..Partial::default() });
        partials.remove(5).unwrap();
        partials.insert(5, head(Duration::ZERO));
        assert!(partials.overdue().is_none());
        assert!(partials.timeout().is_some_and(|left| left > TIMEOUT / 2));
    }

    #[test]
    fn a_time_without_end_is_none() {
        let mut partials = Partials::new(Duration::MAX);
        partials.insert(5, head(TIMEOUT));
        assert_eq!(partials.timeout(), None);
        assert!(partials.overdue().is_none());
    }
}
