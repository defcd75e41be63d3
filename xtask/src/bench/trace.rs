//! What tracing costs, and how late its events are.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use c1m_host::{
    guard::Change,
    sysctl::{Name, Tree},
};
use c1m_record::{Line, Record, Resolution};
use c1m_sys::process::page_bytes;

use super::{
    board::Board,
    child::Printed,
    cli::Args,
    ends::{Held, Programs},
    host::{self, Settings},
    requests,
    series::p99,
};

const BUSY: u64 = 64;
const PATH: &str = "/bytes/64";
/// New connections per second in a smoke test, so that its ramp is long enough for some events.
const RATE_QUICK: &str = "2000";
/// More pairs than runs, for a difference of a few percent.
const PAIRS_MORE: u32 = 2;
/// Queued at once by the pairs that make tcp_mem cross.
const SWING_BYTES: usize = 16 << 20;
/// Between two crossings: the server reports at most 16 a second.
const SWING: Duration = Duration::from_millis(70);
const SWING_PAIRS: usize = 64;

/// Pairs with and without --trace, the order of each pair turned round: ramps, and requests.
pub(crate) fn cost(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let connections = args.scale() / 4;
    for pair in 0..args.runs() + if args.quick { 0 } else { PAIRS_MORE } {
        let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
        for traced in order {
            let flags: &[&str] = if traced { &["--trace"] } else { &[] };
            let held = Held::ours(programs, connections, flags, &requests::LEAVE_PORTS)?;
            let url = format!("http://{}{PATH}", held.address);
            let load = requests::load(args, &[held.server.pid()], &url, BUSY)?;
            for (name, value) in [
                ("trace_ramp", held.ramp_s),
                ("trace_ramp_cpu", held.ramp_cpu_s),
                ("trace_requests", load.by_cpu_s),
            ] {
                match traced {
                    true => board.value(name, value),
                    false => board.against(name, value),
                }
            }
            held.end()?;
            host::settle()?;
        }
    }
    Ok(())
}

/// A ramp during which queued data swings about `low` of tcp_mem, past which nothing happens by itself.
pub(crate) fn delay(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let name = Name::new("net.ipv4.tcp_mem")?;
    let [_, pressure, high] = Tree::at(Tree::KERNEL).numbers::<3>(&name)?;
    let low = host::sockets()?.tcp_mem_pages + SWING_BYTES as u64 / page_bytes()? / 2;
    ensure!(low < pressure, "tcp_mem pressure is {pressure} pages, too low to stay below it");
    let pace: &[&str] = if args.quick { &["--rate", RATE_QUICK] } else { &[] };
    for _ in 0..args.runs() {
        let value = format!("{low} {pressure} {high}");
        let mut changes = Settings::needed(args.scale())?;
        changes.push(Change { name: name.clone(), value });
        let settings = Settings::set(&changes)?;
        let swing = Swing::start()?;
        let held = Held::ours(programs, args.scale(), &["--trace"], pace);
        drop(swing);
        drop(settings);
        let mut held = held?;
        let mut lines = held.server.drain();
        let gone = held.end()?;
        lines.extend(gone.lines);
        judge(&lines, gone.summary.and_then(|it| it.dropped), board)?;
        host::settle()?;
    }
    Ok(())
}

fn judge(lines: &[Printed], dropped: Option<u64>, board: &mut Board) -> Result<()> {
    let mut delays = Vec::new();
    for line in lines {
        let found: Line<Record> = serde_json::from_str(&line.text)
            .with_context(|| format!("`{}` is not understood", line.text))?;
        // What a look finds has the time of the look.
        if let Record::Crossing(crossing) = found.record
            && crossing.resolution != Resolution::Interval
        {
            let at = humantime::parse_rfc3339(&found.ts).context("a line has no time")?;
            // Microseconds are cut off, never rounded up; a clock that was set back meanwhile gives no delay.
            delays.extend(line.at.duration_since(at).map(|delay| 1e3 * delay.as_secs_f64()).ok());
        }
    }
    let delay = p99(&delays).context("nothing crossed tcp_mem low")?;
    board.value("event_delay", delay);
    board.note("event_delay", format!("{} events in a ramp", delays.len()));
    match dropped {
        Some(0) => board.note("event_delay", "0 dropped"),
        Some(dropped) => board.violation("event_delay", format!("{dropped} events dropped")),
        None => board.violation("event_delay", "the server does not say how many were dropped"),
    }
    Ok(())
}

/// Connections whose queues are filled and emptied, over and over.
struct Swing {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Swing {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port on loopback")?;
        let mut pairs = Vec::new();
        for _ in 0..SWING_PAIRS {
            let near = TcpStream::connect(listener.local_addr()?)?;
            let (far, _) = listener.accept()?;
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            pairs.push((near, far));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || swing(&mut pairs, &stop)
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Swing {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}

fn swing(pairs: &mut [(TcpStream, TcpStream)], stop: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let each = SWING_BYTES / SWING_PAIRS;
    while !stop.load(Relaxed) {
        for (near, _) in &mut *pairs {
            let mut left = each;
            // An error is a queue that is full, which is as good.
            while left > 0 && near.write(&buffer[..left.min(64 << 10)]).is_ok_and(|count| count > 0)
            {
                left = left.saturating_sub(64 << 10);
            }
        }
        thread::sleep(SWING);
        for (_, far) in &mut *pairs {
            while far.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
        thread::sleep(SWING);
    }
}
