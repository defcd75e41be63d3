//! What the kernel says of this host and of single processes while something is measured, and the settings that the bench needs.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use c1m_host::{
    cgroup::{self, Cgroup},
    guard::Change,
    meminfo, process,
    slabinfo::{self, Slabinfo},
    sockstat::sockstat,
    sysctl::{Name, Tree},
};
use c1m_limits::footprint::{self, Sizes};
use c1m_record::{Role, Sockstat};
use c1m_sys::process::page_bytes;
use c1m_text::{escape, units::size};

use super::child::pause;
use crate::exit;

const SETTLE_STEP: Duration = Duration::from_millis(500);
/// Slab memory that other programs move in such a step.
const SETTLE_BYTES: u64 = 4 << 20;
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Files and watches that the rest of the host may need meanwhile.
const SPARE: u64 = 10_000;
/// What the rest of the host and the peers need meanwhile.
const OTHER_BYTES: u64 = 512 << 20;

/// What sockets have queued at once, at most: the connections of a bench are idle or answered at once, but for those of a swing.
const QUEUED_BYTES: u64 = 64 << 20;

/// Processor, CPUs and memory, in words.
pub(crate) fn machine() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':')).map_or("unknown processor", |it| it.1);
    let cpus = std::thread::available_parallelism()?;
    let memory = meminfo::read()?.total_bytes;
    Ok(format!("{}, {cpus} CPUs, {} of memory", model.trim(), size(memory)))
}

pub(crate) fn kernel() -> Result<String> {
    Ok(Tree::at(Tree::KERNEL).read(&Name::new("kernel.osrelease")?)?)
}

/// Threads that could run, or waited for a disk, on average over the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text.split_ascii_whitespace().next().and_then(|it| it.parse().ok());
    first.context("/proc/loadavg is not understood")
}

/// Refuses what does not fit into the memory, or below a limit of the memory cgroup.
pub(crate) fn check_memory(connections: u64) -> Result<()> {
    check_fits(connections, meminfo::read()?.available_bytes, &cgroup::own().unwrap_or_default())
}

fn check_fits(connections: u64, available: u64, cgroup: &Cgroup) -> Result<()> {
    let queues = cgroup.sockets.map_or(u64::MAX, |sockets| sockets.headroom());
    if queues < QUEUED_BYTES {
        return Err(exit::refused(format!(
            "sockets may have {} queued, and memory.kmem.tcp.limit_in_bytes of the cgroup leaves {}",
            size(QUEUED_BYTES),
            size(queues)
        )));
    }
    let available = available.min(cgroup.headroom().unwrap_or(u64::MAX));
    let model = footprint::need(&Sizes::default(), Role::Both, false, connections, 0);
    let need = model.bytes.saturating_add(OTHER_BYTES);
    if need <= available {
        return Ok(());
    }
    Err(exit::refused(format!(
        "{connections} connections, both ends, need {} of memory, and {} are available",
        size(need),
        size(available)
    )))
}

/// The settings that have to be raised for so many connections, both ends on this host. They go back when it is dropped.
pub(crate) struct Settings(Option<c1m_testkit::Settings>);

impl Settings {
    /// Raises what so many connections need.
    pub(crate) fn raise(connections: u64) -> Result<Self> {
        let changes = Self::needed(connections)?;
        match changes.is_empty() {
            true => Ok(Self(None)),
            false => Self::set(&changes),
        }
    }

    /// What is too low for so many connections.
    pub(crate) fn needed(connections: u64) -> Result<Vec<Change>> {
        let tree = Tree::at(Tree::KERNEL);
        let ends = 2 * connections + SPARE;
        let files = c1m_host::files::file_nr()?.allocated + ends;
        let mut changes = Vec::new();
        // Root is exempt from the first, but the server gives its capabilities up.
        for (name, need) in [("fs.file-max", files), ("fs.epoll.max_user_watches", ends)] {
            let name = Name::new(name)?;
            if tree.numbers::<1>(&name)?[0] < need {
                changes.push(Change { name, value: need.to_string() });
            }
        }
        Ok(changes)
    }

    /// Changes some settings until it is dropped.
    pub(crate) fn set(changes: &[Change]) -> Result<Self> {
        let (mut settings, stale) = c1m_testkit::Settings::lock()?;
        for outcome in &stale {
            eprintln!("of an earlier run: {}", escape::line(&outcome.to_string()));
        }
        settings.change(changes)?;
        Ok(Self(Some(settings)))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for outcome in self.0.iter_mut().flat_map(c1m_testkit::Settings::restore) {
            eprintln!("{}", escape::line(&outcome.to_string()));
        }
    }
}

pub(crate) fn sockets() -> Result<Sockstat> {
    sockstat().context("cannot read /proc/net/sockstat")
}

pub(crate) fn slab() -> Result<Slabinfo> {
    let text = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    Ok(slabinfo::parse(&text, page_bytes()?)?)
}

pub(crate) fn used_bytes() -> Result<u64> {
    Ok(meminfo::read()?.used_bytes)
}

