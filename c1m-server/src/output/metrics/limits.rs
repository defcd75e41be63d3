//! Usage of every limit, and what it stands beside.

use std::sync::LazyLock;

use super::Seen;
use c1m_limits::limits::{self, Visitor};
use c1m_program::metrics::{Base, Kind, Metric, Sample, labelled};
use c1m_record::{Level, LimitName, LimitReading};

/// Of each limit that has them: usage, and beside it `_limit`, in the order in which limits are shown.
pub(super) static LIMITS: LazyLock<Vec<Metric<Seen>>> = LazyLock::new(|| {
    let mut found = Found(Vec::new());
    limits::visit(&mut found);
    found.0.sort_by_key(|(limit, _)| *limit);
    found.0.into_iter().flat_map(|(_, both)| both).collect()
});

struct Found(Vec<(LimitName, [Metric<Seen>; 2])>);

impl Visitor for Found {
    fn limit<const INDEX: usize>(&mut self) {
        let limit = LimitName::ALL[INDEX];
        let about = limits::of(limit).about();
        let Some(metric) = about.metric else { return };
        let of = |name, help: String, source, read| Metric {
            name,
            kind: Kind::Gauge,
            unit: if about.unit == "bytes" { Base::Bytes } else { Base::Count },
            labels: &["scope"],
            // There are as many as limits, once in the life of the program.
            help: help.leak(),
            source,
            read,
        };
        let used = of(
            metric.name,
            format!("{}: usage", metric.help),
            "`limits.used`",
            used::<INDEX> as fn(&Seen) -> Vec<Sample>,
        );
        let ceiling = of(
            format!("{}_limit", metric.name).leak(),
            format!("{}: the limit", metric.help),
            "`limits.ceiling`",
            ceiling::<INDEX>,
        );
        self.0.push((limit, [used, ceiling]));
    }
}

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

fn used<const INDEX: usize>(seen: &Seen) -> Vec<Sample> {
    let metric = limits::of(LimitName::ALL[INDEX]).about().metric;
    of_limit::<INDEX>(seen, |reading| Some(labelled([metric?.scope.name()], reading.used?)))
}

fn ceiling<const INDEX: usize>(seen: &Seen) -> Vec<Sample> {
    of_limit::<INDEX>(seen, |reading| Some(labelled([reading.scope.name()], reading.ceiling?)))
}

fn of_limit<const INDEX: usize>(
    seen: &Seen,
    sample: impl Fn(&LimitReading) -> Option<Sample>,
) -> Vec<Sample> {
    let limit = LimitName::ALL[INDEX];
    readings(seen).filter(|reading| reading.limit == limit).filter_map(sample).collect()
}
