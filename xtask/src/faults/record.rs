//! What `faults --json` prints: a line a run, and at last one with all of them.

use std::collections::BTreeMap;

use c1m_record::{LimitName, Refused, Tier, Verdict};
use serde::{Deserialize, Serialize};

/// The records of `faults --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum FaultsRecord {
    /// After each run of a fault.
    Fault(Box<Run>),
    /// The last line.
    Faults(Faults),
}

/// One fault, tripped once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct Run {
    pub(crate) name: String,
    /// As `uname -r` says it.
    pub(crate) kernel: String,
    pub(crate) tier: Option<Tier>,
    /// The limit that has to be the first cause; `null`: nothing may be.
    pub(crate) expected: Option<LimitName>,
    /// The verdict's first cause.
    pub(crate) first: Option<LimitName>,
    /// The verdict and everything else was right; `null`: not run.
    pub(crate) right: Option<bool>,
    /// What eBPF counted, beside what the kernel did.
    pub(crate) counters: Vec<Counter>,
    /// What was wrong, each a sentence.
    pub(crate) wrong: Vec<String>,
    /// Events that the observer lost, as its summary has them.
    pub(crate) dropped_by: BTreeMap<String, u64>,
    /// Why it was not run.
    pub(crate) skipped_because: Option<String>,
    pub(crate) elapsed_s: f64,
    /// Everything that the observer counted, and the kernel's counters beside it; `null`: it printed no summary.
    pub(crate) refused: Option<Refused>,
    /// The last one before the summary; `null`: there was none.
    pub(crate) verdict: Option<Verdict>,
}

/// A counter of the kernel, and of the programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct Counter {
    /// What the kernel calls it, such as `TCPAbortOnMemory`.
    pub(crate) kernel_name: String,
    pub(crate) kernel: u64,
    pub(crate) ebpf_name: String,
    pub(crate) ebpf: u64,
}

/// All runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct Faults {
    pub(crate) kernels: Vec<String>,
    pub(crate) faults: Vec<Fault>,
}

/// All runs of one fault on one kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) tier: Option<Tier>,
    pub(crate) runs: u64,
    pub(crate) right: u64,
    pub(crate) wrong: u64,
    /// In each run; `null`: this kernel or tier has no two counters of it.
    pub(crate) counters_equal: Option<bool>,
    /// Events lost, in all runs together
    pub(crate) dropped: u64,
    pub(crate) skipped_because: Option<String>,
}
