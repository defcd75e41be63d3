//! Parse, run, exit code.

use std::{io::Write as _, process::ExitCode};

use c1m_server::{cli::Cli, command};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Err(error) = command::serve::run(&cli) else { return ExitCode::SUCCESS };
    let code = command::exit_code(&error);
    if code != 0 {
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "c1m-server: {error:#}");
    }
    ExitCode::from(code)
}
