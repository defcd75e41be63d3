//! Parse, run, exit code.

use std::{io::Write as _, process::ExitCode};

use c1m_server::{
    cli::{Cli, Command},
    command,
};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => command::serve::run(&cli.serve),
        Some(Command::Holders(flags)) => command::holders::run(flags),
        Some(Command::States(flags)) => command::states::run(flags),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    let code = command::exit_code(&error);
    if code != 0 {
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "c1m-server: {error:#}");
    }
    ExitCode::from(code)
}
