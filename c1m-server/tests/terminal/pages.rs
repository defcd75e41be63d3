//! What commands print that answer once: as wide as the terminal, in colour where that is wanted, and one line per row elsewhere.

use std::{net::TcpListener, process::Command};

use super::server;

/// Commands whose pages need no privilege: without it they say what they could not read.
const COMMANDS: [&[&str]; 4] = [
    &["states"],
    &["holders"],
    &["holders", "--by", "port"],
    &["doctor", "--connections", "1m", "--queued-bytes", "64K", "--sources", "1", "--workers", "1"],
];

/// What a terminal of so many columns gets.
fn on_terminal(columns: usize, before: &str, arguments: &[&str]) -> String {
    let shell =
        format!("stty rows 50 cols {columns}; {before} {} {}", server(), arguments.join(" "));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &shell, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

fn in_pipe(arguments: &[&str]) -> String {
    let output = Command::new(server()).args(arguments).env_remove("NO_COLOR").output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Without what a terminal takes for colours.
fn plain(text: &str) -> String {
    let (first, rest) = text.split_once('\u{1b}').unwrap_or((text, ""));
    let rest = rest.split('\u{1b}').map(|part| part.split_once('m').map_or("", |(_, text)| text));
    first.to_owned() + &rest.collect::<String>()
}

pub(super) fn width() {
    for arguments in COMMANDS {
        for columns in [40, 60, 80, 160] {
            let page = plain(&on_terminal(columns, "", arguments));
            let too_wide: Vec<&str> =
                page.lines().filter(|line| line.chars().count() > columns).collect();
            assert!(too_wide.is_empty(), "{arguments:?} on {columns} columns: {too_wide:#?}");
            assert!(page.lines().count() > 2, "{arguments:?}: {page}");
        }
    }
    // A text that is wrapped on 80 columns is not on 400, nor in a pipe.
    let lines = |columns| on_terminal(columns, "", COMMANDS[3]).lines().count();
    assert!(lines(80) > lines(400));
    assert_eq!(in_pipe(COMMANDS[3]).lines().count(), lines(400));
}

pub(super) fn colors() {
    for arguments in COMMANDS {
        let colored = |text: &str| text.contains('\u{1b}');
        assert!(colored(&on_terminal(80, "", arguments)), "{arguments:?}");
        assert!(!colored(&on_terminal(80, "NO_COLOR=1", arguments)), "{arguments:?}");
        assert!(colored(&on_terminal(80, "NO_COLOR=", arguments)), "an empty one is none");
        assert!(!colored(&on_terminal(80, "TERM=dumb", arguments)), "{arguments:?}");
        let asked = |when| [arguments, &["--color", when]].concat();
        assert!(!colored(&on_terminal(80, "", &asked("never"))), "{arguments:?}");
        assert!(colored(&on_terminal(80, "NO_COLOR=1", &asked("always"))), "{arguments:?}");
        assert!(!colored(&in_pipe(arguments)), "{arguments:?}");
        assert!(colored(&in_pipe(&asked("always"))), "{arguments:?}");
    }
}

/// Summary first, no time of day, numbers for people, and what is long on one line.
pub(super) fn pipe() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let states = in_pipe(&["states", "--top", "1000000"]);
    let first = states.lines().next().unwrap();
    assert!(first.contains("TCP socket") && first.contains("network namespace"), "{states}");
    for section in ["\nBy state\nstate ", "\nBy local port\nport "] {
        assert!(states.contains(section), "{section:?} in {states}");
    }
    let is_listener = |line: &str| line.split_whitespace().next() == Some(&port);
    let row = states.lines().find(|line| is_listener(line));
    assert!(row.is_some_and(|row| row.contains("listen 1")), "port {port} in {states}");

    let doctor = in_pipe(COMMANDS[3]);
    assert!(
        doctor
            .starts_with("1,000,000 connections, both ends here, 64.00 KiB queued in each: they "),
        "{doctor}"
    );
    assert!(doctor.lines().nth(1).unwrap().starts_with("first limit: "), "{doctor}");
    let remedies = doctor.lines().filter(|line| line.starts_with("  remedy: ")).count();
    let risks = doctor.lines().filter(|line| line.starts_with("  risk: ")).count();
    assert!(remedies > 0 && risks >= remedies, "{doctor}");
    for page in [&states, &doctor, &in_pipe(&["holders"])] {
        let has_clock = |line: &str| line.get(2..3) == Some(":") && line.get(5..6) == Some(":");
        assert!(!page.lines().any(has_clock), "no time before a row: {page}");
        assert!(!page.contains("wall") && !page.contains("danger"), "{page}");
    }
}
