//! What each worker counts, and how the main thread reads it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::slots::Slots;

/// One worker's counters. Only that worker writes them, so nothing on the hot path is shared but with the reader.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    accepted: AtomicU64,
    closed: AtomicU64,
    requests: AtomicU64,
    /// Errors are rare: nothing is allocated before the first.
    errors: Mutex<BTreeMap<ErrorName, u64>>,
}

/// What failed, and the name of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ErrorName {
    Accept(&'static str),
    Connection(&'static str),
    Epoll(&'static str),
    Status(u16),
}

impl std::fmt::Display for ErrorName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accept(name) => write!(f, "accept {name}"),
            Self::Connection(name) => write!(f, "connection {name}"),
            Self::Epoll(name) => write!(f, "epoll {name}"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

/// A counter with one writer needs no locked instruction.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed) + count, Relaxed);
}

impl Counters {
    pub(super) fn accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(super) fn closed(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn request(&self) {
        add(&self.requests, 1);
    }

    pub(super) fn error(&self, name: ErrorName) {
        // A count is whole whatever panicked beside it.
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(name).or_default() += 1;
    }

    /// Connections of this worker now; to be asked by the worker itself.
    pub(super) fn held(&self) -> u64 {
        self.accepted.load(Relaxed).saturating_sub(self.closed.load(Relaxed))
    }
}

/// All workers' counters together, as they were at about one moment: while connections come and go, `accepted - closed` may
/// differ a little from `held`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections that the server holds.
    pub held: u64,
    /// The highest number held at a time.
    pub peak: u64,
    pub accepted: u64,
    pub closed: u64,
    /// Requests read, the refused ones included.
    pub requests: u64,
    /// By name: `accept EMFILE`, `connection ECONNRESET`, `epoll ENOSPC`, `431`.
    pub errors: BTreeMap<String, u64>,
}

impl Snapshot {
    pub(super) fn of(workers: &[Counters], slots: &Slots) -> Self {
        let mut sum = Self { held: slots.held(), peak: slots.peak(), ..Self::default() };
        for worker in workers {
            // In this order no connection is seen closed that was not seen accepted.
            sum.closed += worker.closed.load(Relaxed);
            sum.accepted += worker.accepted.load(Relaxed);
            sum.requests += worker.requests.load(Relaxed);
            for (name, count) in &*worker.errors.lock().unwrap_or_else(PoisonError::into_inner) {
                *sum.errors.entry(name.to_string()).or_default() += count;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sums_the_workers() {
        let workers = [Counters::default(), Counters::default()];
        for worker in &workers {
            worker.accepted();
            worker.accepted();
            worker.request();
            worker.error(ErrorName::Accept("EMFILE"));
        }
        workers[1].closed();
        workers[1].error(ErrorName::Status(431));
        workers[1].error(ErrorName::Connection("ECONNRESET"));
        workers[1].error(ErrorName::Epoll("ENOSPC"));
        let slots = Slots::new(None);
        let _ = slots.give_back(4, 4);
        let _ = slots.close(1);
        let sum = Snapshot::of(&workers, &slots);
        assert_eq!((sum.held, sum.peak, sum.accepted, sum.closed, sum.requests), (3, 4, 4, 1, 2));
        let errors: Vec<_> = sum.errors.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            errors,
            [("431", 1), ("accept EMFILE", 2), ("connection ECONNRESET", 1), ("epoll ENOSPC", 1)]
        );
        assert_eq!(workers[1].held(), 1);
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert!(align_of::<Counters>() >= 128 && size_of::<Counters>().is_multiple_of(128));
    }
}
