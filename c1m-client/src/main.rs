use std::process::ExitCode;

use c1m_client::{cli::Cli, prepare::Failure, run::run, show::Show};
use c1m_server::{command::version::parse, sys::signal::Termination};

/// Exit codes: 0 done, 1 fewer connections than asked for, 2 usage, 3 the environment refused, 4 internal. A standard output
/// that nobody reads any more is no error.
fn main() -> ExitCode {
    let cli: Cli = parse(c1m_commit::commit!(), String::new);
    let mut show = Show::new(cli.json, cli.quiet, cli.connections);
    // First of all: threads inherit what is blocked.
    let result = Termination::new()
        .map_err(Failure::from)
        .and_then(|termination| run(&cli, &termination, &mut show));
    show.ramp_over();
    let (error, code) = match result {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(1),
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Environment(error)) if is_broken_pipe(&error) => return ExitCode::SUCCESS,
        Err(Failure::Environment(error)) => (error, 3),
        Err(Failure::Internal(error)) => (error, 4),
    };
    eprintln!("c1m-client: {error:#}");
    ExitCode::from(code)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
