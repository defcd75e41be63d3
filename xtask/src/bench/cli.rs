//! The flags of `cargo xtask bench`.

use std::path::PathBuf;

use c1m_text::units::{parse_count, parse_small_count};
use clap::ValueEnum;

/// Connections of the whole bench.
pub(crate) const SCALE: u64 = 1_024_000;
/// Connections of `--quick`.
pub(crate) const QUICK_SCALE: u64 = 4_000;
const SCALE_MIN: u64 = 1_000;

/// What can be chosen with `--only`; each is one figure or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Part {
    Ramp,
    RampDouble,
    MemoryUser,
    MemoryKernel,
    Teardown,
    Idle,
    States,
    Holders,
    Watch,
    TraceCost,
    EventDelay,
    Requests,
    Heartbeat,
}

/// Measure what c1m exists for, each figure against a baseline or a peer in the same run
///
/// Needs root, and nothing else that works meanwhile on this machine. Every kernel setting that it changes is put back.
/// docs/benchmarks.md has its table, docs/performance.md what was found with it.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit: 0 measured, whether or not each figure is met; 1 a figure could not be measured, 2 usage, 3 the environment refused, \
    4 internal, 130 interrupted."
)]
pub(crate) struct Args {
    /// Only these figures
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,

    /// Connections, where a figure is about many of them [default: 1024000, with --quick 4000]
    #[arg(long, value_name = "N", value_parser = scale)]
    pub(crate) scale: Option<u64>,

    /// Run each so many times, in turn with what it is held against [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = parse_small_count)]
    pub(crate) runs: Option<u32>,

    /// A smoke test: everything once and small, without thresholds
    #[arg(long)]
    pub(crate) quick: bool,

    /// How cost grows instead: the same with 64,000, 128,000, … up to 2,048,000 connections (or --scale), as data and as a picture
    #[arg(long, conflicts_with_all = ["quick", "only", "runs", "json", "output"])]
    pub(crate) curve: bool,

    /// JSON lines on standard output; the last one has kind "bench"
    #[arg(long)]
    pub(crate) json: bool,

    /// Where the last JSON line is kept [default: target/bench/bench.json, with --quick target/bench/quick.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Take c1m-server, c1m-client and xtask from this folder instead of building them
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(crate) programs: Option<PathBuf>,

    /// Put the table into docs/benchmarks.md, or the curve beside it
    #[arg(long, conflicts_with = "quick")]
    pub(crate) write_docs: bool,
}

impl Args {
    pub(crate) fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn has_any(&self, parts: &[Part]) -> bool {
        parts.iter().any(|part| self.has(*part))
    }

    pub(crate) fn scale(&self) -> u64 {
        self.scale.unwrap_or(if self.quick { QUICK_SCALE } else { SCALE })
    }

    pub(crate) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }
}

fn scale(text: &str) -> Result<u64, String> {
    match parse_count(text).map_err(|error| error.to_string())? {
        count if count >= SCALE_MIN => Ok(count),
        _ => Err(format!("use at least {SCALE_MIN}")),
    }
}
