//! Full tables, full pools, and what becomes of the connections that wait.

use std::{collections::HashSet, io::Write as _, net::TcpStream, time::Duration};

use c1m_record::Record;
use c1m_sys::process::raise_nofile;

use crate::support::*;

/// Asks on all, then looks for the answers: `true` for each that came.
fn ask_all(streams: &mut [TcpStream]) {
    for stream in &mut *streams {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    for stream in streams {
        expect(stream, STREAM_HEAD);
    }
}

#[test]
fn twelve_thousand_connections_in_tables_of_1500() {
    const CONNECTIONS: usize = 12_000;
    raise_nofile().unwrap();
    let wanted = CONNECTIONS.to_string();
    let mut program =
        Program::start(Some(1500), &["--max-connections", &wanted, "--interval", "100ms"]);
    assert_eq!(program.listening.page_bytes, Some(c1m_sys::process::page_bytes().unwrap()));
    assert!(program.listening.workers >= 9, "{:?}", program.listening);
    assert!(program.listening.capacity >= CONNECTIONS as u64);

    let mut streams: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
    while streams.len() < CONNECTIONS {
        let mut some: Vec<_> = (0..100).map(|_| connect(program.address)).collect();
        ask_all(&mut some);
        streams.append(&mut some);
    }
    program.wait_for("all of them", |record| match record {
        Record::Online(online) => (online.online == CONNECTIONS as u64).then_some(()),
        Record::Warning(warning) => panic!("{warning:?}"),
        _ => None,
    });
    // Nobody was pushed out by somebody else.
    for stream in streams.iter_mut().step_by(7) {
        ask_again(stream);
    }
    let summary = program.finish();
    let all = CONNECTIONS as u64;
    assert_eq!((summary.held, summary.peak, summary.accepted, summary.closed), (all, all, all, 0));
    assert!(summary.errors.is_empty(), "no table was ever full: {:?}", summary.errors);
    assert!(summary.user_bytes_per_connection.is_some_and(|bytes| bytes > 0.0));
}

#[test]
fn full_tables_keep_what_is_queued_and_come_back() {
    let mut program = Program::start(Some(256), &["--workers", "2", "--interval", "100ms"]);
    let capacity = usize::try_from(program.listening.capacity).unwrap();
    assert_eq!(capacity, 2 * (256 - 7));
    // One after the other, so that every worker has said how much room it has before the next one comes.
    let mut held: Vec<TcpStream> = (0..capacity)
        .map(|_| {
            let mut stream = connect(program.address);
            ask(&mut stream);
            stream
        })
        .collect();

    let mut waiting: Vec<TcpStream> = (0..30).map(|_| connect(program.address)).collect();
    for stream in &mut waiting {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    assert_eq!(program.wait_for("warning", only!(Record::Warning)).name, "EMFILE");

    // A worker that tried again and again would use up its second.
    let before = program.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let spent = program.cpu_ticks() - before;
    assert!(spent < 50, "{spent} of 100 ticks for a server that can do nothing");
    assert!(waiting.iter_mut().all(is_silent), "answered without room, or reset");

    // Every third leaves: room in both tables.
    let mut index = 0;
    held.retain(|_| {
        index += 1;
        index % 3 != 0
    });
    for stream in &mut waiting {
        expect(stream, STREAM_HEAD);
    }
    held.append(&mut waiting);
    // Both workers take new ones again, up to the last descriptor.
    while held.len() < capacity {
        let mut stream = connect(program.address);
        ask(&mut stream);
        held.push(stream);
    }
    held.iter_mut().for_each(ask_again);
    let summary = program.finish();
    assert_eq!((summary.held, summary.peak), (capacity as u64, capacity as u64));
    let names: HashSet<&str> = summary.errors.keys().map(String::as_str).collect();
    assert!(names.contains("accept EMFILE"), "{:?}", summary.errors);
    assert!(
        names.is_subset(&HashSet::from(["accept EMFILE", "connection ECONNRESET"])),
        "{:?}",
        summary.errors
    );
}

#[test]
fn the_cap_is_reached_exactly_and_recovered() {
    const CAP: usize = 300;
    let server = start(4, Some(CAP as u64));
    let mut held: Vec<TcpStream> = (0..CAP).map(|_| connect(server.address())).collect();
    ask_all(&mut held);
    assert_eq!(server.snapshot().held, CAP as u64);

    let mut waiting: Vec<TcpStream> = (0..100).map(|_| connect(server.address())).collect();
    for stream in &mut waiting {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(waiting.iter_mut().all(is_silent));
    assert_eq!(server.snapshot().held, CAP as u64);

    // One place at a time: each goes to one that waits, on whichever worker that is.
    let mut answered = HashSet::new();
    for _ in 0..waiting.len() {
        drop(held.pop());
        until("a waiting connection is answered", || {
            (0..waiting.len())
                .any(|at| !answered.contains(&at) && !is_empty(&waiting[at]) && answered.insert(at))
        });
    }
    for stream in &mut waiting {
        expect(stream, STREAM_HEAD);
        ask_again(stream);
    }
    let now = server.snapshot();
    assert_eq!((now.held, now.peak), (CAP as u64, CAP as u64));
}

fn is_empty(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let result = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    result.is_err()
}

#[test]
fn a_churn_of_clients_never_exceeds_the_cap_and_none_starves() {
    const CAP: u64 = 40;
    let server = start(3, Some(CAP));
    let address = server.address();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..60 {
                    let mut streams: Vec<_> = (0..4).map(|_| connect(address)).collect();
                    streams.iter_mut().for_each(ask);
                }
            })
        })
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        let held = server.snapshot().held;
        assert!(held <= CAP, "{held}");
        std::thread::sleep(Duration::from_millis(1));
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    until("all are closed", || server.snapshot().held == 0);
    let now = server.snapshot();
    assert_eq!((now.accepted, now.closed), (8 * 60 * 4, 8 * 60 * 4));
    assert!(now.peak <= CAP);
}

