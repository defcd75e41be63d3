//! How a run ends: by every signal that ends programs, beside streams that nobody reads, and when standard output can't be written.

use std::{
    io::{PipeReader, PipeWriter, Read as _, Write as _},
    process::{Command, Stdio},
    sync::atomic::Ordering::Relaxed,
};

use c1m_client::record::ClientRecord;
use c1m_record::Line;
use c1m_sys::confine;
use c1m_testkit::{
    Child,
    child::{closed_pipe, errors, outcome, signal},
};

use super::{
    ANY_PORT,
    common::{Manner, Server, client::Client},
    eventually,
};

fn client(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-client"));
    command.args(flags.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs it in the background, with its streams as `command` has them.
fn start(mut command: Command) -> Child {
    Child::as_is(&mut command).unwrap()
}

/// A pipe that is full: it holds a page, and nobody reads it.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    confine::narrow(&writer).unwrap();
    // It holds one page, whatever the size of that.
    let page = usize::try_from(c1m_sys::process::page_bytes().unwrap()).unwrap();
    writer.write_all(&vec![b'\n'; page]).unwrap();
    (reader, writer)
}

#[test]
fn each_signal_ends_it_with_a_verdict_and_a_result() {
    for name in ["HUP", "INT", "QUIT", "TERM"] {
        let server = Server::start(ANY_PORT, Manner::Good);
        let mut client = Client::start(&format!("--connect {} --connections 10", server.address));
        client.plan();
        client.ramped();
        client.signal(&[name]);
        let (verdict, summary) = client.verdict_and_summary();
        assert!(verdict.quiet && summary.held_at_end == 10, "{name}: {summary:?}");
        assert_eq!(client.end(), (Some(0), String::new()), "{name}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_its_number() {
    // Of those that wait, the kernel hands out the lowest number first.
    for (names, code) in [(["HUP", "INT"], 130), (["INT", "QUIT"], 131), (["QUIT", "TERM"], 143)] {
        let server = Server::start(ANY_PORT, Manner::Good);
        let mut client = Client::start(&format!("--connect {} --connections 10", server.address));
        client.plan();
        client.ramped();
        client.signal(&["STOP", names[0], names[1], "CONT"]);
        assert_eq!(client.end().0, Some(code), "{names:?}");
    }
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let script = r#"trap "" HUP; exec "$0" "$@""#;
    let address = server.address.to_string();
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_c1m-client")]);
    command.args(["--connect", &address, "--connections", "10", "--json"]);
    let mut child = Child::start(&mut command).unwrap();
    eventually("all connections", || server.held.load(Relaxed) == 10);
    signal(child.pid(), &["HUP", "TERM"]);
    let outcome = child.end().unwrap();
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stdout().contains(r#""held_at_end":10"#), "{outcome:?}");
}

#[test]
fn nobody_reading_keeps_it_neither_from_its_run_nor_from_ending() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let (_reader, out) = full_pipe();
    let flags = format!("--connect {} --connections 300 --json", server.address);
    let mut command = client(&flags);
    command.stdout(out).stderr(Stdio::piped());
    let mut child = start(command);
    eventually("all connections", || server.held.load(Relaxed) == 300);
    let outcome = child.finish().unwrap();
    let text = outcome.stderr;
    assert_eq!(outcome.code, Some(3));
    assert!(text.contains("nobody read standard output") && text.lines().count() == 1, "{text}");
    eventually("the end of all connections", || server.held.load(Relaxed) == 0);
}

#[test]
fn a_reader_that_comes_late_gets_everything() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let (mut reader, out) = full_pipe();
    let flags = format!("--connect {} --connections 10 --json", server.address);
    let mut command = client(&flags);
    command.stdout(out);
    let mut child = start(command);
    eventually("all connections", || server.held.load(Relaxed) == 10);
    signal(child.pid(), &["TERM"]);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(child.end().unwrap().code, Some(0));
    let lines: Vec<Line<ClientRecord>> =
        text.trim_start().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ClientRecord::Summary(summary) = &lines.last().unwrap().record else {
        panic!("{text}");
    };
    assert_eq!((summary.held_at_end, summary.lines_dropped), (10, 0));
}

#[test]
fn progress_that_nobody_reads_stops_nothing() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let (_reader, err) = full_pipe();
    // Its ramp takes two progress lines.
    let flags = format!("--connect {} --connections 250 --rate 100 --hold 0s", server.address);
    let mut command = client(&flags);
    command.stdout(Stdio::piped()).stderr(err);
    let outcome = start(command).end().unwrap();
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stdout().contains("summary   connected=250"), "{outcome:?}");
}

