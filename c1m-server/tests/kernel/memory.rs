//! Crossings of tcp_mem and what follows above high, compared with the test's own sockets and the kernel's counters.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use c1m_record::{
    Crossing, Direction, Level, Pressure, Record, Refusal, Refused, Resolution, Summary,
};
use c1m_sys::{process::page_bytes, socket::mem_info};

use c1m_testkit::{
    Settings, Skip,
    host::{reserve_pages, until_quiet},
    net::ask,
    trip, undisturbed,
};

use crate::{
    host::{cpus, reset, sockets},
    server::{Server, needs_ebpf},
};

const INTERVAL: Duration = Duration::from_millis(50);
/// Of the one connection that is being opened: its request and its response, at both ends.
const IN_FLIGHT_PAGES: u64 = 16;
/// Connections that ask once more, above high.
const AGAIN: usize = 200;
/// Of each limit, side and cgroup, one after the other, and another one each ten seconds; see docs/events.md.
const EXAMPLES: usize = 8;
const LEVELS: [Level; 3] = [Level::Low, Level::Pressure, Level::High];

pub(crate) fn crossings_and_refusals() -> Result<(), Skip> {
    needs_ebpf()?;
    let scale = cpus().max(2);
    let limits = [512 * scale, 768 * scale, 1024 * scale];
    // tcp_mem is the host's: another program that queues data moves the crossings, or loses data between two readings.
    undisturbed(|| {
        let run = Run::watch(limits)?;
        // These hold whatever others do.
        check_crossings(&run);
        check_refusals(&run);
        check_summary(&run);
        Ok(nothing_lost(&run).and_then(|()| where_planned(&run)).and_then(|()| as_counted(&run)))
    })
}

/// One run: up past high, drops there, and down again.
struct Run {
    limits: [u64; 3],
    /// Usage before the first connection.
    baseline_pages: u64,
    /// `pages[n]`: of the first n connections, by their own SO_MEMINFO.
    pages: Vec<u64>,
    crossings: Vec<Crossing>,
    refusals: Vec<Refusal>,
    pressures: Vec<Pressure>,
    summary: Summary,
    server: (u32, SocketAddr),
}

impl Run {
    fn watch(limits: [u64; 3]) -> Result<Self, Skip> {
        let mut settings = Settings::take()?;
        until_quiet().unwrap();
        let mut server = Server::start(&["--interval", &format!("{}ms", INTERVAL.as_millis())])?;
        for signal in ["connections", "refusals", "usage_falls", "dropped_segments"] {
            server.needs(signal)?;
        }
        let [low, pressure, high] = limits;
        settings.set(&[("net.ipv4.tcp_mem", format!("{low} {pressure} {high}"))])?;
        // The server looks at usage under the new limits, so that what comes next is not for them alone.
        thread::sleep(4 * INTERVAL);
        let baseline_pages = sockets().tcp_mem_pages;
        let pages = high + reserve_pages().unwrap() + IN_FLIGHT_PAGES;
        let count = usize::try_from(pages / 2 + 30).unwrap();
        let (mut streams, pages) = pin(server.address, count);
        wait_for_crossing(&mut server, Level::High, Direction::Up);
        drop_some(&mut server, &mut streams);
        // A reset takes the peer's queues with it: nothing is sent again from here on.
        streams.into_iter().for_each(reset);
        wait_for_crossing(&mut server, Level::Low, Direction::Down);
        settings.put_back();
        thread::sleep(Duration::from_millis(200));
        let summary = server.finish();
        let of_server = (server.pid(), server.address);
        let records = std::mem::take(&mut server.lines).into_iter().map(|line| line.record);
        let (mut crossings, mut refusals, mut pressures) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Crossing(crossing) => crossings.push(crossing),
                Record::Refusal(refusal) => refusals.push(refusal),
                Record::Pressure(pressure) => pressures.push(pressure),
                _ => {}
            }
        }
        let server = of_server;
        Ok(Self { limits, baseline_pages, pages, crossings, refusals, pressures, summary, server })
    }

    fn refused(&self) -> &Refused {
        self.summary.refused.as_ref().unwrap()
    }

    fn kernel(&self, name: &str) -> u64 {
        self.refused().kernel[name]
    }
}

/// Opens connections, each with an unread response, one after the other. With the pages of the first 0, 1, 2, … of them.
fn pin(address: SocketAddr, count: usize) -> (Vec<TcpStream>, Vec<u64>) {
    let page = page_bytes().unwrap();
    let (mut streams, mut pages) = (Vec::new(), vec![0]);
    for n in 0..count {
        let stream = trip::unread(address).unwrap();
        let memory = mem_info(stream.as_raw_fd()).unwrap();
        let bytes = u64::from(memory.rmem_alloc + memory.wmem_queued + memory.fwd_alloc);
        pages.push(pages[n] + bytes.div_ceil(page));
        streams.push(stream);
    }
    (streams, pages)
}

fn wait_for_crossing(server: &mut Server, level: Level, direction: Direction) {
    server.wait_for_any(&format!("crossing of {level:?} {direction:?}"), |record| match record {
        Record::Crossing(crossing) => {
            (crossing.level == level && crossing.direction == direction).then_some(())
        }
        _ => None,
    });
}

