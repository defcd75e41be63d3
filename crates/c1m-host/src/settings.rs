//! The settings that bound connections, as they are now. `None`: not to be read from here.

use std::fs;

use super::{
    ports::Ports,
    sysctl::{Name, Tree},
};

/// Host and network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// pages
    pub tcp_mem: Option<[u64; 3]>,
    /// bytes
    pub tcp_rmem: Option<[u64; 3]>,
    pub tcp_wmem: Option<[u64; 3]>,
    pub tcp_max_orphans: Option<u64>,
    pub nr_open: Option<u64>,
    pub somaxconn: Option<u64>,
    pub tcp_max_syn_backlog: Option<u64>,
    pub tcp_syncookies: Option<u64>,
    /// Ports of the local range that are not reserved.
    pub ports: Option<u64>,
    /// First and last port of the local range.
    pub port_range: Option<[u64; 2]>,
    pub first_unprivileged_port: Option<u64>,
    pub nf_conntrack_max: Option<u64>,
    pub nf_conntrack_buckets: Option<u64>,
    pub nf_conntrack_count: Option<u64>,
    pub epoll_max_user_watches: Option<u64>,
    pub tcp_max_tw_buckets: Option<u64>,
    /// Buckets of the hash table of established connections, since Linux 6.1.
    pub ehash_buckets: Option<u64>,
}

/// Reads them all: a dozen small files.
#[must_use]
pub fn read() -> Settings {
    at(&Tree::at(Tree::KERNEL))
}

fn at(tree: &Tree) -> Settings {
    let text = |name: &str| tree.read(&Name::new(name).ok()?).ok();
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    Settings {
        tcp_mem: numbers(tree, "net.ipv4.tcp_mem"),
        tcp_rmem: numbers(tree, "net.ipv4.tcp_rmem"),
        tcp_wmem: numbers(tree, "net.ipv4.tcp_wmem"),
        tcp_max_orphans: number("net.ipv4.tcp_max_orphans"),
        nr_open: number("fs.nr_open"),
        somaxconn: number("net.core.somaxconn"),
        tcp_max_syn_backlog: number("net.ipv4.tcp_max_syn_backlog"),
        tcp_syncookies: number("net.ipv4.tcp_syncookies"),
        ports: Ports::at(tree).ok().map(|ports| ports.usable.len() as u64),
        port_range: numbers(tree, "net.ipv4.ip_local_port_range"),
        first_unprivileged_port: number("net.ipv4.ip_unprivileged_port_start"),
        nf_conntrack_max: number("net.netfilter.nf_conntrack_max"),
        nf_conntrack_buckets: number("net.netfilter.nf_conntrack_buckets"),
        nf_conntrack_count: number("net.netfilter.nf_conntrack_count"),
        epoll_max_user_watches: number("fs.epoll.max_user_watches"),
        tcp_max_tw_buckets: number("net.ipv4.tcp_max_tw_buckets"),
        // Negative: shared with the first network namespace (net/ipv4/sysctl_net_ipv4.c,
        // proc_tcp_ehash_entries, 6.18).
        ehash_buckets: text("net.ipv4.tcp_ehash_entries")
            .and_then(|text| Some(text.parse::<i64>().ok()?.unsigned_abs())),
    }
}

fn numbers<const COUNT: usize>(tree: &Tree, name: &str) -> Option<[u64; COUNT]> {
    tree.numbers(&Name::new(name).ok()?).ok()
}

/// IPv6 addresses of the interfaces of this network namespace, but for those of a link alone.
/// `None`: no IPv6 in the kernel.
#[must_use]
pub fn ipv6_addresses() -> Option<u64> {
    Some(count_addresses(&fs::read_to_string("/proc/net/if_inet6").ok()?))
}

/// Address, interface, prefix length, scope, flags, name: the scope is 20 for a link.
fn count_addresses(text: &str) -> u64 {
    let of_link = |line: &&str| line.split_whitespace().nth(3) != Some("20");
    text.lines().filter(of_link).count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_there_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(at(&Tree::at(folder.path())), Settings::default());
        std::fs::create_dir_all(folder.path().join("net/ipv4")).unwrap();
        std::fs::write(folder.path().join("net/ipv4/tcp_mem"), "1\t2\t3\n").unwrap();
        std::fs::write(folder.path().join("net/ipv4/tcp_syncookies"), "1\n").unwrap();
        let settings = at(&Tree::at(folder.path()));
        assert_eq!((settings.tcp_mem, settings.tcp_syncookies), (Some([1, 2, 3]), Some(1)));
        assert_eq!(settings.tcp_max_orphans, None);
    }

    proptest! {
        #[test]
        fn garbage_in_the_tree_is_unknown_or_a_number(garbage in prop::collection::vec(any::<u8>(), 0..40)) {
            let folder = tempfile::tempdir().unwrap();
            for name in ["net/ipv4/tcp_mem", "net/ipv4/tcp_ehash_entries", "net/core/somaxconn", "fs/nr_open", "net/ipv4/ip_local_port_range"] {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, &garbage).unwrap();
            }
            let settings = at(&Tree::at(folder.path()));
            let number = std::str::from_utf8(&garbage).ok().and_then(|text| text.trim().parse::<u64>().ok());
            prop_assert_eq!(settings.somaxconn, number);
            prop_assert_eq!(settings.nr_open, number);
        }
    }

    #[test]
    fn addresses_of_a_link_lead_nowhere() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n";
        assert_eq!(count_addresses(text), 1);
        assert_eq!(count_addresses(""), 0);
    }

    #[test]
    fn the_running_kernel_has_settings() {
        let settings = read();
        assert!(settings.somaxconn.is_some() && settings.nr_open.is_some(), "{settings:?}");
        assert!(settings.ports.is_some_and(|ports| ports > 0));
    }
}
