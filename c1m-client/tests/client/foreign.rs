//! Servers that are not c1m's: samples and heartbeats ask for what `--request` names, and judge what comes back.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::Ordering::Relaxed,
};

use super::common::{
    client::Client,
    foreign::{Foreign, Reply},
};

fn with_length(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nServer: other\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn samples_and_heartbeats_ask_for_the_request() {
    let body = "x".repeat(100_000);
    for answer in [with_length("200 OK", &body), chunked(&body), with_length("206 Part", "")] {
        let server = Foreign::start(1000, move |_| Reply::Bytes(answer.clone()));
        let mut client = Client::start(&format!(
            "--connect {} --connections 20 --request /index.html?a=b --sample 10 --heartbeat 300ms --hold 1s",
            server.address
        ));
        let asked = client.plan().asked;
        assert_eq!(asked.request.as_deref(), Some("/index.html?a=b"));
        assert_eq!(asked.check, asked.request);
        assert_eq!(client.ramped().answered, 20);
        let sample = client.sample();
        assert_eq!((sample.asked, sample.answered), (10, 10));
        let summary = client.summary();
        assert_eq!(summary.errors, BTreeMap::new());
        let beats = summary.heartbeats.unwrap();
        assert!(beats.due > 0, "{beats:?}");
        assert_eq!((beats.answered, beats.wrong, beats.missed), (beats.due, 0, 0));
        let paths: HashSet<String> = server.state.paths.lock().unwrap().drain(..).collect();
        assert_eq!(paths, HashSet::from(["/index.html?a=b".into()]));
        assert_eq!(client.end().0, Some(0));
    }
}

#[test]
fn a_body_that_ends_with_the_connection_is_an_answer() {
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n";
    let server = Foreign::start(1000, move |_| Reply::Last((head.to_owned() + "hello").into()));
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --idle --request /a --sample 10 --hold 100ms",
        server.address
    ));
    assert_eq!(client.plan().asked.request, None);
    client.ramped();
    let sample = client.sample();
    assert_eq!((sample.answered, sample.wrong, sample.missed), (10, 0, 0));
    let summary = client.summary();
    assert_eq!(summary.errors, BTreeMap::from([("closed by peer".into(), 10)]));
    assert_eq!(summary.held_at_end, 10);
}

#[test]
fn a_server_without_the_path_is_wrong_and_not_silent() {
    let server = Foreign::start(1000, |asked| match asked.path {
        "/" => Reply::Bytes(with_length("200 OK", "welcome")),
        _ => Reply::Bytes(with_length("404 Not Found", "no")),
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --sample 10 --heartbeat 200ms --hold 1s",
        server.address
    ));
    client.plan();
    assert_eq!(client.ramped().answered, 20);
    let sample = client.sample();
    assert_eq!((sample.answered, sample.wrong, sample.missed), (0, 10, 0));
    assert_eq!((sample.latency_us.count, sample.latency_us.p50), (0, None));
    let summary = client.summary();
    let beats = summary.heartbeats.unwrap();
    assert!(beats.due > 0 && beats.wrong == beats.due, "{beats:?}");
    assert_eq!((beats.answered, beats.missed), (0, 0));
    assert_eq!(summary.errors["sample status 404"], 10);
    assert_eq!(summary.errors["heartbeat status 404"], beats.wrong);
}

/// One bad answer to a sample, the name that it is counted by, and whether the server ends the connection with it.
const BAD: [(&str, &str, bool); 14] = [
    ("SSH-2.0-OpenSSH_9.2\r\n", "bad status line", false),
    ("HTTP/1.1 200 OK\r\nA B\r\n\r\n", "bad header", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "bad Content-Length", false),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "conflicting Content-Length",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length with Transfer-Encoding",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "bad Transfer-Encoding",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        "bad chunk end",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n",
        "chunk size too large",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno trailer\r\n\r\n",
        "bad trailer",
        false,
    ),
    ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "unasked switch of protocols", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "cut off", true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "cut off", true),
    ("HTTP/1.1 200 OK\r\nContent-", "cut off", true),
    ("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", "status 503", false),
];

#[test]
fn each_wrong_answer_has_a_name() {
    // Each connection has one of them.
    let server = Foreign::start(1000, |asked| {
        let (bytes, _, is_last) = BAD[usize::try_from(asked.connection).unwrap() % BAD.len()];
        match (asked.request, is_last) {
            (0, _) => Reply::Bytes(with_length("200 OK", "first")),
            (_, true) => Reply::Last(bytes.into()),
            (_, false) => Reply::Bytes(bytes.into()),
        }
    });
    let all = BAD.len() as u64;
    let mut client = Client::start(&format!(
        "--connect {} --connections {all} --request /a --sample {all} --hold 0s",
        server.address
    ));
    client.plan();
    assert_eq!(client.ramped().answered, all);
    let sample = client.sample();
    assert_eq!((sample.answered, sample.wrong, sample.missed), (0, all, 0));
    let mut expected = BTreeMap::from([("closed by peer".to_owned(), 0)]);
    for (_, name, is_last) in BAD {
        *expected.entry(format!("sample {name}")).or_insert(0) += 1;
        *expected.get_mut("closed by peer").unwrap() += u64::from(is_last);
    }
    assert_eq!(client.summary().errors, expected);
}

#[test]
fn endless_heads_and_trailers_are_wrong_answers() {
    for (head, line, name) in [
        ("HTTP/1.1 200 OK\r\n", "A: b\r\n", "sample too many headers"),
        ("HTTP/1.1 200 OK\r\nA: ", "bbbbbbb", "sample head too long"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            "A: b\r\n",
            "sample trailers too long",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
            "abcdefg",
            "sample chunk line too long",
        ),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n", "sample too many interim responses"),
    ] {
        let server = Foreign::start(1000, move |asked| {
            Reply::Bytes(match asked.request {
                0 => with_length("200 OK", "first"),
                _ => (head.to_owned() + &line.repeat(20_000)).into_bytes(),
            })
        });
        let mut client = Client::start(&format!(
            "--connect {} --connections 3 --request /a --sample 3 --hold 0s",
            server.address
        ));
        client.plan();
        client.ramped();
        let sample = client.sample();
        assert_eq!((sample.answered, sample.wrong, sample.missed), (0, 3, 0), "{name}");
        assert_eq!(client.summary().errors, BTreeMap::from([(name.into(), 3)]));
    }
}

#[test]
fn a_response_that_nobody_asked_for_is_not_the_answer_to_a_sample() {
    let server = Foreign::start(1000, |asked| {
        Reply::Bytes(match asked.request {
            0 => with_length("200 OK", "first").repeat(3),
            _ => with_length("200 OK", "later"),
        })
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 10 --request /a --sample 10 --hold 0s",
        server.address
    ));
    client.plan();
    assert_eq!(client.ramped().answered, 10);
    let sample = client.sample();
    assert_eq!((sample.answered, sample.wrong, sample.missed), (0, 0, 10));
    let errors = client.summary().errors;
    assert_eq!(errors["response unasked"], 10, "{errors:?}");
    assert_eq!(errors["sample not sent: after a wrong answer"], 10, "{errors:?}");
    assert_eq!(server.state.requests.load(Relaxed), 10);
}

#[test]
fn an_idle_connection_without_a_sample_has_no_request() {
    let flags = "--connect 127.0.0.1:9 --connections 1 --idle --request /a";
    let (code, stderr) = Client::start(flags).end();
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--idle asks for nothing"), "{stderr}");
}
