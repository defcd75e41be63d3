//! Every metric of the server, in the order of the page.

use std::{collections::BTreeMap, time::SystemTime};

use super::{
    super::record::{Confidence, Holder, HolderRow, Holders, Memory, NetnsUsage, Summary, Watched},
    Base, Kind, Metric, Sample, Seen,
    counts::COUNTS,
    known, labelled,
    limits::{LIMITS, RATIOS},
    one,
};

/// What is exported of a server, and of a watch.
#[must_use]
pub fn tables() -> Vec<&'static [Metric<Seen>]> {
    let limits = LIMITS.iter().map(<[_; 2]>::as_slice);
    [RATIOS].into_iter().chain(limits).chain([SOCKETS, COUNTS, FOUND]).collect()
}

/// A counter of connections on the watched ports.
macro_rules! watched {
    ($name:literal, $kind:expr, $field:ident, $help:literal) => {
        Metric {
            name: $name,
            kind: $kind,
            unit: Base::Count,
            labels: &[],
            help: $help,
            source: concat!("`usage.watched.", stringify!($field), "`"),
            read: |seen| one(watched(seen).and_then(|watched| watched.$field)),
        }
    };
}

/// Of the own server.
macro_rules! served {
    ($name:literal, $kind:expr, $field:ident, $help:literal) => {
        Metric {
            name: $name,
            kind: $kind,
            unit: Base::Count,
            labels: &[],
            help: $help,
            source: concat!("`summary.", stringify!($field), "`, at each look"),
            read: |seen| one(seen.served.as_ref().map(|served: &Summary| served.$field)),
        }
    };
}

const SOCKETS: &[Metric<Seen>] = &[
    watched!(
        "c1m_connections",
        Kind::Gauge,
        connections,
        "Connections to the watched ports that are established and not closed, counted in the kernel"
    ),
    watched!(
        "c1m_connections_opened",
        Kind::Counter,
        opened,
        "Connections to the watched ports that were established since the start"
    ),
    watched!(
        "c1m_connections_closed",
        Kind::Counter,
        closed,
        "Connections to the watched ports that were closed since the start"
    ),
    Metric {
        name: "c1m_sockets",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["scope", "netns"],
        help: "TCP sockets of every kind of the host, and of the network namespace with this inode those in use",
        source: "`usage.host.sockets`, `usage.netns.inuse`",
        read: |seen| {
            let Some(usage) = &seen.usage else { return Vec::new() };
            let NetnsUsage { inode, inuse, .. } = usage.netns;
            let host = usage.host.sockets.map(|sockets| labelled(["host", ""], sockets));
            let inside = inode
                .zip(inuse)
                .map(|(inode, inuse)| labelled(["netns", &inode.to_string()], inuse));
            host.into_iter().chain(inside).collect()
        },
    },
    served!("c1m_server_connections", Kind::Gauge, held, "Connections that the own server holds"),
    served!(
        "c1m_server_connections_peak",
        Kind::Gauge,
        peak,
        "The most connections that the own server held"
    ),
    served!(
        "c1m_server_connections_accepted",
        Kind::Counter,
        accepted,
        "Connections that the own server accepted"
    ),
    served!(
        "c1m_server_connections_closed",
        Kind::Counter,
        closed,
        "Connections of the own server that were closed"
    ),
    Metric {
        name: "c1m_server_errors",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["error"],
        help: "Errors of the own server by name: of accept, of connections, of requests",
        source: "`summary.errors`, at each look",
        read: |seen| {
            let errors = seen.served.iter().flat_map(|served| &served.errors);
            errors.map(|(name, count)| labelled([name], *count)).collect()
        },
    },
];

