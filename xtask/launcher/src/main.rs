//! `cargo xtask`: builds what the command needs, and becomes it.
//!
//! `reproduce` is the first command that somebody runs on a fresh clone. It is built by itself, optimised, together with the programs that it
//! runs, so that no crate is built twice for it and nothing that only other commands need is built at all. Every other command is xtask's.

mod estimate;

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The profile of the workspace's Cargo.toml, which is the folder's name too.
const PROFILE: &str = "reproduce";
const REPRODUCE: &str = "xtask-reproduce";
const PROGRAMS: [&str; 3] = ["c1m-server", "c1m-client", REPRODUCE];
/// The environment refused, as in all commands of xtask.
const REFUSED: u8 = 3;
const INTERNAL: u8 = 4;

/// What runs a command line.
#[derive(Debug, PartialEq, Eq)]
enum Runner {
    Reproduce,
    Xtask,
}

impl Runner {
    /// A guest, and the help that tells of it, are xtask's: a guest has all commands.
    fn of(arguments: &[OsString]) -> Self {
        let has = |flags: &[&str]| {
            arguments.iter().any(|argument| flags.iter().any(|flag| argument == OsStr::new(flag)))
        };
        let is_reproduce = arguments.first().is_some_and(|command| command == "reproduce");
        if is_reproduce && !has(&["--guest", "--kernel", "--help", "-h"]) {
            Self::Reproduce
        } else {
            Self::Xtask
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match Runner::of(&arguments) {
        Runner::Reproduce => reproduce(&arguments),
        Runner::Xtask => {
            let mut xtask = cargo();
            xtask.args(["run", "--quiet", "--package", "xtask", "--"]).args(&arguments);
            become_it(&mut xtask)
        }
    }
}

fn reproduce(arguments: &[OsString]) -> ExitCode {
    let Some(folder) = env::current_exe().ok().as_deref().and_then(profile_folder) else {
        return fail("cannot find the folder of this program", INTERNAL);
    };
    if !arguments.iter().any(|argument| argument == "--restore") {
        say(&estimate::line(&PROGRAMS, &folder, arguments));
    }
    let mut build = cargo();
    build.args(["build", "--profile", PROFILE]);
    build.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    match build.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return fail("the build failed: cargo says why above", INTERNAL),
        Err(error) => {
            return fail(
                &format!("cannot run {}: {error}", build.get_program().display()),
                REFUSED,
            );
        }
    }
    become_it(Command::new(folder.join(REPRODUCE)).args(arguments))
}

/// Where cargo puts programs of the profile: beside the folder that this program, of the profile `dev`, is in.
fn profile_folder(own: &Path) -> Option<PathBuf> {
    Some(own.parent()?.with_file_name(PROFILE))
}

/// The cargo that runs this. It has described this package in the environment, which another one would take as a change of its own.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| describes_a_package(name)) {
        command.env_remove(name);
    }
    command
}

fn describes_a_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Does not come back but with an error.
fn become_it(command: &mut Command) -> ExitCode {
    let error = command.exec();
    fail(&format!("cannot run {}: {error}", command.get_program().display()), REFUSED)
}

fn say(line: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

fn fail(text: &str, code: u8) -> ExitCode {
    say(&format!("error: {text}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(line: &str) -> Runner {
        Runner::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn reproduce_is_built_by_itself_and_everything_else_is_xtasks() {
        for line in ["reproduce", "reproduce --yes --connections 16000", "reproduce --restore"] {
            assert_eq!(runner(line), Runner::Reproduce, "{line}");
        }
        for line in
            ["", "test", "reproduce --guest", "reproduce --help", "guest -- reproduce", "--help"]
        {
            assert_eq!(runner(line), Runner::Xtask, "{line}");
        }
    }

    #[test]
    fn programs_are_beside_the_folder_of_this_one() {
        let found = |own: &str| profile_folder(Path::new(own));
        assert_eq!(found("/t/debug/xtask-launcher"), Some("/t/reproduce".into()));
        assert_eq!(found("/t/arm/debug/xtask-launcher"), Some("/t/arm/reproduce".into()));
    }
}
