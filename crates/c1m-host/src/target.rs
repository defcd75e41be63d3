//! The target of a watch: processes, a cgroup, a network namespace, ports or the whole host; and
//! the limits of its processes.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use c1m_sys::netns::Namespace;
use thiserror::Error;

use crate::{
    cgroup,
    namespaces::{self, NamespaceError, NetnsArgument},
    task,
};

/// Processes come and go; they are listed this often.
const REFRESH: Duration = Duration::from_secs(5);

/// The limits of a target, and their usage, at one moment. `None`: not known from here.
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

/// The processes of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processes {
    /// None in particular: limits of processes are not known.
    None,
    /// This one, and those that it started.
    Tree(u32),
    /// All of a cgroup.
    Cgroup(PathBuf),
}

/// What the user named. Nothing: the whole host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'a> {
    pub pid: Option<u32>,
    pub cgroup: Option<&'a Path>,
    /// The target is a command that this process is about to start.
    pub is_child: bool,
    pub ports: &'a [u16],
    /// So many ports can be distinguished.
    pub ports_max: usize,
    pub netns: Option<NetnsArgument>,
}

/// Why there is no such target: one cause and one remedy.
#[derive(Debug, Error)]
pub enum TargetError {
    #[error("there is no process {0}")]
    NoProcess(u32),
    #[error("there is no cgroup {0}: name its folder, or its path as in /proc/PID/cgroup")]
    NoCgroup(PathBuf),
    #[error("it listens on no TCP port: give the ports by --port, or start it first")]
    NoPort,
    #[error(
        "it listens on {ports} ports, more than the {most} that can be told apart: choose by --port"
    )]
    TooManyPorts { ports: usize, most: usize },
    #[error(
        "cannot see on which ports it listens ({0}): give them by --port, or start c1m-server watch \
         with sudo"
    )]
    Ports(io::Error),
    #[error(
        "cannot enter the network namespace {inode} ({error}): start c1m-server watch with sudo, or \
         inside of it"
    )]
    Enter { inode: u32, error: io::Error },
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl TargetError {
    /// Whether the command line asked for it, rather than the host refusing it.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoProcess(_) | Self::NoCgroup(_) | Self::NoPort | Self::TooManyPorts { .. }
        )
    }
}

/// What is watched.
pub struct Target {
    pub processes: Processes,
    /// In order; empty: every port.
    pub ports: Vec<u16>,
    /// Inode of its network namespace; `None`: every one.
    pub netns: Option<u32>,
    pids: Vec<u32>,
    /// Processes whose limits are not read.
    left_out: usize,
    refreshed: Option<Instant>,
    /// net.ipv4.tcp_max_orphans. Opened before another network namespace is entered, which does not
    /// show it.
    max_orphans: Option<File>,
}

impl Target {
    /// Finds it, and enters its network namespace if that is another one: to be called before there
    /// are other threads.
    ///
    /// # Errors
    /// There is no such process, cgroup or namespace, or it may not be read.
    pub fn find(named: &Named<'_>) -> Result<Self, TargetError> {
        let mut target = Self::of(processes(named)?);
        let netns = target.named_netns(named.netns)?;
        target.ports = target.listening(named)?;
        if let Some(netns) = &netns
            && Some(netns.inode) != namespaces::own_inode()
        {
            let inode = netns.inode;
            netns.enter().map_err(|error| TargetError::Enter { inode, error })?;
        }
        target.netns = netns.map(|netns| netns.inode);
        Ok(target)
    }

    /// These processes, on every port and in every network namespace.
    #[must_use]
    pub fn of(processes: Processes) -> Self {
        let max_orphans = File::open("/proc/sys/net/ipv4/tcp_max_orphans").ok();
        Self {
            processes,
            ports: Vec::new(),
            netns: None,
            pids: Vec::new(),
            left_out: 0,
            refreshed: None,
            max_orphans,
        }
    }

    /// The network namespace to count in: as named, else that of the first process.
    fn named_netns(
        &mut self,
        named: Option<NetnsArgument>,
    ) -> Result<Option<Namespace>, NamespaceError> {
        match named {
            Some(named) => named.open(),
            None => self.pids().first().map(|pid| namespaces::of_process(*pid)).transpose(),
        }
    }

