//! The same run in a guest: the host lends memory and time, and nothing of its settings.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use c1m_server::{
    host::{cgroup, meminfo},
    output::record::Line,
};

use super::{
    End,
    cli::{Args, Connections},
    expect, fail,
    log::Log,
    outcome::ReproduceRecord,
    progress::bytes,
    run, scale,
};
use crate::{
    exit,
    guest::{self, Stream, kernel, machine, programs},
};

/// Without hardware help some thousand connections a second come up.
const CONNECTIONS: u64 = 16_000;
const MEMORY_MIN_BYTES: u64 = 2 << 30;
/// The guest's kernel, and its first file system.
const SYSTEM_BYTES: u64 = 512 << 20;
/// For everything that does not depend on the number of connections.
const TIMEOUT: Duration = Duration::from_secs(300);
/// More for each connection: three acts, each of which opens and ends all of them.
const TIMEOUT_EACH: Duration = Duration::from_millis(10);
/// How much longer nothing may move, for each connection: all end at once.
const STALL_EACH: Duration = Duration::from_millis(1);

/// Plays it, and answers with the exit code.
pub(super) fn main(args: &Args) -> ExitCode {
    match play(args) {
        Ok(code) => code,
        Err(end) => fail(&end),
    }
}

fn play(args: &Args) -> Result<ExitCode, End> {
    let connections = match args.connections {
        Connections::Auto => CONNECTIONS,
        Connections::Count(count) => count,
    };
    let memory_bytes = memory(connections);
    check(memory_bytes)?;
    let mut log = Log::open(args)?;
    let guest = prepare(args, connections, memory_bytes, log.is_wanted()).map_err(ended)?;
    let mut last = None;
    let mut logged = Ok(());
    let ended = machine::run(&guest, |stream, line| {
        if stream == Stream::Stderr {
            return guest::pass_on(stream, line);
        }
        if logged.is_ok() {
            logged = log.take(&String::from_utf8_lossy(line));
        }
        match reproduced(line) {
            Some(ReproduceRecord::Reproduction(run)) => {
                last = Some((run, String::from_utf8_lossy(line).into_owned()));
            }
            // One by one; what servers say is for the log alone.
            Some(ReproduceRecord::Act(_)) if args.json => guest::pass_on(stream, line),
            _ => {}
        }
    })
    .map_err(ended)?;
    logged.and_then(|()| log.write_page())?;
    match (last, u8::try_from(ended.code)) {
        (Some((run, line)), Ok(code)) => {
            run::tell(args, &run, &line)?;
            Ok(ExitCode::from(code))
        }
        // It has said why.
        (None, Ok(code)) if code != 0 => Ok(ExitCode::from(code)),
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
    let stall = args.stall.saturating_add(STALL_EACH.saturating_mul(each));
    let mut command: Vec<String> = [
        "/bin/xtask",
        "reproduce",
        "--yes",
        "--json",
        "--connections",
        &connections.to_string(),
        "--stall",
        &format!("{}s", stall.as_secs()),
        "--server-program",
        "/bin/c1m-server",
        "--client-program",
        "/bin/c1m-client",
    ]
    .map(str::to_owned)
    .into();
    if all_lines {
        command.push("--all-lines".into());
    }
    Ok(machine::Guest {
        memory_bytes,
        timeout: TIMEOUT.saturating_add(TIMEOUT_EACH.saturating_mul(each)),
        files: guest::basics(&built)?,
        ..machine::Guest::new(kernel, command)
    })
}

/// What a guest needs for so many connections.
fn memory(connections: u64) -> u64 {
    let need = scale::need_bytes(connections);
    // A 64th of the memory describes the pages (struct page).
    (need + need / 32 + SYSTEM_BYTES).next_multiple_of(1 << 20).max(MEMORY_MIN_BYTES)
}

fn check(memory_bytes: u64) -> Result<(), End> {
    let host = meminfo::read().map_err(|error| End::Refused(error.to_string()))?;
    let available = host.available_bytes.min(cgroup::headroom().unwrap_or(u64::MAX));
    let told = |count| bytes(expect::as_f64(count));
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
        for connections in [1_000, CONNECTIONS, 256_000, 1_024_000] {
            let left = memory(connections) - SYSTEM_BYTES;
            assert!(left - left / 64 > scale::need_bytes(connections), "{connections}");
        }
        assert_eq!(memory(1_000), MEMORY_MIN_BYTES);
        // The cure took 14,488 bytes a connection in a guest of 6.12.
        let whole = memory(1_024_000);
        assert!((1_024_000 * 14_488 + SYSTEM_BYTES..20_000_000_000).contains(&whole), "{whole}");
    }

    #[test]
    fn lines_of_servers_are_not_those_of_the_run() {
        assert_eq!(reproduced(b"{\"v\":1,\"ts\":\"x\",\"kind\":\"online\"}"), None);
        assert_eq!(reproduced(b"no JSON"), None);
    }
}