/// Waits until the sockets of whatever ran before are gone, and the kernel has freed their memory; a minute at most.
pub(crate) fn settle() -> Result<()> {
    let end = Instant::now() + SETTLE_LIMIT;
    let mut before = meminfo::read()?.slab_bytes;
    loop {
        pause(SETTLE_STEP)?;
        let now = meminfo::read()?.slab_bytes;
        if now + SETTLE_BYTES >= before || Instant::now() >= end {
            return Ok(());
        }
        before = now;
    }
}

/// PSS of a process, in bytes.
pub(crate) fn pss_bytes(pid: u32) -> Result<u64> {
    process::pss_of(pid).with_context(|| format!("cannot read the memory of process {pid}"))
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    /// Context switches, of all threads.
    pub(crate) switches: u64,
}

/// CPU time to the nanosecond (/proc/PID/task/TID/schedstat), and context switches.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let mut usage = Usage { cpu_s: 0.0, switches: 0 };
    let folder = format!("/proc/{pid}/task");
    for task in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let task = task?.path();
        let read = |name: &str| {
            let path = task.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let ran_ns = first_number(&read("schedstat")?).context("schedstat is empty")?;
        usage.cpu_s += Duration::from_nanos(ran_ns).as_secs_f64();
        let status = read("status")?;
        let switches = status
            .lines()
            .filter_map(|line| line.split_once("voluntary_ctxt_switches:"))
            .filter_map(|(_, count)| first_number(count));
        usage.switches += switches.sum::<u64>();
    }
    Ok(usage)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_what_it_works() {
        // Threads of this process end beside this test.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while sleep 0.001; do :; done"])
            .spawn()
            .unwrap();
        let before = usage(child.id()).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        let mut has_moved = false;
        while !has_moved && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            let after = usage(child.id()).unwrap();
            has_moved = after.cpu_s > before.cpu_s && after.switches > before.switches;
        }
        let pss = pss_bytes(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_moved);
        assert!(pss.unwrap() > 4096);
    }

    /// 1,000 connections on a host with enough memory, below the limits of a cgroup whose files are these.
    fn checked(kind: &str, membership: &str, files: &[(&str, u64)]) -> Result<()> {
        let root = tempfile::tempdir()?;
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("self"))?;
        fs::create_dir_all(path("tree/a"))?;
        let tree = path("tree");
        let options = if kind == "cgroup" { "rw,memory" } else { "rw" };
        let mount = format!("36 35 0:31 / {} rw - {kind} none {options}\n", tree.display());
        // In a hybrid, version 2 is mounted beside it, without the controller.
        let beside = format!("37 35 0:32 / {} rw - cgroup2 none rw\n", path("beside").display());
        fs::write(
            path("self/mountinfo"),
            if membership.contains("0::/") && kind == "cgroup" { mount + &beside } else { mount },
        )?;
        fs::write(path("self/cgroup"), membership)?;
        for (name, bytes) in files {
            fs::write(path("tree/a").join(name), format!("{bytes}\n"))?;
        }
        check_fits(1_000, 8 << 30, &cgroup::own_at(root.path()).context("no cgroup")?)
    }

    #[test]
    fn the_tightest_limit_of_a_cgroup_counts() {
        const NONE: u64 = 0x7fff_ffff_ffff_f000;
        const LOW: u64 = 1 << 20;
        let v1 = |memory, sockets| {
            [
                ("memory.usage_in_bytes", 0),
                ("memory.limit_in_bytes", memory),
                ("memory.kmem.tcp.usage_in_bytes", 0),
                ("memory.kmem.tcp.limit_in_bytes", sockets),
            ]
        };
        let v2 = |max, high| [("memory.current", 0), ("memory.max", max), ("memory.high", high)];
        let (own, hybrid) = ("4:memory:/a\n", "4:memory:/a\n0::/a\n");
        for (kind, membership, files) in [
            ("cgroup", own, &v1(NONE, NONE)[..]),
            ("cgroup", hybrid, &v1(NONE, NONE)),
            ("cgroup2", "0::/a\n", &v2(NONE, NONE)),
        ] {
            checked(kind, membership, files).unwrap();
        }
        for (kind, membership, files, limit) in [
            ("cgroup", own, &v1(LOW, NONE)[..], "1.0 MiB are available"),
            ("cgroup", own, &v1(NONE, LOW), "memory.kmem.tcp.limit_in_bytes"),
            ("cgroup", hybrid, &v1(LOW, NONE), "1.0 MiB are available"),
            ("cgroup", hybrid, &v1(NONE, LOW), "memory.kmem.tcp.limit_in_bytes"),
            ("cgroup2", "0::/a\n", &v2(LOW, NONE), "1.0 MiB are available"),
            ("cgroup2", "0::/a\n", &v2(NONE, LOW), "1.0 MiB are available"),
        ] {
            let error = checked(kind, membership, files).unwrap_err();
            assert_eq!(exit::code_of(&error), 3);
            assert!(error.to_string().contains(limit), "{files:?}: {error}");
        }
    }

    #[test]
    fn the_machine_has_a_name() {
        let cpus = std::thread::available_parallelism().unwrap();
        assert!(machine().unwrap().contains(&format!(", {cpus} CPUs, ")));
        assert!(load_average().unwrap().is_finite());
    }
}
