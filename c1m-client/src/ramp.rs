//! How fast connections are opened, and by how many workers.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use c1m_preflight::plan::Workers;
use c1m_sys::process;
use thiserror::Error;

use crate::shard::Shard;

/// Descriptors of a worker that are no connection: its epoll, and one that is being tried when the
/// table is full.
const OWN_DESCRIPTORS: u64 = 4;

/// The pace of new connections, shared by all workers: connection k is planned at k / rate, and
/// that never moves.
///
/// Late ones are made up for: [`Self::AT_ONCE`] of the plan at once, and from then on at twice the
/// rate, until the plan is met again. So there is no burst after a pause of the server, and its
/// pause shows in the latencies of exactly those that it kept waiting: they count from the planned
/// time. With a plan that moved with the pause, those would be missing in the latencies
/// (coordinated omission).
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds between two connections. `None`: unlimited.
    interval_ns: Option<u64>,
    next: Mutex<Next>,
}

/// In nanoseconds since the start of the run.
#[derive(Debug, Default)]
struct Next {
    /// When the next connection is planned.
    planned_ns: u64,
    /// When it may be opened, if it is late.
    allowed_ns: u64,
}

impl Pace {
    const AT_ONCE: Duration = Duration::from_millis(100);

    /// `per_second`: connections per second of all `parts` of the run together, at least 1; `None`:
    /// unlimited.
    #[must_use]
    pub fn new(per_second: Option<u64>, parts: u64) -> Self {
        let interval_ns =
            per_second.map(|rate| (parts.saturating_mul(1_000_000_000) / rate.max(1)).max(1));
        Self { interval_ns, next: Mutex::default() }
    }

    /// Whether there is a rate.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.interval_ns.is_some()
    }

    /// Takes leave to open one connection at `now` since the start. Returns when it was planned:
    /// not later, and `now` itself without a rate. `Err`: how long to wait before asking again.
    pub fn take(&self, now: Duration) -> Result<Duration, Duration> {
        let Some(interval_ns) = self.interval_ns else { return Ok(now) };
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = nanoseconds(now);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due_ns = next.planned_ns.max(next.allowed_ns);
        if due_ns > now_ns {
            return Err(Duration::from_nanos(due_ns - now_ns));
        }
        let planned = Duration::from_nanos(next.planned_ns);
        next.planned_ns = next.planned_ns.saturating_add(interval_ns);
        // At twice the rate, half the time makes up for as many.
        let earliest = now_ns.saturating_sub(nanoseconds(Self::AT_ONCE / 2));
        next.allowed_ns = next.allowed_ns.max(earliest).saturating_add(interval_ns / 2);
        Ok(planned)
    }
}

/// The rate that was reached: from the first planned instant to the last connection that was
/// established. `None`: of fewer than two connections there is none.
#[must_use]
pub fn reached_per_s(established: u64, last_established_s: Option<f64>) -> Option<f64> {
    let last_s = last_established_s.filter(|seconds| *seconds > 0.0)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let intervals = established.checked_sub(1).filter(|intervals| *intervals > 0)? as f64;
    Some(intervals / last_s)
}

/// The workers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crew {
    pub workers: usize,
    /// How many of them open or close connections at the same time: more threads than cores only
    /// wait for each other, and blur what is in flight.
    pub at_a_time: usize,
    connections: u64,
}

/// The connections do not fit into the descriptor tables. The text names each knob with the number
/// that would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{connections} connections do not fit into {workers} descriptor tables of {a_table} each: use --workers {needed} (or auto), or a hard limit of open files of {limit} (ulimit -Hn, LimitNOFILE=)"
)]
pub struct TooFewTables {
    pub connections: u64,
    pub workers: u64,
    pub a_table: u64,
    pub needed: u64,
    pub limit: u64,
}

impl Crew {
    /// Raises the soft limit of open files to the hard one, and asks what is open already.
    pub fn of_this_process(
        wanted: Workers,
        connections: u64,
    ) -> std::io::Result<Result<Self, TooFewTables>> {
        let limit = process::raise_nofile()?;
        let open = std::fs::read_dir("/proc/self/fd")?.count() as u64;
        let cores = std::thread::available_parallelism()?.get();
        Ok(Self::new(wanted, connections, cores, limit, open + OWN_DESCRIPTORS))
    }

    /// `limit`: descriptors of one table, of which `taken` are no connections.
    pub fn new(
        wanted: Workers,
        connections: u64,
        cores: usize,
        limit: u64,
        taken: u64,
    ) -> Result<Self, TooFewTables> {
        // More threads than this are refused by the flag as well.
        const MOST: u64 = 4096;
        let a_table = limit.saturating_sub(taken).min(u64::from(u32::MAX) / 2);
        let needed = connections.div_ceil(a_table.max(1));
        let workers = match wanted {
            Workers::Auto => needed.max(cores as u64).min(connections).min(MOST),
            Workers::Count(count) => (count as u64).min(connections),
        };
        if a_table == 0 || needed > workers {
            let limit = connections.div_ceil(workers.max(1)) + taken;
            return Err(TooFewTables { connections, workers, a_table, needed, limit });
        }
        let workers = usize::try_from(workers).unwrap_or(usize::MAX);
        Ok(Self { workers, at_a_time: cores.min(workers), connections })
    }

