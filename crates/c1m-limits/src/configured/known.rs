//! The kernel settings that c1m assesses, how the kernel reads each of them, and by which rule it is assessed.

use super::kernel::Kind;
use c1m_record::LimitName;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// With dots.
    pub name: &'static str,
    numbers: Numbers,
    pub rule: Rule,
}

/// What the kernel accepts.
#[derive(Debug, Clone, Copy)]
enum Numbers {
    /// So many C `int`s, not below the number.
    Int(usize, i32),
    /// One within both, inclusive.
    Within(i32, i32),
    /// So many C `long`s, not negative.
    Long(usize),
    /// One number of seconds, which the kernel keeps in its own ticks (`proc_dointvec_jiffies`).
    Seconds,
    PortRange,
    Ports,
}

/// The fewest ticks a second that a kernel is built with (kernel/Kconfig.hz). More seconds than an `int` holds of those are refused by every
/// kernel (kernel/sysctl.c, do_proc_dointvec_jiffies_conv, 6.18); of one with more ticks, fewer are: which it has is not known.
const LEAST_HZ: i128 = 100;

/// How it is assessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The more, the more is permitted: of a limit, if there is one. The text says what less of it does.
    Larger(Option<LimitName>, &'static str),
    TcpMem,
    Buffer,
    PortRange,
    ReservedPorts,
    /// The first value harms, for the reason that the first text has; of any other one the second text is told.
    Switch {
        harmful: i128,
        harms: &'static str,
        else_: &'static str,
    },
    /// Whatever it is set to, it decides nothing about connections.
    Inert(&'static str),
    /// No kernel since 5.10 has it.
    Removed(&'static str),
}

impl Known {
    /// Finds it by its name, or by another name of the same setting.
    #[must_use]
    pub fn of(name: &str) -> Option<&'static Self> {
        let name = canonical(name);
        KNOWN.iter().find(|known| known.name == name)
    }

    /// How the kernel reads it, where ports from `first_unprivileged` on are for everybody and `last_port` ends the range of local ports.
    #[must_use]
    pub fn kind(&self, first_unprivileged: u64, last_port: Option<i128>) -> Kind {
        let int_max = i128::from(i32::MAX);
        match self.numbers {
            Numbers::Int(count, least) => {
                Kind::Numbers { count, range: least.into()..=int_max, signed: true }
            }
            Numbers::Seconds => {
                let most = int_max / LEAST_HZ;
                Kind::Numbers { count: 1, range: -most..=most, signed: true }
            }
            Numbers::Within(least, most) => {
                Kind::Numbers { count: 1, range: least.into()..=most.into(), signed: false }
            }
            // Of tcp_mem and udp_mem the kernel takes any unsigned long; beyond LONG_MAX there is no memory either.
            Numbers::Long(count) => {
                Kind::Numbers { count, range: 0..=i64::MAX.into(), signed: false }
            }
            Numbers::PortRange => Kind::PortRange { first_unprivileged, last: last_port },
            Numbers::Ports => Kind::Ports,
        }
    }

    /// How many numbers it has.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.numbers {
            Numbers::Int(count, _) | Numbers::Long(count) => count,
            Numbers::Within(..) | Numbers::Seconds | Numbers::Ports => 1,
            Numbers::PortRange => 2,
        }
    }
}

/// Two names of one setting are one setting.
#[must_use]
pub fn canonical(name: &str) -> &str {
    match name {
        "net.nf_conntrack_max" => "net.netfilter.nf_conntrack_max",
        other => other,
    }
}

/// The known name that `name` may be a slip of.
#[must_use]
pub fn similar(name: &str) -> Option<&'static str> {
    let near = KNOWN.iter().filter(|known| known.name.len().abs_diff(name.len()) <= 2);
    let near = near.map(|known| (distance(known.name, name), known.name));
    near.min().filter(|(distance, _)| *distance <= 2).map(|(_, name)| name)
}

/// Letters that have to be put in, taken out or exchanged to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

const fn known(name: &'static str, numbers: Numbers, rule: Rule) -> Known {
    Known { name, numbers, rule }
}

const fn larger(limit: Option<LimitName>, less: &'static str) -> Rule {
    Rule::Larger(limit, less)
}

const SOCKETS_WITHOUT_TCP: &str =
    "sockets that ask for a size (SO_RCVBUF, SO_SNDBUF), and those of UDP, get less";
