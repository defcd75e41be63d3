//! Parse, run, exit code.

use std::process::ExitCode;

use c1m_server::{
    cli::{Cli, Command},
    command,
};

fn main() -> ExitCode {
    let cli: Cli = c1m_program::version::parse(c1m_commit::commit!(), command::object);
    let ended = match &cli.command {
        None => command::serve::run(&cli.serve).map(|()| 0),
        Some(Command::Watch(flags)) => command::watch::run(flags),
        Some(Command::Holders(flags)) => command::holders::run(flags).map(|()| 0),
        Some(Command::States(flags)) => command::states::run(flags).map(|()| 0),
        Some(Command::Report(flags)) => command::report::run(flags).map(|()| 0),
        Some(Command::Doctor(flags)) => command::doctor::run(flags),
    };
    let error = match ended {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    c1m_program::streams::say(&format!("c1m-server: {error:#}"));
    ExitCode::from(command::exit_code(&error))
}
