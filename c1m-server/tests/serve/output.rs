//! Lines for people.

use c1m_testkit::{Child, figures};

use crate::support::*;

#[test]
fn people_get_online_user_lines() {
    let mut child =
        Child::start(&mut command(None, &["--workers", "1", "--interval", "50ms"])).unwrap();
    let mut next = || child.next(PATIENCE).unwrap().expect("a line").text;
    let mut line = next();
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
        line = next();
    }

    let outcome = child.finish().unwrap();
    assert_eq!(outcome.code, Some(0));
    let rest = outcome.stdout();
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
    let arguments = [&arguments[..], &[path.to_str().unwrap()]].concat();
    let outcome = outcome(&mut command(None, &arguments));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let (page, lines) = (std::fs::read_to_string(path).unwrap(), outcome.stdout());
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
    let outcome = outcome(&mut command(None, &["--report", "/nonexistent/run.html"]));
    assert_eq!((outcome.code, outcome.lines.len()), (Some(3), 0), "{outcome:?}");
    assert!(outcome.stderr.contains("choose another --report"), "{outcome:?}");
}
