use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

/// Method and path, or the status.
fn read(text: &str) -> Parsed<(Method, String)> {
    parse(text.as_bytes(), |head| Ok((head.method, head.path.to_owned())))
}

fn status(text: &str) -> u16 {
    match read(text) {
        Parsed::Refused(status) => status,
        other => panic!("{text:?} gave {other:?}"),
    }
}

fn path_of(target: &str) -> Option<String> {
    match read(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")) {
        Parsed::Request((_, path)) => Some(path),
        Parsed::Refused(400) => None,
        other => panic!("{target:?} gave {other:?}"),
    }
}

#[test]
fn a_request_has_one_host_that_can_be_one() {
    for host in
        ["a", "", "a:80", "a:", "127.0.0.1:8000", "[::1]", "[::1]:8000", "[v1.a:b]", "a%2Db_c~!"]
    {
        let text = format!("GET / HTTP/1.1\r\nhOST: {host}\r\n\r\n");
        assert!(matches!(read(&text), Parsed::Request(_)), "{host:?}");
    }
    for host in [
        "a b",
        "a/b",
        "a@b",
        "a:b",
        "a:80:80",
        ":80",
        "[::1",
        "::1",
        "[::1]80",
        "[a]",
        "[v.a]",
        "a%2",
        "a%zz",
        "http://a",
        "[fe80::1%2]:80",
        "a?",
        "\u{e4}",
    ] {
        for version in ["1.0", "1.1"] {
            let text = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
            assert_eq!(status(&text), 400, "{host:?}");
        }
    }
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "none");
    assert!(matches!(read("GET / HTTP/1.0\r\n\r\n"), Parsed::Request(_)));
    for version in ["1.0", "1.1"] {
        let twice = format!("GET / HTTP/{version}\r\nHost: a\r\nX: y\r\nHost: a\r\n\r\n");
        assert_eq!(status(&twice), 400);
    }
}

#[test]
fn a_target_has_four_forms() {
    for (target, path) in [
        ("/", "/"),
        ("/a?b/c", "/a"),
        ("//a/b", "//a/b"),
        ("http://a/b", "/b"),
        ("HTTPS://[::1]:80/b?c", "/b"),
        ("http://a", "/"),
        ("http://a?b", "/"),
        ("http://a:/", "/"),
    ] {
        assert_eq!(path_of(target).as_deref(), Some(path), "{target}");
    }
    for target in [
        "a",
        "*",
        "a:80",
        "http:/a",
        "http:///b",
        "http://:80/",
        "ftp://a/",
        "http://a@b/",
        "://a/",
    ] {
        assert_eq!(path_of(target), None, "{target}");
    }
    let read = |line: &str| read(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(read("CONNECT a:443"), Parsed::Request((Method::Connect, String::new())));
    assert_eq!(read("CONNECT a@b"), Parsed::Refused(400));
    assert_eq!(read("OPTIONS *"), Parsed::Request((Method::Options, "*".into())));
    assert_eq!(read("BREW /pot"), Parsed::Request((Method::Unknown, "/pot".into())));
    assert_eq!(read("get /"), Parsed::Request((Method::Unknown, "/".into())));
}

#[test]
fn later_versions_of_1_are_1_1_and_others_are_refused() {
    let head = |version: &str| format!("\r\nGET /a HTTP/{version}\r\nHost: a\r\n\r\n");
    for minor in 1..=9 {
        let (text, mut seen) = (head(&format!("1.{minor}")), None);
        let parsed = parse(text.as_bytes(), |head| {
            seen = Some((head.http_1_0, head.path.to_owned(), head.bytes));
            Ok(())
        });
        assert_eq!(parsed, Parsed::Request(()), "1.{minor}");
        assert_eq!(seen, Some((false, "/a".into(), text.len())));
    }
    for version in ["2.0", "0.9", "3.0"] {
        assert_eq!(status(&head(version)), 505, "{version}");
    }
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    for version in ["1.x", "x.1", "2", "11.1", "1.12", ""] {
        assert_eq!(status(&head(version)), 400, "{version}");
    }
    assert_eq!(status("GET /\r\n\r\n"), 400);
    assert_eq!(status(&format!("GET / HTTP/2{}", " ".repeat(MAX_HEAD_BYTES))), 431);
}

#[test]
fn dates_are_those_of_the_rfc() {
    let text = |seconds| String::from_utf8(Date::of(seconds).as_bytes().to_vec()).unwrap();
    for (seconds, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(text(seconds), expected);
    }
}

proptest! {
    /// The same day and time as another program's calendar has.
    #[test]
    fn a_date_agrees_with_rfc_3339(seconds in 0u64..253_402_300_800) {
        let date = String::from_utf8(Date::of(seconds).as_bytes().to_vec()).unwrap();
        let other = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
        let other = other.to_string();
        prop_assert_eq!(&date[17..25], &other[11..19]);
        prop_assert_eq!((&date[12..16], &date[5..7]), (&other[..4], &other[8..10]));
    }

    /// However a valid head is cut, its first part alone is neither complete nor refused.
    #[test]
    fn every_prefix_of_a_head_is_partial(cut in 0usize..70, minor in 0u8..=9, absolute: bool) {
        let target = if absolute { "http://a.b/c" } else { "/c" };
        let text = format!("GET {target} HTTP/1.{minor}\r\nHost: a\r\nX: y\r\n\r\n");
        let cut = cut.min(text.len() - 1);
        prop_assert_eq!(read(&text[..cut]), Parsed::Partial);
        prop_assert_eq!(read(&text), Parsed::Request((Method::Get, "/c".into())));
    }

    /// What is made of pieces of requests is either read as a whole or not at all, and whoever reads on knows where.
    #[test]
    fn what_is_complete_ends_with_an_empty_line(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("GET "), Just("/"), Just(" HTTP/1."), Just("1"), Just("2"), Just("\r\n"), Just("\n"),
                Just("Host: a"), Just("Host:"), Just(" "), Just("\r"), Just("a"), Just(":"), Just("\0"),
            ],
            0..14,
        ),
    ) {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n\r\nGET /", pieces.concat());
        let end = parse(text.as_bytes(), |head| Ok(head.bytes));
        if let Parsed::Request(end) = end {
            prop_assert!(text[..end].ends_with("\n\r\n") || text[..end].ends_with("\n\n"));
        }
    }

    #[test]
    fn no_request_is_made_of_any_bytes(bytes: Vec<u8>) {
        if let Parsed::Request(end) = parse(&bytes, |head| Ok(head.bytes)) {
            prop_assert!(bytes.get(..end).is_some_and(|head| head.ends_with(b"\n")), "{bytes:?}");
        }
    }
}
