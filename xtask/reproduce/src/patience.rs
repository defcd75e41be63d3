//! What every wait is bounded by: that something moves. How long the whole takes depends on the host, and nobody can know it.

use std::time::{Duration, Instant};

/// Over when nothing has moved for so long.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    last_step: Instant,
    fewest: Option<u64>,
}

impl Patience {
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, last_step: now, fewest: None }
    }

    /// Something moved.
    pub(super) fn step(&mut self, now: Instant) {
        self.last_step = now;
    }

    /// So many are left of what has to go, as sockets that the kernel closes. Fewer than ever before is a step; to rise and fall again, as other programs make it,
    /// is none.
    pub(super) fn left(&mut self, count: Option<u64>, now: Instant) {
        // Where the host does not say it, only other steps count.
        let Some(count) = count else { return };
        if self.fewest.is_some_and(|fewest| count < fewest) {
            self.last_step = now;
        }
        self.fewest = Some(self.fewest.map_or(count, |fewest| fewest.min(count)));
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_step) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn it_lasts_as_long_as_something_goes() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        let mut now = start;
        for left in (0..1_000).rev() {
            now += LIMIT / 2;
            patience.left(Some(left), now);
            assert!(!patience.is_over(now));
        }
        assert!(!patience.is_over(now + LIMIT / 2) && patience.is_over(now + LIMIT));
    }

    #[test]
    fn what_comes_and_goes_is_no_step() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        for (second, left) in (1..=10).zip([5, 9, 5, 8, 6, 9, 5, 7, 5, 9]) {
            patience.left(Some(left), start + Duration::from_secs(second));
        }
        assert!(patience.is_over(start + LIMIT));
        patience.step(start + LIMIT);
        assert!(!patience.is_over(start + LIMIT));
    }
}