#[test]
fn a_standard_output_that_cant_be_written_is_named_with_exit_code_3() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part.jsonl");
    let flags = format!("--connect {} --connections 10 --hold 0s --json", server.address);
    let out = std::fs::File::create(&part).unwrap();
    assert!(client(&flags).stdout(out).status().unwrap().success());
    for flags in [
        // The hold ends when nothing can be said any more.
        format!("--connect {} --connections 10", server.address),
        format!("--connect {} --connections 10 --json", server.address),
        format!("merge {}", part.display()),
    ] {
        let (code, text) = errors(client(&flags).stdout(full()));
        assert_eq!(code, Some(3), "{flags}");
        assert!(
            text.contains("standard output") && text.contains("No space left"),
            "{flags}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{flags}: {text}");
    }
}

#[test]
fn a_reader_that_has_closed_the_pipe_changes_no_exit_code() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let code = |flags: &str| {
        let (code, text) = errors(client(flags).stdout(closed_pipe()));
        let errors = text.lines().filter(|line| line.starts_with("c1m-client:")).count();
        assert!(code == Some(3) || errors == 0, "{flags}: {text}");
        code
    };
    let run = |more: &str| format!("--connect {} --connections 10 {more}", server.address);
    let nobody = std::net::TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part.jsonl");
    let out = std::fs::File::create(&part).unwrap();
    assert!(client(&run("--hold 0s --json")).stdout(out).status().unwrap().success());
    let merge = |more: &str| format!("merge {} {more}", part.display());
    for (flags, expected) in [
        (run("--hold 0s --require connected==10"), 0),
        (run("--hold 0s --require connected==5"), 1),
        (run("--hold 0s --json --sample 5 --require sample_p99<1ns"), 1),
        // A hold without an end has nobody to tell anything.
        (run(""), 0),
        (run("--require connected==5"), 1),
        (format!("--connect {nobody} --connections 10"), 1),
        (format!("--connect {nobody} --connections 10 --pin 4K"), 3),
        (merge("--require connected==10"), 0),
        (merge("--json --require connected==5"), 1),
    ] {
        assert_eq!(code(&flags), Some(expected), "{flags}");
    }
    eventually("the end of all connections", || server.held.load(Relaxed) == 0);
}

#[test]
fn a_run_that_loses_everything_after_its_reader_has_closed_fails() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let flags = format!("--connect {} --connections 10 --hold 10m", server.address);
    let mut command = client(&flags);
    command.stdout(closed_pipe());
    let mut child = start(command);
    eventually("all connections", || server.held.load(Relaxed) == 10);
    server.close(10);
    assert_eq!(child.end().unwrap().code, Some(1));
}

#[test]
fn help_that_cant_be_written_is_named_with_exit_code_3() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for flags in ["--help", "-h", "--version", "-V", "merge --help"] {
        let (code, text) = errors(client(flags).stdout(full()));
        assert_eq!(code, Some(3), "{flags}");
        assert!(text.contains("cannot write standard output: No space left"), "{flags}: {text}");
        assert_eq!(text.lines().count(), 1, "{flags}: {text}");
        let (code, _) = errors(client(flags).stdout(closed_pipe()));
        assert_eq!(code, Some(0), "{flags}: its reader has closed it");
    }
}

#[test]
fn the_manual_has_the_exit_code_of_each_refusal() {
    let text = outcome(&mut client("--help")).stdout();
    let status = |code: &str| {
        let (_, rest) = text.split_once(&format!("\n  {code}\n")).unwrap();
        let lines = rest.lines().take_while(|line| line.starts_with("      "));
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    };
    let nobody = std::net::TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let taken = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let metrics = taken.local_addr().unwrap();
    for (flags, code, said) in [
        ("--hold 0s".to_owned(), 1, "nobody listens"),
        ("--pin 4K".into(), 3, "--pin measures"),
        (format!("--metrics-addr {metrics}"), 3, "--metrics-addr"),
    ] {
        let flags = format!("--connect {nobody} --connections 1 {flags}");
        assert_eq!(outcome(&mut client(&flags)).code, Some(code), "{flags}");
        let of = [1, 2, 3].map(|code: i32| status(&code.to_string()).contains(said));
        assert_eq!(of, [1, 2, 3].map(|it| it == code), "{said}: {of:?}");
    }
}