const NEIGHBOURS: &str = "a table of neighbours that is full refuses peers on the same link";

/// All of them. Ranges: kernel/sysctl.c, net/core/sysctl_net_core.c, net/ipv4/sysctl_net_ipv4.c, fs/file_table.c, fs/eventpoll.c, kernel/fork.c,
/// kernel/pid.c (6.18); what a kernel since 5.10 refuses besides is not told.
pub const KNOWN: [Known; 41] = {
    use Numbers::{Int, Long, PortRange, Ports, Seconds, Within};
    const ANY: i32 = i32::MIN;
    [
        known("net.ipv4.tcp_mem", Long(3), Rule::TcpMem),
        known("net.ipv4.tcp_rmem", Int(3, 1), Rule::Buffer),
        known("net.ipv4.tcp_wmem", Int(3, 1), Rule::Buffer),
        known("net.ipv4.ip_local_port_range", PortRange, Rule::PortRange),
        known("net.ipv4.ip_local_reserved_ports", Ports, Rule::ReservedPorts),
        known(
            "net.ipv4.tcp_max_orphans",
            Int(1, ANY),
            larger(
                Some(LimitName::Orphans),
                "it resets connections that still had something to deliver",
            ),
        ),
        known(
            "net.ipv4.tcp_max_tw_buckets",
            Int(1, ANY),
            larger(
                Some(LimitName::TimeWait),
                "it lets late segments of an old connection reach a new one",
            ),
        ),
        known(
            "net.ipv4.tcp_max_syn_backlog",
            Int(1, ANY),
            larger(Some(LimitName::SynQueue), "a burst of handshakes fills the SYN queue earlier"),
        ),
        known(
            "net.core.somaxconn",
            Int(1, 0),
            larger(
                Some(LimitName::AcceptQueue),
                "a burst of connections fills the accept queue earlier",
            ),
        ),
        known(
            "net.netfilter.nf_conntrack_max",
            Int(1, ANY),
            larger(Some(LimitName::Conntrack), "a full table drops packets of new connections"),
        ),
        known(
            "net.netfilter.nf_conntrack_buckets",
            Int(1, ANY),
            larger(None, "each look-up of a tracked connection walks a longer chain"),
        ),
        known(
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            Int(1, ANY),
            larger(
                None,
                "a connection that is idle for so many seconds is forgotten, and its next packet may be dropped",
            ),
        ),
        known(
            "fs.file-max",
            Long(1),
            larger(Some(LimitName::FileMax), "every program of the host may be refused a file"),
        ),
        // fs/file_table.c, sysctl_nr_open_min and sysctl_nr_open_max on 64 bits.
        known(
            "fs.nr_open",
            Within(64, 0x7fff_ffc0),
            larger(Some(LimitName::NrOpen), "no limit of descriptors can be raised above it"),
        ),
        known(
            "fs.epoll.max_user_watches",
            Long(1),
            larger(
                Some(LimitName::EpollWatches),
                "a user's programs may watch fewer descriptors by epoll",
            ),
        ),
        known(
            "kernel.threads-max",
            Within(1, 0x3fff_ffff),
            larger(None, "threads and processes are refused (EAGAIN)"),
        ),
        known(
            "kernel.pid_max",
            Within(301, 4_194_304),
            larger(None, "threads and processes are refused (EAGAIN)"),
        ),
        known(
            "vm.max_map_count",
            Int(1, 0),
            larger(None, "a process may map fewer areas, and each thread needs one for its stack"),
        ),
        known(
            "net.core.netdev_max_backlog",
            Int(1, ANY),
            larger(
                None,
                "packets are dropped before TCP sees them, those of the loopback interface too",
            ),
        ),
        known("net.core.rmem_max", Int(1, 2304), larger(None, SOCKETS_WITHOUT_TCP)),
        known("net.core.wmem_max", Int(1, 4608), larger(None, SOCKETS_WITHOUT_TCP)),
        known("net.core.rmem_default", Int(1, 2304), larger(None, SOCKETS_WITHOUT_TCP)),
        known("net.core.wmem_default", Int(1, 4608), larger(None, SOCKETS_WITHOUT_TCP)),
        known(
            "net.core.optmem_max",
            Int(1, 0),
            larger(None, "socket options that need memory are refused (ENOBUFS)"),
        ),
        known("net.ipv4.udp_mem", Long(3), larger(None, "UDP drops what it receives")),
        known("net.ipv4.neigh.default.gc_thresh1", Int(1, 0), larger(None, NEIGHBOURS)),
        known("net.ipv4.neigh.default.gc_thresh2", Int(1, 0), larger(None, NEIGHBOURS)),
        known("net.ipv4.neigh.default.gc_thresh3", Int(1, 0), larger(None, NEIGHBOURS)),
        known("net.ipv6.neigh.default.gc_thresh3", Int(1, 0), larger(None, NEIGHBOURS)),
        known(
            "net.ipv4.tcp_syncookies",
            Within(0, 255),
            Rule::Switch {
                harmful: 0,
                harms: "without cookies a full SYN queue drops handshakes, so a flood of SYNs keeps everybody out",
                else_: "with cookies a full SYN queue refuses nobody",
            },
        ),
        known(
            "net.ipv4.tcp_timestamps",
            Within(0, 255),
            Rule::Switch {
                harmful: 0,
                harms: "without timestamps tcp_tw_reuse does nothing, SYN cookies lose window scaling and SACK, and fast connections lose their \
                    protection against old segments",
                else_: "it is on, as the kernel comes",
            },
        ),
        known(
            "net.ipv4.tcp_window_scaling",
            Within(0, 255),
            Rule::Switch {
                harmful: 0,
                harms: "no window can be larger than 64 KiB, which bounds the speed of each connection",
                else_: "it is on, as the kernel comes",
            },
        ),
        known(
            "net.ipv4.tcp_sack",
            Within(0, 255),
            Rule::Switch {
                harmful: 0,
                harms: "after a loss, everything behind it is sent again",
                else_: "it is on, as the kernel comes",
            },
        ),
        known(
            "net.ipv4.tcp_abort_on_overflow",
            Within(0, 255),
            Rule::Switch {
                harmful: 1,
                harms: "a full accept queue resets the connection, where the client would have tried again by itself",
                else_: "a full accept queue lets the client try again",
            },
        ),
        known(
            "net.ipv4.tcp_tw_reuse",
            Within(0, 2),
            Rule::Inert(
                "it concerns connections that this host opens, and ports that it closed before",
            ),
        ),
        known(
            "net.ipv4.tcp_fin_timeout",
            Seconds,
            Rule::Inert(
                "it is how long an orphan waits in FIN_WAIT_2 (seconds); TIME_WAIT stays 60 s, and open connections do not depend on it",
            ),
        ),
        known(
            "net.ipv4.route.max_size",
            Int(1, ANY),
            Rule::Inert("the cache of IPv4 routes that it bounded is gone since Linux 3.6"),
        ),
        known(
            "net.ipv4.tcp_low_latency",
            Int(1, ANY),
            Rule::Inert("the kernel ignores it since Linux 4.14"),
        ),
        known(
            "net.ipv4.tcp_tw_recycle",
            Int(1, ANY),
            Rule::Removed(
                "Linux 4.12 removed it: it dropped connections of clients behind one address translation. Take it out",
            ),
        ),
        known(
            "net.ipv4.netfilter.ip_conntrack_max",
            Int(1, ANY),
            Rule::Removed(
                "Linux 4.9 removed this name: the setting is net.netfilter.nf_conntrack_max",
            ),
        ),
        known(
            "net.ipv4.ip_conntrack_max",
            Int(1, ANY),
            Rule::Removed(
                "Linux 2.6.20 removed this name: the setting is net.netfilter.nf_conntrack_max",
            ),
        ),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_other_names_are_recognised() {
        assert_eq!(similar("net.ipv4.tcp_max_orphan"), Some("net.ipv4.tcp_max_orphans"));
        assert_eq!(similar("net.core.somaxcon"), Some("net.core.somaxconn"));
        assert_eq!(similar("kernel.exec-shield"), None);
        assert_eq!((distance("", "ab"), distance("abc", "adc"), distance("ab", "ba")), (2, 1, 2));
        assert_eq!(
            Known::of("net.nf_conntrack_max").unwrap().name,
            "net.netfilter.nf_conntrack_max"
        );
        assert!(Known::of("vm.swappiness").is_none());
    }

    #[test]
    fn each_name_is_there_once() {
        for (index, known) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..index].iter().all(|other| other.name != known.name), "{}", known.name);
        }
    }
}
