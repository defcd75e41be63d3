//! What developers of c1m run.

mod reproduce;

use std::process::ExitCode;

use clap::Parser;

/// What developers of c1m run
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110)]
enum Task {
    Reproduce(reproduce::Args),
    #[command(name = reproduce::privileged::COMMAND, hide = true)]
    Privileged(reproduce::Places),
}

fn main() -> ExitCode {
    match Task::parse() {
        Task::Reproduce(args) => reproduce::main(&args),
        Task::Privileged(places) => reproduce::privileged::main(&places),
    }
}
