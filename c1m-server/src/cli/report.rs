//! Flags of `report`.

use std::path::PathBuf;

use c1m_text::units::parse_count_as;
use clap::{Args, ValueEnum};

/// Make a page out of a run: plots, limits, verdict and evidence in one HTML file, to look at and to hand on
///
/// Reads the JSON lines that --json and --output write: of c1m-server, of its watch, and of cargo xtask reproduce. Asks nothing of the kernel,
/// so it works anywhere and at any time later.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit: 0 done, 2 usage or a line that is not c1m's, 3 the environment refused, 4 internal.",
    after_long_help = super::manual::REPORT
)]
pub struct Report {
    /// The JSON lines; - for standard input
    #[arg(value_name = "FILE")]
    pub input: PathBuf,

    /// Where the page goes; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,

    /// The plots alone, as one SVG file
    #[arg(long)]
    pub svg: bool,

    /// With --svg: this plot alone
    #[arg(long, value_name = "PLOT", requires = "svg")]
    pub plot: Option<Plot>,

    /// With --plot: of which run in the file, such as the act of a reproduction
    #[arg(long, value_name = "N", requires = "plot", value_parser = parse_count_as::<usize>, default_value_t = 1)]
    pub run: usize,
}

/// What can be drawn of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plot {
    /// Pages of tcp_mem over connections
    Connections,
    /// Pages of tcp_mem and connections over time
    Time,
    /// Memory per connection, by component, beside the article's
    Memory,
}