/// A second response finds a queue that is not empty, and usage above high: it is dropped.
fn drop_some(server: &mut Server, streams: &mut [TcpStream]) {
    for stream in streams.iter_mut().take(AGAIN) {
        ask(stream, trip::TWO_PAGES).unwrap();
    }
    server.wait_for("drops", |record| match record {
        Record::Refused(refused) => refused.dropped_skb.filter(|dropped| *dropped >= AGAIN as u64),
        _ => None,
    });
}

/// Each crossing by itself, and their order.
fn check_crossings(run: &Run) {
    let Run { limits, crossings, .. } = run;
    for crossing in crossings {
        let limit = limits[crossing.level as usize];
        assert_eq!((crossing.tcp_mem, crossing.limit_pages), (*limits, limit), "{crossing:?}");
        assert_eq!(crossing.pages > limit, crossing.direction == Direction::Up, "{crossing:?}");
        assert_eq!(crossing.limit, "tcp_mem");
        let resolution = match crossing.hook.rsplit('/').next() {
            Some(
                "sock_exceed_buf_limit"
                | "__sk_mem_raise_allocated"
                | "sk_forced_mem_schedule"
                | "tcp_enter_memory_pressure"
                | "tcp_leave_memory_pressure",
            ) => Resolution::Exact,
            Some("inet_sock_set_state" | "tcp_destroy_sock") => Resolution::Connection,
            Some("sockstat") => Resolution::Interval,
            _ => panic!("crossing by {}", crossing.hook),
        };
        assert_eq!(crossing.resolution, resolution, "{crossing:?}");
        let is_in_a_call = crossing.socket.pid.is_some();
        assert_eq!(is_in_a_call, crossing.socket.comm.is_some(), "{crossing:?}");
        if crossing.resolution != Resolution::Exact {
            assert!(!is_in_a_call, "{crossing:?}");
        }
        if crossing.resolution != Resolution::Interval {
            assert!(crossing.socket.netns.is_some(), "{crossing:?}");
        }
    }
    let firsts = LEVELS.map(|level| place(crossings, level, Direction::Up, false));
    assert!(firsts.is_sorted() && firsts[0].is_some(), "{crossings:?}");
    let lasts = LEVELS.map(|level| place(crossings, level, Direction::Down, true));
    assert!(
        lasts.iter().rev().is_sorted() && lasts[0] == Some(crossings.len() - 1),
        "{crossings:?}"
    );
}

fn place(crossings: &[Crossing], level: Level, direction: Direction, last: bool) -> Option<usize> {
    let is_it = |it: &Crossing| it.level == level && it.direction == direction;
    let place =
        if last { crossings.iter().rposition(is_it) } else { crossings.iter().position(is_it) };
    assert!(place.is_some(), "no crossing of {level:?} {direction:?}: {crossings:?}");
    place
}

/// The first refusals of each limit and side, with their sockets and, for a sender's call, its process.
fn check_refusals(run: &Run) {
    let (pid, address) = run.server;
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut by_server = 0;
    for refusal in &run.refusals {
        *counts.entry((&refusal.limit, &refusal.side)).or_default() += 1;
        assert_eq!(refusal.hook, "tp_btf/sock_exceed_buf_limit");
        assert_eq!(refusal.tcp_mem, run.limits, "{refusal:?}");
        assert_eq!(refusal.limit == "tcp_mem_high", refusal.pages > run.limits[2], "{refusal:?}");
        let socket = &refusal.socket;
        let is = |end: &Option<String>| *end == Some(address.to_string());
        if refusal.side == "receive" {
            assert_eq!((socket.pid, &socket.comm), (None, &None), "{refusal:?}");
        } else if is(&socket.local) {
            by_server += 1;
            assert_eq!(socket.pid, Some(pid), "{refusal:?}");
            // The name is that of the thread.
            assert!(socket.comm.as_ref().unwrap().starts_with("worker-"), "{refusal:?}");
        } else if is(&socket.remote) {
            assert_eq!(socket.pid, Some(std::process::id()), "{refusal:?}");
        }
    }
    for side in ["send", "receive"] {
        let count = counts.get(&("tcp_mem_high", side)).copied().unwrap_or(0);
        let counted =
            if side == "send" { run.refused().high_send } else { run.refused().high_receive };
        assert!(count >= EXAMPLES && count as u64 <= counted, "{counts:?} of {counted}");
    }
    assert!(by_server > 0, "{:?}", run.refusals);
}

/// Totals: nobody left, and no fewer refusals than were reported one by one.
fn check_summary(run: &Run) {
    let Run { summary, pages, .. } = run;
    let refused = run.refused();
    assert_eq!((summary.held, summary.accepted), (0, pages.len() as u64 - 1), "{summary:?}");
    assert!(refused.high_receive >= refused.forced_first_skb, "{refused:?}");
    assert!(refused.high_receive >= AGAIN as u64, "{refused:?}");
    // Above high the sender of each second response was refused.
    assert!(refused.high_send >= AGAIN as u64 / 2, "{refused:?}");
    assert!(run.kernel("TCPMemoryPressures") >= 1, "{refused:?}");
}

