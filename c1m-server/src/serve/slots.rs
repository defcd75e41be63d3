//! `--max-connections`: one pool of slots for all workers, and the highest number held.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

/// Connections that a worker takes from its queue before it looks at its other events: also the size of a batch of slots.
pub(super) const BATCH: u64 = 64;

/// Slots are reserved before a worker drains its queue and given back after it, so that the pool is touched once a drain
/// and not once a connection.
#[derive(Debug)]
pub(super) struct Slots {
    /// `None`: without limit.
    limit: Option<u64>,
    /// Held or reserved; at most `limit`.
    taken: AtomicU64,
    /// Workers that found no slot and wait for one.
    waiting: AtomicUsize,
    held: AtomicU64,
    peak: AtomicU64,
}

impl Slots {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            taken: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    /// Reserves up to [`BATCH`] slots. `None`: there is none, and the caller is counted as waiting until it calls
    /// [`Slots::stop_waiting`].
    pub(super) fn take(&self) -> Option<u64> {
        let Some(limit) = self.limit else { return Some(BATCH) };
        if let Some(count) = self.reserve(limit) {
            return Some(count);
        }
        // A slot may come free between the look above and the line below, and its worker saw nobody waiting. So: look
        // again after being counted.
        self.waiting.fetch_add(1, SeqCst);
        let count = self.reserve(limit)?;
        self.stop_waiting();
        Some(count)
    }

    fn reserve(&self, limit: u64) -> Option<u64> {
        let before = self
            .taken
            .fetch_update(SeqCst, SeqCst, |taken| {
                (taken < limit).then(|| taken + BATCH.min(limit - taken))
            })
            .ok()?;
        Some(BATCH.min(limit - before))
    }

    pub(super) fn stop_waiting(&self) {
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// After a drain: of `reserved` slots `used` are connections now. `true`: wake the workers that wait.
    #[must_use]
    pub(super) fn give_back(&self, reserved: u64, used: u64) -> bool {
        let held = self.held.fetch_add(used, Relaxed) + used;
        // Most drains in a hold do not raise it: spare them the write.
        if held > self.peak.load(Relaxed) {
            self.peak.fetch_max(held, Relaxed);
        }
        self.free(reserved - used)
    }

    /// After a batch of events: so many connections were closed. `true`: wake the workers that wait.
    #[must_use]
    pub(super) fn close(&self, count: u64) -> bool {
        self.held.fetch_sub(count, Relaxed);
        self.free(count)
    }

    fn free(&self, count: u64) -> bool {
        if self.limit.is_none() || count == 0 {
            return false;
        }
        self.taken.fetch_sub(count, SeqCst);
        self.waiting.load(SeqCst) > 0
    }

    /// Connections held, as of the ends of drains and of batches of events. Never above the limit, because it is lowered
    /// before the slots are given back, and raised after they were taken.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// The highest number held, as of the same moments.
    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_last_batch_is_smaller() {
        let slots = Slots::new(Some(100));
        assert_eq!(slots.take(), Some(64));
        assert!(!slots.give_back(64, 64));
        assert_eq!(slots.take(), Some(36));
        assert!(!slots.give_back(36, 36));
        assert_eq!(slots.take(), None);
        assert!(slots.close(1), "one waits");
        slots.stop_waiting();
        assert_eq!(slots.take(), Some(1));
        assert_eq!(slots.peak(), 100);
    }

    #[test]
    fn a_reservation_given_back_wakes_who_waits() {
        let slots = Slots::new(Some(10));
        assert_eq!(slots.take(), Some(10));
        assert_eq!(slots.take(), None);
        assert!(slots.give_back(10, 3));
        assert_eq!((slots.held(), slots.peak()), (3, 3), "a reservation is no connection");
    }

    #[test]
    fn without_limit_nobody_waits() {
        let slots = Slots::new(None);
        for _ in 0..10 {
            assert_eq!(slots.take(), Some(BATCH));
            assert!(!slots.give_back(BATCH, BATCH));
        }
        assert!(!slots.close(5));
        assert_eq!(slots.peak(), 10 * BATCH);
    }

    #[test]
    fn threads_never_hold_more_than_the_limit() {
        const LIMIT: u64 = 150;
        let slots = Arc::new(Slots::new(Some(LIMIT)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let slots = Arc::clone(&slots);
                std::thread::spawn(move || {
                    for round in 0..20_000u64 {
                        if let Some(reserved) = slots.take() {
                            let used = (round % BATCH).min(reserved);
                            let _ = slots.give_back(reserved, used);
                            let _ = slots.close(used);
                        } else {
                            slots.stop_waiting();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(slots.peak() <= LIMIT);
        assert_eq!((slots.taken.load(SeqCst), slots.waiting.load(SeqCst), slots.held()), (0, 0, 0));
    }
}
