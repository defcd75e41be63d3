//! What looking at all sockets costs: states, holders and watch, beside ss and lsof.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use c1m_record::{Line, Record, Watching};
use socket2::{Domain, Socket, Type};

use super::{
    board::Board,
    child::{Child, check_interrupted, pause, record, rest, start},
    cli::{Args, Part},
    ends::{Held, Programs},
    host,
    series::p99,
};
use crate::{bench::board::per, debian};

/// A watch is looked at for so long, after it has counted what is there already.
const WATCH: Duration = Duration::from_secs(20);
const WATCH_QUICK: Duration = Duration::from_secs(2);
const SCRAPES: usize = 200;
const SCRAPES_QUICK: usize = 20;
const BETWEEN_SCRAPES: Duration = Duration::from_millis(20);
/// Connections of the process that lsof is asked about.
const LSOF_CONNECTIONS: u64 = 16_000;

/// Runs it to its end, its output thrown away behind a pipe: seconds.
fn timed(command: &mut Command) -> Result<f64> {
    check_interrupted()?;
    let name = command.get_program().display().to_string();
    let start = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let seconds = start.elapsed().as_secs_f64();
    // lsof ends with 1 when one of several things that it was asked for is not there, with output all the same.
    ensure!(!output.stdout.is_empty(), "{name} ended with {}, without output", output.status);
    Ok(seconds)
}

/// Seconds of one of our own commands.
pub(crate) fn ours(programs: &Programs, what: &str) -> Result<f64> {
    timed(programs.server().args([what, "--json"]))
}

fn ss(flags: &str) -> Result<f64> {
    let program = debian::program("ss", &["iproute2"])?;
    timed(debian::command(&program).arg(flags))
}

/// What the doctor says that a connection will take with both ends here, in bytes.
pub(crate) fn foretold(programs: &Programs, connections: u64) -> Result<f64> {
    let mut doctor = programs.server();
    doctor.args(["doctor", "--json", "--role", "both", "--connections"]);
    let output = doctor.arg(connections.to_string()).output().context("cannot run the doctor")?;
    let line = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    let line: Line<Record> = serde_json::from_slice(line.context("the doctor said nothing")?)?;
    let Record::Doctor(doctor) = line.record else { bail!("the doctor ends with another record") };
    Ok(per(doctor.memory.bytes, connections))
}

/// With all connections open.
pub(crate) fn whole(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let sockets = host::sockets()?.alloc;
    if args.has(Part::States) {
        board.value("states", ours(programs, "states")?);
        board.against("states", ss("-tan")?);
        board.note("states", format!("{sockets} sockets"));
    }
    if args.has(Part::Holders) {
        let seconds = ours(programs, "holders")?;
        board.value("holders", seconds);
        board.against("holders", ss("-tmp")?);
        board.value("holders_lsof", 1e6 * seconds / per(sockets, 1));
        board.note("holders", format!("{sockets} sockets"));
    }
    Ok(())
}

/// Opens half of the connections, and holds what it takes then against what it takes with all of them.
pub(crate) fn growth(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let held = Held::ours(programs, args.scale() / 2, &["--quiet"], &["--idle"])?;
    let sockets = host::sockets()?.alloc;
    for (part, what, name) in
        [(Part::States, "states", "states_growth"), (Part::Holders, "holders", "holders_growth")]
    {
        if !args.has(part) {
            continue;
        }
        // Two sockets a connection, and some of the rest of the host that are none of it.
        let all_by_socket: Vec<f64> =
            board.values(what).iter().map(|seconds| seconds / per(2 * args.scale(), 1)).collect();
        for all in all_by_socket {
            let half = ours(programs, what)? / per(sockets, 1);
            board.value(name, all / half);
        }
    }
    held.end()?;
    Ok(())
}

/// lsof goes through every descriptor of every thread: sockets of one table are enough to tell what one costs.
pub(crate) fn lsof(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let connections = LSOF_CONNECTIONS.min(args.scale());
    let held = Held::ours(
        programs,
        connections,
        &["--quiet", "--workers", "1"],
        &["--idle", "--workers", "1"],
    )?;
    let program = debian::program("lsof", &["lsof"])?;
    let sockets = host::sockets()?.alloc;
    for _ in 0..args.runs() {
        let seconds = timed(debian::command(&program).args(["-nP", "-iTCP", "-K"]))?;
        board.against("holders_lsof", 1e6 * seconds / per(sockets, 1));
    }
    board.note("holders_lsof", format!("lsof with {sockets} sockets: with all it is too slow"));
    held.end()?;
    Ok(())
}

/// What a watch costs while nothing happens.
pub(crate) fn watch(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let (watch, _) = watching(programs, &[])?;
    let time = if args.quick { WATCH_QUICK } else { WATCH };
    let before = host::usage(watch.pid())?;
    pause(time)?;
    let after = host::usage(watch.pid())?;
    board.value("watch", 100.0 * (after.cpu_s - before.cpu_s) / time.as_secs_f64());
    ended(watch)?;
    scrapes(args, programs, board)
}

/// A watch that has counted what is there, which it does before it says what it watches.
fn watching(programs: &Programs, flags: &[&str]) -> Result<(Child, Watching)> {
    let mut command = programs.server();
    let mut watch = start(command.args(["watch", "--json"]).args(flags))?;
    let watching = watch.wait_for("it watched", |line| {
        anyhow::Ok(match record(line)? {
            Record::Watching(watching) => Some(watching),
            _ => None,
        })
    })?;
    Ok((watch, watching))
}

fn ended(mut watch: Child) -> Result<()> {
    watch.signal(libc::SIGTERM)?;
    rest(&mut watch).map(drop)
}

/// What it takes to get a page of metrics of a watch.
fn scrapes(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let (watch, watching) = watching(programs, &["--metrics-addr", "127.0.0.1:0"])?;
    let url = watching.metrics.context("the watch has no metrics")?;
    let address = url.split('/').nth(2).context("a URL without a host")?.parse()?;
    // A page from before its first look has nothing to say.
    while !scrape(address)?.contains("\nc1m_tcp_mem_bytes") {
        pause(BETWEEN_SCRAPES)?;
    }
    let mut took = Vec::new();
    for _ in 0..if args.quick { SCRAPES_QUICK } else { SCRAPES } {
        let start = Instant::now();
        let page = scrape(address)?;
        took.push(1e3 * start.elapsed().as_secs_f64());
        ensure!(page.contains("\nc1m_tcp_mem_bytes"), "no page of metrics: {page}");
        pause(BETWEEN_SCRAPES)?;
    }
    board.value("scrape", p99(&took).context("nothing was scraped")?);
    board.note(
        "scrape",
        format!("{} scrapes beside {} sockets", took.len(), host::sockets()?.alloc),
    );
    ended(watch)
}

/// From an address that no load comes from: beside a client that uses every port a `connect` that chooses one itself finds none.
fn scrape(address: SocketAddr) -> Result<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // The exporter ends the connection; what the end of all connections leaves is looked at later.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect(&address.into()).context("cannot connect to the metrics")?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
