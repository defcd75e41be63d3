//! What tracing counts: crossings, refusals and what followed.

use std::collections::BTreeMap;

use c1m_program::metrics::{Base, Kind, Metric, Sample, known, labelled, one};
use c1m_record::{Direction, Level, Refused};

use super::Seen;

const MS_PER_S: f64 = 1000.0;

/// A counter without labels, of a field of `refused` that is `null` without its hook.
macro_rules! counted {
    ($name:literal, $field:ident, $help:literal) => {
        Metric {
            name: $name,
            kind: Kind::Counter,
            unit: Base::Count,
            labels: &[],
            help: $help,
            source: concat!("`refused.", stringify!($field), "`"),
            read: |seen| one(seen.refused.as_ref().and_then(|refused| refused.$field)),
        }
    };
}

pub(super) const COUNTS: &[Metric<Seen>] = &[
    Metric {
        name: "c1m_crossings",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["limit", "level", "direction"],
        help: "Times that usage of tcp_mem went past one of its values, by level and direction: up or down",
        source: "number of `crossing` records",
        read: |seen| if seen.hooks.is_some() { crossings(seen) } else { Vec::new() },
    },
    Metric {
        name: "c1m_crossings_suppressed",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &[],
        help: "Crossings that were counted in the kernel and not reported one by one",
        source: "sum of `crossing.suppressed`",
        read: |seen| one(seen.hooks.as_ref().map(|_| seen.suppressed)),
    },
    Metric {
        name: "c1m_refusals",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["limit", "what"],
        help: "What a limit refused. what: send, receive: charges of an skb; orphan: reset orphans; syn, ack: SYNs and ends of handshakes; port: \
               searches for a local port",
        source: "`refused`: high_*, fair_share_* (limit tcp_mem_pressure), memcg_*, orphans_aborted_*, accept_queue_*, syn_queue_full, \
                 ports_exhausted",
        read: |seen| seen.refused.as_ref().map(refusals).unwrap_or_default(),
    },
    Metric {
        name: "c1m_dropped_segments",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["cause"],
        help: "Segments that arrived and could not be charged, by what had no room: tcp_mem or receive_buffer",
        source: "`refused.dropped_tcp_mem`, `refused.dropped_receive_buffer`",
        read: |seen| {
            of(seen, |refused| {
                known([
                    (["tcp_mem"], refused.dropped_tcp_mem),
                    (["receive_buffer"], refused.dropped_receive_buffer),
                ])
            })
        },
    },
    counted!("c1m_dropped_skbs", dropped_skb, "skbs dropped with reason PROTO_MEM"),
    Metric {
        name: "c1m_charged_above_high",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["how"],
        help: "Charges above tcp_mem high that were not refused, by how: allowed, or forced without asking",
        source: "`refused.allowed_above_high`, `refused.forced_above_high`",
        read: |seen| {
            of(seen, |refused| {
                known([
                    (["allowed"], refused.allowed_above_high),
                    (["forced"], refused.forced_above_high),
                ])
            })
        },
    },
    Metric {
        name: "c1m_pressure_entries",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["cause"],
        help: "Times that memory pressure began, by cause: tcp_mem, or allocator for pages that could not be had",
        source: "`refused.pressure_entries`, `refused.pressure_entries_allocator`",
        read: |seen| {
            of(seen, |refused| {
                known([
                    (["tcp_mem"], refused.pressure_entries),
                    (["allocator"], refused.pressure_entries_allocator),
                ])
            })
        },
    },
    counted!("c1m_pressure_exits", pressure_exits, "Times that memory pressure ended"),
    Metric {
        name: "c1m_under_pressure",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["scope"],
        help: "1 while the kernel is under TCP memory pressure, else 0",
        source: "`usage.host.pressure.now`",
        read: |seen| {
            let now = seen.usage.as_ref().and_then(|usage| usage.host.pressure.now);
            now.map(|now| labelled(["host"], u64::from(now))).into_iter().collect()
        },
    },
    Metric {
        name: "c1m_pressure_lasting",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "How long the present memory pressure has lasted; absent when there is none",
        source: "`usage.host.pressure.lasting_ms`",
        read: |seen| {
            let lasting = seen.usage.as_ref().and_then(|usage| usage.host.pressure.lasting_ms);
            one(lasting.map(|ms| ms / MS_PER_S))
        },
    },
    Metric {
        name: "c1m_pressure",
        kind: Kind::Counter,
        unit: Base::Seconds,
        labels: &[],
        help: "Time under memory pressure since the start, the present one included while it lasts",
        source: "`usage.host.pressure.total_ms`",
        read: |seen| one(seen.pressure_ms.map(|ms| ms / MS_PER_S)),
    },
    counted!(
        "c1m_out_of_order_queues_pruned",
        ofo_pruned,
        "Times that segments out of order were thrown away for want of memory"
    ),
    counted!(
        "c1m_skbs_collapsed",
        collapsed,
        "skbs of receive queues that were merged into others for want of room"
    ),
    counted!(
        "c1m_orphans_given_up_in_timers",
        orphans_in_timers,
        "Of the orphans that were reset, those that a timer gave up"
    ),
    Metric {
        name: "c1m_orphans_max",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &[],
        help: "The most orphans that the kernel summed up itself",
        source: "`refused.orphans_max`",
        read: |seen| one(seen.refused.as_ref().and_then(|refused| refused.orphans_max)),
    },
    Metric {
        name: "c1m_call_errors",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["call", "errno"],
        help: "System calls of any process of the host that failed because of a limit",
        source: "`refused.call_errors`",
        read: |seen| of(seen, call_errors),
    },
    Metric {
        name: "c1m_tcp_ext",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["counter", "netns"],
        help: "The kernel's own counters of TcpExt, since the start, in the network namespace with this inode; TCPMemoryPressuresChrono, which is a time, \
               is not among them",
        source: "`refused.kernel`, `usage.netns.inode`",
        read: tcp_ext,
    },
    Metric {
        name: "c1m_tcp_ext_memory_pressures_chrono",
        kind: Kind::Counter,
        unit: Base::Seconds,
        labels: &["netns"],
        help: "TcpExt's TCPMemoryPressuresChrono, since the start, in the network namespace with this inode: time under memory pressure, added when \
               pressure ends there",
        source: "`refused.kernel.TCPMemoryPressuresChrono`, `usage.netns.inode`",
        read: chrono,
    },
    Metric {
        name: "c1m_events_lost",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &[],
        help: "Dropped events: what is counted here may be too low by so many",
        source: "`usage.dropped`",
        read: |seen| one(seen.usage.as_ref().map(|usage| usage.dropped)),
    },
    Metric {
        name: "c1m_hook_info",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["probe", "hook", "resolution"],
        help: "Always 1: the hook of each probe, and its resolution; a probe without an attach method is absent",
        source: "`hooks`",
        read: |seen| {
            seen.hooks
                .iter()
                .flat_map(|hooks| &hooks.hooks)
                .filter_map(|hook| {
                    let resolution = hook.resolution?.name();
                    Some(labelled([&hook.probe, hook.hook.as_deref()?, resolution], 1))
                })
                .collect()
        },
    },
];

