//! All runs, one after the other: each with the lock on the host's settings, a thread of its own, and a judgement.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Once, atomic::Ordering::Relaxed},
    thread,
    time::{Instant, SystemTime},
};

use anyhow::Context as _;
use c1m_record::{Line, Record};
use c1m_sys::{confine, process::raise_nofile};
use c1m_testkit::{
    Settings, host,
    trip::{Step, Stop},
    wait::INTERRUPTED,
};
use c1m_text::escape;
use xtask_reproduce::signals;

use super::{
    Args,
    catalog::{FAULTS, Fault, Network},
    cli::Kernel,
    fixture::Fixture,
    guests,
    judge::{self, Counted, Told},
    other,
    record::{Faults, FaultsRecord, Run},
    report,
};
use crate::{debian, exit, place, process};

/// Runs the command.
pub(crate) fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::code(Err(error)),
    }
}

fn run(args: &Args) -> anyhow::Result<u8> {
    if args.list {
        for fault in FAULTS {
            process::say(report::listed(fault))?;
        }
        return Ok(0);
    }
    let (mut kernels, mut runs) = (Vec::new(), Vec::new());
    for kernel in &args.kernels {
        let tell = |run: Run| -> anyhow::Result<()> {
            tell(args, &run)?;
            runs.push(run);
            Ok(())
        };
        kernels.push(match kernel {
            Kernel::Running => here(args, tell)?,
            Kernel::Guest(wanted) => guests::run(args, wanted, tell)?,
        });
    }
    let faults = judge::add_up(&runs);
    let code = judge::exit_code(&faults);
    if args.json {
        print(FaultsRecord::Faults(Faults { kernels, faults }))?;
    } else {
        for line in report::table(&faults) {
            process::say(line)?;
        }
    }
    Ok(code)
}

/// Everything on the running kernel, whose release it returns.
fn here(args: &Args, mut tell: impl FnMut(Run) -> anyhow::Result<()>) -> anyhow::Result<String> {
    if !debian::is_root() {
        return Err(exit::refused(
            "faults are tripped with kernel settings and eBPF: run it as root",
        ));
    }
    static WATCHED: Once = Once::new();
    let mut watched = Ok(());
    WATCHED.call_once(|| watched = signals::watch(|| INTERRUPTED.store(true, Relaxed)));
    watched.context("cannot handle signals")?;
    raise_nofile().context("cannot raise the limit of open files")?;
    let server = server(args)?;
    let kernel = host::setting("kernel.osrelease");
    for fault in chosen(args) {
        for _ in 0..args.repeat {
            let run = once(fault, &kernel, &server, &args.without_hook)?;
            // It would be skipped for the same reason again.
            let is_skipped = run.skipped_because.is_some();
            tell(run)?;
            if INTERRUPTED.load(Relaxed) {
                return Err(exit::step(130, "interrupted"));
            }
            if is_skipped {
                break;
            }
        }
    }
    Ok(kernel)
}

fn chosen(args: &Args) -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().filter(|it| args.only.is_empty() || args.only.iter().any(|name| name == it.name))
}

fn tell(args: &Args, run: &Run) -> anyhow::Result<()> {
    if args.json {
        return print(FaultsRecord::Fault(Box::new(run.clone())));
    }
    report::told(run).iter().for_each(|line| eprintln!("{}", escape::line(line)));
    Ok(())
}

fn print(record: FaultsRecord) -> anyhow::Result<()> {
    process::say(serde_json::to_string(&Line::at(SystemTime::now(), record))?)
}

/// The program under test: the given one, the one beside this program where there is no cargo, or a fresh build.
fn server(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(program) = &args.server_program {
        return program.canonicalize().with_context(|| format!("no {}", program.display()));
    }
    let name = "c1m-server";
    if env::var_os("CARGO").is_none() {
        let beside = env::current_exe()?.with_file_name(name);
        anyhow::ensure!(
            beside.is_file(),
            "no {}: name one with --server-program",
            beside.display()
        );
        return Ok(beside);
    }
    let mut build = process::cargo();
    build.current_dir(place::root()).args(["build", "--release", "--package", name]);
    process::run("build the server", &mut build)?;
    Ok(place::target().join("release").join(name))
}

