//! The kernel settings that c1m assesses: those of the limits, and others that people write beside them.

pub use super::setting::Known;
use super::setting::{Numbers, Rule};
use crate::limits::REGISTRY;

impl Known {
    /// Finds it by its name, or by another name of the same setting.
    #[must_use]
    pub fn of(name: &str) -> Option<&'static Self> {
        let name = canonical(name);
        all().find(|known| known.name == name)
    }
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Known> {
    REGISTRY.iter().flat_map(|limit| limit.settings()).chain(&OTHERS)
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
    let near = all().filter(|known| known.name.len().abs_diff(name.len()) <= 2);
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

const SOCKETS_WITHOUT_TCP: &str =
    "sockets that ask for a size (SO_RCVBUF, SO_SNDBUF), and those of UDP, get less";
const NEIGHBOURS: &str = "a table of neighbours that is full refuses peers on the same link";

/// Those that are of no limit in the registry. Ranges, as those of the limits: kernel/sysctl.c, net/core/sysctl_net_core.c,
/// net/ipv4/sysctl_net_ipv4.c, fs/file_table.c, fs/eventpoll.c, kernel/fork.c, kernel/pid.c (6.18).
const OTHERS: [Known; 21] = [
    Known::new(
        "kernel.threads-max",
        Numbers::Within(1, 0x3fff_ffff),
        Rule::Larger(None, "threads and processes are refused (EAGAIN)"),
    ),
    Known::new(
        "kernel.pid_max",
        Numbers::Within(301, 4_194_304),
        Rule::Larger(None, "threads and processes are refused (EAGAIN)"),
    ),
    Known::new(
        "vm.max_map_count",
        Numbers::Int(1, 0),
        Rule::Larger(
            None,
            "a process may map fewer areas, and each thread needs one for its stack",
        ),
    ),
    Known::new(
        "net.core.netdev_max_backlog",
        Numbers::Int(1, i32::MIN),
        Rule::Larger(
            None,
            "packets are dropped before TCP sees them, those of the loopback interface too",
        ),
    ),
    Known::new("net.core.rmem_max", Numbers::Int(1, 2304), Rule::Larger(None, SOCKETS_WITHOUT_TCP)),
    Known::new("net.core.wmem_max", Numbers::Int(1, 4608), Rule::Larger(None, SOCKETS_WITHOUT_TCP)),
    Known::new(
        "net.core.rmem_default",
        Numbers::Int(1, 2304),
        Rule::Larger(None, SOCKETS_WITHOUT_TCP),
    ),
    Known::new(
        "net.core.wmem_default",
        Numbers::Int(1, 4608),
        Rule::Larger(None, SOCKETS_WITHOUT_TCP),
    ),
    Known::new(
        "net.core.optmem_max",
        Numbers::Int(1, 0),
        Rule::Larger(None, "socket options that need memory are refused (ENOBUFS)"),
    ),
    Known::new(
        "net.ipv4.udp_mem",
        Numbers::Long(3),
        Rule::Larger(None, "UDP drops what it receives"),
    ),
    Known::new(
        "net.ipv4.neigh.default.gc_thresh1",
        Numbers::Int(1, 0),
        Rule::Larger(None, NEIGHBOURS),
    ),
    Known::new(
        "net.ipv4.neigh.default.gc_thresh2",
        Numbers::Int(1, 0),
        Rule::Larger(None, NEIGHBOURS),
    ),
    Known::new(
        "net.ipv4.neigh.default.gc_thresh3",
        Numbers::Int(1, 0),
        Rule::Larger(None, NEIGHBOURS),
    ),
    Known::new(
        "net.ipv6.neigh.default.gc_thresh3",
        Numbers::Int(1, 0),
        Rule::Larger(None, NEIGHBOURS),
    ),
    Known::new(
        "net.ipv4.tcp_timestamps",
        Numbers::Within(0, 255),
        Rule::Switch {
            harmful: 0,
            harms: "without timestamps tcp_tw_reuse does nothing, SYN cookies lose window scaling and SACK, and fast connections lose their \
                    protection against old segments",
            else_: "it is on, as the kernel comes",
        },
    ),
    Known::new(
        "net.ipv4.tcp_window_scaling",
        Numbers::Within(0, 255),
        Rule::Switch {
            harmful: 0,
            harms: "no window can be larger than 64 KiB, which bounds the speed of each connection",
            else_: "it is on, as the kernel comes",
        },
    ),
    Known::new(
        "net.ipv4.tcp_sack",
        Numbers::Within(0, 255),
        Rule::Switch {
            harmful: 0,
            harms: "after a loss, everything behind it is sent again",
            else_: "it is on, as the kernel comes",
        },
    ),
    Known::new(
        "net.ipv4.tcp_tw_reuse",
        Numbers::Within(0, 2),
        Rule::Inert(
            "it concerns connections that this host opens, and ports that it closed before",
        ),
    ),
    Known::new(
        "net.ipv4.route.max_size",
        Numbers::Int(1, i32::MIN),
        Rule::Inert("the cache of IPv4 routes that it bounded is gone since Linux 3.6"),
    ),
    Known::new(
        "net.ipv4.tcp_low_latency",
        Numbers::Int(1, i32::MIN),
        Rule::Inert("the kernel ignores it since Linux 4.14"),
    ),
    Known::new(
        "net.ipv4.tcp_tw_recycle",
        Numbers::Int(1, i32::MIN),
        Rule::Removed(
            "Linux 4.12 removed it: it dropped connections of clients behind one address translation. Take it out",
        ),
    ),
];

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
        for known in all() {
            assert_eq!(all().filter(|it| it.name == known.name).count(), 1, "{}", known.name);
        }
        assert!(all().count() > 40);
    }
}
