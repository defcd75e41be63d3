//! How a watch ends: by each signal that ends programs, and beside a standard output that nobody reads.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use c1m_program::writer::QUEUE_BYTES;
use c1m_record::{Ended, Line, Record};
use c1m_sys::confine;
use c1m_testkit::{Child, Skip, eventually, only};

use crate::{
    calls::{FAILURES, fail},
    host::{connect, reset},
    server::{binary, needs_ebpf},
    watch::Watch,
};

const SIGNALS: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

pub(crate) fn by_each_signal() -> Result<(), Skip> {
    needs_ebpf()?;
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, port) = target(&listener);
    for signal in SIGNALS {
        let page = folder.path().join(format!("{signal}.html"));
        let file = folder.path().join(format!("{signal}.jsonl"));
        let files = ["--report", page.to_str().unwrap(), "--output", file.to_str().unwrap()];
        let target = ["--pid", &own, "--port", &port, "--interval", "100ms"];
        let mut watch = Watch::start(&[&target[..], &files].concat());
        watch.watching();
        watch.child().signal(signal).unwrap();
        assert_eq!(watch.end().code, Some(0), "signal {signal}");
        let ended = watch.last(only!(Record::Ended)).expect("a watch ends with a record");
        assert_eq!((ended.lines_dropped, ended.dropped), (0, 0), "signal {signal}: {ended:?}");
        assert!(matches!(records(&file).last(), Some(Record::Ended(_))), "signal {signal}");
        let page = fs::read_to_string(page).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"), "{signal}");
    }
    Ok(())
}

pub(crate) fn unread_lines() -> Result<(), Skip> {
    unread(&[])
}

pub(crate) fn unread_json() -> Result<(), Skip> {
    unread(&["--json"])
}

/// Nobody reads its standard output: it goes on to take events, says how many lines are missing, and ends by a signal.
fn unread(form: &[&str]) -> Result<(), Skip> {
    needs_ebpf()?;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, port) = target(&listener);
    // Of one page, which is full after a few lines.
    let (reader, writer) = std::io::pipe().unwrap();
    confine::narrow(&writer).unwrap();
    let mut command = Command::new(binary());
    command.arg("watch").args(form).args(["--pid", &own, "--port", &port, "--interval", "10ms"]);
    command.arg("--output").arg(&file);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let mut child = Child::as_is(&mut command).unwrap();
    // It has the other end of the pipe, which must be the watch's alone.
    drop(command);
    let fills = || {
        come_and_go(&listener);
        is_full(&child)
    };
    assert!(eventually(fills), "its output is not full");

    // Each call that fails is an event in the ring buffer.
    fail(FAILURES);
    let is_ours = |record: &Record| matches!(record, Record::CallError(error) if error.pid == std::process::id() && error.call == "bind");
    assert!(eventually(|| records(&file).iter().any(is_ours)), "no event was taken");
    if form.contains(&"--json") {
        // Standard output gets the same lines: by then its queue is full as well.
        grows_to(&file, (QUEUE_BYTES + QUEUE_BYTES / 4) as u64, &listener);
    }
    assert!(is_full(&child), "somebody has read it");

    let outcome = child.finish().unwrap();
    assert_eq!(outcome.code, Some(3));
    drop(reader);
    let said = outcome.stderr;
    assert!(said.contains("nobody read standard output") && said.contains("lines were"), "{said}");
    let records = records(&file);
    let Some(Record::Ended(Ended { lines_dropped, dropped, .. })) = records.last() else {
        panic!("{:?}", records.last())
    };
    assert_eq!(*dropped, 0, "events");
    assert_eq!(*lines_dropped > 0, form.contains(&"--json"), "{lines_dropped} lines");
    Ok(())
}

/// This process and the port of a listener of its own.
fn target(listener: &TcpListener) -> (String, String) {
    (std::process::id().to_string(), listener.local_addr().unwrap().port().to_string())
}

/// Does one of its threads sleep in a write to a pipe?
fn is_full(child: &Child) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.pid())).unwrap();
    tasks.flatten().any(|task| {
        let sleeps_in = fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        sleeps_in.contains("pipe_write")
    })
}

/// The whole lines of a file that may still be written.
fn records(file: &Path) -> Vec<Record> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str::<Line<Record>>(line).unwrap().record).collect()
}

/// A connection that is opened and closed, which changes the figures of the next line.
fn come_and_go(listener: &TcpListener) {
    reset(connect(listener.local_addr().unwrap()));
    drop(listener.accept());
}

/// Has connections come and go as long as the file grows.
fn grows_to(file: &Path, bytes: u64, listener: &TcpListener) {
    let length = || fs::metadata(file).unwrap().len();
    let mut last = length();
    while last < bytes {
        let before = last;
        let grows = eventually(|| {
            come_and_go(listener);
            last = length();
            last > before
        });
        assert!(grows, "it stands still at {last} bytes");
    }
}
