//! The host: its settings, changed through the guard alone, and the kernel's own counters.

use std::{fs, io, path::Path, time::Duration};

use c1m_host::{
    guard::{Change, Guard, GuardError, Outcome, STATE_FOLDER},
    netstat::{self, TcpExt},
    sockstat,
    sysctl::{Name, SysctlError, Tree},
};
use c1m_record::Sockstat;

use crate::wait::eventually;

/// Somebody may be in the middle of a whole reproduction, which changes the same settings.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);
/// Pages that a CPU may hold outside of the kernel's counter: net.core.mem_pcpu_rsv, less one.
const RESERVE_PAGES: u64 = 255;

/// What this host does not have, and why: the test is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip(pub String);

/// Settings of the host that are put back when this is dropped, and by the next run after a crash.
pub struct Settings(Guard);

impl Settings {
    /// Waits until nobody else changes settings. With what an earlier run had left behind, which was put back.
    pub fn lock() -> Result<(Self, Vec<Outcome>), GuardError> {
        let taken = Guard::take(Tree::at(Tree::KERNEL), Path::new(STATE_FOLDER), LOCK_PATIENCE);
        taken.map(|(guard, outcomes)| (Self(guard), outcomes))
    }

    /// The same for a test.
    ///
    /// # Panics
    /// Settings can't be changed for another reason than that this host does not let them be.
    pub fn take() -> Result<Self, Skip> {
        match Self::lock() {
            Ok((settings, _)) => Ok(settings),
            Err(error @ GuardError::Folder { .. }) => Err(Skip(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }

    /// Changes some. Those that are absent in a network namespace, or read-only in a container, are a reason to skip.
    ///
    /// # Panics
    /// The kernel does not take a value, or somebody else changes the setting too.
    pub fn set(&mut self, settings: &[(&str, String)]) -> Result<(), Skip> {
        let change =
            |(name, value): &(&str, String)| Change { name: named(name), value: value.clone() };
        match self.change(&settings.iter().map(change).collect::<Vec<_>>()) {
            Ok(()) => Ok(()),
            Err(GuardError::Sysctl(
                error @ (SysctlError::Read { .. } | SysctlError::Write { .. }),
            )) => Err(Skip(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }

    /// See [`Guard::set`].
    pub fn change(&mut self, changes: &[Change]) -> Result<(), GuardError> {
        self.0.set(changes)
    }

    /// See [`Guard::restore`].
    pub fn restore(&mut self) -> Vec<Outcome> {
        self.0.restore()
    }

    /// # Panics
    /// One of them is not as it was.
    pub fn put_back(&mut self) {
        for outcome in self.restore() {
            assert!(outcome.is_back(), "{outcome}");
        }
    }
}

/// Changes a setting of the calling thread's own network namespace, which ends with it.
pub fn set_own(name: &str, value: &str) -> Result<(), Skip> {
    let written = Tree::at(Tree::KERNEL).write(&named(name), value);
    written.map_err(|error| Skip(error.to_string()))
}

/// The value of a setting.
///
/// # Panics
/// There is none.
pub fn setting(name: &str) -> String {
    Tree::at(Tree::KERNEL).read(&named(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn named(name: &str) -> Name {
    Name::new(name).unwrap_or_else(|error| panic!("{error}"))
}

/// TCP sockets and pages, as the calling thread's network namespace has them.
pub fn sockets() -> io::Result<Sockstat> {
    sockstat::of_thread()
}

/// The kernel's own counters of the calling thread's network namespace.
pub fn tcp_ext() -> io::Result<TcpExt> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    netstat::parse(&text).map_err(io::Error::other)
}

/// One of them.
pub fn counter(name: &str) -> io::Result<u64> {
    Ok(tcp_ext()?.get(name).copied().unwrap_or(0))
}

/// CPUs that may each hold pages outside of the kernel's counter.
pub fn cpus() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let is_cpu = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
    Ok(stat.lines().filter(is_cpu).map(|_| 1).sum())
}

/// Pages that all of them may hold there.
pub fn reserve_pages() -> io::Result<u64> {
    Ok(cpus()? * RESERVE_PAGES)
}

/// Waits until no program has data in queues of TCP, but for what the CPUs hold.
///
/// # Errors
/// Another program queues data.
pub fn until_quiet() -> io::Result<()> {
    let reserve = reserve_pages()?;
    let is_quiet = || sockets().is_ok_and(|now| now.tcp_mem_pages <= reserve);
    match eventually(is_quiet) {
        true => Ok(()),
        false => Err(io::Error::other(format!("another program queues data: {:?}", sockets()?))),
    }
}
