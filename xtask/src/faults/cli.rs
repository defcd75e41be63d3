//! The flags of `cargo xtask faults`.

use std::{path::PathBuf, str::FromStr};

use c1m_text::units::parse_small_count;

use super::catalog;
use crate::guest::kernel::Wanted;

/// Where the faults are tripped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kernel {
    Running,
    Guest(Wanted),
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "running" => Ok(Self::Running),
            other => other
                .parse()
                .map(Self::Guest)
                .map_err(|error: String| format!("{error}, or running")),
        }
    }
}

/// Trip each limit on purpose, and check that the verdict names it
///
/// Needs root. Each fault is tripped on the real kernel, most of them in a network namespace of their own; every setting of the
/// host that is changed is put back. docs/faults.md says how each is tripped.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit: 0 all right, 1 a wrong verdict or unequal counters, 2 usage, 3 nothing could be run, 4 internal."
)]
pub(crate) struct Args {
    /// The running kernel, a series such as 6.1 or 6.12, or the file of an image; others than the running one in guests
    #[arg(long = "kernel", value_name = "running|SERIES|FILE", default_value = "running")]
    pub(crate) kernels: Vec<Kernel>,

    /// Only these, see --list
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = catalog::names())]
    pub(crate) only: Vec<String>,

    /// Run each so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_small_count)]
    pub(crate) repeat: u32,

    /// JSON lines on standard output; the last one has kind "faults"
    #[arg(long)]
    pub(crate) json: bool,

    /// Only print the faults, and what each has to be called
    #[arg(long)]
    pub(crate) list: bool,

    /// The observer leaves out this hook, or this kind of them: with fentry and fexit functions are hooked by kprobe
    #[arg(long, value_name = "HOOK")]
    pub(crate) without_hook: Vec<String>,

    /// Use this c1m-server instead of building one
    #[arg(long, value_name = "FILE")]
    pub(crate) server_program: Option<PathBuf>,
}
