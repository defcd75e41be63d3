use std::process::ExitCode;

use c1m_client::{
    cli::{Cli, Command, Load},
    merge,
    prepare::Failure,
    run,
    show::Show,
};
use c1m_program::{streams::say, version::parse};
use c1m_sys::signal::Shutdown;
use clap::{CommandFactory as _, error::ErrorKind};

/// Exit codes: 0 done, 1 a target was not met: fewer connections than asked for, or a requirement
/// that does not hold; 2 usage, 3 the environment refused, 4 internal. A standard output whose
/// reader has closed it changes none of them.
fn main() -> ExitCode {
    let result = match parse(c1m_commit::commit!(), String::new) {
        Cli { command: Some(Command::Merge(flags)), .. } => merge::run(&flags),
        Cli { command: None, load: Some(flags) } => open(&flags),
        // clap asks for those that are missing.
        Cli { command: None, load: None } => Cli::command()
            .error(ErrorKind::MissingRequiredArgument, "--connect and --connections are needed")
            .exit(),
    };
    let (error, code) = match result {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(1),
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Environment(error)) => (error, 3),
        Err(Failure::Internal(error)) => (error, 4),
    };
    say(&format!("c1m-client: {error:#}"));
    ExitCode::from(code)
}

fn open(flags: &Load) -> Result<bool, Failure> {
    // Before there are threads, which inherit what is blocked.
    let shutdown = Shutdown::begin()?;
    let mut show = Show::new(flags.json, flags.quiet, flags.shard.count(flags.connections))?;
    let result = run::run(flags, &shutdown, &mut show);
    // It may have been refused before any end.
    shutdown.end_at_once()?;
    let shown = show.finish();
    let reached = result?;
    shown?;
    Ok(reached)
}
