//! A server and a client that open no connection: they speak the contract, and share a folder in which the "kernel" is.
//!
//! The test program starts itself under the names [`SERVER`] and [`CLIENT`], by links beside a file `scenario`.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use c1m_record::{
    Crossing, Direction, Hooks, Level, Line, Listening, Online, Record, Refused, Resolution,
    Socket, Summary,
};
use serde_json::json;

pub(crate) const SERVER: &str = "fake-server";
pub(crate) const CLIENT: &str = "fake-client";
const STEP: Duration = Duration::from_millis(20);
const STEPS: u64 = 20;
/// Looks of a late server between two steps, of which there are ten: more than ten seconds in all.
const LATE_LINES: u64 = 60;
/// 7.53 KiB are 7711 bytes, in pages of 4096.
const PIN_BYTES: u64 = 7_711;

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Becomes server or client if this program was started under such a name.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let own = PathBuf::from(env::args_os().next()?);
    let folder = own.parent()?.to_owned();
    let role: fn(&Fixture) -> ExitCode = match own.file_name()?.to_str()? {
        SERVER => server,
        CLIENT => client,
        _ => return None,
    };
    let name = own.file_name()?.to_str()?.to_owned();
    fs::write(folder.join(format!("{name}.pid")), std::process::id().to_string()).ok()?;
    watch_sigterm();
    let scenario = fs::read_to_string(folder.join("scenario")).ok()?;
    Some(role(&Fixture { folder, scenario }))
}

fn watch_sigterm() {
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut sigterm =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            ready.send(()).unwrap();
            sigterm.recv().await;
            TERMINATED.store(true, Ordering::SeqCst);
        });
    });
    is_ready.recv().unwrap();
}

fn is_terminated() -> bool {
    TERMINATED.load(Ordering::SeqCst)
}

struct Fixture {
    folder: PathBuf,
    scenario: String,
}

impl Fixture {
    fn is(&self, scenario: &str) -> bool {
        self.scenario == scenario
    }

