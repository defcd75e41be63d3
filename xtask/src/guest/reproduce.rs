//! `reproduce`, here or in a guest, to which the host lends memory and time, and nothing of its settings.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use c1m_host::{cgroup, meminfo};
use c1m_record::Line;
use c1m_text::units::bytes;
use xtask_reproduce::{Connections, End, Log, ReproduceRecord, fail, need_bytes, page_bytes, tell};

use super::{Stream, basics, kernel, machine, pass_on, programs};
use crate::exit;

/// Hold 1,024,000 connections, and report exactly when tcp_mem high is hit
///
/// Plays three acts: the article's default tcp_mem, its cure, and idle connections. Needs root for tcp_mem and eBPF, and
/// asks sudo for it. Every kernel setting that it changes is put back, whatever happens.
// The flags below are a group of the same name.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    run: xtask_reproduce::Args,

    /// Play it in a virtual machine without hardware help: no setting of this host is touched, and no root is needed
    #[arg(long, conflicts_with_all = ["restore", "server_program", "client_program"])]
    guest: bool,

    /// The guest's kernel: a series such as 6.1 or 6.12, or the file of a kernel image
    #[arg(long, value_name = "SERIES|FILE", default_value = "6.12", requires = "guest")]
    kernel: kernel::Wanted,
}

/// Without hardware help some thousand connections per second come up.
const CONNECTIONS: u64 = 16_000;
const MEMORY_MIN_BYTES: u64 = 2 << 30;
/// The guest's kernel, and its first file system.
const SYSTEM_BYTES: u64 = 512 << 20;
/// From the start to the first line of the run: the kernel, and in it programs that are verified.
const START: Duration = Duration::from_secs(300);
/// How much longer nothing may move, for each connection: all end at once.
const STALL_EACH: Duration = Duration::from_millis(1);

/// Plays it, and answers with the exit code.
pub(crate) fn main(args: &Args) -> ExitCode {
    if !args.guest {
        return xtask_reproduce::main(&args.run);
    }
    match play(args) {
        Ok(code) => code,
        Err(end) => fail(&end),
    }
}

fn play(args: &Args) -> Result<ExitCode, End> {
    let connections = match args.run.connections {
        Connections::Auto => CONNECTIONS,
        Connections::Count(count) => count,
    };
    let memory_bytes = memory(connections, page_bytes()?);
    check(memory_bytes)?;
    let mut log = Log::open(&args.run)?;
    let guest = prepare(args, connections, memory_bytes, log.is_wanted()).map_err(ended)?;
    let mut last = None;
    let mut logged = Ok(());
    let ended = machine::run(&guest, |stream, line| {
        if stream == Stream::Stderr {
            return pass_on(stream, line);
        }
        if logged.is_ok() {
            logged = log.take(&String::from_utf8_lossy(line));
        }
        match reproduced(line) {
            Some(ReproduceRecord::Reproduction(run)) => {
                last = Some((run, String::from_utf8_lossy(line).into_owned()));
            }
            // One by one; what servers say is for the log alone.
            Some(ReproduceRecord::Act(_)) if args.run.json => pass_on(stream, line),
            _ => {}
        }
    })
    .map_err(ended)?;
    let written = log.finish();
    for text in log.changes() {
        pass_on(Stream::Stderr, text.as_bytes());
    }
    logged?;
    match (last, u8::try_from(ended.code)) {
        (Some((run, line)), Ok(code)) => {
            tell(&args.run, &mut log, &run, &line).and(written)?;
            Ok(ExitCode::from(code))
        }
        // It has said why.
        (None, Ok(code)) if code != 0 => {
            written?;
            Ok(ExitCode::from(code))
        }
        _ => Err(End::Failed("the run in the guest ended without its last line".into())),
    }
}

/// The same refusals and failures under their own exit codes.
fn ended(error: anyhow::Error) -> End {
    let text = format!("{error:#}");
    if exit::code_of(&error) == 3 { End::Refused(text) } else { End::Failed(text) }
}

fn prepare(
    args: &Args,
    connections: u64,
    memory_bytes: u64,
    all_lines: bool,
) -> anyhow::Result<machine::Guest> {
    machine::provide(true)?;
    let kernel = kernel::find(&args.kernel)?;
    let built = programs::workspace()?;
    let each = u32::try_from(connections).unwrap_or(u32::MAX);
    let stall = args.run.stall.saturating_add(STALL_EACH.saturating_mul(each));
    let mut command: Vec<String> = [
        "/bin/xtask",
        "reproduce",
        "--yes",
        "--json",
        "--connections",
        &connections.to_string(),
        "--stall",
        &format!("{}s", stall.as_secs()),
    ]
    .map(str::to_owned)
    .into();
    if all_lines {
        command.push("--all-lines".into());
    }
    Ok(machine::Guest {
        memory_bytes,
        // In it `--stall` ends a run in which nothing moves, with a reason; this is for a guest that hangs.
        limit: machine::Limit::Silence(START.saturating_add(stall.saturating_mul(2))),
        files: basics(&built)?,
        ..machine::Guest::new(kernel, command)
    })
}

/// What a guest needs for so many connections.
fn memory(connections: u64, page_bytes: u64) -> u64 {
    let need = need_bytes(connections, page_bytes);
    // A 64th of the memory describes the pages (struct page).
    (need + need / 32 + SYSTEM_BYTES).next_multiple_of(1 << 20).max(MEMORY_MIN_BYTES)
}

fn check(memory_bytes: u64) -> Result<(), End> {
    let host = meminfo::read().map_err(|error| End::Refused(error.to_string()))?;
    let available = host.available_bytes.min(cgroup::headroom().unwrap_or(u64::MAX));
    let told = |count: u64| bytes(count as f64);
    if memory_bytes <= available {
        let _ = writeln!(io::stderr(), "the guest has {} of memory", told(memory_bytes));
        return Ok(());
    }
    Err(End::Refused(format!(
        "the guest needs {} of memory, and {} are available: take fewer --connections",
        told(memory_bytes),
        told(available)
    )))
}

/// A line of the run itself; `None`: of a server.
fn reproduced(line: &[u8]) -> Option<ReproduceRecord> {
    Some(serde_json::from_slice::<Line<ReproduceRecord>>(line).ok()?.record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_room_for_what_the_run_asks_for() {
        for page in [4_096, 65_536] {
            for connections in [1_000, CONNECTIONS, 256_000, 1_024_000] {
                let left = memory(connections, page) - SYSTEM_BYTES;
                assert!(left - left / 64 > need_bytes(connections, page), "{connections}");
            }
        }
        assert_eq!(memory(1_000, 4_096), MEMORY_MIN_BYTES);
        // The cure took 14,488 bytes a connection in a guest of 6.12.
        let whole = memory(1_024_000, 4_096);
        assert!((1_024_000 * 14_488 + SYSTEM_BYTES..20_000_000_000).contains(&whole), "{whole}");
    }

    #[test]
    fn lines_of_servers_are_not_those_of_the_run() {
        assert_eq!(reproduced(b"{\"v\":1,\"ts\":\"x\",\"kind\":\"online\"}"), None);
        assert_eq!(reproduced(b"no JSON"), None);
    }
}
