//! Parse, run, exit code.

use std::{io::Write as _, process::ExitCode};

use c1m_server::{
    cli::{Cli, Command},
    command,
    output::escape,
};

fn main() -> ExitCode {
    let cli: Cli = command::version::parse(c1m_commit::commit!(), command::version::object);
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
    let code = command::exit_code(&error);
    if code != 0 {
        // With standard error closed there is nobody left to tell.
        let _ =
            writeln!(std::io::stderr(), "c1m-server: {}", escape::paragraph(&format!("{error:#}")));
    }
    ExitCode::from(code)
}