/// One run. An error is one of this program or of the host's; whatever is wrong with the fault is in the result.
fn once(
    fault: &'static Fault,
    kernel: &str,
    server: &Path,
    without_hook: &[String],
) -> anyhow::Result<Run> {
    let (mut settings, stale) = Settings::lock()?;
    for outcome in &stale {
        eprintln!("of an earlier run: {}", escape::line(&outcome.to_string()));
    }
    let start = Instant::now();
    // While there is a network: a namespace of one's own leads nowhere.
    let had = fault.subject.map_or(Ok(()), |kind| other::provide(kind).map(drop));
    let server = server.to_path_buf();
    // The servers die with the thread that started them, and its network namespace with both.
    let ended = thread::scope(|scope| {
        scope
            .spawn(|| match had {
                Ok(()) => trip(fault, &mut settings, server, without_hook),
                Err(stop) => Ended::stopped(stop),
            })
            .join()
            .unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Ended::stopped(Stop::wrong(format!("the driver panicked: {text}")))
            })
    });
    let mut run = judged(fault, kernel, ended);
    for outcome in settings.restore().iter().filter(|outcome| !outcome.is_back()) {
        run.wrong.push(outcome.to_string());
    }
    run.right = run.skipped_because.is_none().then_some(run.wrong.is_empty());
    run.elapsed_s = start.elapsed().as_secs_f64();
    Ok(run)
}

/// What came of a driver and its observer.
struct Ended {
    stop: Option<Stop>,
    records: Vec<Record>,
    counted: Vec<Counted>,
}

impl Ended {
    fn stopped(stop: Stop) -> Self {
        Self { stop: Some(stop), records: Vec::new(), counted: Vec::new() }
    }
}

fn trip(fault: &Fault, settings: &mut Settings, server: PathBuf, without_hook: &[String]) -> Ended {
    if fault.network == Network::Own
        && let Err(error) = confine::unshare_network()
    {
        return Ended::stopped(Stop::Skip(format!("no network namespace of its own: {error}")));
    }
    let mut fixture = match Fixture::new(settings, server, without_hook, fault.subject) {
        Ok(fixture) => fixture,
        Err(stop) => return Ended::stopped(stop),
    };
    let mut result: Step = (fault.trip)(&mut fixture);
    let (observer, counted) = fixture.end();
    let Some(mut observer) = observer else {
        let stop = result.err().unwrap_or_else(|| Stop::wrong("the driver started no observer"));
        return Ended::stopped(stop);
    };
    let finished = observer.finish();
    if result.is_ok() {
        result = finished;
    }
    Ended { stop: result.err(), records: observer.records().cloned().collect(), counted }
}

fn judged(fault: &Fault, kernel: &str, ended: Ended) -> Run {
    let told = Told::from(&ended.records);
    let counters =
        told.refused.as_ref().map(|it| judge::counters(it, &ended.counted)).unwrap_or_default();
    let (wrong, skipped_because) = match ended.stop {
        Some(Stop::Skip(reason)) => (Vec::new(), Some(reason)),
        // What the observer said of a fault that is not there is neither right nor wrong.
        Some(Stop::Wrong(text)) if ended.records.is_empty() => (vec![text], None),
        stop => {
            let mut wrong = judge::judge(fault.expect, &told, &counters);
            if let Some(Stop::Wrong(text)) = stop {
                wrong.insert(0, text);
            }
            (wrong, None)
        }
    };
    Run {
        name: fault.name.into(),
        kernel: kernel.into(),
        tier: told.tier(),
        expected: fault.expect.limit(),
        first: told.first(),
        right: None,
        counters,
        wrong,
        dropped_by: told.dropped_by.unwrap_or_default(),
        skipped_because,
        elapsed_s: 0.0,
        refused: told.refused,
        verdict: told.verdict,
    }
}
