//! `test`: everything that must hold before a change is merged, in one command.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf::{self, Install},
    exit, faults,
    guest::{
        kernel::Kernel,
        kernel_tests::{self, Counts},
        machine, programs,
    },
    place, process,
};

/// Where c1m-server's tests/kernel/nginx.rs finds it.
const NGINX: &str = "C1M_NGINX";

/// Run everything: formats, lints, release build, unit and integration tests, kernel tests in guests, and the check of the
/// eBPF object
///
/// Installs what is missing: components of rustup, bpf-linker, nginx and kernels for guests into the target folder, and on Debian, as
/// root, the packages of the eBPF toolchain and qemu.
/// The first step that fails ends it, with that step's exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing; say what is missing instead
    #[arg(long)]
    no_install: bool,

    /// Test on the running kernel alone
    #[arg(long)]
    no_guests: bool,

    /// Only run the kernel tests in guests
    #[arg(long, conflicts_with = "no_guests")]
    only_guests: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let result = steps(args);
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(summary) => {
            eprintln!("xtask test: all steps passed, after {seconds:.1} s: {}", summary.join("; "));
        }
        Err(_) => eprintln!("xtask test: stopped at the first failure, after {seconds:.1} s"),
    }
    result.map(drop)
}

/// Everything. What was tested where, in words.
fn steps(args: &Args) -> Result<Vec<String>> {
    if args.only_guests {
        let (kernels, built) = prepare(!args.no_install)?;
        return step("tests in guests", || kernel_tests::run(&kernels, &built));
    }
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
    // What is shipped. `reproduce`, which the tests run scaled down, builds just the same: with the features of the whole workspace
    // it would all be built a second time.
    step("release build", || {
        let arguments = ["build", "--release", "-p", "c1m-server", "-p", "c1m-client"];
        process::run("release build", &mut cargo(&arguments))
    })?;
    let summary = if args.no_guests {
        let here = step("tests", || tests(&mut cargo(&["test", "--workspace"]), !args.no_install))?;
        vec![format!("here: {here}"), "guests: none, as told".into()]
    } else {
        everywhere(!args.no_install)?
    };
    let install = if args.no_install { Install::Nothing } else { Install::Missing };
    step("build-ebpf --check", || build_ebpf::check(install))?;
    Ok(summary)
}

/// Tests on the running kernel and in guests. What was tested where, in words.
fn everywhere(install: bool) -> Result<Vec<String>> {
    // Before the tests: some of them boot a guest.
    let (kernels, built) = prepare(install)?;
    let here = step("tests", || tests(&mut programs::cargo(&["test", "--workspace"])?, install))?;
    let mut summary = vec![format!("here: {here}")];
    summary.extend(step("tests in guests", || kernel_tests::run(&kernels, &built))?);
    Ok(summary)
}

/// The kernels, and the tests: static, so that the same programs run here and in guests.
fn prepare(install: bool) -> Result<(Vec<Kernel>, programs::Built)> {
    let kernels = step("kernels for guests", || kernels(install))?;
    let built =
        step("build of the tests", || programs::build(&["test", "--workspace", "--no-run"]))?;
    Ok((kernels, built))
}

/// Runs the tests with their output on standard output: their own summaries are the result, and are counted.
fn tests(command: &mut Command, install: bool) -> Result<Counts> {
    if let Some(nginx) = faults::nginx(install) {
        command.env(NGINX, nginx);
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut counts = Counts::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what the tests say")?;
            let line = String::from_utf8_lossy(&line);
            counts.add(&line);
            process::say(&line)?;
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if status.success() {
        return Ok(counts);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(4);
    Err(exit::step(code, format!("cargo test ended with {status}: {counts}")))
}

/// All that is booted later, and what it is booted by.
fn kernels(install: bool) -> Result<Vec<Kernel>> {
    let kernels = machine::provide(install).and_then(|()| kernel_tests::kernels(install));
    kernels.map_err(|error| match exit::code_of(&error) {
        3 => exit::refused(format!("{error:#}; or test without guests: --no-guests")),
        _ => error,
    })
}

/// Runs one step, named on standard error before and, with its time, after.
fn step<T>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
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