/// The kernel skips a program that an interrupt finds running, which is rare, and which no test can rule out.
fn nothing_lost(run: &Run) -> Result<(), String> {
    let Summary { dropped, dropped_by, .. } = &run.summary;
    if *dropped == Some(0) && dropped_by.is_empty() {
        return Ok(());
    }
    Err(format!("events were lost: {dropped:?}, {dropped_by:?}"))
}

/// Pages and connections at each first crossing, compared with what the test's own sockets hold.
fn where_planned(run: &Run) -> Result<(), String> {
    let slack = reserve_pages().unwrap() + IN_FLIGHT_PAGES;
    for level in LEVELS {
        let up = place(&run.crossings, level, Direction::Up, false);
        let crossing = &run.crossings[up.unwrap()];
        let own = usize::try_from(crossing.connections).ok().and_then(|n| run.pages.get(n));
        let off = own.map(|own| crossing.pages.abs_diff(run.baseline_pages + own));
        if off.is_none_or(|off| off > slack) {
            return Err(format!("{own:?} + {} pages, but {crossing:?}", run.baseline_pages));
        }
        // Above high each allocation is refused, unless it is forced, as that of a FIN is: of such the test has none.
        let address = Some(run.server.1.to_string());
        let is_ours = [&crossing.socket.local, &crossing.socket.remote].contains(&&address);
        let is_exact = crossing.resolution == Resolution::Exact;
        if crossing.limit_moved || level == Level::High && is_ours && !is_exact {
            return Err(format!("not by an allocation: {crossing:?}"));
        }
    }
    Ok(())
}

/// Counts of the kernel programs, compared with the kernel's own.
fn as_counted(run: &Run) -> Result<(), String> {
    let refused = run.refused();
    let drops = run.kernel("TCPRcvQDrop") + run.kernel("TCPOFODrop");
    if refused.dropped_skb != Some(drops) {
        return Err(format!("drops differ: {refused:?}"));
    }
    // None of these sockets is full: the host's memory is what they had no room in.
    if let (Some(of_host), Some(of_socket)) =
        (refused.dropped_tcp_mem, refused.dropped_receive_buffer)
        && (of_host, of_socket) != (drops, 0)
    {
        return Err(format!("dropped for another reason: {refused:?}"));
    }
    pressure_as_counted(run)?;
    // The kernel enters pressure once, until usage is below low again, however often it swings around the limit.
    let (mut entries, mut is_under_pressure) = (0, false);
    for crossing in &run.crossings {
        match (crossing.level, crossing.direction) {
            (Level::Pressure, Direction::Up) if !is_under_pressure => {
                (entries, is_under_pressure) = (entries + 1, true);
            }
            (Level::Low, Direction::Down) => is_under_pressure = false,
            _ => {}
        }
    }
    let (counted, suppressed) = (run.kernel("TCPMemoryPressures"), run.summary.suppressed);
    if entries > counted || counted > entries + suppressed.unwrap_or(0) {
        return Err(format!(
            "{entries} entries into pressure, {suppressed:?} not reported: {refused:?}"
        ));
    }
    Ok(())
}

/// Where functions can be hooked: each period of memory pressure, as the kernel itself counts and times them.
fn pressure_as_counted(run: &Run) -> Result<(), String> {
    let refused = run.refused();
    let (Some(entries), Some(by_allocator), Some(exits), Some(ms)) = (
        refused.pressure_entries,
        refused.pressure_entries_allocator,
        refused.pressure_exits,
        refused.pressure_ms,
    ) else {
        return Ok(());
    };
    let (counted, chrono) =
        (run.kernel("TCPMemoryPressures"), run.kernel("TCPMemoryPressuresChrono"));
    // The kernel's clock for it is jiffies: up to 10 ms each, at either end.
    let is_timed = ms.abs_diff(chrono) <= 20 * exits;
    if (entries + by_allocator, exits) != (counted, counted) || by_allocator > 0 || !is_timed {
        return Err(format!("periods of pressure differ: {refused:?}"));
    }
    let reported =
        |direction| run.pressures.iter().filter(|it| it.direction == direction).count() as u64;
    let (began, ended) = (reported(Direction::Up), reported(Direction::Down));
    if began + ended + run.summary.suppressed.unwrap_or(0) < entries + exits || began > entries {
        return Err(format!("{:?} are not reported: {refused:?}", run.pressures));
    }
    for pressure in &run.pressures {
        let is_up = pressure.direction == Direction::Up;
        assert_eq!(pressure.cause.as_deref(), is_up.then_some("tcp_mem"), "{pressure:?}");
        assert_eq!(pressure.duration_ms.is_some(), !is_up, "{pressure:?}");
        assert!(!is_up || pressure.pages > run.limits[1], "{pressure:?}");
    }
    // What is taken above high without asking is a page at least of each first skb there.
    assert!(refused.forced_above_high.is_some_and(|forced| forced > 0), "{refused:?}");
    Ok(())
}
