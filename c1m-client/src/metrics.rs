//! `--metrics-addr`: what the workers count, and what came of the ramp, for Prometheus.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use c1m_host::process;
use c1m_program::{
    exporter::{Bound, Scrapes},
    metrics::{Base, CONTENT_TYPE, Kind, Metric, OWN, Own, Page, Sample, labelled, one},
};
use c1m_sys::process::{cpu_seconds, page_bytes};

use crate::{
    buckets::Buckets,
    prepare::Failure,
    record::Ramped,
    worker::{Counters, Shared},
};

/// What a page is made of.
#[derive(Debug, Default)]
pub struct Seen {
    /// `None` before the plan is made.
    pub shared: Option<Arc<Shared>>,
    /// `None` during the ramp.
    pub ramped: Option<Ramped>,
}

/// The metrics of a run. Without an address nobody scrapes them.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Seen>>);

impl Metrics {
    /// As [`Bound::of`].
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn bind(address: Option<SocketAddr>) -> Result<Option<Bound>, Failure> {
        Bound::of(address).map_err(|error| Failure::Environment(error.into()))
    }

    /// Answers from now on.
    pub fn start(bound: Option<Bound>) -> Result<Self, Failure> {
        let metrics = Self::default();
        if let Some(bound) = bound {
            let seen = metrics.clone();
            bound
                .serve(CONTENT_TYPE, move |scrapes| seen.page(scrapes))
                .context("cannot start the thread of the metrics")
                .map_err(Failure::Environment)?;
        }
        Ok(metrics)
    }

    pub fn planned(&self, shared: &Arc<Shared>) {
        self.seen(|seen| seen.shared = Some(shared.clone()));
    }

    pub fn ramped(&self, ramped: &Ramped) {
        self.seen(|seen| seen.ramped = Some(ramped.clone()));
    }

    /// The workers' counters are read when somebody asks: a sum of a few numbers a worker.
    fn page(&self, scrapes: Scrapes) -> String {
        let own = Own {
            program: "c1m-client",
            version: env!("CARGO_PKG_VERSION"),
            cpu_s: cpu_seconds().ok(),
            rss_bytes: process::memory().ok().map(|memory| memory.rss_bytes),
            scrapes: scrapes.count,
            last_scrape: scrapes.last,
            scrape_errors: scrapes.errors,
        };
        self.seen(|seen| Page::default().with(OWN, &own).with(METRICS, seen).text())
    }

