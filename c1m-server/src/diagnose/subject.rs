//! Whose limits are read: those of the own server, by its plan, or those of processes that are not ours.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use c1m_host::{cgroup, task};
use c1m_preflight::{plan::Plan, readings::Bounds};
use c1m_sys::process::nofile;

/// Processes come and go; they are looked for this often.
const REFRESH: Duration = Duration::from_secs(5);

/// Whose.
pub(crate) enum Subject {
    Server(Plan),
    Others(Others),
}

impl Subject {
    /// With so many connections.
    pub(super) fn bounds(&mut self, connections: u64) -> Bounds {
        match self {
            Self::Server(plan) => of_server(plan, connections, nofile().ok().map(|(soft, _)| soft)),
            Self::Others(others) => others.bounds(),
        }
    }

    /// What of it is not looked at, in words. `None`: nothing.
    pub(super) fn left_out(&mut self) -> Option<String> {
        match self {
            Self::Server(_) => None,
            Self::Others(others) => others.left_out(),
        }
    }

    /// The memory cgroup that it is in.
    pub(super) fn cgroup(&self) -> Option<cgroup::Cgroup> {
        match self {
            Self::Server(_) => cgroup::own(),
            Self::Others(others) => match &others.which {
                Which::Nobody => None,
                Which::Family(pid) => cgroup::of(*pid),
                Which::Cgroup(folder) => cgroup::at(folder),
            },
        }
    }
}

fn of_server(plan: &Plan, connections: u64, nofile: Option<u64>) -> Bounds {
    let most = nofile.map(|nofile| nofile.saturating_mul(plan.workers as u64));
    Bounds {
        nofile,
        // What is no connection's: each table's own descriptors.
        descriptors: most
            .map(|most| connections.saturating_add(most.saturating_sub(plan.capacity()))),
        descriptors_max: most,
        backlog: Some(plan.backlog.into()),
        epoll_watches: Some(connections),
        max_orphans: None,
    }
}

/// Which processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    /// None in particular: what bounds a process is not known.
    Nobody,
    /// This one, and those that it started.
    Family(u32),
    /// All of a cgroup.
    Cgroup(PathBuf),
}

/// Processes that are not ours.
pub(crate) struct Others {
    which: Which,
    pids: Vec<u32>,
    /// Of them, those that are not looked at.
    left_out: usize,
    refreshed: Option<Instant>,
    /// Opened before another network namespace was entered, which does not show it: net.ipv4.tcp_max_orphans.
    max_orphans: Option<File>,
}

impl Others {
    pub(crate) fn new(which: Which) -> Self {
        let max_orphans = File::open("/proc/sys/net/ipv4/tcp_max_orphans").ok();
        Self { which, pids: Vec::new(), left_out: 0, refreshed: None, max_orphans }
    }

    /// As they are now, found out anew every few seconds.
    pub(crate) fn pids(&mut self) -> &[u32] {
        if self.refreshed.is_none_or(|time| time.elapsed() >= REFRESH) {
            self.pids = match &self.which {
                Which::Nobody => Vec::new(),
                Which::Family(pid) => task::family(*pid),
                Which::Cgroup(folder) => task::members(folder),
            };
            self.left_out = self.pids.len().saturating_sub(task::PROCESSES_MAX);
            self.pids.truncate(task::PROCESSES_MAX);
            self.refreshed = Some(Instant::now());
        }
        &self.pids
    }

    /// What of them is not looked at, in words. `None`: nothing.
    pub(super) fn left_out(&mut self) -> Option<String> {
        let most = task::THREADS_MAX as u64;
        let beyond = |pid: &u32| Some(task::threads(*pid)?.saturating_sub(most));
        let threads: u64 = self.pids().iter().filter_map(beyond).sum();
        left_out(self.left_out, threads)
    }

    fn bounds(&mut self) -> Bounds {
        let tables = self.pids().iter().map(|pid| (task::descriptors(*pid), task::nofile(*pid)));
        let (used, most) = fullest(tables);
        Bounds {
            nofile: most,
            descriptors: used,
            descriptors_max: most,
            max_orphans: self.max_orphans.as_ref().and_then(read_number),
            ..Bounds::default()
        }
    }
}

fn left_out(processes: usize, threads: u64) -> Option<String> {
    let processes = (processes > 0)
        .then(|| format!("{processes} processes beyond the first {}", task::PROCESSES_MAX));
    let threads = (threads > 0)
        .then(|| format!("{threads} threads beyond the first {} of a process", task::THREADS_MAX));
    let both: Vec<_> = processes.into_iter().chain(threads).collect();
    (!both.is_empty()).then(|| {
        format!(
            "the limits and descriptors of {} are not looked at; --pid or --cgroup names fewer",
            both.join(", and of ")
        )
    })
}

/// The table that is nearest to its limit; of those whose usage is not known, the one that holds least.
fn fullest(tables: impl Iterator<Item = (Option<u64>, Option<u64>)>) -> (Option<u64>, Option<u64>) {
    let share = |used: u64, most: u64| u128::from(used) * 1_000_000 / u128::from(most.max(1));
    tables
        .filter_map(|(used, most)| Some((used, most?)))
        .max_by_key(|(used, most)| (used.map(|used| share(used, *most)), u64::MAX - most))
        .map_or((None, None), |(used, most)| (used, Some(most)))
}

fn read_number(file: &File) -> Option<u64> {
    let mut bytes = [0; 32];
    let length = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..length]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_a_server_are_those_of_all_tables() {
        let plan = Plan { workers: 3, window: 2, table: 93, margin: 10, backlog: 128 };
        let of = |connections, nofile| {
            let bounds = of_server(&plan, connections, nofile);
            (bounds.descriptors, bounds.descriptors_max)
        };
        assert_eq!(of(0, Some(100)), (Some(21), Some(300)));
        assert_eq!(of(279, Some(100)), (Some(300), Some(300)), "full");
        assert_eq!(of(1, None), (None, None));
    }

    #[test]
    fn what_is_not_looked_at_is_said() {
        assert_eq!(left_out(0, 0), None);
        let told = left_out(3, 7).unwrap();
        assert!(told.contains("3 processes") && told.contains("7 threads"), "{told}");
        let mut others = Others::new(Which::Family(std::process::id()));
        assert_eq!(others.left_out(), None);
    }

    #[test]
    fn the_fullest_table_is_the_one_that_counts() {
        let of = |tables: &[(Option<u64>, Option<u64>)]| fullest(tables.iter().copied());
        assert_eq!(
            of(&[(Some(50), Some(1000)), (Some(9), Some(10)), (None, Some(5))]),
            (Some(9), Some(10))
        );
        assert_eq!(of(&[(None, Some(7)), (None, Some(5)), (Some(1), None)]), (None, Some(5)));
        assert_eq!(of(&[]), (None, None));
    }

    #[test]
    fn nobody_in_particular_has_no_bounds_of_its_own() {
        let mut subject = Subject::Others(Others::new(Which::Nobody));
        let bounds = subject.bounds(7);
        assert_eq!((bounds.nofile, bounds.descriptors, bounds.epoll_watches), (None, None, None));
        assert_eq!(subject.cgroup(), None);
    }

    #[test]
    fn a_process_has_its_own() {
        let own = std::process::id();
        let mut subject = Subject::Others(Others::new(Which::Family(own)));
        let bounds = subject.bounds(0);
        assert!(bounds.nofile.is_some());
        assert_eq!(bounds.descriptors.is_some(), task::descriptors(own).is_some());
    }
}
