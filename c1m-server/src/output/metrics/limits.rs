//! Usage of every limit, and what it stands beside.

use super::Seen;
use c1m_program::metrics::{Base, Kind, Metric, Sample, labelled};
use c1m_record::{Level, LimitName, LimitReading, Scope};

/// A number, and what it is a number of.
type Value = fn(&LimitReading) -> Option<(Scope, u64)>;
const USED: Value = |reading| Some((scope_of_usage(reading), reading.used?));
const CEILING: Value = |reading| Some((reading.scope, reading.ceiling?));

/// Of limits that several processes share, what is read of one process is that process's.
fn scope_of_usage(reading: &LimitReading) -> Scope {
    match reading.limit {
        LimitName::NrOpen | LimitName::EpollWatches => Scope::Process,
        _ => reading.scope,
    }
}

/// A limit's metrics: usage, and beside it `_limit`. tcp_mem is not among them: its three values are limits of one usage.
macro_rules! limit {
    ($limit:expr, $unit:expr, $used:literal, $ceiling:literal, $what:literal) => {
        [
            Metric {
                name: $used,
                kind: Kind::Gauge,
                unit: $unit,
                labels: &["scope"],
                help: concat!($what, ": usage"),
                source: "`limits.used`",
                read: |seen| of(seen, $limit, USED),
            },
            Metric {
                name: $ceiling,
                kind: Kind::Gauge,
                unit: $unit,
                labels: &["scope"],
                help: concat!($what, ": the limit"),
                source: "`limits.ceiling`",
                read: |seen| of(seen, $limit, CEILING),
            },
        ]
    };
}

/// By limit. A usage that nobody can read has no metric here: that of one buffer, of one listener's SYN queue, of one tuple's ports.
pub(super) const LIMITS: [[Metric<Seen>; 2]; 10] = [
    limit!(
        LimitName::MemoryCgroup,
        Base::Bytes,
        "c1m_memory_cgroup",
        "c1m_memory_cgroup_limit",
        "Memory of the tightest memory cgroup above the server"
    ),
    limit!(
        LimitName::Orphans,
        Base::Count,
        "c1m_orphans",
        "c1m_orphans_limit",
        "TCP sockets without a process (net.ipv4.tcp_max_orphans, where one may count twice or four times)"
    ),
    limit!(
        LimitName::Nofile,
        Base::Count,
        "c1m_descriptors",
        "c1m_descriptors_limit",
        "Open descriptors of the server, which RLIMIT_NOFILE limits in each of its tables"
    ),
    limit!(
        LimitName::NrOpen,
        Base::Count,
        "c1m_rlimit_nofile",
        "c1m_rlimit_nofile_limit",
        "RLIMIT_NOFILE of the server, which fs.nr_open limits"
    ),
    limit!(
        LimitName::FileMax,
        Base::Count,
        "c1m_files",
        "c1m_files_limit",
        "Open files of the host (fs.file-max)"
    ),
    limit!(
        LimitName::AcceptQueue,
        Base::Count,
        "c1m_accept_queue_connections",
        "c1m_accept_queue_connections_limit",
        "Connections in the accept queue that is nearest to its backlog"
    ),
    limit!(
        LimitName::Conntrack,
        Base::Count,
        "c1m_conntrack_entries",
        "c1m_conntrack_entries_limit",
        "Tracked connections (net.netfilter.nf_conntrack_max)"
    ),
    limit!(
        LimitName::EpollWatches,
        Base::Count,
        "c1m_epoll_watches",
        "c1m_epoll_watches_limit",
        "epoll watches of the server (fs.epoll.max_user_watches)"
    ),
    limit!(
        LimitName::TimeWait,
        Base::Count,
        "c1m_time_wait_sockets",
        "c1m_time_wait_sockets_limit",
        "Sockets in TIME_WAIT (net.ipv4.tcp_max_tw_buckets)"
    ),
    limit!(
        LimitName::Memory,
        Base::Bytes,
        "c1m_memory",
        "c1m_memory_limit",
        "Memory of the host that is not available"
    ),
];

pub(super) const RATIOS: &[Metric<Seen>] = &[
    Metric {
        name: "c1m_tcp_mem",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: &["scope"],
        help: "Memory of TCP sockets as the kernel accounts it",
        source: "`usage.host.tcp_mem_pages`, else `limits.used` of tcp_mem_high; pages of memory as bytes",
        read: |seen| {
            let bytes = seen.bytes(seen.tcp_mem_pages());
            bytes.map(|bytes| labelled(["host"], bytes)).into_iter().collect()
        },
    },
    Metric {
        name: "c1m_tcp_mem_limit",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: &["scope", "level"],
        help: "The values of net.ipv4.tcp_mem, by level: low, pressure, high",
        source: "`usage.host.tcp_mem`, else `limits.ceiling` of tcp_mem_pressure and tcp_mem_high; pages of memory as bytes",
        read: |seen| {
            let levels = Level::ALL.into_iter().zip(seen.tcp_mem());
            let sample = |(level, pages): (Level, _)| {
                Some(labelled(["host", level.name()], seen.bytes(pages)?))
            };
            levels.filter_map(sample).collect()
        },
    },
    Metric {
        name: "c1m_limit_used",
        kind: Kind::Gauge,
        unit: Base::Ratio,
        labels: &["limit", "scope"],
        help: "Usage of each limit as a part of it: above 1 it is past",
        source: "`limits.used` by `limits.ceiling`",
        read: |seen| {
            each(seen, |reading| {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a ratio of numbers that are far below 2^52"
                )]
                let ratio = |(used, ceiling): (u64, u64)| used as f64 / ceiling as f64;
                reading.used.zip(reading.ceiling.filter(|it| *it > 0)).map(ratio)
            })
        },
    },
    Metric {
        name: "c1m_limit_reached_at_connections",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["limit", "scope"],
        help: "The number of the connection at which the limit is hit as usage grows now, or was first seen to be past",
        source: "`limits.at_connection`",
        read: |seen| each(seen, |reading| reading.at_connection),
    },
    Metric {
        name: "c1m_limit_reached_in",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &["limit", "scope"],
        help: "Time until the limit is hit at the present rate of new connections, 0 when it is past; absent without a rate",
        source: "`limits.in_s`",
        read: |seen| each(seen, |reading| reading.in_s),
    },
];

fn readings(seen: &Seen) -> impl Iterator<Item = &LimitReading> {
    seen.limits.iter().flat_map(|limits| &limits.limits)
}

fn each<V: Into<c1m_program::metrics::Value>>(
    seen: &Seen,
    value: impl Fn(&LimitReading) -> Option<V>,
) -> Vec<Sample> {
    let sample = |reading: &LimitReading| {
        Some(labelled([reading.limit.name(), reading.scope.name()], value(reading)?))
    };
    readings(seen).filter_map(sample).collect()
}

fn of(seen: &Seen, limit: LimitName, value: Value) -> Vec<Sample> {
    let reading = readings(seen).filter(|reading| reading.limit == limit);
    reading.filter_map(value).map(|(scope, value)| labelled([scope.name()], value)).collect()
}
