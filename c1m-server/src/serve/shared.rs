//! What the workers and the main thread share.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize},
    },
    time::{Duration, Instant},
};

use c1m_preflight::plan::Plan;

use super::{counters::Counters, group::Group, slots::Slots};
use c1m_sys::{epoll::Waker, process::nofile};

/// How the connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The peer gets everything sent so far and the end of the stream.
    Finish,
    /// The peer gets a reset, and the kernel forgets the connection at once.
    Reset,
}

impl Ending {
    /// A connection that is closed while the peer keeps its end is an orphan for a while, and may be counted as up to
    /// four (net/ipv4/tcp_timer.c, tcp_out_of_resources, 6.18): past a quarter of net.ipv4.tcp_max_orphans the kernel
    /// would begin to kill them itself, and say so in its log.
    #[must_use]
    pub fn for_many(held: u64, max_orphans: Option<u64>) -> Self {
        if max_orphans.is_some_and(|most| held > most / 4) { Self::Reset } else { Self::Finish }
    }
}

/// Values of [`Shared::order`].
pub(super) mod order {
    pub(in crate::serve) const RUN: u8 = 0;
    pub(in crate::serve) const STOP_ACCEPTING: u8 = 1;
    pub(in crate::serve) const FINISH: u8 = 2;
    pub(in crate::serve) const RESET: u8 = 3;
}

#[derive(Debug)]
pub(super) struct Shared {
    /// How long a request head may take.
    pub(super) header_timeout: Duration,
    pub(super) counters: Vec<Counters>,
    pub(super) group: Group,
    pub(super) slots: Slots,
    /// One of [`order`]; the workers look at it when they are woken.
    pub(super) order: AtomicU8,
    /// The soft limit of open files, as a worker read it last.
    pub(super) nofile: AtomicU64,
    /// Wakes the workers: an order, a slot that came free, or another limit of open files.
    pub(super) waker: Waker,
    pub(super) notices: Notices,
    /// Workers that have ended, for whatever reason.
    pub(super) ended: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        plan: &Plan,
        max_connections: Option<u64>,
        header_timeout: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            header_timeout,
            counters: (0..plan.workers).map(|_| Counters::default()).collect(),
            group: Group::new(plan.workers, plan.window),
            slots: Slots::new(max_connections),
            order: AtomicU8::new(order::RUN),
            nofile: AtomicU64::new(nofile()?.0),
            waker: Waker::new()?,
            notices: Notices { pending: Mutex::default(), waker: Waker::new()? },
            ended: AtomicUsize::new(0),
        })
    }
}

/// What the user should know while the server runs: a name, such as `EMFILE`, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub name: &'static str,
    pub text: Cow<'static, str>,
}

/// From the workers to the main thread. An eventfd tells it: the runtime's own way to wake it would write to a descriptor
/// number that is a connection in a worker's table.
#[derive(Debug)]
pub(super) struct Notices {
    pending: Mutex<BTreeMap<&'static str, Cow<'static, str>>>,
    waker: Waker,
}

impl Notices {
    pub(super) fn post(&self, name: &'static str, text: Cow<'static, str>) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(name, text);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Becomes readable with every post.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    pub(super) fn take(&self) -> Vec<Notice> {
        let pending =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        pending.into_iter().map(|(name, text)| Notice { name, text }).collect()
    }
}

/// One worker's end of [`Notices`]: posts a name once a second at most, however often the error comes.
#[derive(Debug, Default)]
pub(super) struct Notifier(BTreeMap<&'static str, Instant>);

impl Notifier {
    pub(super) fn post(
        &mut self,
        notices: &Notices,
        name: &'static str,
        text: impl FnOnce() -> Cow<'static, str>,
    ) {
        let now = Instant::now();
        let recent = self.0.get(name).is_some_and(|last| now - *last < Duration::from_secs(1));
        if !recent {
            self.0.insert(name, now);
            notices.post(name, text());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_are_reset() {
        assert_eq!(Ending::for_many(1000, Some(4000)), Ending::Finish);
        assert_eq!(Ending::for_many(1001, Some(4000)), Ending::Reset);
        assert_eq!(Ending::for_many(u64::MAX, None), Ending::Finish);
    }

    #[test]
    fn a_storm_of_errors_is_one_notice() {
        let notices = Notices { pending: Mutex::default(), waker: Waker::new().unwrap() };
        let mut notifier = Notifier::default();
        notifier.post(&notices, "EMFILE", || "full".into());
        assert_eq!(notices.take().len(), 1);
        for _ in 0..100 {
            notifier.post(&notices, "EMFILE", || panic!("built a text that nobody reads"));
        }
        assert_eq!(notices.take(), []);
    }
}
