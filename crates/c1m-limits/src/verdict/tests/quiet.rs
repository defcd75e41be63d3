//! What moves on a healthy host must not name a limit.

use crate::{
    evidence::{Call, Evidence, Growth, errno},
    forecast::History,
    reading::Readings,
    verdict::judge,
};
use c1m_record::{FileNr, Sockstat, Tier};

/// Nothing is near any limit.
fn healthy() -> History {
    let mut history = History::default();
    for (connections, orphan) in [(0, 0), (1000, 90), (10, 0)] {
        history.add(&Readings {
            connections,
            tcp_mem: Some([1000, 2000, 3000]),
            sockstat: Some(Sockstat {
                orphan,
                tw: 50,
                alloc: 2000,
                tcp_mem_pages: 252,
                ..Sockstat::default()
            }),
            max_orphans: Some(1000),
            max_tw_buckets: Some(1000),
            ports: Some(28_232),
            ipv6_addresses: Some(1),
            syncookies: Some(1),
            nofile: Some(20_000),
            nr_open: Some(1_048_576),
            file_nr: Some(FileNr { allocated: 5000, max: 1_000_000 }),
            conntrack: Some(10),
            conntrack_max: Some(1000),
            memory_total_bytes: Some(1000),
            memory_available_bytes: Some(700),
            ..Readings::default()
        });
    }
    history
}

fn counters(pairs: &[(&str, u64)]) -> Evidence {
    let tcp_ext = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Evidence { tcp_ext, ..Evidence::default() }
}

fn failed(call: Call, errno: i32) -> Evidence {
    Evidence { call_errors: [((call, errno), 5)].into(), ..Evidence::default() }
}

fn own(names: &[&str]) -> Evidence {
    let own_errors = names.iter().map(|name| ((*name).to_owned(), 9)).collect();
    Evidence { own_errors, ..Evidence::default() }
}

#[test]
fn a_healthy_host_is_quiet() {
    const EAGAIN: i32 = 11;
    let cases = [
        Evidence::default(),
        Evidence {
            orphans_too_many: Some(0),
            orphans_out_of_memory: Some(0),
            orphans_max: Some(90),
            pressure_entries: Some(0),
            accept_queue_syn: Some(0),
            ports_exhausted: Some(0),
            past_high: Some(false),
            ..Evidence::default()
        },
        counters(&[
            ("TCPAbortOnClose", 7),
            ("TCPAbortOnData", 9),
            ("TCPAbortOnTimeout", 2),
            ("TCPTimeouts", 4),
        ]),
        counters(&[("SyncookiesSent", 3), ("SyncookiesFailed", 1), ("EmbryonicRsts", 2)]),
        counters(&[("TCPToZeroWindowAdv", 8), ("TCPFromZeroWindowAdv", 8), ("TCPWinProbe", 3)]),
        counters(&[
            ("PruneCalled", 2),
            ("OfoPruned", 1),
            ("TCPRcvCollapsed", 5),
            ("TCPBacklogDrop", 1),
        ]),
        // No route back, a broadcast address, a security module.
        counters(&[("ListenDrops", 4)]),
        // The allocator failed once.
        counters(&[("TCPMemoryPressures", 1), ("TCPMemoryPressuresChrono", 2)]),
        Evidence {
            pressure_entries: Some(0),
            pressure_entries_allocator: Some(2),
            pressure_exits: Some(2),
            ..counters(&[("TCPMemoryPressures", 2)])
        },
        Evidence { refused_fair_share_send: 1, ..Evidence::default() },
        failed(Call::Send, EAGAIN),
        failed(Call::Send, errno::ENOBUFS),
        failed(Call::Bind, errno::EADDRNOTAVAIL),
        // To an IPv6 destination that no source reaches.
        failed(Call::Connect, errno::EADDRNOTAVAIL),
        failed(Call::Descriptor, errno::EMFILE),
        failed(Call::Other, errno::ENOSPC),
        failed(Call::Descriptor, errno::ENOMEM),
        own(&[
            "connection ECONNRESET",
            "connection ETIMEDOUT",
            "accept ECONNABORTED",
            "400",
            "431",
        ]),
        Evidence {
            host: Growth {
                conntrack_drop: Some(2),
                conntrack_insert_failed: Some(2),
                conntrack_early_drop: Some(0),
                cgroup_oom: Some(0),
                oom_kill: Some(0),
                allocstall: Some(30),
                ..Growth::default()
            },
            ..Evidence::default()
        },
    ];
    for tier in [Tier::Counters, Tier::Tracepoints, Tier::Functions] {
        for seen in cases.clone() {
            // What began the kernel's pressure, the counter alone does not tell: then it is said to be possible.
            let is_open = tier == Tier::Counters && seen.counter("TCPMemoryPressures") > 0;
            if is_open && seen.pressure_entries.is_none() {
                continue;
            }
            let seen = Evidence { tier: Some(tier), ..seen };
            let verdict = judge(&seen, &healthy());
            assert!(verdict.quiet && verdict.causes.is_empty(), "{seen:?}: {:?}", verdict.causes);
        }
    }
}

#[test]
fn a_process_that_is_gone_without_an_oom_kill_has_crashed() {
    let seen = own(&["connection ECONNRESET", "connection EPIPE"]);
    assert!(judge(&seen, &healthy()).quiet);
}
