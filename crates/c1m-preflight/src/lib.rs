//! One look at everything that bounds a run. A few dozen small files, and a few connections over loopback where connections may be tracked.

pub mod plan;
pub mod readings;

use std::{fs, time::Duration};

use c1m_btf::Btf;
use c1m_host::{cgroup, conntrack, settings, slab, target::Bounds};
use c1m_limits::{
    footprint::Sizes,
    preflight::{Examination, Host, Run, Tables, examine},
    reading::Readings,
};
use c1m_record::Role;
use c1m_sys::{interface, process};

use crate::plan::{MAX_WORKERS, Wish};

/// Descriptors of a table of c1m-client that are no connections.
const CLIENT_DESCRIPTORS: u64 = 16;
/// Connections that c1m-client opens from one source address to one destination, at most: its --per-source.
const PER_SOURCE: u64 = 64_000;
/// Addresses of 127.0.0.0/8 that c1m-client takes its sources from, where the server is on the same host.
const LOOPBACK_SOURCES: u64 = (1 << 24) - 256 - 2;
/// CAP_SYS_ADMIN, include/uapi/linux/capability.h
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// More than any limit of open files.
const NOFILE_MAX: u64 = 1 << 31;

/// What shall be run.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub connections: u64,
    pub queued_bytes: u64,
    pub role: Role,
    pub ipv6: bool,
    /// `None`: those that this host has.
    pub sources: Option<u64>,
    pub destinations: u64,
    pub rate: Option<u64>,
    /// `None`: as many as needed.
    pub workers: Option<usize>,
    pub backlog: u32,
    /// Connections that the client opens from one source address to one destination, at most.
    pub per_source: u64,
    pub ends_by_fin: bool,
}

impl Ask {
    /// So many idle connections, both ends here, and everything else as the programs do it by themselves.
    #[must_use]
    pub fn idle(connections: u64) -> Self {
        Self {
            connections,
            queued_bytes: 0,
            role: Role::Both,
            ipv6: false,
            sources: None,
            destinations: 1,
            rate: None,
            workers: None,
            backlog: 4096,
            per_source: PER_SOURCE,
            ends_by_fin: false,
        }
    }
}

/// What was seen, and what it comes to.
#[derive(Debug, Clone)]
pub struct Looked {
    pub run: Run,
    pub host: Host,
    pub examination: Examination,
}

/// Looks once, with the sizes of the kernel's objects as exact as they can be had.
#[must_use]
pub fn look(ask: &Ask) -> Looked {
    let sizes = Sizes::of_slabs(slab::of).or_else(sizes_of_types).unwrap_or_default();
    look_with(ask, sizes)
}

/// The same for a program that is about to start: in one line what stops it before the last connection, as far as that is known. Nothing is
/// parsed for it that takes time or memory.
#[must_use]
pub fn foresee(ask: &Ask) -> Option<String> {
    let sizes = Sizes::of_slabs(slab::of).unwrap_or_default();
    look_with(ask, sizes).examination.warning(ask.connections)
}

fn look_with(ask: &Ask, sizes: Sizes) -> Looked {
    let (run, host) = (run_of(ask), host(ask, sizes));
    Looked { run, host, examination: examine(&run, &host) }
}

fn run_of(ask: &Ask) -> Run {
    let own = || match ask.role {
        Role::Both => LOOPBACK_SOURCES,
        _ => interface::addresses()
            .unwrap_or_default()
            .iter()
            .filter(|address| !address.is_loopback() && address.is_ipv6() == ask.ipv6)
            .count() as u64,
    };
    Run {
        connections: ask.connections,
        queued_bytes: ask.queued_bytes,
        role: ask.role,
        ipv6: ask.ipv6,
        sources: ask.sources.unwrap_or_else(own),
        destinations: ask.destinations,
        rate: ask.rate,
        ends_by_fin: ask.ends_by_fin,
    }
}

