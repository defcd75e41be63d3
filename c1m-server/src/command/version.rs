//! What a program says of itself: `-V` its version, `--version` also what it was built from.

use clap::{CommandFactory, FromArgMatches};
use sha2::{Digest as _, Sha256};

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

/// The eBPF object that is built in.
#[must_use]
pub fn object() -> String {
    let hash = Sha256::digest(c1m_probe::object());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\neBPF object sha256 {hash}")
}
