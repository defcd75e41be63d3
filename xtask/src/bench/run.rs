//! The whole run: what it needs, each part, and the result.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Once, atomic::Ordering::Relaxed},
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use c1m_program::{replace::Place, writer::Patience};
use c1m_record::Line;
use c1m_sys::process::raise_nofile;
use c1m_text::escape;
use xtask_reproduce::signals;

use super::{
    Args,
    board::Board,
    child::INTERRUPTED,
    cli::Part,
    curve,
    ends::{Held, Programs},
    host::{self, Settings},
    look,
    record::{Bench, BenchRecord},
    report, requests,
    rounds::{self, Quiet},
    trace,
};
use crate::{debian, exit, place, process};

const PAGE: &str = "docs/benchmarks.md";

pub(crate) fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::code(Err(error)),
    }
}

fn run(args: &Args) -> Result<u8> {
    if !debian::is_root() {
        return Err(exit::refused("this attaches eBPF and reads /proc/slabinfo: run it as root"));
    }
    watch_signals()?;
    raise_nofile().context("cannot raise the limit of open files")?;
    let scale = args.scale();
    let most = if args.has(Part::RampDouble) { 2 * scale } else { scale };
    // Before minutes of work: what is measured has to go somewhere.
    let (path, mut output) = open_output(args)?;
    let programs = programs(args)?;
    if args.curve {
        return curve::run(args, &programs).map(|()| 0);
    }
    host::check_memory(scale)?;
    let load_average = host::load_average()?;
    let start = Instant::now();
    let mut board = Board::default();
    measure(args, &programs, &mut board, most)?;
    let bench = Bench {
        machine: host::machine()?,
        kernel: host::kernel()?,
        load_average,
        connections: scale,
        quick: args.quick,
        figures: board.figures(|part| args.has(part), !args.quick),
        elapsed_s: start.elapsed().as_secs_f64(),
    };
    publish(args, &bench, &path, &mut output)?;
    Ok(u8::from(bench.figures.iter().any(|figure| figure.median.is_none())))
}

/// The second signal ends this process; the kernel ends its programs then, and the next run puts the settings back.
fn watch_signals() -> Result<()> {
    static WATCHED: Once = Once::new();
    let mut watched = Ok(());
    WATCHED.call_once(|| {
        watched = signals::watch(|| {
            if INTERRUPTED.swap(true, Relaxed) {
                std::process::exit(130);
            }
        });
    });
    watched.context("cannot handle signals")
}

/// Release builds of all three. A smoke test takes this very program for the floor: it has no thresholds.
fn programs(args: &Args) -> Result<Programs> {
    let folder = match &args.programs {
        Some(folder) => {
            folder.canonicalize().with_context(|| format!("no {}", folder.display()))?
        }
        None => built(args)?,
    };
    let floor = match args.quick {
        true => env::current_exe()?,
        false => folder.join("xtask"),
    };
    Ok(Programs { server: folder.join("c1m-server"), client: folder.join("c1m-client"), floor })
}

/// Where they are, once they are built.
fn built(args: &Args) -> Result<PathBuf> {
    let build = |packages: &[&str]| {
        let mut build = process::cargo();
        build.current_dir(place::root()).args(["build", "--release"]);
        process::run("build what is measured", build.args(packages))
    };
    build(&["-p", "c1m-server", "-p", "c1m-client"])?;
    if !args.quick {
        // By itself: it wants features of the others that what is measured does not have.
        build(&["-p", "xtask"])?;
    }
    Ok(place::target().join("release"))
}