fn host(ask: &Ask, sizes: Sizes) -> Host {
    let settings = settings::read();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let nofile = process::nofile().ok().map(|(_, hard)| hard);
    let wish = |nofile| Wish {
        workers: ask.workers,
        max_connections: None,
        backlog: ask.backlog,
        somaxconn: settings.somaxconn.and_then(|most| u32::try_from(most).ok()),
        nofile,
        cores,
    };
    let held = |nofile: u64| held(ask, &wish(nofile));
    let backlog = nofile
        .and_then(|nofile| plan::plan(&wish(nofile)).ok())
        .map(|plan| u64::from(plan.backlog));
    let cgroup = cgroup::own();
    let readings =
        readings::read(Duration::ZERO, 0, &readings::Layout::now(), cgroup, Bounds::default());
    let readings = Readings {
        nofile,
        backlog: backlog.or(settings.somaxconn.map(|most| most.min(ask.backlog.into()))),
        ports: settings.ports.map(|ports| ports.min(ask.per_source)),
        ..readings
    };
    Host {
        readings,
        tables: Tables {
            by_nofile: nofile.map(held),
            by_nr_open: settings.nr_open.map(held),
            needed: least(|nofile| held(nofile) >= ask.connections),
            most: ask.workers.unwrap_or(MAX_WORKERS) as u64,
        },
        listeners: ask.workers.unwrap_or(cores).min(cores) as u64,
        sizes,
        tracked: tracked(&readings, ask.connections),
        ehash_buckets: settings.ehash_buckets,
        cgroup_counts_sockets: cgroup.is_some_and(|cgroup| cgroup.counts_sockets),
        is_exempt_from_file_max: process::effective_capabilities()
            .is_ok_and(|capabilities| capabilities & CAP_SYS_ADMIN != 0),
    }
}

/// Tried only where it matters.
fn tracked(readings: &Readings, connections: u64) -> Option<bool> {
    let left = readings.conntrack_max?.saturating_sub(readings.conntrack?);
    if connections <= left { None } else { conntrack::is_tracking() }
}

/// Connections that the descriptor tables of the programs that are here hold. Without --workers of its own the client takes as many as it needs.
fn held(ask: &Ask, wish: &Wish) -> u64 {
    let server = if ask.role.has_server() { plan::most(wish) } else { u64::MAX };
    let workers = ask.workers.filter(|_| !ask.role.has_server()).unwrap_or(MAX_WORKERS) as u64;
    let client = match ask.role.has_client() {
        true => wish.nofile.saturating_sub(CLIENT_DESCRIPTORS).saturating_mul(workers),
        false => u64::MAX,
    };
    server.min(client)
}

/// The least limit of open files that does.
fn least(does: impl Fn(u64) -> bool) -> u64 {
    let (mut below, mut enough) = (0, NOFILE_MAX);
    while below + 1 < enough {
        let middle = below.midpoint(enough);
        if does(middle) { enough = middle } else { below = middle }
    }
    enough
}

/// By the running kernel's types, which anybody may read.
fn sizes_of_types() -> Option<Sizes> {
    let btf = Btf::parse(fs::read(c1m_btf::PATH).ok()?).ok()?;
    let sizes =
        Sizes::of_structures(|name| btf.size_of(name).map(u64::from), process::page_bytes().ok()?);
    drop(btf);
    // Parsing has taken megabytes.
    process::trim_heap();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_does_is_found() {
        assert_eq!(least(|nofile| nofile >= 20_000), 20_000);
        assert_eq!(least(|_| true), 1);
        assert_eq!(least(|_| false), NOFILE_MAX);
    }

    #[test]
    fn this_host_holds_a_thousand_connections() {
        let looked = look(&Ask::idle(1_000));
        assert_eq!(looked.run.sources, LOOPBACK_SOURCES);
        assert_ne!(looked.examination.fits, Some(false), "{:?}", looked.examination);
        let memory = looked.examination.memory;
        // Between 3 and 6 KiB an end on every kernel that is known.
        assert!((6_000..12_000).contains(&memory.kernel_bytes_per_connection), "{memory:?}");
    }

    #[test]
    fn this_kernel_s_types_and_slabs_agree() {
        let Some(types) = sizes_of_types() else { return };
        let bytes = |sizes| look_with(&Ask::idle(1_024_000), sizes).examination.memory.bytes;
        let slabs = look(&Ask::idle(1_024_000)).examination.memory.bytes;
        assert!(slabs.abs_diff(bytes(types)) * 20 < slabs, "{slabs} {}", bytes(types));
    }

    #[test]
    fn tables_bound_the_programs_that_are_here() {
        let wish = Wish {
            workers: Some(2),
            max_connections: None,
            backlog: 4096,
            somaxconn: None,
            nofile: 1_000,
            cores: 2,
        };
        let ask = |role, workers| Ask { role, workers, ..Ask::idle(1_000) };
        assert_eq!(held(&ask(Role::Server, Some(2)), &wish), 2 * 993);
        assert_eq!(held(&ask(Role::Client, Some(2)), &wish), 2 * 984);
        assert_eq!(
            held(&ask(Role::Both, Some(2)), &wish),
            2 * 993,
            "the client takes more workers"
        );
    }
}
