//! What would stop the run, found before anything starts; and the settings that it needs.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use c1m_host::{
    cpus,
    guard::Change,
    ports::Ports,
    sysctl::{Name, SysctlError, Tree},
};
use c1m_sys::process;

use super::{
    End, expect,
    host::Host,
    progress::{bytes, grouped},
    scale,
};

/// Descriptors that a worker needs beside its connections.
const OWN_FILES: u64 = 64;
/// More workers than this the server does not take.
const WORKERS_MAX: u64 = 4_096;
/// Files that the rest of the host may open meanwhile.
const FILES_SPARE: u64 = 10_000;
/// The client's own bound, see its --per-source.
const PORTS_PER_SOURCE_MAX: u64 = 64_000;
/// Loopback addresses that are tried, 127.0.1.0 and on.
const SOURCES_MAX: u64 = 65_536;

/// What the host says before the run.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The smaller of MemAvailable and what the memory cgroup leaves: the tightest of its levels and limits.
    pub(crate) available_bytes: u64,
    /// What the cgroup leaves for data that is queued in sockets, where it limits that by itself (v1).
    pub(crate) sockets_bytes: u64,
    /// Of this kernel's pages, the unit of `tcp_mem`.
    pub(crate) page_bytes: u64,
    /// Pages that TCP holds already, beyond what may be a residue.
    pub(crate) baseline_pages: u64,
    pub(crate) reserve_pages: u64,
    /// Of this process and of the privileged half.
    pub(crate) nofile_hard: [u64; 2],
    pub(crate) files: u64,
    pub(crate) file_max: u64,
    pub(crate) user_watches_max: u64,
    pub(crate) ports: u64,
    /// `None` without connection tracking.
    pub(crate) conntrack_max: Option<u64>,
}

/// A setting that is known here to be a name.
pub(super) fn name(text: &'static str) -> Result<Name, End> {
    Name::new(text).map_err(|error| End::Failed(error.to_string()))
}

/// Bytes of a page. Without it there is no plan: the unit of `tcp_mem` is a page.
pub fn page_bytes() -> Result<u64, End> {
    process::page_bytes()
        .map_err(|error| End::Refused(format!("the kernel's page size is not known: {error}")))
}

impl Facts {
    pub(super) fn read(tree: &Tree, host: &Host, nofile_hard_privileged: u64) -> Result<Self, End> {
        let refused = |error: SysctlError| End::Refused(error.to_string());
        let number = |text| Ok(tree.numbers::<1>(&name(text)?).map_err(refused)?[0]);
        // Outside of the first network namespace it is not shown at all.
        tree.numbers::<3>(&name("net.ipv4.tcp_mem")?).map_err(|error| {
            End::Refused(format!(
                "{error}: tcp_mem is the host's, so run this in the host's network namespace, not in a container's"
            ))
        })?;
        let ports = Ports::at(tree).map_err(|error| End::Refused(error.to_string()))?;
        let reserve_pages = cpus::reserve(number("net.core.mem_pcpu_rsv").ok(), host.cpus()?);
        let sockstat = host.sockstat()?;
        let (_, nofile_hard) = process::nofile().map_err(|error| {
            End::Refused(format!("cannot read the limit of open files: {error}"))
        })?;
        let cgroup = host.cgroup();
        Ok(Self {
            available_bytes: host
                .memory()?
                .available_bytes
                .min(cgroup.headroom().unwrap_or(u64::MAX)),
            sockets_bytes: cgroup.sockets.map_or(u64::MAX, |sockets| sockets.headroom()),
            page_bytes: page_bytes()?,
            baseline_pages: expect::baseline(sockstat.tcp_mem_pages, reserve_pages),
            reserve_pages,
            nofile_hard: [nofile_hard, nofile_hard_privileged],
            files: host.file_nr()?.allocated,
            file_max: number("fs.file-max")?,
            user_watches_max: number("fs.epoll.max_user_watches")?,
            ports: ports.usable.len() as u64,
            conntrack_max: number("net.netfilter.nf_conntrack_max").ok(),
        })
    }

