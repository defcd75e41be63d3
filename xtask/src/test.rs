//! `test`: everything that must hold before a change is merged, in one command.

use std::{process::Command, time::Instant};

use anyhow::Result;

use crate::{
    build_ebpf::{self, Install},
    exit, place, process,
};

/// Run everything: formats, lints, release build, unit and integration tests, and the check of the eBPF object
///
/// Installs what is missing: components of rustup, bpf-linker into the target folder, and on Debian, as root, the
/// packages of the eBPF toolchain.
/// The first step that fails ends it, with that step's exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing; say what is missing instead
    #[arg(long)]
    no_install: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let result = steps(args);
    let verdict = if result.is_ok() { "all steps passed" } else { "stopped at the first failure" };
    eprintln!("xtask test: {verdict}, after {:.1} s", start.elapsed().as_secs_f64());
    result
}

fn steps(args: &Args) -> Result<()> {
    step("tools", || components(!args.no_install))?;
    step("fmt", || process::run("fmt", &mut cargo(&["fmt", "--check"])))?;
    step("fmt of c1m-ebpf", || {
        let manifest = ["--manifest-path", "c1m-ebpf/Cargo.toml"];
        process::run("fmt of c1m-ebpf", cargo(&["fmt", "--check"]).args(manifest))
    })?;
    step("clippy", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        process::run("clippy", &mut cargo(&arguments))
    })?;
    // The reproduction, scaled down in the tests, runs the release binaries.
    step("release build", || {
        process::run("release build", &mut cargo(&["build", "--workspace", "--release"]))
    })?;
    // On standard output: the tests' own summaries are the result.
    step("tests", || process::run_as_is("tests", &mut cargo(&["test", "--workspace"])))?;
    let install = if args.no_install { Install::Nothing } else { Install::Missing };
    step("build-ebpf --check", || build_ebpf::check(install))
}

/// Runs one step, named on standard error before and, with its time, after.
fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("xtask test: {name}");
    let start = Instant::now();
    let result = run();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("xtask test: {name}: {verdict}, {:.1} s", start.elapsed().as_secs_f64());
    result.map_err(|error| {
        let code = exit::code_of(&error);
        exit::step(code, format!("step {name}: {error:#}"))
    })
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = process::cargo();
    command.current_dir(place::root()).args(arguments);
    command
}

/// rustfmt and clippy: rustup's minimal profile comes without them.
fn components(install: bool) -> Result<()> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(subcommand, _)| process::ask(&mut cargo(&[*subcommand, "--version"])).is_none())
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("rustup component add {}", missing.join(" "));
    if !install || place::in_path("rustup").is_empty() {
        return Err(exit::refused(format!(
            "{} missing: run `{command}`, or install the packages of that name",
            missing.join(" and ")
        )));
    }
    process::run(&command, Command::new("rustup").args(["component", "add"]).args(&missing))
}
