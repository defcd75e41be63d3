//! A sample: what host, process and listener show at one moment, as plain numbers; and one limit's usage beside its ceiling.

use std::time::Duration;

use c1m_record::{FileNr, Sockstat};

/// The numbers of one moment. `None`: not shown here (tcp_mem inside another network namespace than the host's), which is never the same
/// as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readings {
    /// Since the start.
    pub at: Duration,
    /// Connections that the server holds.
    pub connections: u64,
    pub sockstat: Option<Sockstat>,
    /// low, pressure, high, in pages
    pub tcp_mem: Option<[u64; 3]>,
    /// Bytes of a page, which is the unit of tcp_mem.
    pub page_bytes: Option<u64>,
    /// CPUs that are online: each keeps pages apart from the kernel's counter.
    pub cpus: Option<u64>,
    /// least, default, most: bytes
    pub tcp_rmem: Option<[u64; 3]>,
    pub tcp_wmem: Option<[u64; 3]>,
    pub max_orphans: Option<u64>,

    /// Descriptors that one table may hold.
    pub nofile: Option<u64>,
    /// Descriptors that the tables of this process hold, and how many they may hold together.
    pub descriptors: Option<u64>,
    pub descriptors_max: Option<u64>,
    pub nr_open: Option<u64>,
    pub file_nr: Option<FileNr>,

    /// The accept queue that is fullest, of the target's listeners (without a target: of those of this network namespace), and how long it
    /// may be.
    pub accept_queue: Option<(u64, u64)>,
    /// The longest accept queue that any of them may have.
    pub longest_backlog: Option<u64>,
    /// Of the own listener: the smaller of its backlog and somaxconn.
    pub backlog: Option<u64>,
    /// `net.core.somaxconn` itself.
    pub somaxconn: Option<u64>,
    pub max_syn_backlog: Option<u64>,
    /// 0 off, 1 when the SYN queue is full, 2 always
    pub syncookies: Option<u64>,
    /// Ports of net.ipv4.ip_local_port_range that are not reserved.
    pub ports: Option<u64>,
    /// First and last port of that range.
    pub port_range: Option<[u64; 2]>,
    /// `net.ipv4.ip_unprivileged_port_start`: the kernel refuses a range that begins below it.
    pub first_unprivileged_port: Option<u64>,
    /// Addresses of the interfaces but for those of the link: without any, IPv6 leads nowhere.
    pub ipv6_addresses: Option<u64>,
    pub conntrack: Option<u64>,
    pub conntrack_max: Option<u64>,
    pub conntrack_buckets: Option<u64>,
    /// Watches of this process.
    pub epoll_watches: Option<u64>,
    pub max_user_watches: Option<u64>,
    pub max_tw_buckets: Option<u64>,

    pub memory_total_bytes: Option<u64>,
    pub memory_available_bytes: Option<u64>,
    /// What counts in the tightest memory cgroup above this process, page cache that it would give up left out.
    pub cgroup_used_bytes: Option<u64>,
    pub cgroup_max_bytes: Option<u64>,
    /// Usage and memory.high of the cgroup that is nearest to it, in bytes: above it processes are slowed down, nothing is refused.
    pub cgroup_high: Option<(u64, u64)>,
    /// The same of memory.kmem.tcp.limit_in_bytes (v1), which counts what is queued in sockets and nothing else.
    pub cgroup_sockets: Option<(u64, u64)>,
}

impl Readings {
    /// Bytes of a page. `None`: not known, and neither is what depends on it.
    #[must_use]
    pub fn page(&self) -> Option<u64> {
        self.page_bytes.filter(|bytes| *bytes > 0)
    }