    /// Everything that makes so many connections impossible, one sentence each.
    pub(super) fn problems(&self, connections: u64) -> Vec<String> {
        let mut problems = Vec::new();
        let need = scale::need_bytes(connections, self.page_bytes);
        if need > self.available_bytes {
            let fits = self.would_fit();
            problems.push(format!(
                "{} connections need {} of memory for both ends, and {} are available{fits}",
                grouped(connections),
                bytes(expect::as_f64(need)),
                bytes(expect::as_f64(self.available_bytes)),
            ));
        }
        let queued = scale::queued_bytes(connections);
        if queued > self.sockets_bytes {
            problems.push(format!(
                "{} connections queue {} in sockets, and memory.kmem.tcp.limit_in_bytes of the cgroup leaves {}{}",
                grouped(connections),
                bytes(expect::as_f64(queued)),
                bytes(expect::as_f64(self.sockets_bytes)),
                self.would_fit(),
            ));
        }
        let nofile = self.nofile_hard[0].min(self.nofile_hard[1]);
        let per_worker = nofile.saturating_sub(OWN_FILES);
        if per_worker.saturating_mul(WORKERS_MAX) < connections {
            let would_do = connections.div_ceil(WORKERS_MAX) + OWN_FILES;
            problems.push(format!(
                "the hard limit of open files is {nofile}, too few for {} connections in {WORKERS_MAX} workers: raise it to {would_do} (ulimit -Hn)",
                grouped(connections),
            ));
        }
        let ports = self.ports.min(PORTS_PER_SOURCE_MAX);
        if ports.saturating_mul(SOURCES_MAX) < connections {
            problems.push(format!(
                "net.ipv4.ip_local_port_range leaves {ports} ports without ip_local_reserved_ports, too few for {} connections from {SOURCES_MAX} addresses: widen it, for instance to 1024 65535",
                grouped(connections),
            ));
        }
        let low = scale::tcp_mem(scale::ARTICLE_DEFAULT, connections, self.page_bytes)[0];
        if self.baseline_pages > low / 2 {
            problems.push(format!(
                "other programs of this host hold {} pages of tcp_mem, too many to see a crossing at {}: end them, or take more connections",
                grouped(self.baseline_pages),
                grouped(low),
            ));
        }
        problems
    }

    /// What there is, in words.
    pub(super) fn available(&self) -> String {
        let memory = bytes(expect::as_f64(self.available_bytes));
        match self.sockets_bytes {
            u64::MAX => format!("{memory} of memory"),
            sockets => format!(
                "{memory} of memory, of which sockets may hold {} (memory.kmem.tcp.limit_in_bytes)",
                bytes(expect::as_f64(sockets))
            ),
        }
    }

    /// The largest fraction of the article's connections that fits.
    pub(super) fn fitting(&self) -> Option<u64> {
        scale::auto(self.available_bytes, self.sockets_bytes, self.page_bytes)
    }

    fn would_fit(&self) -> String {
        self.fitting().map_or(String::new(), |fits| format!("; --connections {fits} would fit"))
    }

    /// Settings beside `tcp_mem` that have to be raised for so many connections, both ends on this host.
    pub(super) fn changes(&self, connections: u64) -> Result<Vec<Change>, End> {
        let ends = connections.saturating_mul(2).saturating_add(FILES_SPARE);
        let mut changes = Vec::new();
        // Root is exempt, but the server gives its capabilities up (fs/file_table.c, alloc_empty_file, 6.18).
        let files = self.files.saturating_add(ends);
        if self.file_max < files {
            changes.push(Change { name: name("fs.file-max")?, value: files.to_string() });
        }
        // By user, and one user may run both (fs/eventpoll.c, ep_insert, 6.18).
        if self.user_watches_max < ends {
            changes
                .push(Change { name: name("fs.epoll.max_user_watches")?, value: ends.to_string() });
        }
        Ok(changes)
    }

