//! The flags of `cargo xtask faults`.

use std::path::PathBuf;

use super::catalog;

/// Trip each limit on purpose, and check that the verdict names it
///
/// Needs root. Each fault is tripped on the real kernel, most of them in a network namespace of their own; every setting of the
/// host that is changed is put back. docs/faults.md says how each is tripped.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit: 0 all right, 1 a wrong verdict or unequal counters, 2 usage, 3 nothing could be run, 4 internal."
)]
pub(crate) struct Args {
    /// Only these, see --list
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = catalog::names())]
    pub(crate) only: Vec<String>,

    /// Run each so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,

    /// JSON lines on standard output; the last one has kind "faults"
    #[arg(long)]
    pub(crate) json: bool,

    /// Only print the faults, and what each has to be called
    #[arg(long)]
    pub(crate) list: bool,

    /// Use this c1m-server instead of building one
    #[arg(long, value_name = "FILE")]
    pub(crate) server_program: Option<PathBuf>,
}
