//! What developers of c1m run: `cargo xtask <command>`.
//!
//! One module a command; this file only dispatches.

mod bench;
mod btf_fixture;
mod build_ebpf;
mod counts;
mod debian;
mod dist;
mod exit;
mod faults;
mod guest;
mod hooks;
#[cfg(test)]
mod integers;
mod kubernetes;
mod look;
mod metrics;
mod place;
mod process;
mod schema;
mod test;

use std::process::ExitCode;

use clap::Parser;
use xtask_reproduce::{Places, privileged};

/// What developers of c1m run
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    max_term_width = 110,
    after_help = "Exit: 0 done, 1 the check failed, 2 usage, 3 the environment refused, 4 internal; of a failed step, its own."
)]
enum Cli {
    Bench(bench::Args),
    /// Cut a small BTF fixture for tests out of a kernel's BTF
    BtfFixture(btf_fixture::Args),
    BuildEbpf(build_ebpf::Args),
    Dist(dist::Args),
    Faults(faults::Args),
    Guest(guest::Args),
    Hooks(hooks::Args),
    Look(look::Args),
    Metrics(metrics::Args),
    Reproduce(guest::reproduce::Args),
    Schema(schema::Args),
    Test(test::Args),
    #[command(name = dist::DEB_COMMAND, hide = true)]
    Deb(dist::DebArgs),
    #[command(name = bench::floor::COMMAND, hide = true)]
    Floor(bench::floor::FloorArgs),
    #[command(name = privileged::COMMAND, hide = true)]
    Privileged(Places),
}

fn main() -> ExitCode {
    if guest::init::is_guest() {
        return guest::init::main();
    }
    match Cli::try_parse().unwrap_or_else(|error| c1m_program::usage::end(error)) {
        Cli::Bench(args) => bench::main(&args),
        Cli::BtfFixture(args) => exit::code(btf_fixture::run(&args)),
        Cli::BuildEbpf(args) => exit::code(build_ebpf::run(&args)),
        Cli::Dist(args) => exit::code(dist::run(&args)),
        Cli::Deb(args) => exit::code(dist::deb(&args)),
        Cli::Faults(args) => faults::main(&args),
        Cli::Guest(args) => exit::code(guest::run(&args)),
        Cli::Hooks(args) => exit::code(hooks::run(&args)),
        Cli::Look(args) => exit::code(look::run(&args)),
        Cli::Metrics(args) => exit::code(metrics::run(&args)),
        Cli::Reproduce(args) => guest::reproduce::main(&args),
        Cli::Schema(args) => exit::code(schema::run(&args)),
        Cli::Test(args) => exit::code(test::run(&args)),
        Cli::Floor(args) => bench::floor::main(&args),
        Cli::Privileged(places) => privileged::main(&places),
    }
}