    /// What may stop it all the same.
    pub(super) fn notes(&self, connections: u64) -> Vec<String> {
        self.conntrack_max
            .filter(|max| *max < connections)
            .map(|max| {
                format!(
                    "note: net.netfilter.nf_conntrack_max is {max}: if a firewall rule tracks loopback connections, that is the limit"
                )
            })
            .into_iter()
            .collect()
    }
}

/// Finds out that TCP works over loopback: in a fresh network namespace the interface is down.
pub(crate) fn check_loopback() -> Result<(), End> {
    let connected = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| TcpStream::connect(listener.local_addr()?));
    connected.map(drop).map_err(|error| End::Refused(no_loopback(&error)))
}

fn no_loopback(error: &io::Error) -> String {
    let remedy = match error.kind() {
        // A search for a port passes over each that any socket is bound to, whatever its address (net/ipv4/inet_hashtables.c,
        // __inet_hash_connect, 6.18).
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => {
            "every local port is taken, as beside another load client: end that, or wait for it"
        }
        _ => "bring it up (ip link set lo up)",
    };
    format!("no TCP connection over loopback ({error}): {remedy}")
}

/// A port of the loopback address that nobody listens on.
pub(crate) fn free_port() -> Result<u16, End> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| End::Refused(format!("no free port on the loopback address: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            available_bytes: 24 << 30,
            sockets_bytes: u64::MAX,
            page_bytes: 4_096,
            baseline_pages: 0,
            reserve_pages: 510,
            nofile_hard: [20_000, 20_000],
            files: 1_000,
            file_max: 2_466_170,
            user_watches_max: 5_491_511,
            ports: 28_232,
            conntrack_max: None,
        }
    }

    fn only_problem(facts: &Facts) -> String {
        let mut problems = facts.problems(1_024_000);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    #[test]
    fn ports_that_are_all_taken_are_not_a_missing_loopback() {
        let told = |errno| no_loopback(&io::Error::from_raw_os_error(errno));
        assert!(told(libc::EADDRNOTAVAIL).contains("another load client"));
        assert!(told(libc::ENETUNREACH).contains("ip link set lo up"));
    }

    #[test]
    fn a_host_with_room_has_no_problem_and_needs_no_change() {
        assert_eq!(facts().problems(1_024_000), Vec::<String>::new());
        assert_eq!(facts().changes(1_024_000).unwrap(), []);
        assert_eq!(facts().notes(1_024_000), Vec::<String>::new());
    }

    #[test]
    fn each_wall_is_named_with_what_would_do() {
        let problem = only_problem(&Facts { available_bytes: 10 << 30, ..facts() });
        assert!(
            problem.contains("memory") && problem.contains("--connections 512000"),
            "{problem}"
        );
        let problem = only_problem(&Facts { sockets_bytes: 1 << 30, ..facts() });
        assert!(
            problem.contains("memory.kmem.tcp.limit_in_bytes")
                && problem.contains("--connections 128000"),
            "{problem}"
        );
        let problem = only_problem(&Facts { nofile_hard: [20_000, 256], ..facts() });
        assert!(problem.contains("256") && problem.contains("314"), "{problem}");
        let problem = only_problem(&Facts { ports: 10, ..facts() });
        assert!(problem.contains("ip_local_port_range"), "{problem}");
        let problem = only_problem(&Facts { baseline_pages: 500_000, ..facts() });
        assert!(problem.contains("500,000 pages"), "{problem}");
        let notes = Facts { conntrack_max: Some(262_144), ..facts() }.notes(1_024_000);
        assert!(notes[0].contains("nf_conntrack_max is 262144"), "{notes:?}");
    }

    #[test]
    fn settings_that_are_too_low_are_raised_to_what_is_needed() {
        let facts = Facts { file_max: 2_058_999, user_watches_max: 10, ..facts() };
        let changes = facts.changes(1_024_000).unwrap();
        let told: Vec<_> =
            changes.iter().map(|change| (change.name.as_str(), change.value.as_str())).collect();
        assert_eq!(told, [("fs.file-max", "2059000"), ("fs.epoll.max_user_watches", "2058000")]);
    }

    #[test]
    fn a_free_port_can_be_listened_on() {
        check_loopback().unwrap();
        let port = free_port().unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }
}
