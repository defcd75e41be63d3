//! What `bench --json` prints, and the file that it keeps.

use serde::{Deserialize, Serialize};

/// The records of `bench --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum BenchRecord {
    /// The last line.
    Bench(Bench),
}

/// Everything that one run measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct Bench {
    /// Processor, CPUs, memory
    pub(crate) machine: String,
    /// `uname -r`
    pub(crate) kernel: String,
    /// Of one minute, before the start: what else works on the machine makes every time longer
    pub(crate) load_average: f64,
    pub(crate) connections: u64,
    /// A smoke test, without thresholds
    pub(crate) quick: bool,
    pub(crate) figures: Vec<Figure>,
    pub(crate) elapsed_s: f64,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// What it is, in a sentence
    pub(crate) about: String,
    /// Of `values`; `null`: not measured, see `reason`
    pub(crate) median: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// How many values there are.
    pub(crate) runs: u64,
    /// In the order in which they were measured.
    pub(crate) values: Vec<f64>,
    /// What it is held against, in the same run; `null`: against nothing but `to_reach`
    pub(crate) against: Option<String>,
    pub(crate) against_median: Option<f64>,
    /// Measured in turn with `values`
    pub(crate) against_values: Vec<f64>,
    /// The median of the ratios of each value to the one it was measured in turn with; which is divided by which is in `ratio_of`
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) ratio_max: Option<f64>,
    /// Such as `value / against`
    pub(crate) ratio_of: Option<String>,
    /// `null`: no threshold
    pub(crate) to_reach: Option<String>,
    /// `null`: not measured, or no threshold
    pub(crate) met: Option<bool>,
    /// What else was seen.
    pub(crate) notes: Vec<String>,
    /// What must not be and was, such as a lost connection: then it is not met
    pub(crate) violations: Vec<String>,
    /// Why it was not measured.
    pub(crate) reason: Option<String>,
}