    /// The ports that were named, else those on which the processes listen.
    fn listening(&mut self, named: &Named<'_>) -> Result<Vec<u16>, TargetError> {
        let ports: BTreeSet<u16> = named.ports.iter().copied().collect();
        if !ports.is_empty() || (named.pid.is_none() && named.cgroup.is_none()) {
            return Ok(ports.into_iter().collect());
        }
        let found = task::listening_ports(self.pids()).map_err(TargetError::Ports)?;
        match found.len() {
            0 => Err(TargetError::NoPort),
            ports if ports > named.ports_max => {
                Err(TargetError::TooManyPorts { ports, most: named.ports_max })
            }
            _ => Ok(found.into_iter().collect()),
        }
    }

    /// Of a worker process the server's main process, by which all workers are watched: the parent
    /// that has the same name and listens too.
    #[must_use]
    pub fn main_process(&self, pid: u32) -> Option<u32> {
        let parent = task::parent(pid)?;
        let has_same_name = task::comm(pid) == task::comm(parent);
        let is_shared = |ports: BTreeSet<u16>| self.ports.iter().any(|port| ports.contains(port));
        let listens = || task::listening_ports(&[parent]).is_ok_and(is_shared);
        (has_same_name && listens()).then_some(parent)
    }

    /// Whether processes were named; without any, the target is the network namespace.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        self.processes != Processes::None
    }

    /// Processes came or went: they are listed anew the next time.
    pub fn refresh(&mut self) {
        self.refreshed = None;
    }

    /// As they are now, found out anew every few seconds.
    pub fn pids(&mut self) -> &[u32] {
        if self.refreshed.is_none_or(|time| time.elapsed() >= REFRESH) {
            self.pids = match &self.processes {
                Processes::None => Vec::new(),
                Processes::Tree(pid) => task::family(*pid),
                Processes::Cgroup(folder) => cgroup::members(folder),
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
        match &self.processes {
            Processes::None => None,
            Processes::Tree(pid) => cgroup::of(*pid),
            Processes::Cgroup(folder) => cgroup::at(folder),
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

fn processes(named: &Named<'_>) -> Result<Processes, TargetError> {
    if let Some(pid) = named.pid {
        return match task::comm(pid) {
            Some(_) => Ok(Processes::Tree(pid)),
            None => Err(TargetError::NoProcess(pid)),
        };
    }
    if named.is_child {
        // The command will be among those that this process started, and in its cgroup.
        return Ok(Processes::Tree(std::process::id()));
    }
    let Some(name) = named.cgroup else { return Ok(Processes::None) };
    let folder = cgroup::find(name).ok_or_else(|| TargetError::NoCgroup(name.to_owned()))?;
    Ok(Processes::Cgroup(folder))
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

/// The table that is nearest to its limit; of those whose usage is not known, the one that holds
/// least.
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
        let mut target = Target::of(Processes::Tree(std::process::id()));
        assert_eq!(target.left_out(), None);
    }

    #[test]
    fn a_target_is_found_or_refused_with_what_to_do() {
        let own = std::process::id();
        let find = |named: Named<'_>| Target::find(&Named { ports_max: 64, ..named });
        let named = Named { pid: Some(own), ports: &[81, 80], ..Named::default() };
        let target = find(named).unwrap();
        assert_eq!(
            (target.ports.as_slice(), target.netns),
            (&[80, 81][..], namespaces::own_inode())
        );
        assert_eq!(target.processes, Processes::Tree(own));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(find(Named { pid: Some(own), ..Named::default() }).unwrap().ports.contains(&port));
        let refused = |named| find(named).err().unwrap();
        for (named, is_usage, remedy) in [
            (Named { pid: Some(u32::MAX), ..Named::default() }, true, "no process"),
            (Named { cgroup: Some(Path::new("/gone")), ..Named::default() }, true, "its folder"),
            (
                Named { netns: Some(NetnsArgument::Inode(1)), ..Named::default() },
                false,
                "lsns -t net",
            ),
        ] {
            let error = refused(named);
            assert_eq!(error.is_usage(), is_usage);
            assert!(error.to_string().contains(remedy), "{error}");
        }
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
