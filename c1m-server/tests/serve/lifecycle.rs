//! Start, signals, end.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use c1m_record::Record;
use c1m_server::serve::Ending;
use c1m_testkit::Child;

use crate::support::*;

#[test]
fn a_second_instance_is_refused_the_port() {
    let program = Program::start(None, &["--workers", "2"]);
    let mut second = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    let outcome = outcome(second.args(["--listen", &program.address.to_string()]));
    let text = outcome.stderr;
    assert_eq!(outcome.code, Some(3));
    assert!(text.contains("EADDRINUSE") && text.contains("--listen"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for _ in 0..10 {
        ask(&mut connect(program.address));
    }
}

#[test]
fn the_impossible_is_refused_with_the_number_that_would_do() {
    for (nofile, arguments, code, hint) in [
        (Some(1024), &["--max-connections", "10k", "--workers", "2"][..], 2, "--workers 10"),
        (Some(256), &["--workers", "1000"], 2, "--workers 192"),
        (Some(256), &["--max-connections", "1m"], 3, "ulimit -Hn"),
        (Some(50), &[], 3, "ulimit -Hn"),
        (None, &["--keepalive", "100ms"], 2, "1s to 32767s"),
        // In a unit that the flag takes.
        (None, &["--keepalive", "99999d"], 2, "--keepalive 8639913600s: "),
        (None, &["--header-timeout", "0s"], 2, "at least 1ms"),
    ] {
        let outcome = outcome(&mut command(nofile, arguments));
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(hint), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn signals_end_it_with_a_summary() {
    for name in ["TERM", "INT"] {
        let mut program = Program::start(None, &["--workers", "2", "--quiet"]);
        let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(program.address)).collect();
        streams.iter_mut().for_each(ask);
        drop(streams.split_off(40));
        // Closed by reset; how it is counted shows that the server knows it.
        until("the closes are seen", || {
            let now = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
            let is_worker = |task: &std::path::PathBuf| {
                std::fs::read_to_string(task.join("comm")).unwrap().starts_with("worker")
            };
            let sockets: usize = now
                .map(|task| task.unwrap().path())
                .filter(is_worker)
                .map(|task| std::fs::read_dir(task.join("fd")).unwrap().count() - 7)
                .sum();
            sockets == 40
        });
        program.signal(&[name]);
        let summary = program.summary();
        assert_eq!((summary.held, summary.peak), (40, 50));
        assert_eq!((summary.accepted, summary.closed), (50, 10));
        assert_eq!(summary.errors.get("connection ECONNRESET"), Some(&10));
        assert!(summary.rss_bytes.unwrap() > 0 && summary.elapsed_s > 0.0);
        assert!(summary.sockstat.unwrap().alloc >= 80);
        assert!(summary.file_nr.unwrap().allocated > 40);
        for stream in &mut streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "not closed in order");
        }
    }
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let mut program = Program::start(None, &["--workers", "2", "--quiet"]);
    let mut streams: Vec<TcpStream> = (0..3000).map(|_| connect(program.address)).collect();
    streams.iter_mut().for_each(ask);
    // Both are there when it goes on.
    program.signal(&["STOP", "INT", "TERM", "CONT"]);
    // 128, and the number of the second one.
    assert_eq!(program.end().code, Some(143));
}

#[test]
fn it_ends_by_itself_after_its_time() {
    let mut program = Program::start(None, &["--duration", "300ms"]);
    assert_eq!(program.summary().held, 0);
}

#[test]
fn nobody_reading_its_output_is_no_error() {
    let mut command = command(None, &["--json", "--workers", "1", "--interval", "50ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // A reader that is dropped closes the pipe.
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    // Makes a line, which nobody reads: unless another one came first, and the server has ended over it.
    let _stream = TcpStream::connect(address);
    let outcome = Child::from(child).end().unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_idle_quiet_server_sleeps() {
    let program = Program::start(None, &["--workers", "3", "--quiet"]);
    let mut stream = connect(program.address);
    ask(&mut stream);
    std::thread::sleep(Duration::from_millis(300));
    let before = program.sleeps();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(program.sleeps(), before, "something wakes it");
}

#[test]
fn half_sent_heads_are_closed_and_silent_connections_are_not() {
    let program = Program::start(None, &["--workers", "2", "--quiet", "--header-timeout", "300ms"]);
    let mut idle = connect(program.address);
    let mut silent = connect(program.address);
    ask(&mut idle);
    let mut slow: Vec<TcpStream> = (0..20).map(|_| connect(program.address)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nX: ").unwrap();
    }
    for stream in &mut slow {
        let text = read_all(stream);
        assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
    drop(slow);
    ask_again(&mut idle);
    ask(&mut silent);
    // With nothing half sent nothing wakes it any more.
    std::thread::sleep(Duration::from_millis(1500));
    let before = program.sleeps();
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(program.sleeps(), before, "something wakes it");
    let summary = program.finish();
    assert_eq!((summary.held, summary.errors.get("408")), (2, Some(&20)));
}

#[test]
fn connections_are_finished_or_reset() {
    for (ending, expected) in
        [(Ending::Finish, Ok(0)), (Ending::Reset, Err(ErrorKind::ConnectionReset))]
    {
        let server = start(2, None);
        let address = server.address();
        let mut streams: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
        streams.iter_mut().for_each(ask);
        server.stop(ending).unwrap();
        for stream in &mut streams {
            assert_eq!(stream.read(&mut [0]).map_err(|error| error.kind()), expected);
        }
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused,
            "the port is still bound"
        );
    }
}

#[test]
fn a_port_with_connections_in_time_wait_is_bound_again() {
    let server = start(2, None);
    let address = server.address();
    let mut streams: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    streams.iter_mut().for_each(ask);
    server.stop(Ending::Finish).unwrap();
    // The server ended first, so its side is what stays in TIME_WAIT.
    drop(streams);
    let server = start_on(address, 2, None);
    ask(&mut connect(server.address()));
}

#[test]
fn a_server_that_stops_accepting_serves_on() {
    let server = start(2, None);
    let mut held = connect(server.address());
    ask(&mut held);
    server.stop_accepting();
    std::thread::sleep(Duration::from_millis(100));
    let mut late = connect(server.address());
    ask_again(&mut held);
    assert!(is_silent(&mut late));
    assert_eq!(server.snapshot().accepted, 1);
}

#[test]
fn it_listens_on_ipv6() {
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
        let outcome = outcome(command.args(["--listen", "[::1]:0", "--quiet"]));
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(3), 1), "{outcome:?}");
        return;
    }
    let server = start_on("[::1]:0".parse().unwrap(), 2, None);
    assert!(server.address().is_ipv6() && server.address().port() != 0);
    let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(server.address())).collect();
    streams.iter_mut().for_each(ask);
    streams.iter_mut().for_each(ask_again);
    assert_eq!(server.snapshot().held, 50);
}

#[test]
fn keepalive_is_inherited_by_connections() {
    let program = Program::start(None, &["--keepalive", "100s", "--workers", "1"]);
    let mut stream = connect(program.address);
    ask(&mut stream);
    let port = format!(":{:04X}", program.address.port());
    // Once the response is acknowledged, the only timer left is that of keepalive: 02 in net/ipv4/tcp_ipv4.c,
    // get_tcp4_sock.
    until("a keepalive timer runs", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&port) && fields[3] == "01" && fields[5].starts_with("02:")
        })
    });
}

#[test]
fn the_interval_tells_changes_only() {
    let mut program = Program::start(None, &["--interval", "50ms", "--workers", "1"]);
    let mut stream = connect(program.address);
    ask(&mut stream);
    let first = program.wait_for("first line", only!(Record::Online));
    assert_eq!((first.online, first.accepted, first.closed), (1, 1, 0));
    assert!(first.accepted_per_s > 0.0 && first.pss_bytes.unwrap() > 0);
    assert_eq!((first.connections, first.dropped), (None, None));
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
    let second = program.wait_for("second line", only!(Record::Online));
    assert_eq!((second.online, second.closed), (0, 1), "a line without a change");
}
