//! `cargo xtask reproduce` by itself. Both commands are xtask's as well, for guests and for tests.

use std::process::ExitCode;

use clap::Parser;
use xtask_reproduce::{Args, Places, privileged};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
enum Cli {
    Reproduce(Args),
    #[command(name = privileged::COMMAND, hide = true)]
    Privileged(Places),
}

fn main() -> ExitCode {
    match Cli::try_parse().unwrap_or_else(|error| c1m_program::usage::end(error)) {
        Cli::Reproduce(args) => xtask_reproduce::main(&args),
        Cli::Privileged(places) => privileged::main(&places),
    }
}
