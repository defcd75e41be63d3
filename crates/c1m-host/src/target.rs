//! Processes that are not ours: which they are, and the limits that bound them.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{cgroup, task};

/// Processes come and go; they are looked for this often.
const REFRESH: Duration = Duration::from_secs(5);

/// What bounds somebody, at one moment. `None`: not known from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    pub nofile: Option<u64>,
    /// Of the tables that are counted, and what they can hold.
    pub descriptors: Option<u64>,
    pub descriptors_max: Option<u64>,
    /// What their listeners asked for.
    pub backlog: Option<u64>,
    /// Connections in the fullest accept queue of their listeners, and how many may wait there.
    pub accept_queue: Option<(u64, u64)>,
    /// Of their listeners, how many connections the longest queue takes.
    pub longest_backlog: Option<u64>,
    pub epoll_watches: Option<u64>,
    pub max_orphans: Option<u64>,
}

/// Which processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// None in particular: what bounds a process is not known.
    Nobody,
    /// This one, and those that it started.
    Family(u32),
    /// All of a cgroup.
    Cgroup(PathBuf),
}

/// Processes that are not ours.
pub struct Others {
    which: Which,
    /// The ports that are watched; empty: every port.
    pub ports: Vec<u16>,
    pids: Vec<u32>,
    /// Of them, those that are not looked at.
    left_out: usize,
    refreshed: Option<Instant>,
    /// Opened before another network namespace was entered, which does not show it: net.ipv4.tcp_max_orphans.
    max_orphans: Option<File>,
}

impl Others {
    #[must_use]
    pub fn new(which: Which) -> Self {
        let max_orphans = File::open("/proc/sys/net/ipv4/tcp_max_orphans").ok();
        Self {
            which,
            ports: Vec::new(),
            pids: Vec::new(),
            left_out: 0,
            refreshed: None,
            max_orphans,
        }
    }

    /// Whether processes were named; without any, the target is the network namespace.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        self.which != Which::Nobody
    }

    /// As they are now, found out anew every few seconds.
    pub fn pids(&mut self) -> &[u32] {
        if self.refreshed.is_none_or(|time| time.elapsed() >= REFRESH) {
            self.pids = match &self.which {
                Which::Nobody => Vec::new(),
                Which::Family(pid) => task::family(*pid),
                Which::Cgroup(folder) => cgroup::members(folder),
            };
            self.left_out = self.pids.len().saturating_sub(task::PROCESSES_MAX);
            self.pids.truncate(task::PROCESSES_MAX);
            self.refreshed = Some(Instant::now());
        }
        &self.pids
    }

    /// The memory cgroup that they are in.
    #[must_use]
    pub fn cgroup(&self) -> Option<cgroup::Cgroup> {
        match &self.which {
            Which::Nobody => None,
            Which::Family(pid) => cgroup::of(*pid),
            Which::Cgroup(folder) => cgroup::at(folder),
        }
    }

    /// What of them is not looked at, in words. `None`: nothing.
    pub fn left_out(&mut self) -> Option<String> {
        let most = task::THREADS_MAX as u64;
        let beyond = |pid: &u32| Some(task::threads(*pid)?.saturating_sub(most));
        let threads: u64 = self.pids().iter().filter_map(beyond).sum();
        left_out(self.left_out, threads)
    }

    /// Those of the table that is nearest to its limit.
    pub fn bounds(&mut self) -> Bounds {
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
}
