//! What developers of c1m run.

mod btf_fixture;
mod reproduce;

use std::process::ExitCode;

use clap::Parser;

/// What developers of c1m run
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110)]
enum Task {
    /// Cut a small BTF fixture for tests out of a kernel's BTF
    BtfFixture(btf_fixture::Args),
    Reproduce(reproduce::Args),
    #[command(name = reproduce::privileged::COMMAND, hide = true)]
    Privileged(reproduce::Places),
}

fn main() -> ExitCode {
    match Task::parse() {
        Task::BtfFixture(args) => match btf_fixture::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(4)
            }
        },
        Task::Reproduce(args) => reproduce::main(&args),
        Task::Privileged(places) => reproduce::privileged::main(&places),
    }
}
