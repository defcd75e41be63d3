//! Every metric of the server, in the order of the page.

use std::{collections::BTreeMap, time::SystemTime};

use c1m_program::metrics::{Base, Kind, Metric, Sample, labelled, one};
use c1m_record::{Holder, HolderRow, Holders, Memory, Summary, Watched};

use super::{
    Seen,
    counts::COUNTS,
    limits::{LIMITS, RATIOS},
};

/// What is exported of a server, and of a watch.
#[must_use]
pub fn tables() -> Vec<&'static [Metric<Seen>]> {
    vec![RATIOS, LIMITS.as_slice(), SOCKETS, COUNTS, FOUND]
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
            source: concat!("`summary.", stringify!($field), "`, at each sample"),
            read: |seen| one(seen.served.as_ref().map(|served: &Summary| served.$field)),
        }
    };
}

/// Of the last walk over all sockets, in pages.
macro_rules! holding {
    ($name:literal, $pages:expr, $help:literal, $source:literal) => {
        Metric {
            name: $name,
            kind: Kind::Gauge,
            unit: Base::Bytes,
            labels: &[],
            help: $help,
            source: $source,
            read: |seen| {
                let pages: fn(&Holders) -> Option<u64> = $pages;
                let pages = seen.holders.as_ref().and_then(|(_, holders)| pages(holders));
                one(seen.bytes(pages))
            },
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
        labels: &[],
        help: "TCP sockets of the host in every state but TIME_WAIT, those without a connection included",
        source: "`usage.host.sockets`",
        read: |seen| one(seen.usage.as_ref().and_then(|usage| usage.host.sockets)),
    },
    Metric {
        name: "c1m_netns_sockets_in_use",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["netns"],
        help: "TCP sockets in use in the network namespace with this inode",
        source: "`usage.netns.inuse`",
        read: |seen| {
            let netns = seen.usage.as_ref().map(|usage| usage.netns).unwrap_or_default();
            let both = netns.inode.zip(netns.inuse);
            both.map(|(inode, inuse)| labelled([&inode.to_string()], inuse)).into_iter().collect()
        },
    },
    served!("c1m_server_connections", Kind::Gauge, held, "Connections that c1m-server holds"),
    served!(
        "c1m_server_connections_peak",
        Kind::Gauge,
        peak,
        "The most connections that c1m-server held"
    ),
    served!(
        "c1m_server_connections_accepted",
        Kind::Counter,
        accepted,
        "Connections that c1m-server accepted"
    ),
    served!(
        "c1m_server_connections_closed",
        Kind::Counter,
        closed,
        "Connections of c1m-server that were closed"
    ),
    Metric {
        name: "c1m_server_requests",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &[],
        help: "Requests that c1m-server read, the refused ones included",
        source: "`summary.requests`, at each sample",
        read: |seen| one(seen.served.as_ref().and_then(|served| served.requests)),
    },
    Metric {
        name: "c1m_server_errors",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["operation", "error"],
        help: "Errors of c1m-server, by operation (accept, connection, epoll, request) and the error's name: an errno, a status, or what was wrong",
        source: "`summary.errors`, at each sample",
        read: |seen| seen.served.as_ref().map(errors).unwrap_or_default(),
    },
];

/// Errors that are 0 until they happen: a counter that begins with its first error has no increase for it.
const BORN: [(&str, &[&str]); 4] = [
    ("accept", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("connection", &["ECONNRESET", "EPIPE", "ETIMEDOUT"]),
    ("epoll", &["ENOMEM", "ENOSPC"]),
    ("request", &["400", "404", "405", "408", "411", "431", "501", "505"]),
];

/// By operation and error; the name of a status has no operation.
fn errors(served: &Summary) -> Vec<Sample> {
    let born = BORN
        .iter()
        .flat_map(|(operation, errors)| errors.iter().map(|error| ((*operation, *error), 0)));
    let mut counts: BTreeMap<(&str, &str), u64> = born.collect();
    for (name, count) in &served.errors {
        *counts.entry(name.split_once(' ').unwrap_or(("request", name))).or_default() += count;
    }
    counts
        .into_iter()
        .map(|((operation, error), count)| labelled([operation, error], count))
        .collect()
}

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
                    let names = [cause.limit.name(), cause.scope.name(), cause.confidence.name()];
                    labelled(names, 1)
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
    holding!(
        "c1m_holders_found",
        |holders| Some(holders.found_pages),
        "TCP memory that the last walk over all sockets found with them",
        "`holders.found_pages`; pages of memory as bytes"
    ),
    holding!(
        "c1m_holders_accounted",
        |holders| holders.accounted_pages,
        "TCP memory that the kernel accounted at the time of that walk",
        "`holders.accounted_pages`; pages of memory as bytes"
    ),
    holding!(
        "c1m_holders_omitted",
        |holders| Some(holders.pages_omitted),
        "Of what that walk found, what is not among the ten",
        "`holders.pages_omitted`; pages of memory as bytes"
    ),
    Metric {
        name: "c1m_holders_timestamp",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "When that walk began, since the epoch: many sockets are walked through seldom",
        source: "`ts` of `holders`",
        read: |seen| one(seen.holders.as_ref().and_then(|(time, _)| epoch_s(*time))),
    },
    Metric {
        name: "c1m_look_timestamp",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "When the last sample of usage was taken, since the epoch: one per interval, whatever is scraped",
        source: "time of the sample",
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
