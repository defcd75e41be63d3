//! How the server ends: by every signal that ends programs, beside a standard output that nobody reads, and when something can't be written.

use std::{
    io::Read as _,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::Instant,
};

use c1m_record::{Line, Record};
use c1m_sys::confine;
use c1m_testkit::{Child, child::errors as outcome};

use crate::support::*;

const SIGNALS: [&str; 4] = ["HUP", "INT", "QUIT", "TERM"];

fn server(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn full() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}

/// The port of a server whose output the test does not read.
fn port(child: &Child) -> u16 {
    let mut port = None;
    until("the server listens", || {
        port = listening_port(child.pid());
        port.is_some()
    });
    port.unwrap()
}

/// Of /proc/net/tcp, the listening socket that a descriptor of a worker is of.
fn listening_port(pid: u32) -> Option<u16> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets: Vec<(u16, String)> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // 0A: TCP_LISTEN, include/net/tcp_states.h
        .filter(|fields| fields[3] == "0A")
        .map(|fields| {
            let port = fields[1].rsplit_once(':').unwrap().1;
            (u16::from_str_radix(port, 16).unwrap(), format!("socket:[{}]", fields[9]))
        })
        .collect();
    std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().find_map(|task| {
        std::fs::read_dir(task.path().join("fd")).ok()?.flatten().find_map(|fd| {
            let link = std::fs::read_link(fd.path()).ok()?;
            let is_it = |(_, socket): &&(u16, String)| link.as_os_str() == socket.as_str();
            sockets.iter().find(is_it).map(|(port, _)| *port)
        })
    })
}

#[test]
fn each_signal_ends_it_with_summary_verdict_and_report() {
    for name in SIGNALS {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("run.html");
        let arguments = ["--workers", "1", "--quiet", "--report", page.to_str().unwrap()];
        let mut program = Program::start(None, &arguments);
        program.signal(&[name]);
        assert_eq!(program.summary().held, 0, "{name}");
        assert!(program.last(only!(Record::Verdict)).is_some(), "{name}");
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>"), "{name}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_its_number() {
    // Of those that wait, the kernel hands out the lowest number first: 1, 2, 3, 15.
    for (names, code) in [(["HUP", "INT"], 130), (["INT", "QUIT"], 131), (["QUIT", "TERM"], 143)] {
        let mut program = Program::start(None, &["--workers", "1", "--quiet"]);
        program.signal(&["STOP", names[0], names[1], "CONT"]);
        assert_eq!(program.end().code, Some(code), "{names:?}");
    }
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let script = r#"trap "" HUP; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_c1m-server")]);
    command.args(["--listen", "127.0.0.1:0", "--workers", "1", "--quiet"]);
    let mut child = Child::start(&mut command).unwrap();
    port(&child);
    child::signal(child.pid(), &["HUP"]);
    // The kernel does not even keep it: SigIgn and SigPnd of man 5 proc.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
    assert!(!status.lines().any(|l| l.starts_with("ShdPnd:") && l.ends_with('1')), "{status}");
    assert_eq!(child.finish().unwrap().code, Some(0));
}

/// A pipe that holds one page.
fn narrow_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    confine::narrow(&writer).unwrap();
    (reader, writer)
}

/// A server that has filled its standard output, with the reader of that.
fn stalled() -> (Child, std::io::PipeReader) {
    let (reader, writer) = narrow_pipe();
    let mut command = server(&["--listen", "127.0.0.1:0", "--workers", "1", "--json"]);
    command.args(["--interval", "10ms"]).stdout(writer).stderr(Stdio::piped());
    let child = Child::as_is(&mut command).unwrap();
    drop(command);
    let address = ([127, 0, 0, 1], port(&child)).into();
    let mut held = Vec::<TcpStream>::new();
    // A thread that sleeps in a write to the pipe: the page is full.
    until("its output is full", || {
        held.push(connect(address));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.pid())).unwrap();
        tasks.flatten().any(|task| {
            let wchan = std::fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
            wchan.contains("pipe_write")
        })
    });
    // It serves all the same.
    ask(&mut connect(address));
    (child, reader)
}

