//! `test`: everything that must hold before a change is merged, in one command.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf::{self, Install},
    counts::{self, Counts},
    debian, dist, exit, faults,
    guest::{kernel::Kernel, kernel_tests, machine, programs},
    kubernetes, place, process,
};

/// Where c1m-server's tests/kernel/nginx.rs finds it.
const NGINX: &str = "C1M_NGINX";
/// Where the tests of `prometheus` find it, and promtool beside it.
const PROMETHEUS: &str = "C1M_PROMETHEUS";

/// Run everything: formats, lints, unit and integration tests, kernel tests in guests, a bench on a
/// small scale, and the check of the eBPF object
///
/// Installs what is missing: components of rustup, bpf-linker, nginx, Prometheus, kernels for guests, the schemas of Kubernetes and what looks at packages into the target folder, and on Debian, as
/// root, the packages of the eBPF toolchain and qemu.
/// The first step that fails ends it, with that step's exit code. With CI set in the environment a test that is ignored for anything but the
/// kernel that it runs on is a failure, and so is a kernel for guests that can't be had. The last line has how many tests ran on which kernel.
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
        let (kernels, built) = (kernels(!args.no_install)?, build()?);
        return step("tests in guests", || kernel_tests::run(&kernels, &built));
    }
    step("tools", || components(!args.no_install))?;
    step("fmt", || process::run("fmt", &mut cargo(&["fmt", "--check"])))?;
    step("fmt of c1m-ebpf", || {
        let manifest = ["--manifest-path", "c1m-ebpf/Cargo.toml"];
        process::run("fmt of c1m-ebpf", cargo(&["fmt", "--check"]).args(manifest))
    })?;
    let (provided, built) = thread::scope(|scope| {
        // Downloads, and compilers that keep one core busy at a time: beside what compiles all the while.
        let beside = scope.spawn(|| beside(args));
        step("clippy", || {
            let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            process::run("clippy", &mut cargo(&arguments))
        })?;
        let built = build()?;
        let provided =
            beside.join().map_err(|_| exit::failed("a thread of the test panicked"))??;
        Ok::<_, anyhow::Error>((provided, built))
    })?;
    // Some of them boot a guest.
    let here = step("tests", || tests(&provided))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut summary = vec![format!("here {}: {here}", release.trim())];
    summary.push(step("bench --quick", || bench(&built))?.into());
    if args.no_guests {
        summary.push("guests: none, as told".into());
    } else {
        summary.extend(step("tests in guests", || kernel_tests::run(&provided.kernels, &built))?);
    }
    Ok(summary)
}

/// What tests need besides what is built: kernels for guests, and programs of others where they can be had.
struct Provided {
    kernels: Vec<Kernel>,
    nginx: Option<PathBuf>,
    prometheus: Option<PathBuf>,
}

/// What tests need, the schemas of Kubernetes among it, and the check of the eBPF object.
fn beside(args: &Args) -> Result<Provided> {
    // Before anything is looked for: the lists of a machine are as old as the machine.
    if !args.no_install && debian::can_install() {
        debian::update();
    }
    let kernels = match args.no_guests {
        true => Vec::new(),
        false => kernels(!args.no_install)?,
    };
    let nginx = faults::nginx(!args.no_install);
    let prometheus = prometheus(!args.no_install);
    if !args.no_install {
        kubernetes::provide();
        dist::provide_tools();
    }
    let install = if args.no_install { Install::Nothing } else { Install::Missing };
    step("build-ebpf --check", || build_ebpf::check(install))?;
    Ok(Provided { kernels, nginx, prometheus })
}

/// Prometheus with promtool. Where it can't be had its tests are ignored, and why is told here.
fn prometheus(install: bool) -> Option<PathBuf> {
    const NAME: &str = "prometheus";
    if !install {
        return debian::found(NAME);
    }
    match debian::program(NAME, &[NAME]) {
        Ok(program) => Some(program),
        Err(error) => {
            eprintln!("warning: tests without Prometheus: {error:#}");
            None
        }
    }
}

/// The tests: the same programs run here and in guests.
fn build() -> Result<programs::Built> {
    step("build of the tests", || programs::build(&["test", "--workspace", "--no-run"]))
}

/// Does the bench still measure? Its figures say nothing here: the programs are those of the tests, and few connections.
fn bench(built: &programs::Built) -> Result<&'static str> {
    if !debian::is_root() {
        return Ok("bench: not tried, it needs root");
    }
    let xtask = built.get("xtask").context("cargo did not build xtask")?;
    let folder = xtask.parent().context("a program without a folder")?;
    let mut command = process::foreign(xtask);
    command.args(["bench", "--quick", "--programs"]).arg(folder);
    process::run("bench --quick", &mut command)?;
    Ok("bench: measures")
}

/// Runs the tests of the workspace, and those of the decisions in c1m-ebpf, which is a workspace of its own.
fn tests(provided: &Provided) -> Result<Counts> {
    let mut ebpf = cargo(&["test", "--locked", "--manifest-path", "c1m-ebpf/Cargo.toml"]);
    ebpf.arg("--target-dir").arg(place::target().join("ebpf"));
    let mut counts = Counts::default();
    for command in [ebpf, cargo(&["test", "--workspace"])] {
        run_tests(&command, provided, &mut counts)?;
    }
    counts.check_reasons("here")?;
    Ok(counts)
}

/// Runs tests with their output on standard output: their own summaries are the result, and are counted.
fn run_tests(command: &Command, provided: &Provided, counts: &mut Counts) -> Result<()> {
    let mut command = with_default_signals(command);
    for (variable, program) in [(NGINX, &provided.nginx), (PROMETHEUS, &provided.prometheus)] {
        if let Some(program) = program {
            command.env(variable, program);
        }
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read the output of the tests")?;
            let line = String::from_utf8_lossy(&line);
            counts.add(&line);
            process::say(&line)?;
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(4);
    Err(exit::step(code, format!("cargo test ended with {status}: {counts}")))
}

/// All that is booted later, and what it is booted by.
fn kernels(install: bool) -> Result<Vec<Kernel>> {
    let provide =
        || machine::provide(install).and_then(|()| kernel_tests::kernels(install, counts::is_ci()));
    step("kernels for guests", provide).map_err(|error| match exit::code_of(&error) {
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

/// `command` with the signals that end our programs as a terminal leaves them.
///
/// Shells start what runs in the background with INT and QUIT ignored, and `nohup` with HUP. Programs inherit that, ours leave an ignored
/// signal ignored, and tests send them signals.
fn with_default_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP,INT,QUIT,TERM").arg(command.get_program());
    env.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => env.env(name, value),
            None => env.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        env.current_dir(folder);
    }
    env
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_not_handed_down_to_tests() {
        let mut status = Command::new("cat");
        status.arg("/proc/self/status").env_remove("C1M_NOTHING").current_dir("/");
        let ignored = |command: &Command| -> u64 {
            let output = Command::new("sh")
                .args(["-c", r#"trap "" HUP INT QUIT TERM; exec "$@""#, "sh"])
                .arg(command.get_program())
                .args(command.get_args())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        // HUP, INT, QUIT and TERM are 1, 2, 3 and 15 (signal(7)); bit 0 stands for signal 1.
        let ends = 0b111 | 1 << 14;
        assert_eq!(ignored(&status) & ends, ends);
        let mended = with_default_signals(&status);
        assert_eq!(ignored(&mended) & ends, 0);
        assert_eq!(mended.get_current_dir(), status.get_current_dir());
        assert!(mended.get_envs().eq(status.get_envs()));
    }
}
