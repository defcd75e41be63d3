//! What the load client knows of its own run, when that is over.

use std::collections::BTreeMap;

use c1m_record::Evidence;

/// What the client knows of its own run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub errors: BTreeMap<String, u64>,
    pub connections: u64,
    /// 4-tuples of the plan.
    pub capacity: u64,
    /// Source ports of one source address to one destination.
    pub ports_per_source: u64,
    pub workers: u64,
    /// Hard limit of open files.
    pub nofile: Option<u64>,
    pub nr_open: Option<u64>,
    /// `None`: the server is on another host, whose counters nobody here can read.
    pub server_host: Option<Counters>,
    /// Packets that this host's connection tracking dropped for a full table.
    pub untracked: u64,
}

/// Growth of TcpExt of the network namespace that the server is in, as the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub listen_overflows: u64,
    pub syn_queue_drops: u64,
    pub memory_pressures: u64,
}

/// What else can leave handshakes unanswered than a server that is not there.
#[derive(Debug, Clone, Copy)]
pub struct Unanswered {
    /// Whether it did on this host during the run: a counter, and how much it has grown.
    pub(crate) source: &'static str,
    pub(crate) grown: fn(&Outcome) -> u64,
    /// What happened then.
    pub(crate) text: &'static str,
    /// What may have happened on a host whose counters are not known. `None`: nothing of this.
    pub(crate) elsewhere: Option<&'static str>,
    pub(crate) remedy: &'static str,
}

impl Outcome {
    pub(crate) fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.errors.get(*name).copied().unwrap_or(0)).sum()
    }

    /// The errors of these names that came, as evidence.
    pub(crate) fn evidence(&self, names: &[&str]) -> Vec<Evidence> {
        let came = |name: &&str| Some(evidence(name, "own calls", *self.errors.get(*name)?, None));
        names.iter().filter_map(came).collect()
    }
}

pub(crate) fn evidence(source: &str, what: &str, value: u64, limit: Option<u64>) -> Evidence {
    Evidence { source: source.into(), what: what.into(), value, limit }
}
