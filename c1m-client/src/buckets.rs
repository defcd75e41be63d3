//! Times as Prometheus counts them: in buckets, while they are measured.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use c1m_program::metrics::Histogram;

/// 1, 2 and 5 of each power of ten, from 10 µs to 100 s.
const BOUNDS_US: [u64; 22] = [
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];

/// Times of one kind, which one worker counts, and everybody may read meanwhile.
///
/// The upper bounds of the buckets are those of [`BOUNDS_US`] that are below the timeout, and the
/// timeout. What was not answered within it is in the count, and in no bucket but the one without a
/// bound: a quantile among them is estimated as the timeout, which it is at least. With a bound
/// above the timeout it would be estimated as that one, which nobody has measured.
#[derive(Debug, Default)]
pub struct Buckets {
    bounds_us: Vec<u64>,
    /// By bound.
    counts: Vec<AtomicU64>,
    /// Answered, and longer than the last bound: late openings count from their planned times.
    longer: AtomicU64,
    /// Of all that were answered.
    sum_us: AtomicU64,
    unanswered: AtomicU64,
}

impl Buckets {
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let below = BOUNDS_US.into_iter().take_while(|bound| *bound < timeout_us);
        let bounds_us: Vec<u64> = below.chain([timeout_us]).collect();
        let counts = bounds_us.iter().map(|_| AtomicU64::default()).collect();
        Self { bounds_us, counts, ..Self::default() }
    }

    /// Each time is compared with the bounds as it was measured: nothing is rounded.
    pub fn record(&self, microseconds: u64) {
        let index = self.bounds_us.partition_point(|bound| *bound < microseconds);
        self.counts.get(index).unwrap_or(&self.longer).fetch_add(1, Relaxed);
        self.sum_us.fetch_add(microseconds, Relaxed);
    }

    /// One more was not answered within the timeout.
    pub fn miss(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Relaxed)
    }

    /// All of several that have the same bounds, in seconds.
    #[must_use]
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Histogram {
        let mut sum = Histogram { buckets: Vec::new(), count: 0, sum: 0.0 };
        for one in all {
            sum.buckets.resize(one.bounds_us.len(), (0.0, 0));
            for ((bucket, bound), count) in
                sum.buckets.iter_mut().zip(&one.bounds_us).zip(&one.counts)
            {
                let count = count.load(Relaxed);
                *bucket = (seconds(*bound), bucket.1 + count);
                sum.count += count;
            }
            sum.count += one.longer.load(Relaxed) + one.unanswered();
            sum.sum += seconds(one.sum_us.load(Relaxed));
        }
        sum
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^52 µs are 142 years")]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_their_buckets_and_the_timeout_is_the_last_one() {
        let buckets = Buckets::new(Duration::from_millis(3));
        for us in [1, 10, 11, 20, 2_000, 2_001, 3_000] {
            buckets.record(us);
        }
        // Answered in time, and opened later than planned.
        buckets.record(7_000_000);
        buckets.miss();
        let other = Buckets::new(Duration::from_millis(3));
        other.record(3_000);
        other.miss();
        let Histogram { buckets, count, sum } = Buckets::sum([&buckets, &other]);
        let expected = [
            (0.00001, 2),
            (0.00002, 2),
            (0.00005, 0),
            (0.0001, 0),
            (0.0002, 0),
            (0.0005, 0),
            (0.001, 0),
            (0.002, 1),
            (0.003, 3),
        ];
        assert_eq!(buckets, expected);
        assert_eq!(count, 11);
        let known = 1 + 10 + 11 + 20 + 2_000 + 2_001 + 3_000 + 7_000_000 + 3_000;
        assert!((sum - seconds(known)).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn each_timeout_stands_once() {
        for (timeout, bounds) in [(1, 1), (10, 1), (11, 2), (10_000_000, 19), (100_000_001, 23)] {
            let bounds_us = Buckets::new(Duration::from_micros(timeout)).bounds_us;
            assert_eq!((bounds_us.len(), bounds_us.last()), (bounds, Some(&timeout)));
            assert!(bounds_us.is_sorted_by(|one, next| one < next), "{bounds_us:?}");
        }
    }
}
