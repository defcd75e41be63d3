//! Ramps in turn with the floor, and everything that is measured while their connections are held.

use std::time::Duration;

use anyhow::Result;
use c1m_host::slabinfo::{self, Slabinfo};

use super::{
    board::{Board, per},
    child::{Child, pause},
    cli::{Args, Part},
    ends::{Gone, Held, Order, Programs},
    host, look,
    nginx::Nginx,
};

/// For how long an idle server is looked at.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_QUICK: Duration = Duration::from_secs(1);
/// After a ramp, before idleness begins: the server's own looks end.
const CALM: Duration = Duration::from_secs(2);
/// Connections of the nginx whose memory is measured: what fits into one descriptor table.
const NGINX_CONNECTIONS: u64 = 19_000;

/// The host before the first connection.
pub(crate) struct Quiet {
    used_bytes: u64,
    slab: Slabinfo,
}

impl Quiet {
    pub(crate) fn look() -> Result<Self> {
        host::settle()?;
        Ok(Self { used_bytes: host::used_bytes()?, slab: host::slab()? })
    }

    /// By how much used memory has grown since.
    pub(crate) fn growth(&self) -> Result<u64> {
        Ok(host::used_bytes()?.saturating_sub(self.used_bytes))
    }
}

/// One round: the floor, then ours with everything on, then ours idle.
pub(crate) fn round(
    args: &Args,
    programs: &Programs,
    board: &mut Board,
    quiet: &Quiet,
) -> Result<()> {
    let scale = args.scale();
    if args.has_any(&[Part::Ramp, Part::Teardown]) {
        let held = Held::floor(programs, scale, &[])?;
        board.against("ramp", held.ramp_s);
        board.against("ramp_idle", held.ramp_s);
        board.against("ramp_cpu", held.ramp_cpu_s);
        board.against("ramp_idle_cpu", held.ramp_cpu_s);
        let gone = held.end()?;
        board.against("teardown", gone.seconds);
        host::settle()?;
    }
    if args.has_any(&[Part::Ramp, Part::Teardown]) {
        let held = Held::floor(programs, scale, &["--exchange"])?;
        board.against("ramp_exchange", held.ramp_s);
        board.against("ramp_exchange_cpu", held.ramp_cpu_s);
        let gone = held.end_in(Order::AtOnce)?;
        board.against("teardown_at_once", gone.seconds);
        host::settle()?;
    }
    if args.has_any(&[
        Part::Ramp,
        Part::Teardown,
        Part::MemoryUser,
        Part::MemoryKernel,
        Part::Idle,
        Part::Heartbeat,
        Part::States,
        Part::Holders,
        Part::Watch,
    ]) {
        traced(args, programs, board, quiet)?;
        host::settle()?;
    }
    if args.has_any(&[Part::Ramp, Part::Idle]) {
        idle(args, programs, board)?;
        host::settle()?;
    }
    if args.has(Part::MemoryUser) {
        nginx_memory(args, programs, board)?;
        host::settle()?;
    }
    Ok(())
}

fn traced(args: &Args, programs: &Programs, board: &mut Board, quiet: &Quiet) -> Result<()> {
    let scale = args.scale();
    let sample = scale.to_string();
    let asks = if args.has(Part::Heartbeat) { vec!["--sample", &sample] } else { Vec::new() };
    let foretold = look::foretold(programs, scale)?;
    let mut held = Held::ours(programs, scale, &["--trace"], &asks)?;
    board.value("ramp", held.ramp_s);
    board.value("ramp_cpu", held.ramp_cpu_s);
    board.value("ramp_exchange", held.ramp_s);
    board.value("ramp_exchange_cpu", held.ramp_cpu_s);
    if args.has(Part::Heartbeat) {
        heartbeat(&mut held, board)?;
    }
    if args.has_any(&[Part::MemoryUser, Part::MemoryKernel]) {
        memory(&held, board, quiet)?;
        board.value("doctor_memory", foretold);
    }
    if args.has(Part::Idle) {
        pause(CALM)?;
        let (cpu, _) = idleness(args, &held.server)?;
        board.value("idle_traced_cpu", cpu);
    }
    if args.has_any(&[Part::States, Part::Holders]) {
        look::whole(args, programs, board)?;
    }
    if args.has(Part::Watch) {
        look::watch(args, programs, board)?;
    }
    let gone = held.end()?;
    board.value("teardown", gone.seconds);
    board.value("teardown_at_once", gone.seconds);
    judge_end(&gone, board);
    Ok(())
}

