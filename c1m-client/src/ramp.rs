//! How fast connections are opened, and by how many workers.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use c1m_server::{cli::Workers, sys::process};
use thiserror::Error;

use crate::shard::Shard;

/// Descriptors of a worker that are no connection: its epoll, and one that is being tried when the table is full.
const OWN_DESCRIPTORS: u64 = 4;

/// The pace of new connections, shared by all workers: one at a time, evenly.
///
/// A late one is made up for, but not more than [`Self::CATCH_UP`] of them: after a pause of the server there is no burst.
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds between two connections; 0: as fast as it goes
    interval_ns: u64,
    /// When the next one is due, in nanoseconds since the start of the run
    next_ns: AtomicU64,
}

impl Pace {
    const CATCH_UP: Duration = Duration::from_millis(100);

    /// `per_second`: connections a second of all `parts` of the run together, at least 1; `None`: as fast as it goes.
    #[must_use]
    pub fn new(per_second: Option<u64>, parts: u64) -> Self {
        let interval_ns =
            per_second.map_or(0, |rate| (parts.saturating_mul(1_000_000_000) / rate.max(1)).max(1));
        Self { interval_ns, next_ns: AtomicU64::new(0) }
    }

    /// Takes leave to open one connection at `now` since the start. `Err`: how long to wait before asking again.
    pub fn take(&self, now: Duration) -> Result<(), Duration> {
        if self.interval_ns == 0 {
            return Ok(());
        }
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = nanoseconds(now);
        let earliest = now_ns.saturating_sub(nanoseconds(Self::CATCH_UP));
        self.next_ns
            .fetch_update(Relaxed, Relaxed, |next| {
                (next <= now_ns).then(|| next.max(earliest) + self.interval_ns)
            })
            .map(drop)
            .map_err(|next| Duration::from_nanos(next - now_ns))
    }
}

/// The workers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crew {
    pub workers: usize,
    /// How many of them open or close connections at the same time: more threads than cores only wait for each other, and
    /// blur what is in flight.
    pub at_a_time: usize,
    connections: u64,
}

/// The connections do not fit into the descriptor tables. The text names each knob with the number that would do.
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
    fn a_pace_is_even_and_makes_up_for_little() {
        let pace = Pace::new(Some(1000), 1);
        let at = Duration::from_micros;
        assert_eq!(pace.take(at(0)), Ok(()));
        assert_eq!(pace.take(at(0)), Err(at(1000)));
        assert_eq!(pace.take(at(400)), Err(at(600)));
        assert_eq!(pace.take(at(1000)), Ok(()));
        // After a pause of ten seconds: 100 ms are made up for, and the one that is due.
        let made_up = (0..1000).take_while(|_| pace.take(at(10_000_000)).is_ok()).count();
        assert_eq!(made_up, 101);
    }

    #[test]
    fn parts_of_a_run_share_its_rate() {
        let pace = Pace::new(Some(1000), 4);
        assert_eq!(pace.take(Duration::ZERO), Ok(()));
        assert_eq!(pace.take(Duration::ZERO), Err(Duration::from_millis(4)));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let pace = Pace::new(None, 1);
        assert!((0..1000).all(|_| pace.take(Duration::ZERO).is_ok()));
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
