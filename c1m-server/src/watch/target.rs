//! What is watched: from flags to ports, a network namespace and processes.

use std::collections::BTreeSet;

use c1m_ebpf::WATCHED_PORTS;
use c1m_host::{
    cgroup, namespaces,
    target::{Others, Which},
    task,
};
use c1m_probe::{Options, look::Place};
use c1m_program::{EnvironmentRefused, UsageRefused};
use c1m_sys::{netns::Namespace, process::effective_capabilities};

use crate::cli::watch::Watch;

/// What looking into other network namespaces takes besides tracing: to enter them (setns(2)), and to see which one a process is in (proc(5),
/// /proc/PID/ns, PTRACE_MODE_READ_FSCREDS). As bits and by name: include/uapi/linux/capability.h.
pub const OF_OTHER_NAMESPACES: [(u32, &str); 2] = [(21, "CAP_SYS_ADMIN"), (19, "CAP_SYS_PTRACE")];

/// Network namespaces in which connections that are there already are counted, at most.
const NAMESPACES_MAX: usize = 256;

/// The target, and this process is where it can be seen from.
pub(super) struct Target {
    pub(super) which: Which,
    /// In order; empty: every port.
    pub(super) ports: Vec<u16>,
    /// Inode; `None`: every network namespace.
    pub(super) netns: Option<u32>,
    /// The process that was named.
    pub(super) pid: Option<u32>,
    pub(super) others: Others,
    present: Result<Vec<Place>, String>,
}

impl Target {
    /// Finds it, and enters its network namespace if that is another one: to be called before there are other threads.
    ///
    /// # Errors
    /// There is no such process, cgroup or namespace, or it may not be looked at; each with what to do.
    pub(super) fn find(args: &Watch) -> anyhow::Result<Self> {
        let which = which(args)?;
        // Before another network namespace is entered.
        let mut others = Others::new(which.clone());
        let named = Self::named_netns(args, &mut others)?;
        let ports = ports(args, &mut others)?;
        others.ports.clone_from(&ports);
        let own = namespaces::own_inode();
        if let Some(named) = &named
            && Some(named.inode) != own
        {
            named.enter().map_err(|error| {
                EnvironmentRefused(format!(
                    "cannot enter the network namespace {} ({error}): start c1m-server watch with sudo, or inside of it",
                    named.inode
                ))
            })?;
        }
        let present = match named {
            Some(_) => Ok(vec![Place::Own]),
            None => every_namespace(own),
        };
        let netns = named.map(|named| named.inode);
        Ok(Self { which, ports, netns, pid: args.pid, others, present })
    }

    /// The network namespace to count in: as named, else that of the process that was named.
    fn named_netns(args: &Watch, others: &mut Others) -> anyhow::Result<Option<Namespace>> {
        if let Some(choice) = args.netns {
            return Ok(choice.open()?);
        }
        Ok(others.pids().first().map(|pid| namespaces::of_process(*pid)).transpose()?)
    }

    /// Who named a worker meant the server: its master, by which all of its workers are watched.
    pub(super) fn master(&self) -> Option<u32> {
        let pid = self.pid?;
        let parent = task::parent(pid)?;
        let is_one = task::comm(pid) == task::comm(parent);
        let accepts_too = |ports: BTreeSet<u16>| self.ports.iter().any(|port| ports.contains(port));
        let listens = || task::listening_ports(&[parent]).is_ok_and(accepts_too);
        (is_one && listens()).then_some(parent)
    }

    /// For the probes.
    pub(super) fn options(&self, args: &Watch) -> Options {
        Options {
            ports: self.ports.clone(),
            netns: self.netns,
            present: self.present.clone(),
            object: args.ebpf_object.clone(),
            without: args.without_hook.clone(),
            verbosity: args.verbose,
        }
    }
}

fn which(args: &Watch) -> anyhow::Result<Which> {
    if let Some(pid) = args.pid {
        if task::comm(pid).is_none() {
            return Err(UsageRefused(format!("there is no process {pid}")).into());
        }
        return Ok(Which::Family(pid));
    }
    if args.command().is_some() {
        // The command will be among those that this process started, and in its cgroup.
        return Ok(Which::Family(std::process::id()));
    }
    let Some(name) = &args.cgroup else { return Ok(Which::Nobody) };
    let folder = cgroup::find(name).ok_or_else(|| {
        UsageRefused(format!(
            "there is no cgroup {}: name its folder, or its path as in /proc/PID/cgroup",
            name.display()
        ))
    })?;
    Ok(Which::Cgroup(folder))
}

/// Those that were named, else those on which the processes listen; every one where there are no processes.
fn ports(args: &Watch, others: &mut Others) -> anyhow::Result<Vec<u16>> {
    let named: BTreeSet<u16> = args.port.iter().copied().collect();
    if !named.is_empty() || (args.pid.is_none() && args.cgroup.is_none()) {
        return Ok(named.into_iter().collect());
    }
    let found = task::listening_ports(others.pids()).map_err(|error| {
        EnvironmentRefused(format!(
            "cannot see on which ports it listens ({error}): give them by --port, or start c1m-server watch with sudo"
        ))
    })?;
    if found.is_empty() {
        return Err(UsageRefused(
            "it listens on no TCP port: give the ports by --port, or start it first".into(),
        )
        .into());
    }
    if found.len() > WATCHED_PORTS {
        return Err(UsageRefused(format!(
            "it listens on {} ports, more than the {WATCHED_PORTS} that can be told apart: choose by --port",
            found.len()
        ))
        .into());
    }
    Ok(found.into_iter().collect())
}

/// One place for each network namespace that a process of this host is in, or that a mount keeps. `Err`: they are not all to be had, and a count over some of them would
/// pass for one over all.
fn every_namespace(own: Option<u32>) -> Result<Vec<Place>, String> {
    if !namespaces::is_initial_pid_namespace() {
        return Err("network namespaces of processes outside of this PID namespace can't be seen from here; --netns self counts in this one".into());
    }
    let list = namespaces::list().map_err(|error| format!("there is no /proc ({error})"))?;
    let [_, (bit, name)] = OF_OTHER_NAMESPACES;
    // A security module can deny it to everybody: no privilege helps, so nothing is said then.
    if let Some(pid) = list.denied
        && !effective_capabilities().is_ok_and(|own| own & (1 << bit) != 0)
    {
        return Err(format!(
            "the network namespace of process {pid} may not be looked at without {name}; --netns \
             self counts in this one"
        ));
    }
    let others = list.paths.into_iter().filter(|(inode, _)| Some(*inode) != own);
    let others = others.map(|(_, path)| Place::Of(path));
    let places: Vec<Place> = std::iter::once(Place::Own).chain(others).collect();
    if places.len() > NAMESPACES_MAX {
        return Err(format!(
            "there are {} network namespaces, more than the {NAMESPACES_MAX} that are looked into; --netns PID counts in one",
            places.len()
        ));
    }
    Ok(places)
}
