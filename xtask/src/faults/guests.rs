//! The faults on another kernel: this program, inside a guest, whose lines come up.

use std::time::Duration;

use anyhow::Context as _;
use c1m_record::Line;

use super::{
    Args,
    record::{FaultsRecord, Run},
};
use crate::{
    exit,
    guest::{
        self, Stream,
        kernel::{self, Wanted},
        machine::{self, Guest, Limit},
        programs,
    },
};

const MEMORY_BYTES: u64 = 2 << 30;
/// A second one lets a driver and the server under test run at once, and pages hide in two places.
const CPUS: u32 = 2;
const BOOT: Duration = Duration::from_secs(60);
/// For connection tracking.
const MODULES: [&str; 2] = ["nf_tables", "nft_ct"];
/// Of one run under emulation, a wait for something that does not come included.
const RUN: Duration = Duration::from_secs(150);

/// Trips them all in one guest, hands up each run, and returns the kernel's release.
pub(crate) fn run(
    args: &Args,
    wanted: &Wanted,
    mut tell: impl FnMut(Run) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    machine::provide(true)?;
    let kernel = kernel::find(wanted)?;
    let release = kernel.release.clone();
    let machine = Guest {
        kernel,
        memory_bytes: MEMORY_BYTES,
        cpus: CPUS,
        limit: Limit::Silence(BOOT + RUN),
        modules: MODULES.map(String::from).into(),
        files: guest::basics(&programs::workspace()?)?,
        env: Vec::new(),
        command: command(args),
        append: String::new(),
    };
    let mut count = 0_u64;
    let mut failed = None;
    let ended = machine::run(&machine, |stream, line| match stream {
        Stream::Stdout if failed.is_none() => match take(line, &mut tell) {
            Ok(is_run) => count += u64::from(is_run),
            Err(error) => failed = Some(error),
        },
        Stream::Stdout => {}
        Stream::Stderr => guest::pass_on(stream, line),
    })?;
    match (failed, count) {
        (Some(error), _) => Err(error),
        (None, 0) => Err(exit::failed(format!("guest {release}: exit {}, and no run", ended.code))),
        _ => Ok(release),
    }
}

fn command(args: &Args) -> Vec<String> {
    let mut command: Vec<String> =
        ["/bin/xtask", "faults", "--json", "--server-program", "/bin/c1m-server"]
            .map(String::from)
            .into();
    command.extend(["--repeat".into(), args.repeat.to_string()]);
    for hook in &args.without_hook {
        command.extend(["--without-hook".into(), hook.clone()]);
    }
    if !args.only.is_empty() {
        command.extend(["--only".into(), args.only.join(",")]);
    }
    command
}

/// Hands on a line, if it is a run: the guest's own sum is made again here.
fn take(line: &[u8], tell: &mut impl FnMut(Run) -> anyhow::Result<()>) -> anyhow::Result<bool> {
    let line: Line<FaultsRecord> = serde_json::from_slice(line)
        .with_context(|| format!("not a line of faults: {}", String::from_utf8_lossy(line)))?;
    match line.record {
        FaultsRecord::Fault(run) => tell(*run).map(|()| true),
        FaultsRecord::Faults(_) => Ok(false),
    }
}