/// Nothing may be left over, no connection lost, and no event dropped.
fn judge_end(gone: &Gone, board: &mut Board) {
    if gone.left > 0 {
        board.violation("teardown", format!("{} orphans or TIME_WAIT are left", gone.left));
    }
    let Some(summary) = &gone.summary else { return };
    match summary.dropped {
        Some(0) => board.note("ramp", "0 events dropped"),
        Some(dropped) => board.note("ramp", format!("{dropped} events dropped")),
        None => {}
    }
    for (name, count) in &summary.errors {
        // That is how the client ends them.
        if name != "connection ECONNRESET" {
            board.violation("ramp", format!("the server counted {count} × {name}"));
        }
    }
}

fn idle(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let held = Held::ours(programs, args.scale(), &["--quiet"], &["--idle"])?;
    board.value("ramp_idle", held.ramp_s);
    board.value("ramp_idle_cpu", held.ramp_cpu_s);
    if args.has(Part::Idle) {
        pause(CALM)?;
        let (cpu, wakeups) = idleness(args, &held.server)?;
        board.value("idle_cpu", cpu);
        board.value("idle_wakeups", wakeups);
    }
    let gone = held.end()?;
    if gone.left > 0 {
        board.violation("teardown", format!("{} orphans or TIME_WAIT are left", gone.left));
    }
    Ok(())
}

/// Percent of a core, and context switches a second.
fn idleness(args: &Args, server: &Child) -> Result<(f64, f64)> {
    let time = if args.quick { IDLE_QUICK } else { IDLE };
    let before = host::usage(server.pid())?;
    pause(time)?;
    let after = host::usage(server.pid())?;
    let seconds = time.as_secs_f64();
    let switches = f64::from(u32::try_from(after.switches - before.switches).unwrap_or(u32::MAX));
    Ok((100.0 * (after.cpu_s - before.cpu_s) / seconds, switches / seconds))
}

fn heartbeat(held: &mut Held, board: &mut Board) -> Result<()> {
    let sample = held.sampled()?;
    board.value("heartbeat", sample.took_s);
    // Unknown when one in a hundred was not answered, which is a violation below.
    if let Some(p99_us) = sample.latency_us.p99 {
        board.value("heartbeat_p99", per(p99_us, 1_000));
    }
    let lost = held.connections - sample.answered;
    match lost {
        0 => board.note("heartbeat", "each was answered, no connection was lost"),
        _ => board.violation("heartbeat", format!("{lost} were not answered")),
    }
    Ok(())
}

fn memory(held: &Held, board: &mut Board, quiet: &Quiet) -> Result<()> {
    let n = held.connections;
    let (server, client) =
        (host::pss_bytes(held.server.pid())?, host::pss_bytes(held.client.pid())?);
    board.value("memory_user", per(server, n));
    let grown = slabinfo::growth(&quiet.slab, &host::slab()?, n / 2);
    let objects: u64 = grown.iter().map(|it| it.objects * it.object_bytes).sum();
    let taken = per(quiet.growth()?, n);
    board.value("memory_kernel", taken);
    board.against("doctor_memory", taken);
    board.against("memory_kernel", per(objects + server + client, n));
    for it in grown {
        board.note(
            "memory_kernel",
            format!("{}: {:.2} objects of {} B", it.cache, per(it.objects, n), it.object_bytes),
        );
    }
    board.note(
        "memory_kernel",
        format!("user memory: server {:.1} B, client {:.1} B", per(server, n), per(client, n)),
    );
    Ok(())
}

fn nginx_memory(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let connections = NGINX_CONNECTIONS.min(args.scale());
    let nginx = Nginx::start(1)?;
    let mut client =
        programs.open(&nginx.address.to_string(), connections, &["--request", "/64"])?;
    super::ends::ramped(&mut client, connections)?;
    let pss: Result<Vec<u64>> = nginx.pids().into_iter().map(host::pss_bytes).collect();
    board.against("memory_user", per(pss?.iter().sum(), connections));
    board.note("memory_user", format!("nginx with {connections} connections in one process"));
    Ok(())
}
