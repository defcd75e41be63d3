//! Parse, run, exit code.

use std::process::ExitCode;

use c1m_server::{
    cli::{Cli, Command},
    doctor,
    exit::exit_code,
    holders, report, run, states, watch,
};
use sha2::{Digest as _, Sha256};

fn main() -> ExitCode {
    let cli: Cli = c1m_program::version::parse(c1m_commit::commit!(), object);
    let ended = match &cli.command {
        None => run::run(&cli.serve).map(|()| 0),
        Some(Command::Watch(flags)) => watch::run(flags),
        Some(Command::Holders(flags)) => holders::run(flags).map(|()| 0),
        Some(Command::States(flags)) => states::run(flags).map(|()| 0),
        Some(Command::Report(flags)) => report::run(flags).map(|()| 0),
        Some(Command::Doctor(flags)) => doctor::run(flags),
    };
    let error = match ended {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    c1m_program::streams::say(&format!("c1m-server: {error:#}"));
    ExitCode::from(exit_code(&error))
}

/// The eBPF object that is built in.
fn object() -> String {
    let hash = Sha256::digest(c1m_probe::object());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\neBPF object sha256 {hash}")
}
