//! Lines for people.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Command,
};

use crate::{figures, support::*};

#[test]
fn people_get_online_user_lines() {
    let mut child = command(None, &["--workers", "1", "--interval", "50ms"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let (clock, text) = line.split_at(14);
    assert!(
        clock.char_indices().all(|(at, c)| match at {
            2 | 5 => c == ':',
            8 => c == '.',
            12 | 13 => c == ' ',
            _ => c.is_ascii_digit(),
        }),
        "{line}"
    );
    let address = text.strip_prefix("listening  ").unwrap().split(' ').next().unwrap();
    let mut stream = connect(address.parse().unwrap());
    ask(&mut stream);
    // What the limits are comes in between.
    while line[12..].trim_end() != "  online user 1" {
        assert!(
            ["  listening  ", "  limits  ", "  limit  "]
                .iter()
                .any(|it| line[12..].starts_with(it)),
            "{line}"
        );
        line.clear();
        stdout.read_line(&mut line).unwrap();
    }

    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    for expected in
        ["verdict  ", "summary  held=1 peak=1 accepted=1 closed=0", "memory  rss=", "errors  none"]
    {
        assert!(rest.contains(expected), "{expected} is missing in {rest}");
    }
}

#[test]
fn a_page_is_written_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.html");
    let arguments = ["--workers", "1", "--json", "--duration", "200ms", "--report"];
    let output = command(None, &[&arguments[..], &[path.to_str().unwrap()]].concat()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(path).unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let told = figures::check(&page, &lines);
    for kind in ["limits", "summary"] {
        assert!(told.contains(kind), "{kind} is not in {told:?}");
    }
    // Other tests overflow queues in the same network namespace, which the kernel's counters of it tell.
    let verdict = lines.lines().rfind(|line| line.contains(r#""kind":"verdict""#)).unwrap();
    let is_quiet = verdict.contains(r#""quiet":true"#);
    assert_eq!(page.contains("No limit was hit."), is_quiet, "{verdict}\n{page}");
}

#[test]
fn a_page_that_cant_be_written_is_told_before_anything_is_served() {
    let output = command(None, &["--report", "/nonexistent/run.html"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("choose another --report"), "{said}");
}
