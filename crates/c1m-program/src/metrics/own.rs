//! What the program itself costs.

use std::{collections::BTreeMap, time::Duration};

use super::{Base, Kind, Metric, labelled, one};

/// The program, and what it has taken so far.
#[derive(Debug, Clone, Default)]
pub struct Own {
    pub program: &'static str,
    pub version: &'static str,
    /// User and system time.
    pub cpu_s: Option<(f64, f64)>,
    pub rss_bytes: Option<u64>,
    pub scrapes: u64,
    /// What making the page before this one took.
    pub last_scrape: Option<Duration>,
    /// Connections that got no page, by operation and error.
    pub scrape_errors: BTreeMap<(&'static str, &'static str), u64>,
}

pub const OWN: &[Metric<Own>] = &[
    Metric {
        name: "c1m_build_info",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &["program", "version"],
        help: "Always 1: which program, of which version",
        source: "the program",
        read: |own| vec![labelled([own.program, own.version], 1)],
    },
    Metric {
        name: "c1m_process_cpu",
        kind: Kind::Counter,
        unit: Base::Seconds,
        labels: &["mode"],
        help: "CPU time that this program took itself, by mode: user or system",
        source: "getrusage; `cpu_user_s`, `cpu_system_s` of the last record",
        read: |own| {
            let both =
                |(user, system)| vec![labelled(["user"], user), labelled(["system"], system)];
            own.cpu_s.map(both).unwrap_or_default()
        },
    },
    Metric {
        name: "c1m_process_resident_memory",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: &[],
        help: "Memory of this program itself that is resident",
        source: "`summary.rss_bytes`: /proc/self/smaps_rollup",
        read: |own| one(own.rss_bytes),
    },
    Metric {
        name: "c1m_scrapes",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &[],
        help: "Pages of metrics made before this one",
        source: "the program",
        read: |own| one(Some(own.scrapes)),
    },
    Metric {
        name: "c1m_scrape_errors",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["operation", "error"],
        help: "Connections to the metrics that got no page, by operation (accept, connection, request) and error: an errno, the status of the answer, \
               evicted (a new connection needed its place before its request was whole), or unread (it did not take its answer in time)",
        source: "the program",
        read: |own| {
            let counts = own.scrape_errors.iter();
            counts
                .map(|((operation, error), count)| labelled([*operation, *error], *count))
                .collect()
        },
    },
    Metric {
        name: "c1m_scrape_duration",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "How long making the page before this one took; sending it is not in it",
        source: "the program",
        read: |own| one(own.last_scrape.map(|took| took.as_secs_f64())),
    },
];
