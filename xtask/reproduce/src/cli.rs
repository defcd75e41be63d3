//! The flags of `cargo xtask reproduce`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use c1m_text::units::{parse_count, parse_duration};

use super::{Places, scale};

/// Hold 1,024,000 connections, and report exactly when tcp_mem high is hit
///
/// Plays three acts: the article's default tcp_mem, its cure, and idle connections. Needs root for tcp_mem and eBPF, and
/// asks sudo for it. Every kernel setting that it changes is put back, whatever happens.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit: 0 done, 1 done but a target was missed, 2 usage, 3 the environment refused, 4 internal, 130 interrupted."
)]
pub struct Args {
    /// How many; auto: the largest power-of-two fraction of 1,024,000 that the memory holds, and 16,000 in a guest
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    pub connections: Connections,

    /// Do not ask before kernel settings are changed
    #[arg(long)]
    pub(crate) yes: bool,

    /// JSON lines on standard output; the last one has kind "reproduction"
    #[arg(long)]
    pub json: bool,

    /// Also write a page to this file: HTML to look at where its name ends in .html, else Markdown with the table and the JSON line
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Write JSON lines to this file: all that the servers of the acts say, and those of --json; c1m-server report makes a page of them
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print what the servers say as well: for who runs this in a guest
    #[arg(long, hide = true, requires = "json")]
    pub(crate) all_lines: bool,

    /// Only put back what a run that was killed has left behind
    #[arg(long, conflicts_with_all = ["connections", "report", "output"])]
    pub(crate) restore: bool,

    /// Run this client, not the one beside this program
    #[arg(long, hide = true)]
    pub(crate) client_program: Option<PathBuf>,

    /// End it when nothing has moved for so long
    #[arg(long, hide = true, value_name = "D", default_value = "60s", value_parser = parse_duration)]
    pub stall: Duration,

    #[command(flatten)]
    pub(crate) places: Places,
}

/// A number of connections, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    Auto,
    Count(u64),
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match parse_count(text).map_err(|error| error.to_string())? {
            count if count >= scale::CONNECTIONS_MIN => Ok(Self::Count(count)),
            _ => Err(format!("use auto, or at least {}", scale::CONNECTIONS_MIN)),
        }
    }
}