#[test]
fn nobody_reading_keeps_it_neither_from_serving_nor_from_ending() {
    let (mut child, _reader) = stalled();
    let outcome = child.finish().unwrap();
    let text = outcome.stderr;
    assert_eq!(outcome.code, Some(3));
    assert!(text.contains("nobody read standard output") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_reader_that_comes_late_gets_the_last_lines() {
    let (mut child, mut reader) = stalled();
    child::signal(child.pid(), &["TERM"]);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(child.end().unwrap().code, Some(0));
    let records: Vec<Line<Record>> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds = records.iter().rev().take(3).map(|line| &line.record).collect::<Vec<_>>();
    let [Record::Summary(summary), Record::Verdict(_), Record::Limits(_)] = kinds[..] else {
        panic!("{kinds:?}")
    };
    assert_eq!(summary.lines_dropped, 0);
}

#[test]
fn a_second_signal_ends_the_wait_for_a_reader() {
    let (mut child, _reader) = stalled();
    let begin = Instant::now();
    child::signal(child.pid(), &["TERM"]);
    // The listener goes with the first signal.
    until("the end begins", || listening_port(child.pid()).is_none());
    child::signal(child.pid(), &["INT"]);
    // It is at once, unless the wait was over already on a slow machine.
    let code = child.end().unwrap().code;
    assert!(code == Some(130) || begin.elapsed().as_secs() >= 3, "{code:?}");
}

#[test]
fn what_cant_be_written_is_named_with_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("run.jsonl");
    let line = r#"{"v":1,"ts":"2026-01-02T03:04:05Z","kind":"warning","name":"a","text":"b"}"#;
    std::fs::write(&lines, line).unwrap();
    let lines = lines.to_str().unwrap();
    for (arguments, name) in [
        (&["--listen", "127.0.0.1:0", "--workers", "1"][..], "standard output"),
        (&["doctor", "--connections", "10"], "standard output"),
        (&["doctor", "--connections", "10", "--json"], "standard output"),
        (&["states"], "standard output"),
        (&["holders", "--json"], "standard output"),
        (&["report", lines, "-o", "-"], "standard output"),
        (&["report", lines, "-o", "/dev/full"], "/dev/full"),
        (&["report", lines, "-o", "/nonexistent/a.html"], "/nonexistent/a.html"),
        (&["doctor", "--connections", "10", "--emit", "/proc/c1m"], "/proc/c1m"),
    ] {
        let mut command = server(arguments);
        if name == "standard output" {
            command.stdout(full());
        }
        let (code, text) = outcome(&mut command);
        assert_eq!(code, Some(3), "{arguments:?}: {text}");
        assert!(text.contains(name) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    let arguments = ["--listen", "127.0.0.1:0", "--duration", "100ms", "--report", "/dev/full"];
    let (code, text) = outcome(&mut server(&arguments));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("/dev/full") && text.contains("No space left"), "{text}");
}

#[test]
fn a_report_that_does_not_fit_leaves_the_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    // In a thread of its own: what it mounts is visible to itself and what it starts.
    let in_thread = move || {
        // A test that can't do what it is for must not count as passed.
        confine::mount_memory(&path, 64 << 10).unwrap_or_else(|error| {
            panic!("no mount namespace of its own: {error}; run the tests as root, or by `unshare --map-root-user --mount cargo test`")
        });
        let page = path.join("run.html");
        std::fs::write(&page, "older").unwrap();
        // All but what an empty file takes.
        let rest = vec![b'x'; 60 << 10];
        let _ = std::fs::write(path.join("rest"), rest);
        let page_name = page.to_str().unwrap();
        let arguments = ["--listen", "127.0.0.1:0", "--duration", "100ms", "--report", page_name];
        let (code, text) = outcome(&mut server(&arguments));
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains(page_name) && text.contains("No space left"), "{text}");
        assert_eq!(std::fs::read_to_string(&page).unwrap(), "older");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "something is left over");
        std::fs::remove_file(path.join("rest")).unwrap();
        assert_eq!(outcome(&mut server(&arguments)).0, Some(0));
        assert!(std::fs::read_to_string(&page).unwrap().ends_with("</html>"));
    };
    std::thread::spawn(in_thread).join().unwrap();
}

#[test]
fn a_file_size_limit_is_an_error_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("run.html");
    std::fs::write(&page, "older").unwrap();
    // In blocks of 512 bytes.
    let script = r#"ulimit -f 8; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_c1m-server")]);
    command.args(["--listen", "127.0.0.1:0", "--duration", "100ms", "--report"]).arg(&page);
    let (code, text) = outcome(command.stdout(Stdio::null()).process_group(0));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("run.html"), "{text}");
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "older");
}

#[test]
fn an_interval_that_no_clock_reaches_never_comes() {
    for interval in ["213503982334601d", "5124095576030h"] {
        let program = Program::start(None, &["--workers", "1", "--interval", interval]);
        let mut stream = connect(program.address);
        ask(&mut stream);
        assert_eq!(program.finish().held, 1, "{interval}");
    }
}

#[test]
fn a_reader_that_has_closed_the_pipe_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("run.html");
    let flags = ["--listen", "127.0.0.1:0", "--workers", "1", "--report", page.to_str().unwrap()];
    let mut command = server(&flags);
    assert_eq!(outcome(command.stdout(closed_pipe())), (Some(0), String::new()));
    let text = std::fs::read_to_string(page).unwrap();
    assert!(text.contains("summary 1, verdict 1"), "the last lines are missing");
    // What fails besides is not hidden by it.
    let flags = ["--listen", "127.0.0.1:0", "--workers", "1", "--report", "/dev/full"];
    let (code, text) = outcome(server(&flags).stdout(closed_pipe()));
    assert!(code == Some(3) && text.contains("/dev/full"), "{code:?} {text}");
}

#[test]
fn help_that_cant_be_written_is_named_with_exit_code_3() {
    for flags in
        [&["--help"][..], &["-V"], &["--version"], &["watch", "--help"], &["help", "doctor"]]
    {
        let (code, text) = outcome(server(flags).stdout(full()));
        assert_eq!(code, Some(3), "{flags:?}");
        assert!(text.contains("cannot write standard output: No space left"), "{text}");
        assert_eq!(outcome(server(flags).stdout(closed_pipe())), (Some(0), String::new()));
    }
}

#[test]
fn a_report_that_nobody_reads_keeps_it_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Open for both, so that opening waits for nobody; and full.
    let mut fifo = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    confine::narrow(&fifo).unwrap();
    let page = usize::try_from(c1m_sys::process::page_bytes().unwrap()).unwrap();
    std::io::Write::write_all(&mut fifo, &vec![b'x'; page]).unwrap();
    let path = path.to_str().unwrap();
    let flags =
        ["--listen", "127.0.0.1:0", "--workers", "1", "--duration", "1ms", "--report", path];
    let (code, text) = outcome(&mut server(&flags));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("fifo (nobody read it in time)"), "{text}");
}
