//! From flags to the target, and to what the probes need of it.

use c1m_ebpf::WATCHED_PORTS;
use c1m_host::{
    namespaces,
    target::{Named, Target},
};
use c1m_probe::{Options, sample::Place};
use c1m_sys::process::effective_capabilities;

use crate::cli::watch::Watch;

/// What counting in other network namespaces takes besides tracing: to enter them (setns(2)), and
/// to see which one a process is in (proc(5), /proc/PID/ns, PTRACE_MODE_READ_FSCREDS). As bits and
/// by name: include/uapi/linux/capability.h.
pub const OF_OTHER_NAMESPACES: [(u32, &str); 2] = [(21, "CAP_SYS_ADMIN"), (19, "CAP_SYS_PTRACE")];

/// Network namespaces in which connections from before the start are counted, at most.
const NAMESPACES_MAX: usize = 256;

/// What the flags name.
pub(super) fn named(args: &Watch) -> Named<'_> {
    Named {
        pid: args.pid,
        cgroup: args.cgroup.as_deref(),
        is_child: args.command().is_some(),
        ports: &args.port,
        ports_max: WATCHED_PORTS,
        netns: args.netns,
    }
}

/// For the probes.
pub(super) fn options(args: &Watch, target: &Target) -> Options {
    Options {
        ports: target.ports.clone(),
        netns: target.netns,
        present: match target.netns {
            Some(_) => Ok(vec![Place::Own]),
            None => every_namespace(),
        },
        object: args.ebpf_object.clone(),
        without: args.without_hook.clone(),
        ring_bytes: None,
        verbosity: args.verbose,
    }
}

/// One place for each network namespace of the host. `Err`: some of them can't be read, and a count
/// over the others would pass for one over all.
fn every_namespace() -> Result<Vec<Place>, String> {
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
    let own = namespaces::own_inode();
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