    fn seen<T>(&self, with: impl FnOnce(&mut Seen) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A sum over all workers.
macro_rules! summed {
    ($name:literal, $kind:expr, $field:ident, $help:literal, $source:literal) => {
        Metric {
            name: $name,
            kind: $kind,
            unit: Base::Count,
            labels: &[],
            help: $help,
            source: $source,
            read: |seen| {
                let sum = |shared: &Arc<Shared>| shared.sum(|counters: &Counters| &counters.$field);
                one(seen.shared.as_ref().map(sum))
            },
        }
    };
}

/// Times of the ramp.
macro_rules! times {
    ($name:literal, $field:ident, $help:literal, $source:literal) => {
        Metric {
            name: $name,
            kind: Kind::Histogram,
            unit: Base::Seconds,
            labels: &[],
            help: $help,
            source: $source,
            read: |seen| {
                let sum = |shared: &Arc<Shared>| {
                    Buckets::sum(shared.counters.iter().map(|it| &it.$field))
                };
                one(seen.shared.as_ref().map(sum))
            },
        }
    };
}

/// What is exported of a client, besides [`OWN`].
pub const METRICS: &[Metric<Seen>] = &[
    Metric {
        name: "c1m_client_connections_planned",
        kind: Kind::Gauge,
        unit: Base::Count,
        labels: &[],
        help: "Connections that were asked for",
        source: "`plan.connections`",
        read: |seen| one(seen.shared.as_ref().map(|shared| shared.crew.connections())),
    },
    summed!(
        "c1m_client_connections",
        Kind::Gauge,
        held,
        "Connections that are established and not ended",
        "`summary.held_at_end`, now"
    ),
    summed!(
        "c1m_client_connections_established",
        Kind::Counter,
        established,
        "Connections that were established",
        "`progress.established`, now"
    ),
    summed!(
        "c1m_client_connections_answered",
        Kind::Counter,
        answered,
        "Connections whose first request was answered within --timeout",
        "`progress.answered`, now"
    ),
    summed!(
        "c1m_client_connections_failed",
        Kind::Counter,
        failed,
        "Connections that were given up",
        "`progress.failed`, now"
    ),
    summed!(
        "c1m_client_heartbeats_due",
        Kind::Counter,
        beats_due,
        "Heartbeats whose planned instant has come, those of lost connections included",
        "`summary.heartbeats.due`, now; those that wait for their answer included"
    ),
    summed!(
        "c1m_client_heartbeats_answered",
        Kind::Counter,
        beats_answered,
        "Heartbeats that were answered, right and within --timeout",
        "`summary.heartbeats.answered`, now"
    ),
    summed!(
        "c1m_client_answers_wrong",
        Kind::Counter,
        answers_wrong,
        "Answers to samples and heartbeats that came in time and were wrong",
        "`sample.wrong` and `summary.heartbeats.wrong`, now"
    ),
    Metric {
        name: "c1m_client_pinned",
        kind: Kind::Gauge,
        unit: Base::Bytes,
        labels: &[],
        help: "Memory of TCP sockets that unread answers hold, as planned; absent without --pin",
        source: "`ramped.pin.planned_pages`, now; pages of memory as bytes",
        read: |seen| one(seen.shared.as_ref().and_then(|shared| pinned(shared))),
    },
    Metric {
        name: "c1m_client_ramp",
        kind: Kind::Gauge,
        unit: Base::Seconds,
        labels: &[],
        help: "What the ramp took; absent while it goes on",
        source: "`ramped.ramp_s`",
        read: |seen| one(seen.ramped.as_ref().map(|ramped| ramped.ramp_s)),
    },
    times!(
        "c1m_client_connect",
        connect,
        "Time to connect, from the planned time on; what was not established is in +Inf and not in the sum",
        "`ramped.connect_us`, now; before it was rounded"
    ),
    times!(
        "c1m_client_first_byte",
        first_byte,
        "Time from the request to the first byte, from the planned time on; what was not answered within --timeout is in +Inf and not in the sum",
        "`ramped.first_byte_us`, now; before it was rounded"
    ),
    Metric {
        name: "c1m_client_unanswered",
        kind: Kind::Counter,
        unit: Base::Count,
        labels: &["stage"],
        help: "What was not answered within --timeout, by stage: connect, of connections that were refused or failed otherwise as well; first_byte, of those that were lost before as well",
        source: "`ramped.connect_us.unanswered`, `ramped.first_byte_us.unanswered`, now",
        read: |seen| seen.shared.as_ref().map(|shared| unanswered(shared)).unwrap_or_default(),
    },
];

fn unanswered(shared: &Shared) -> Vec<Sample> {
    let sum = |of: fn(&Counters) -> &Buckets| -> u64 {
        shared.counters.iter().map(|counters| of(counters).unanswered()).sum()
    };
    vec![
        labelled(["connect"], sum(|counters| &counters.connect)),
        labelled(["first_byte"], sum(|counters| &counters.first_byte)),
    ]
}

fn pinned(shared: &Shared) -> Option<u64> {
    shared.workload.pin()?;
    shared.sum(|counters| &counters.pages).checked_mul(page_bytes().ok()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{cli::Cli, prepare::prepare, record::Latency};

    #[test]
    fn what_is_not_known_yet_is_absent() {
        let page = Metrics::default().page(Scrapes::default());
        assert!(page.contains("c1m_build_info{program=\"c1m-client\",version="), "{page}");
        assert!(!page.contains("c1m_client_"), "{page}");
    }

    /// A counter that begins with its first event has no increase for it.
    #[test]
    fn every_counter_is_0_before_it_counts() {
        let flags = ["c1m-client", "--connect", "127.0.0.1:9", "--connections", "2"];
        let load = Cli::try_parse_from(flags).unwrap().load.unwrap();
        let shared = Arc::new(prepare(&load).unwrap());
        let seen = Seen { shared: Some(shared), ..Seen::default() };
        let counters = METRICS.iter().filter(|it| it.kind == Kind::Counter);
        assert!(counters.clone().count() > 6);
        for metric in counters {
            let expected: &[&[&str]] = match metric.name {
                "c1m_client_unanswered" => &[&["connect"], &["first_byte"]],
                _ => &[&[]],
            };
            let expected: Vec<Sample> = expected
                .iter()
                .map(|labels| Sample {
                    labels: labels.iter().map(|it| (*it).to_owned()).collect(),
                    value: 0.into(),
                })
                .collect();
            assert_eq!((metric.read)(&seen), expected, "{}", metric.name);
        }
    }

    #[test]
    fn what_the_ramp_took_is_that_of_the_record() {
        let metrics = Metrics::default();
        metrics.ramped(&Ramped {
            established: 7,
            answered: 7,
            failed: 0,
            ramp_s: 1.5,
            rate_per_s: Some(4.0),
            connect_us: Latency::default(),
            first_byte_us: Latency::default(),
            pin: None,
        });
        let page = metrics.page(Scrapes::default());
        assert!(page.contains("\nc1m_client_ramp_seconds 1.5\n"), "{page}");
    }
}
