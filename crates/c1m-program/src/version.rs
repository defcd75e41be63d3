//! What a program says of itself: `--help` its flags, `-V` its version, `--version` also what it was built from.

use std::{
    io::{self, Write as _},
    process::exit,
};

use clap::{CommandFactory, Error, FromArgMatches};

use crate::{lines::STDOUT, streams::say, unless_closed, usage};

/// The exit code: standard output can't be written.
const REFUSED: i32 = 3;

/// Parses the command line of a program that was built from `commit`; `more` is what `--version` says behind the commit.
///
/// Ends the process where clap does: with help, a version, or what is wrong with a flag. Help that can't be written is exit code 3.
#[must_use]
pub fn parse<C: CommandFactory + FromArgMatches>(commit: &str, more: impl Fn() -> String) -> C {
    let mut command = C::command();
    // A hash over the object, which no other start needs.
    if std::env::args_os().any(|argument| argument == "--version") {
        let version = command.get_version().unwrap_or_default().to_owned();
        // clap keeps what it is given for as long as the process lives.
        let version: &str = format!("{version}\ncommit {commit}{}", more()).leak();
        command = command.long_version(version);
    }
    let name = command.get_name().to_owned();
    // Not the one that the caller calls it by, which clap would print.
    let command = command.bin_name(name.clone());
    let matches = command.try_get_matches().unwrap_or_else(|error| end(&name, error));
    C::from_arg_matches(&matches).unwrap_or_else(|error| end(&name, error))
}

/// Help and versions are results: what keeps them from standard output is an error. What is wrong with a flag goes to standard error.
fn end(program: &str, error: Error) -> ! {
    if error.use_stderr() {
        usage::end(error);
    }
    // clap leaves what it has printed in std's buffer, which tells nobody at the end of the process that it was not written.
    let printed = error.print().and_then(|()| io::stdout().flush());
    match unless_closed(printed) {
        Ok(()) => exit(error.exit_code()),
        Err(error) => {
            say(&format!("{program}: cannot write {STDOUT}: {error}"));
            exit(REFUSED)
        }
    }
}