    /// Connections that the client has "opened".
    fn count(&self) -> u64 {
        fs::read_to_string(self.folder.join("count"))
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    fn set_count(&self, count: u64) {
        // By renaming: the other side never reads half a number.
        let new = self.folder.join("count.new");
        fs::write(&new, count.to_string()).unwrap();
        fs::rename(new, self.folder.join("count")).unwrap();
    }

    fn tcp_mem(&self) -> [u64; 3] {
        let text = fs::read_to_string(self.folder.join("proc/sys/net/ipv4/tcp_mem")).unwrap();
        let numbers: Vec<u64> =
            text.split_whitespace().map(|field| field.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    fn is_pinned(&self) -> bool {
        self.folder.join("pinned").exists()
    }
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

fn tell(record: &impl serde::Serialize) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{}", serde_json::to_string(record).unwrap());
}

fn server(fixture: &Fixture) -> ExitCode {
    if fixture.is("server refuses") {
        eprintln!("this kernel has no BTF");
        return ExitCode::from(3);
    }
    for needed in ["--trace", "--json"] {
        assert!(env::args().any(|argument| argument == needed), "{needed} is missing");
    }
    let wanted: u64 = argument("--max-connections").unwrap().parse().unwrap();
    let say = |record: Record| tell(&Line::at(SystemTime::now(), record));
    say(Record::Hooks(Hooks { kernel: "6.18".into(), hooks: Vec::new() }));
    say(Record::Listening(Listening {
        address: argument("--listen").unwrap(),
        workers: 2,
        capacity: 40_000,
        max_connections: Some(wanted),
        backlog: 4096,
        pid: std::process::id(),
        page_bytes: Some(4096),
        metrics: None,
    }));
    let mut peak = 0;
    let mut late = Late::default();
    let mut said = None;
    while !is_terminated() {
        let count = match fixture.is("server counts late") {
            true => late.count(fixture.count(), wanted),
            false => fixture.count(),
        };
        if fixture.is("server dies") && count > wanted / 2 {
            eprintln!("a worker panicked");
            return ExitCode::from(4);
        }
        if fixture.is_pinned() {
            for crossing in crossings(fixture, peak, count, wanted) {
                say(Record::Crossing(crossing));
            }
        }
        peak = count.max(peak);
        // A number that did not change is not said again.
        if said != Some(count) {
            say(Record::Online(online(count)));
        }
        said = Some(count);
        thread::sleep(STEP);
    }
    say(Record::Summary(summary(fixture, peak)));
    ExitCode::SUCCESS
}

/// A server on a slow host: it is behind with the last connections, and its count grows in steps for longer than it may pause.
#[derive(Default)]
struct Late {
    lines: u64,
}

impl Late {
    fn count(&mut self, count: u64, wanted: u64) -> u64 {
        if count < wanted {
            self.lines = 0;
            return count - count / 10;
        }
        self.lines += 1;
        (wanted - wanted / 10) + (self.lines / LATE_LINES * (wanted / 100)).min(wanted / 10)
    }
}

/// The crossings between two counts, each exactly where the plan has it.
fn crossings(fixture: &Fixture, from: u64, to: u64, wanted: u64) -> Vec<Crossing> {
    let limits = fixture.tcp_mem();
    let planned = wanted * PIN_BYTES / 4096;
    let late = if fixture.is("late crossing") { wanted / 50 } else { 0 };
    [Level::Low, Level::Pressure, Level::High]
        .into_iter()
        .zip(limits)
        .filter_map(|(level, limit_pages)| {
            let at = (from + 1..=to)
                .find(|n| n.saturating_sub(late) * planned / wanted > limit_pages)?;
            let before = from.saturating_sub(late) * planned / wanted;
            (before <= limit_pages).then(|| Crossing {
                limit: "tcp_mem".into(),
                level,
                direction: Direction::Up,
                limit_moved: false,
                pages: limit_pages + 1,
                limit_pages,
                tcp_mem: limits,
                connections: at,
                socket: Socket::default(),
                hook: "tp_btf/fake".into(),
                resolution: Resolution::Exact,
                pressure_age_ms: None,
                suppressed: 0,
            })
        })
        .collect()
}

fn online(count: u64) -> Online {
    Online {
        online: count,
        accepted: count,
        closed: 0,
        accepted_per_s: 0.0,
        pss_bytes: Some(count * 20),
        tcp_mem_pages: Some(0),
        connections: Some(count),
        dropped: Some(0),
    }
}

fn summary(fixture: &Fixture, peak: u64) -> Summary {
    Summary {
        held: 0,
        peak,
        accepted: peak,
        closed: peak,
        requests: None,
        errors: Default::default(),
        rss_bytes: None,
        pss_bytes: Some(peak * 20),
        user_bytes_per_connection: Some(20.0),
        cpu_user_s: 1.0,
        cpu_system_s: 2.0,
        elapsed_s: 3.0,
        sockstat: None,
        file_nr: None,
        refused: Some(Box::new(Refused { forced_first_skb: 7, ..Refused::default() })),
        dropped: Some(if fixture.is("lost events") || fixture.is("uncounted refusals") {
            3
        } else {
            0
        }),
        dropped_by: fixture
            .is("uncounted refusals")
            .then(|| ("tp_btf/sock_exceed_buf_limit".into(), 3))
            .into_iter()
            .collect(),
        suppressed: Some(0),
        not_shown: Some(0),
        lines_dropped: 0,
    }
}

fn client(fixture: &Fixture) -> ExitCode {
    let wanted: u64 = argument("--connections").unwrap().parse().unwrap();
    let say = |record: serde_json::Value| {
        let mut line = json!({"v": 1, "ts": "2026-01-01T00:00:00.000000Z"});
        line.as_object_mut().unwrap().extend(record.as_object().unwrap().clone());
        tell(&line);
    };
    let pinned = fixture.folder.join("pinned");
    let pin = argument("--pin").map(|pin| {
        assert_eq!(pin, "7.53K");
        fs::write(&pinned, "").unwrap();
        let pages = wanted * PIN_BYTES / 4096;
        json!({"bytes_per_connection": PIN_BYTES, "overhead_bytes": 832, "planned_pages": pages, "plan": [
            {"pages": 2, "response_bytes": 7000, "connections": pages - wanted},
            {"pages": 1, "response_bytes": 3000, "connections": 2 * wanted - pages}]})
    });
    say(json!({"kind": "plan", "connections": wanted, "capacity": wanted, "pin": pin}));
    let reached = if fixture.is("short client") { wanted - 1 } else { wanted };
    for step in 1..=STEPS {
        let count = reached * step / STEPS;
        fixture.set_count(count);
        say(
            json!({"kind": "progress", "established": count, "answered": count, "failed": 0, "rate_per_s": 1.0}),
        );
        if step == STEPS / 2 + 1 {
            halfway(fixture);
        }
        thread::sleep(STEP);
    }
    say(
        json!({"kind": "ramped", "established": reached, "answered": reached, "failed": 0, "ramp_s": 0.4}),
    );
    let asked: u64 = argument("--sample").unwrap().parse().unwrap();
    say(json!({"kind": "sample", "asked": asked, "answered": asked}));
    while !is_terminated() {
        thread::sleep(STEP);
    }
    fixture.set_count(0);
    let _ = fs::remove_file(pinned);
    say(json!({"kind": "summary", "connected": reached, "held_at_end": reached}));
    ExitCode::from(u8::from(reached < wanted))
}

/// Where the scenarios of a broken client, and of one that is waited with, part from the others.
fn halfway(fixture: &Fixture) {
    if fixture.is("client dies") {
        eprintln!("out of addresses");
        std::process::exit(4);
    }
    if fixture.is("garbage from the client") {
        println!("not a record");
    }
    while fixture.is("stands still") && !is_terminated() {
        thread::sleep(STEP);
    }
}

/// Links both programs into a folder.
pub(crate) fn install(folder: &Path) {
    let own = env::current_exe().unwrap();
    for name in [SERVER, CLIENT] {
        std::os::unix::fs::symlink(&own, folder.join(name)).unwrap();
    }
}
