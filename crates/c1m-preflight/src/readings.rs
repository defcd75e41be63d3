//! The host as readings: some thirty small files, and what bounds somebody.

use std::time::Duration;

use c1m_host::{cgroup, cpus, files, meminfo, settings, sockstat, target::Bounds};
use c1m_limits::reading::Readings;
use c1m_sys::process::page_bytes;

/// What does not change while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    page_bytes: Option<u64>,
    cpus: Option<u64>,
}

impl Layout {
    pub fn now() -> Self {
        Self { page_bytes: page_bytes().ok(), cpus: cpus::online() }
    }
}

/// Everything at one moment: of the host, of `cgroup`, and of the `bounds` of whoever holds the connections.
pub fn read(
    at: Duration,
    connections: u64,
    layout: &Layout,
    cgroup: Option<cgroup::Cgroup>,
    bounds: Bounds,
) -> Readings {
    let settings = settings::read();
    let memory = meminfo::read().ok();
    let both = |level: cgroup::Level| (level.used_bytes, level.max_bytes);
    let backlog = bounds.backlog.map(|asked| settings.somaxconn.unwrap_or(u64::MAX).min(asked));
    Readings {
        at,
        connections,
        sockstat: sockstat::sockstat().ok(),
        tcp_mem: settings.tcp_mem,
        page_bytes: layout.page_bytes,
        cpus: layout.cpus,
        tcp_rmem: settings.tcp_rmem,
        tcp_wmem: settings.tcp_wmem,
        max_orphans: settings.tcp_max_orphans.or(bounds.max_orphans),
        nofile: bounds.nofile,
        descriptors: bounds.descriptors,
        descriptors_max: bounds.descriptors_max,
        nr_open: settings.nr_open,
        file_nr: files::file_nr().ok(),
        accept_queue: bounds.accept_queue,
        longest_backlog: bounds.longest_backlog,
        backlog,
        somaxconn: settings.somaxconn,
        max_syn_backlog: settings.tcp_max_syn_backlog,
        syncookies: settings.tcp_syncookies,
        ports: settings.ports,
        port_range: settings.port_range,
        first_unprivileged_port: settings.first_unprivileged_port,
        ipv6_addresses: settings::ipv6_addresses(),
        conntrack: settings.nf_conntrack_count,
        conntrack_max: settings.nf_conntrack_max,
        conntrack_buckets: settings.nf_conntrack_buckets,
        epoll_watches: bounds.epoll_watches,
        max_user_watches: settings.epoll_max_user_watches,
        max_tw_buckets: settings.tcp_max_tw_buckets,
        memory_total_bytes: memory.map(|memory| memory.total_bytes),
        memory_available_bytes: memory.map(|memory| memory.available_bytes),
        cgroup_used_bytes: cgroup.and_then(|cgroup| cgroup.used_bytes),
        cgroup_max_bytes: cgroup.and_then(|cgroup| cgroup.max).map(|level| level.max_bytes),
        cgroup_high: cgroup.and_then(|cgroup| cgroup.high).map(both),
        cgroup_sockets: cgroup.and_then(|cgroup| cgroup.sockets).map(both),
    }
}
