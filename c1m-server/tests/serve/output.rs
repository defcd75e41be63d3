//! Lines for people.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Command,
};

use crate::support::*;

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