    /// Connections of all workers together.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// The connections of one worker. The shares are equal to within one, and cover all of them.
    #[must_use]
    pub fn share(&self, worker: usize) -> Range<u64> {
        Shard::new(worker as u64, self.workers as u64)
            .map_or(self.connections..self.connections, |shard| shard.share(self.connections))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pace_is_even_and_makes_up_for_what_is_late_without_a_burst() {
        let pace = Pace::new(Some(1000), 1);
        let at = Duration::from_micros;
        assert_eq!(pace.take(at(0)), Ok(at(0)));
        assert_eq!(pace.take(at(0)), Err(at(1000)));
        assert_eq!(pace.take(at(400)), Err(at(600)));
        assert_eq!(pace.take(at(1000)), Ok(at(1000)));
        // After a pause of ten seconds: 100 ms of the plan at once, and then one each half of a
        // millisecond, each at its planned time.
        let resumes = at(10_000_000);
        let at_once = (0..1000).map_while(|_| pace.take(resumes).ok());
        let planned: Vec<Duration> = at_once.collect();
        assert!((100..=102).contains(&planned.len()), "{}", planned.len());
        assert!(planned.iter().copied().eq((2..).map(|k| at(k * 1000)).take(planned.len())));
        assert!(pace.take(resumes).unwrap_err() <= at(500));
        let in_the_next_second =
            (1..=100_000).filter(|step| pace.take(resumes + at(step * 10)).is_ok()).count();
        assert!((1999..=2001).contains(&in_the_next_second), "{in_the_next_second}");
    }

    #[test]
    fn parts_of_a_run_share_its_rate() {
        let pace = Pace::new(Some(1000), 4);
        assert_eq!(pace.take(Duration::ZERO), Ok(Duration::ZERO));
        assert_eq!(pace.take(Duration::ZERO), Err(Duration::from_millis(4)));
    }

    #[test]
    fn without_a_rate_nothing_waits_and_nothing_is_late() {
        let pace = Pace::new(None, 1);
        assert!((0..1000).map(Duration::from_micros).all(|now| pace.take(now) == Ok(now)));
    }

    #[test]
    fn auto_takes_what_the_tables_need_and_the_cores_at_least() {
        let workers =
            |connections| Crew::new(Workers::Auto, connections, 2, 20_000, 10).unwrap().workers;
        assert_eq!([1, 2, 39_980, 39_981, 1_024_000].map(workers), [1, 2, 2, 3, 52]);
    }

    #[test]
    fn too_few_tables_are_refused_with_what_would_do() {
        let error = Crew::new(Workers::Count(3), 100_000, 2, 20_000, 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "100000 connections do not fit into 3 descriptor tables of 19990 each: use --workers 6 (or auto), \
             or a hard limit of open files of 33344 (ulimit -Hn, LimitNOFILE=)"
        );
        assert!(Crew::new(Workers::Count(6), 100_000, 2, 20_000, 10).is_ok());
        assert!(Crew::new(Workers::Count(3), 100_000, 2, 33_344, 10).is_ok());
        assert!(Crew::new(Workers::Count(3), 100_000, 2, 33_343, 10).is_err());
        assert!(Crew::new(Workers::Auto, 100, 2, 3, 10).is_err());
    }

    proptest! {
        #[test]
        fn a_pace_keeps_its_plan_and_twice_its_rate(rate in 1u64..2_000_000, steps in prop::collection::vec(0u64..400_000, 1..300)) {
            let pace = Pace::new(Some(rate), 1);
            let (mut now, mut planned_next) = (Duration::ZERO, Duration::ZERO);
            let interval = Duration::from_nanos((1_000_000_000 / rate).max(1));
            let mut opened = 0u32;
            for step in steps {
                now += Duration::from_micros(step);
                // Not all at once: a worker asks as often as it has room.
                for _ in 0..64 {
                    match pace.take(now) {
                        Ok(planned) => {
                            prop_assert_eq!(planned, planned_next);
                            prop_assert!(planned <= now);
                            planned_next += interval;
                            opened += 1;
                        }
                        Err(wait) => {
                            prop_assert!(wait > Duration::ZERO);
                            break;
                        }
                    }
                }
                prop_assert!(opened.saturating_sub(1) * (interval / 2) <= now + Pace::AT_ONCE / 2 + interval);
            }
        }

        #[test]
        fn shares_cover_everything_once(connections in 1u64..3_000_000, workers in 1usize..300) {
            let Ok(crew) = Crew::new(Workers::Count(workers), connections, 2, 4_000_000, 10) else {
                return Err(TestCaseError::fail("refused"));
            };
            let mut next = 0;
            for worker in 0..crew.workers {
                let share = crew.share(worker);
                prop_assert_eq!(share.start, next);
                prop_assert!(share.end - share.start <= connections.div_ceil(crew.workers as u64));
                next = share.end;
            }
            prop_assert_eq!(next, connections);
        }
    }
}