fn of(seen: &Seen, samples: impl Fn(&Refused) -> Vec<Sample>) -> Vec<Sample> {
    seen.refused.as_ref().map(samples).unwrap_or_default()
}

fn crossings(seen: &Seen) -> Vec<Sample> {
    let levels = Level::ALL.into_iter().zip(seen.crossings);
    levels
        .flat_map(|(level, [up, down])| {
            let sample = |direction: Direction, count| {
                let direction = if direction == Direction::Up { "up" } else { "down" };
                labelled(["tcp_mem", level.name(), direction], count)
            };
            [sample(Direction::Up, up), sample(Direction::Down, down)]
        })
        .collect()
}

/// By the names of limits, as `limits` and `verdict` have them.
fn refusals(refused: &Refused) -> Vec<Sample> {
    known([
        (["tcp_mem_high", "send"], Some(refused.high_send)),
        (["tcp_mem_high", "receive"], Some(refused.high_receive)),
        (["tcp_mem_pressure", "send"], Some(refused.fair_share_send)),
        (["tcp_mem_pressure", "receive"], Some(refused.fair_share_receive)),
        (["memory_cgroup", "send"], Some(refused.memcg_send)),
        (["memory_cgroup", "receive"], Some(refused.memcg_receive)),
        (["orphans", "orphan"], refused.orphans_aborted_too_many),
        (["orphan_memory", "orphan"], refused.orphans_aborted_out_of_memory),
        (["accept_queue", "syn"], refused.accept_queue_syn),
        (["accept_queue", "ack"], refused.accept_queue_ack),
        (["syn_queue", "syn"], refused.syn_queue_full),
        (["ports", "port"], refused.ports_exhausted),
    ])
}

/// The one member of TcpExt that is no count: milliseconds, tcp_leave_memory_pressure of net/ipv4/tcp.c (6.18).
const CHRONO: &str = "TCPMemoryPressuresChrono";

fn netns(seen: &Seen) -> String {
    let inode = seen.usage.as_ref().and_then(|usage| usage.netns.inode);
    inode.map(|inode| inode.to_string()).unwrap_or_default()
}

fn tcp_ext(seen: &Seen) -> Vec<Sample> {
    let netns = netns(seen);
    of(seen, |refused| {
        let counts = refused.kernel.iter().filter(|(name, _)| *name != CHRONO);
        counts.map(|(name, count)| labelled([name, &netns], *count)).collect()
    })
}

fn chrono(seen: &Seen) -> Vec<Sample> {
    let netns = netns(seen);
    of(seen, |refused| {
        let ms = refused.kernel.get(CHRONO);
        #[expect(clippy::cast_precision_loss, reason = "2^52 ms are 142,000 years")]
        let sample = |ms: &u64| labelled([&netns], *ms as f64 / MS_PER_S);
        ms.map(sample).into_iter().collect()
    })
}

/// The errors of each call that a limit can be behind: they are 0 until they happen.
pub const CALL_ERRORS: [(&str, &[&str]); 9] = [
    ("accept", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("bind", &["EADDRNOTAVAIL", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("connect", &["EADDRNOTAVAIL", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("descriptor", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("epoll_ctl", &["EMFILE", "ENFILE", "ENOMEM", "ENOSPC"]),
    ("other", &["EMFILE", "ENFILE"]),
    ("receive", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("send", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("socket", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
];

/// None where no hook counts them.
fn call_errors(refused: &Refused) -> Vec<Sample> {
    let Some(errors) = &refused.call_errors else { return Vec::new() };
    let born =
        CALL_ERRORS.iter().flat_map(|(call, errnos)| errnos.iter().map(move |it| (*call, *it)));
    let mut counts: BTreeMap<(&str, &str), u64> = born.map(|name| (name, 0)).collect();
    for (name, count) in errors {
        *counts.entry(name.split_once(' ').unwrap_or((name, ""))).or_default() += count;
    }
    counts.into_iter().map(|((call, errno), count)| labelled([call, errno], count)).collect()
}
