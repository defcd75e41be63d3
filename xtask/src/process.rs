//! Running other programs, each with the environment that it should see.

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::exit;

/// The cargo that runs this xtask: what builds everything but the eBPF object.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo describes the package xtask to its process. A second cargo would take that as a change and build anew.
    for (name, _) in env::vars_os() {
        if describes_a_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// A program of another toolchain, which must see nothing of the one that runs this xtask.
pub(crate) fn foreign(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if describes_a_package(&name) || chooses_a_toolchain(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn describes_a_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What rustup and cargo hand down, and what a user may have set for builds of the host.
fn chooses_a_toolchain(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let exact = [
        "CARGO",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_LINKER",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
    ];
    exact.contains(&name.as_ref())
        || ["CARGO_BUILD_", "CARGO_CFG_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Runs `command` to its end with its output on standard error, where everything stands that is no result.
///
/// A failure carries the exit code of the program and `what` it was doing.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    command.stdout(io::stderr());
    run_as_is(what, command)
}

/// Like [`run`], with standard output left to the program.
pub(crate) fn run_as_is(what: &str, command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{what}: cannot run {program}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(4);
    Err(exit::step(code, format!("{what}: {program} ended with {status}")))
}

/// What `command` prints, trimmed; `None` when it cannot be run or fails. Its complaints are not shown.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Prints one line of the result. Who closed standard output wants no more of it, which is no error.
pub(crate) fn say(line: impl fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(exit::refused(format!("cannot write standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_hands_up_its_code() {
        let error = run("a step", Command::new("sh").args(["-c", "exit 42"])).unwrap_err();
        assert_eq!(exit::code_of(&error), 42);
        assert!(error.to_string().starts_with("a step: sh ended with"), "{error}");
    }

    #[test]
    fn only_what_chooses_the_toolchain_is_hidden_from_another_one() {
        for hidden in ["RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO", "CARGO_TARGET_DIR"] {
            assert!(chooses_a_toolchain(OsStr::new(hidden)), "{hidden}");
        }
        for kept in
            ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE", "HTTPS_PROXY"]
        {
            assert!(!chooses_a_toolchain(OsStr::new(kept)), "{kept}");
            assert!(!describes_a_package(OsStr::new(kept)), "{kept}");
        }
    }
}
