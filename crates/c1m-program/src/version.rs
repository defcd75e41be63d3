//! What a program says of itself: `-V` its version, `--version` also what it was built from.

use clap::{CommandFactory, FromArgMatches};

/// Parses the command line of a program that was built from `commit`; `more` is what `--version` says behind the commit.
///
/// Ends the process where clap does: with help, a version, or what is wrong with a flag.
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
    let matches = command.get_matches();
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}