/// One part; what fails in it is the reason why its figures are missing, unless it is a signal.
fn part(
    board: &mut Board,
    parts: &[Part],
    name: &str,
    body: impl FnOnce(&mut Board) -> Result<()>,
) -> Result<()> {
    eprintln!("bench: {name}");
    let start = Instant::now();
    let result = body(board);
    eprintln!("bench: {name}: {:.1} s", start.elapsed().as_secs_f64());
    match result {
        Err(error) if INTERRUPTED.load(Relaxed) => Err(error),
        Err(error) => {
            let reason = format!("{error:#}");
            eprintln!("bench: {name}: {}", escape::paragraph(&reason));
            for part in parts {
                board.unmeasured(*part, &reason);
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What is measured round by round, with all connections.
const ROUNDS: [Part; 8] = [
    Part::Ramp,
    Part::MemoryUser,
    Part::MemoryKernel,
    Part::Teardown,
    Part::Idle,
    Part::States,
    Part::Holders,
    Part::Watch,
];

fn measure(args: &Args, programs: &Programs, board: &mut Board, most: u64) -> Result<()> {
    let settings = Settings::raise(most)?;
    let quiet = Quiet::look()?;
    let rounds: Vec<Part> = ROUNDS.into_iter().chain([Part::Heartbeat]).collect();
    if args.has_any(&rounds) {
        for round in 1..=args.runs() {
            let name = format!("round {round} of {}", args.runs());
            part(board, &rounds, &name, |board| rounds::round(args, programs, board, &quiet))?;
        }
    }
    if args.has_any(&[Part::States, Part::Holders]) {
        let parts = [Part::States, Part::Holders];
        part(board, &parts, "half of the connections", |board| {
            look::growth(args, programs, board)
        })?;
    }
    if args.has(Part::Holders) {
        part(board, &[Part::Holders], "lsof", |board| look::lsof(args, programs, board))?;
    }
    if args.has(Part::TraceCost) {
        part(board, &[Part::TraceCost], "cost of tracing", |board| {
            trace::cost(args, programs, board)
        })?;
    }
    // What that part changes besides is held by one guard at a time.
    drop(settings);
    if args.has(Part::EventDelay) {
        part(board, &[Part::EventDelay], "delay of events", |board| {
            trace::delay(args, programs, board)
        })?;
    }
    let _settings = Settings::raise(most)?;
    if args.has(Part::Requests) {
        part(board, &[Part::Requests], "requests", |board| {
            requests::measure(args, programs, board)
        })?;
    }
    if args.has(Part::RampDouble) {
        part(board, &[Part::RampDouble], "twice the connections", |board| {
            double(args, programs, board, &quiet)
        })?;
    }
    Ok(())
}

/// Once: it takes most of the memory, and of the time.
fn double(args: &Args, programs: &Programs, board: &mut Board, quiet: &Quiet) -> Result<()> {
    let connections = 2 * args.scale();
    host::check_memory(connections)?;
    let floor = Held::floor(programs, connections, &[])?;
    board.against("ramp_double", floor.ramp_s);
    floor.end()?;
    host::settle()?;
    board.value("doctor_memory_double", look::foretold(programs, connections)?);
    let ours = Held::ours(programs, connections, &["--trace"], &[])?;
    board.value("ramp_double", ours.ramp_s);
    board.against("doctor_memory_double", super::board::per(quiet.growth()?, connections));
    board.note("ramp_double", format!("{connections} connections"));
    let gone = ours.end()?;
    if gone.left > 0 {
        board.violation("ramp_double", format!("{} orphans or TIME_WAIT are left", gone.left));
    }
    host::settle()
}

/// Where the result is kept.
fn open_output(args: &Args) -> Result<(PathBuf, Place)> {
    let path = args.output.clone().unwrap_or_else(|| default_output(args));
    if args.output.is_none()
        && let Some(folder) = path.parent()
    {
        fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
    }
    let output = Place::open(&path).map_err(|error| unwritten(&path, &error))?;
    Ok((path, output))
}

fn unwritten(path: &Path, error: &io::Error) -> anyhow::Error {
    exit::refused(format!("cannot write {}: {error}", path.display()))
}

/// Keeps the result, and tells it.
fn publish(args: &Args, bench: &Bench, path: &Path, output: &mut Place) -> Result<()> {
    let line = Line::at(SystemTime::now(), BenchRecord::Bench(bench.clone()));
    let line = serde_json::to_string(&line)?;
    output
        .write(format!("{line}\n").as_bytes(), Some(Patience::END))
        .map_err(|error| unwritten(path, &error))?;
    if args.write_docs {
        report::write_docs(&place::root().join(PAGE), bench)?;
    }
    if args.json {
        return process::say(line);
    }
    report::text(bench).iter().try_for_each(process::say)
}

fn default_output(args: &Args) -> PathBuf {
    let name = if args.quick { "quick.json" } else { "bench.json" };
    place::target().join("bench").join(name)
}