#[test]
fn a_lowered_limit_is_a_full_table_and_not_a_busy_loop() {
    let mut program = Program::start(Some(1024), &["--workers", "1", "--quiet"]);
    let mut first = connect(program.address);
    ask(&mut first);
    // From outside, while it runs: only the worker's epoll (3) and the first connection (4) are below it, because its
    // listener and what else it got from the main thread have higher numbers.
    let pid = program.pid().to_string();
    let lowered = std::process::Command::new("prlimit")
        .args(["--pid", &pid, "--nofile=5:1024"])
        .status()
        .unwrap();
    assert!(lowered.success());
    let mut second = connect(program.address);
    second.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(program.wait_for("warning", only!(Record::Warning)).name, "EMFILE");
    let before = program.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(program.cpu_ticks() - before < 50);
    ask_again(&mut first);
    drop(first);
    expect(&mut second, STREAM_HEAD);
}

#[test]
fn a_raised_limit_lets_those_in_who_wait() {
    let mut program = Program::start(Some(300), &["--workers", "2", "--quiet"]);
    let capacity = usize::try_from(program.listening.capacity).unwrap();
    // From outside, while it runs. The soft limit alone: the hard one is raised by root only.
    let pid = program.pid().to_string();
    let set_soft_limit = |limit: u64| {
        let limits = format!("--nofile={limit}:300");
        let set = std::process::Command::new("prlimit").args(["--pid", &pid, &limits]).status();
        assert!(set.unwrap().success());
    };
    set_soft_limit(100);
    // Some more than the tables hold now, and no more than the queues hold besides.
    let mut held: Vec<TcpStream> = (0..215).map(|_| connect(program.address)).collect();
    for stream in &mut held {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    assert_eq!(program.wait_for("warning", only!(Record::Warning)).name, "EMFILE");
    std::thread::sleep(Duration::from_millis(500));
    let before = program.sleeps();
    std::thread::sleep(Duration::from_millis(2500));
    // Two or three times for each worker; what tells the user may come on top.
    let woken = program.sleeps() - before;
    assert!(woken < 30, "{woken} times in 2.5 s: once a second is enough");
    assert!(held.iter().filter(|stream| is_empty(stream)).count() >= 215 - 2 * 100);

    set_soft_limit(300);
    for stream in &mut held {
        expect(stream, STREAM_HEAD);
    }
    // Both workers fill the room that they have now.
    while held.len() < capacity {
        let mut stream = connect(program.address);
        ask(&mut stream);
        held.push(stream);
    }
    let summary = program.finish();
    assert_eq!(summary.held, capacity as u64);
    let full = summary.errors["accept EMFILE"];
    assert!((2..100).contains(&full), "{full} times");
}

#[test]
fn a_server_that_may_hold_nothing_is_refused() {
    let outcome = outcome(&mut command(None, &["--max-connections", "0"]));
    let text = outcome.stderr;
    assert_eq!(outcome.code, Some(2));
    assert!(text.contains("use at least 1, or leave --max-connections out"), "{text}");
}