    /// Of the limits of memory cgroups that none is killed for: the one with the least room, if that is less than memory.max leaves.
    #[must_use]
    pub fn softer_cgroup_limit(&self) -> Option<CgroupLimit> {
        let high = self.cgroup_high.map(|(used, ceiling)| CgroupLimit {
            used,
            ceiling,
            source: "memory.current and memory.high of the tightest cgroup above this process",
            counts_sockets_alone: false,
        });
        let sockets = self.cgroup_sockets.map(|(used, ceiling)| CgroupLimit {
            used,
            ceiling,
            source: "memory.kmem.tcp.usage_in_bytes and memory.kmem.tcp.limit_in_bytes of the tightest cgroup above this process",
            counts_sockets_alone: true,
        });
        let left = self.cgroup_max_bytes.zip(self.cgroup_used_bytes);
        let left = left.map_or(u64::MAX, |(max, used)| max.saturating_sub(used));
        let room = |limit: &CgroupLimit| limit.ceiling.saturating_sub(limit.used);
        high.into_iter().chain(sockets).filter(|limit| room(limit) < left).min_by_key(room)
    }
}

/// A limit of a memory cgroup that slows down, or refuses to sockets alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLimit {
    pub used: u64,
    pub ceiling: u64,
    /// The files that it was read from.
    pub source: &'static str,
    pub counts_sockets_alone: bool,
}

/// How much of a limit is used, and the ceiling. `None`: not known from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub used: Option<u64>,
    pub ceiling: Option<u64>,
}

impl Usage {
    pub(crate) fn new(used: Option<u64>, ceiling: Option<u64>) -> Self {
        Self { used, ceiling }
    }

    /// `ceiling` less `used`, 0 when it is past.
    #[must_use]
    pub fn headroom(&self) -> Option<u64> {
        Some(self.ceiling?.saturating_sub(self.used?))
    }

    /// More is used than the ceiling allows. Equal is not past: so the kernel compares all of them.
    #[must_use]
    pub fn is_past(&self) -> bool {
        matches!((self.used, self.ceiling), (Some(used), Some(ceiling)) if used > ceiling)
    }
}

/// Usage beside the ceiling of that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    pub used: u64,
    pub ceiling: u64,
}

impl Peak {
    /// Whether `self` is nearer to its ceiling than `other`, which may have been another one.
    #[must_use]
    pub fn is_above(&self, other: &Self) -> bool {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        product(self.used, other.ceiling) > product(other.used, self.ceiling)
    }

    #[must_use]
    pub fn is_past(&self) -> bool {
        self.used > self.ceiling
    }

    /// Whether at least `percent` of the ceiling was used.
    #[must_use]
    pub fn is_at(&self, percent: u64) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.ceiling) * u128::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_of_a_cgroup_counts() {
        let of = |max: Option<u64>, high, sockets| {
            let now = Readings {
                cgroup_used_bytes: Some(50),
                cgroup_max_bytes: max,
                cgroup_high: high,
                cgroup_sockets: sockets,
                ..Readings::default()
            };
            now.softer_cgroup_limit().map(|limit| (limit.ceiling, limit.counts_sockets_alone))
        };
        assert_eq!(of(Some(100), Some((50, 80)), None), Some((80, false)));
        assert_eq!(of(Some(70), Some((50, 80)), None), None, "memory.max is nearer");
        assert_eq!(of(None, Some((50, 80)), Some((1, 9))), Some((9, true)));
        assert_eq!(of(None, None, None), None);
    }

    #[test]
    fn headroom_ends_at_zero_and_needs_both() {
        let usage = Usage::new;
        assert_eq!(usage(Some(3), Some(10)).headroom(), Some(7));
        assert_eq!(usage(Some(11), Some(10)).headroom(), Some(0));
        assert_eq!(usage(None, Some(10)).headroom(), None);
        assert!(!usage(Some(10), Some(10)).is_past() && usage(Some(11), Some(10)).is_past());
        assert!(!usage(Some(1), None).is_past());
    }

    #[test]
    fn peaks_are_compared_by_how_near_their_ceiling_is() {
        let (small, large) = (Peak { used: 9, ceiling: 10 }, Peak { used: 50, ceiling: 100 });
        assert!(small.is_above(&large) && !large.is_above(&small));
        assert!(small.is_at(90) && !small.is_at(91));
        let huge = Peak { used: u64::MAX, ceiling: u64::MAX };
        assert!(huge.is_above(&small) && !huge.is_past());
    }
}
