//! A remedy never takes away: of each number the more permissive of what is set and what a run needs.

use super::reading::Readings;

/// Ports below this are for servers.
pub(super) const FIRST_PORT: u64 = 1024;

/// The first and the last port of the widest range that this kernel accepts. What is set is never narrowed.
pub(super) fn widest_ports(now: &Readings) -> [u64; 2] {
    let first = FIRST_PORT.max(now.first_unprivileged_port.unwrap_or(0)).min(u16::MAX.into());
    [now.port_range.map_or(first, |[present, _]| present.min(first)), u16::MAX.into()]
}

/// `wanted`, but not below `present`. An unknown value bounds nothing.
pub(super) fn at_least(wanted: u64, present: Option<u64>) -> u64 {
    wanted.max(present.unwrap_or(0))
}

/// A quarter more, so that the next run does not meet the limit again.
pub(super) fn with_slack(number: u64) -> u64 {
    number.saturating_add(number / 4)
}

/// Of bytes, rounded up.
pub(super) fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The value to write for the kernel setting `name` when `present` is set and `wanted` would do: of each number the more permissive. Larger
/// permits more, but for the first port of a range. A text without numbers, or with another count of them, is left as it is wanted.
#[must_use]
pub fn raised(name: &str, present: &str, wanted: &str) -> String {
    let numbers =
        |text: &str| text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let (Ok(before), Ok(after)) = (numbers(present), numbers(wanted)) else { return wanted.into() };
    if before.len() != after.len() {
        return wanted.into();
    }
    let is_range = name == "net.ipv4.ip_local_port_range";
    let each = before.into_iter().zip(after).enumerate().map(|(index, (before, after))| {
        let value = if is_range && index == 0 { before.min(after) } else { before.max(after) };
        value.to_string()
    });
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use c1m_record::{FileNr, Role, Sockstat, Tier};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        case::Case,
        evidence::Evidence,
        footprint::Sizes,
        forecast::History,
        limits::REGISTRY,
        preflight::{Host, Run, Tables, examine},
    };

    #[test]
    fn each_number_keeps_what_permits_more() {
        for (name, present, wanted, value) in [
            ("net.core.somaxconn", "65535", "3125", "65535"),
            ("net.core.somaxconn", "128", "3125", "3125"),
            ("net.ipv4.tcp_mem", "10 90 95", "20 40 100", "20 90 100"),
            ("net.ipv4.ip_local_port_range", "500 60999", "1024 65535", "500 65535"),
            ("net.ipv4.ip_local_port_range", "32768 60999", "1024 65535", "1024 65535"),
            ("net.core.somaxconn", "", "7", "7"),
        ] {
            assert_eq!(raised(name, present, wanted), value, "{name}");
        }
    }

    #[test]
    fn ports_of_servers_stay_theirs_and_a_wider_range_stays_wide() {
        let now = |range, first| Readings {
            port_range: range,
            first_unprivileged_port: first,
            ..Readings::default()
        };
        assert_eq!(widest_ports(&now(None, None)), [1024, 65_535]);
        assert_eq!(widest_ports(&now(Some([32_768, 60_999]), Some(2_000))), [2_000, 65_535]);
        assert_eq!(widest_ports(&now(Some([1, 60_999]), Some(0))), [1, 65_535]);
        assert_eq!(widest_ports(&now(None, Some(u64::MAX))), [65_535, 65_535]);
    }

    /// The values that a text names as `name=value`, of settings that are set in `now`.
    fn named(text: &str, now: &Readings) -> Vec<(String, String, String)> {
        let three = |it: Option<[u64; 3]>| it.map(|it| it.map(|it| it.to_string()).join(" "));
        let one = |it: Option<u64>| it.map(|it| it.to_string());
        let set = [
            ("net.ipv4.tcp_mem=", three(now.tcp_mem)),
            ("net.ipv4.tcp_max_orphans=", one(now.max_orphans)),
            ("LimitNOFILE=", one(now.nofile)),
            ("fs.nr_open=", one(now.nr_open)),
            ("fs.file-max=", one(now.file_nr.map(|files| files.max))),
            ("net.core.somaxconn=", one(now.somaxconn)),
            ("--backlog ", one(now.backlog)),
            ("net.ipv4.tcp_max_syn_backlog=", one(now.max_syn_backlog)),
            ("net.ipv4.tcp_syncookies=", one(now.syncookies)),
            (
                "net.ipv4.ip_local_port_range=",
                now.port_range.map(|it| it.map(|it| it.to_string()).join(" ")),
            ),
            ("net.netfilter.nf_conntrack_max=", one(now.conntrack_max)),
            ("nf_conntrack_buckets=", one(now.conntrack_buckets)),
            ("fs.epoll.max_user_watches=", one(now.max_user_watches)),
            ("net.ipv4.tcp_max_tw_buckets=", one(now.max_tw_buckets)),
            ("memory.max=", one(now.cgroup_max_bytes)),
        ];
        let mut all = Vec::new();
        for (name, present) in set {
            let Some(present) = present else { continue };
            for (_, rest) in text.match_indices(name).map(|(at, _)| text.split_at(at + name.len()))
            {
                let is_part = |it: char| it.is_ascii_digit() || it == ' ';
                let quoted = rest.strip_prefix('"').map(|it| it.split('"').next().unwrap());
                let value = quoted.unwrap_or_else(|| {
                    let end = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
                    &rest[..end]
                });
                if !value.is_empty() && value.chars().all(is_part) {
                    all.push((name.trim_end_matches('=').into(), present.clone(), value.into()));
                }
            }
        }
        all
    }

    /// Values of a host, from nothing to more than any host has: most near what a run needs.
    fn readings() -> impl Strategy<Value = Readings> {
        let number = || prop_oneof![0u64..100, 100u64..10_000_000, 0u64..1 << 40];
        (
            prop::collection::vec(number(), 20),
            [1u64..40_000, 40_000..65_536],
            prop::option::of(0u64..3_000),
            0u64..3,
            prop::collection::vec(any::<bool>(), 4),
        )
            .prop_map(|(n, [first, last], start, cookies, shown)| Readings {
                sockstat: Some(Sockstat {
                    tcp_mem_pages: n[0],
                    orphan: n[1],
                    ..Sockstat::default()
                }),
                tcp_mem: shown[0].then(|| {
                    let mut levels = [n[2], n[3], n[4]];
                    levels.sort_unstable();
                    levels
                }),
                page_bytes: Some(4096),
                cpus: Some(2),
                max_orphans: Some(n[5]),
                nofile: Some(n[6]),
                nr_open: Some(n[7]),
                file_nr: Some(FileNr { allocated: n[8], max: n[9] }),
                backlog: Some(n[10].min(n[11])),
                somaxconn: shown[1].then_some(n[11]),
                max_syn_backlog: Some(n[12]),
                syncookies: Some(cookies),
                ports: Some(last + 1 - first),
                port_range: shown[2].then_some([first, last]),
                first_unprivileged_port: start.filter(|start| *start <= first),
                conntrack: Some(n[13]),
                conntrack_max: Some(n[14]),
                conntrack_buckets: shown[3].then_some(n[15]),
                max_user_watches: Some(n[16]),
                max_tw_buckets: Some(n[17]),
                memory_total_bytes: Some(n[18].saturating_mul(4096)),
                memory_available_bytes: Some(n[18].saturating_mul(2048)),
                cgroup_used_bytes: Some(0),
                cgroup_max_bytes: Some(n[19].saturating_mul(64)),
                ..Readings::default()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever is set, and whatever is planned: no remedy before a run names less than what is set.
        #[test]
        fn no_remedy_lowers_what_is_set(
            now in readings(), connections in 1u64..5_000_000, queued_bytes in prop_oneof![Just(0u64), 0u64..100_000],
            rate in prop::option::of(1u64..5_000_000), role in 0usize..3, sources in 1u64..100, ends_by_fin: bool,
        ) {
            let role = [Role::Server, Role::Client, Role::Both][role];
            let run = Run { connections, queued_bytes, role, ipv6: false, sources, destinations: 1, rate, ends_by_fin };
            let host = Host {
                tables: Tables {
                    by_nofile: now.nofile,
                    by_nr_open: now.nr_open,
                    needed: connections,
                    most: 1,
                },
                readings: now,
                listeners: 2,
                sizes: Sizes::default(),
                tracked: Some(true),
                ehash_buckets: Some(1 << 18),
                cgroup_counts_sockets: true,
                is_exempt_from_file_max: false,
            };
            for row in examine(&run, &host).rows {
                let settings = row.settings.iter().map(|it| format!("{}=\"{}\"", it.name, it.value));
                for text in row.fix.iter().cloned().chain(settings) {
                    for (name, present, value) in named(&text, &now) {
                        prop_assert_eq!(&raised(&name, &present, &value), &value, "{} is {}: {}", name, present, text);
                    }
                }
            }
        }

        /// The same of the remedies of a verdict.
        #[test]
        fn no_remedy_of_a_verdict_lowers_what_is_set(before in readings(), now in readings(), accept_queue_max in prop::option::of(0u64..100_000), emfile: bool) {
            let mut history = History::default();
            history.add(&before);
            history.add(&now);
            let mut observed = Evidence { accept_queue_max, ..Evidence::default() };
            if emfile {
                observed.own_errors.insert("accept EMFILE".into(), 1);
            }
            let case = Case { observed: &observed, history: &history, now, tier: Tier::Counters };
            for text in REGISTRY.iter().map(|limit| limit.remedy(&case)) {
                for (name, present, value) in named(&text, &now) {
                    prop_assert_eq!(&raised(&name, &present, &value), &value, "{} is {}: {}", name, present, text);
                }
            }
        }
    }
}