/// What was found out: the verdict, and who holds the memory.
const FOUND: &[Metric<Seen>] = &[
    Metric {
        name: "c1m_verdict_info",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["limit", "scope", "confidence"],
        help: "Always 1: the limits that the last verdict names",
        source: "`verdict.causes`",
        read: |seen| {
            let causes = seen.verdict.iter().flat_map(|verdict| &verdict.causes);
            causes
                .map(|cause| {
                    let confidence = match cause.confidence {
                        Confidence::Certain => "certain",
                        Confidence::Likely => "likely",
                        Confidence::Possible => "possible",
                    };
                    labelled([cause.limit.name(), cause.scope.name(), confidence], 1)
                })
                .collect()
        },
    },
    Metric {
        name: "c1m_holder_sockets",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: HOLDER,
        help: "Sockets that hold memory, of the ten processes that hold the most, by name and cgroup",
        source: "`holders.rows.sockets`",
        read: |seen| rows(seen, |memory| Some(memory.sockets)),
    },
    Metric {
        name: "c1m_holder",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: HOLDER,
        help: "TCP memory that is accounted for the sockets of the ten processes that hold the most, by name and cgroup",
        source: "`holders.rows.pages`; pages of memory as bytes",
        read: |seen| rows(seen, |memory| seen.bytes(Some(memory.pages))),
    },
    Metric {
        name: "c1m_holder_receive_queue",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: HOLDER,
        help: "Of these, what is in receive queues",
        source: "`holders.rows.receive_bytes`",
        read: |seen| rows(seen, |memory| Some(memory.receive_bytes)),
    },
    Metric {
        name: "c1m_holder_send_queue",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: HOLDER,
        help: "Of these, what was written and is not acknowledged",
        source: "`holders.rows.send_bytes`",
        read: |seen| rows(seen, |memory| Some(memory.send_bytes)),
    },
    Metric {
        name: "c1m_holders",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: &["what"],
        help: "The last look at who holds TCP memory, by what: found with its sockets, accounted by the kernel, omitted: found and not among the ten",
        source: "`holders.found_pages`, `accounted_pages`, `pages_omitted`; pages of memory as bytes",
        read: |seen| {
            let Some((_, holders)) = &seen.holders else { return Vec::new() };
            known([
                (["found"], seen.bytes(Some(holders.found_pages))),
                (["accounted"], seen.bytes(holders.accounted_pages)),
                (["omitted"], seen.bytes(Some(holders.pages_omitted))),
            ])
        },
    },
    Metric {
        name: "c1m_holders_timestamp",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "When that look was, since the epoch: a look at many sockets is taken seldom",
        source: "`ts` of `holders`",
        read: |seen| one(seen.holders.as_ref().and_then(|(time, _)| epoch_s(*time))),
    },
    Metric {
        name: "c1m_look_timestamp",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "When usage was looked at, since the epoch: once an interval, whatever is scraped",
        source: "time of the look",
        read: |seen| one(seen.looked.and_then(epoch_s)),
    },
];

const HOLDER: &[&str] = &["holder", "comm", "cgroup"];

fn watched(seen: &Seen) -> Option<&Watched> {
    seen.usage.as_ref().map(|usage| &usage.watched)
}

fn epoch_s(time: SystemTime) -> Option<f64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

/// Processes of one name in one cgroup are one: their numbers would make a series of each that ever was.
fn rows(seen: &Seen, value: impl Fn(&Memory) -> Option<u64>) -> Vec<Sample> {
    let Some((_, Holders { rows, .. })) = &seen.holders else { return Vec::new() };
    let mut sums: BTreeMap<[&str; 3], Option<u64>> = BTreeMap::new();
    for HolderRow { holder, comm, cgroup, memory, .. } in rows {
        let holder = holder.map_or("", Holder::name);
        let labels = [holder, comm.as_deref().unwrap_or(""), cgroup.as_deref().unwrap_or("")];
        let sum = sums.entry(labels).or_insert(Some(0));
        *sum = sum.zip(value(memory)).map(|(sum, more)| sum + more);
    }
    sums.into_iter().filter_map(|(labels, sum)| Some(labelled(labels, sum?))).collect()
}
