//! `guest`: runs a command on another kernel, in a machine under qemu, and hands its output and its exit code back.
//!
//! - [`kernel`], [`modules`]: what is booted, from Debian's packages.
//! - [`programs`], [`libraries`]: the programs that a guest has, and what those need.
//! - [`cpio`], [`initramfs`]: its first file system.
//! - [`init`]: its first process, which is this program.
//! - [`channel`], [`machine`]: qemu, and what comes up from the guest.
//! - [`reproduce`]: the main job, here or in a guest.
//! - [`kernel_tests`]: c1m-server's kernel tests in guests.

mod channel;
mod cpio;
pub(crate) mod init;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod kernel_tests;
mod libraries;
pub(crate) mod machine;
mod modules;
pub(crate) mod programs;
pub(crate) mod reproduce;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use c1m_text::units::{parse_bytes, parse_count, parse_duration};

pub(crate) use channel::Stream;
use initramfs::Brought;
use kernel::{Version, Wanted};
use machine::{Guest, Limit};

use crate::{exit, process};

/// Run a command on another kernel, in a virtual machine without hardware help
///
/// The kernel comes from Debian's packages, unpacked and never installed. The guest has /bin/c1m-server, /bin/c1m-client and
/// /bin/xtask, the libraries that they need, the file systems of a kernel, and the loopback interface. The command's output and exit code
/// become those of this command; a guest that hangs or panics is a failure, with the last lines of its console.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit: that of the command; 1 also when a guest hangs or panics, 2 usage, 3 the environment refused (no qemu, no kernel), 4 internal."
)]
pub(crate) struct Args {
    /// A series such as 6.1 or 6.12, or the file of a kernel image; several run one after the other
    #[arg(long = "kernel", value_name = "SERIES|FILE", default_value = "6.12")]
    kernels: Vec<Wanted>,

    /// Memory of the guest
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = parse_bytes)]
    memory: u64,

    /// CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = cpus)]
    cpus: u32,

    /// End the guest when it takes longer
    #[arg(long, value_name = "D", default_value = "120s", value_parser = parse_duration)]
    timeout: Duration,

    /// Load a module of the kernel's package, with those that it depends on
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,

    /// Take a file or folder into the guest, by default to /bin
    #[arg(long = "file", value_name = "HOST[:GUEST]")]
    files: Vec<Brought>,

    /// Set a variable of the command's environment
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,

    /// Add arguments for the kernel
    #[arg(long, value_name = "ARGUMENTS", default_value = "")]
    append: String,

    /// Write the kernel's console to this file; of several kernels, one after the other
    #[arg(long, value_name = "FILE")]
    keep_console: Option<PathBuf>,

    /// Only list the series that the distribution's packages offer, each with its newest package
    #[arg(long)]
    list: bool,

    /// Take the programs from this folder instead of building them
    #[arg(long, hide = true, value_name = "FOLDER")]
    programs: Option<PathBuf>,

    /// What to run in the guest
    #[arg(last = true, required_unless_present = "list")]
    command: Vec<String>,
}

fn cpus(text: &str) -> Result<u32, String> {
    match parse_count(text).map_err(|error| error.to_string())? {
        count @ 1..=64 => u32::try_from(count).map_err(|error| error.to_string()),
        _ => Err("use a number from 1 to 64".into()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        return list();
    }
    machine::provide(true)?;
    let kernels = args.kernels.iter().map(kernel::find).collect::<Result<Vec<_>>>()?;
    let built = match &args.programs {
        Some(folder) => programs::in_folder(folder)?,
        None => programs::workspace()?,
    };
    let mut files = basics(&built)?;
    files.extend(args.files.iter().cloned());
    let mut worst = None;
    let mut consoles = String::new();
    for kernel in kernels {
        let release = kernel.release.clone();
        let guest = Guest {
            kernel,
            memory_bytes: args.memory,
            cpus: args.cpus,
            limit: Limit::Whole(args.timeout),
            modules: args.modules.clone(),
            files: files.clone(),
            env: args.env.clone(),
            command: args.command.clone(),
            append: args.append.clone(),
        };
        let ended = machine::run(&guest, pass_on)?;
        eprintln!("guest {release}: exit {} after {:.1} s", ended.code, ended.seconds);
        consoles.push_str(&format!("== {release}\n{}", ended.console));
        if ended.code != 0 && worst.is_none() {
            worst = Some((release, ended.code));
        }
    }
    if let Some(file) = &args.keep_console {
        fs::write(file, consoles).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match worst {
        None => Ok(()),
        Some((release, code)) => {
            let text = format!("guest {release}: the command ended with {code}");
            Err(exit::step(u8::try_from(code).unwrap_or(4), text))
        }
    }
}

/// What every guest has in /bin, from what was built.
pub(crate) fn basics(built: &programs::Built) -> Result<Vec<Brought>> {
    ["c1m-server", "c1m-client", "xtask"]
        .into_iter()
        .map(|name| {
            let host = built.get(name).with_context(|| format!("cargo did not build {name}"))?;
            Ok(Brought::new(host, format!("/bin/{name}")))
        })
        .collect()
}

/// Writes a line of the guest where the command's own would have gone.
pub(crate) fn pass_on(stream: Stream, line: &[u8]) {
    let write = |mut to: Box<dyn io::Write>| {
        to.write_all(line).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush())
    };
    // Who closed the output wants no more of it; the guest runs on to its verdict.
    let _ = match stream {
        Stream::Stdout => write(Box::new(io::stdout().lock())),
        Stream::Stderr => write(Box::new(io::stderr().lock())),
    };
}

fn list() -> Result<()> {
    let offered: Vec<(Version, String)> = kernel::offered();
    if offered.is_empty() {
        return Err(exit::refused(
            "no kernel packages are known here: run `apt-get update` as root, or give --kernel the file of an image",
        ));
    }
    for (version, package) in offered {
        process::say(format_args!("{version}\t{package}"))?;
    }
    Ok(())
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("use NAME=VALUE".into()),
    }
}
