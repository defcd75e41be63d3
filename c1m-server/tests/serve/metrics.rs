//! `--metrics-addr` of the program.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use c1m_record::Record;

use c1m_testkit::scrape::{Samples, get, scrape};

use crate::support::*;

fn start(arguments: &[&str]) -> (Program, String) {
    let fixed = ["--workers", "1", "--interval", "20ms", "--metrics-addr", "127.0.0.1:0"];
    let program = Program::start(None, &[&fixed, arguments].concat());
    let url = program.listening.metrics.clone().unwrap();
    (program, url)
}

/// The page once it says that so many connections are held.
fn held(url: &str, connections: f64) -> Samples {
    let mut samples = Samples::new();
    until("the page says how many", || {
        samples = scrape(url);
        samples["c1m_server_connections"] == connections
    });
    samples
}

#[test]
fn a_page_says_what_the_summary_says() {
    let (program, url) = start(&["--quiet"]);
    assert!(
        scrape(&url).contains_key("c1m_files_limit{scope=\"host\"}"),
        "looked at once at least"
    );
    let mut streams: Vec<TcpStream> = (0..5).map(|_| connect(program.address)).collect();
    streams.iter_mut().for_each(ask);
    let samples = held(&url, 5.0);
    // Nothing is counted where nothing is attached, and nobody looks for who holds the memory.
    for absent in
        ["c1m_crossings", "c1m_refusals", "c1m_events", "c1m_under", "c1m_hook", "c1m_holder"]
    {
        assert!(!samples.keys().any(|name| name.starts_with(absent)), "{absent}: {samples:#?}");
    }
    // As of the last look, which can be from before the connections.
    until("a look says how many are watched", || {
        scrape(&url)["c1m_epoll_watches{scope=\"process\"}"] == 5.0
    });
    streams.truncate(2);
    let samples = held(&url, 2.0);
    let summary = program.finish();
    assert_eq!((summary.held, summary.peak, summary.accepted, summary.closed), (2, 5, 5, 3));
    let expected = [
        ("c1m_server_connections", summary.held),
        ("c1m_server_connections_peak", summary.peak),
        ("c1m_server_connections_accepted_total", summary.accepted),
        ("c1m_server_connections_closed_total", summary.closed),
        ("c1m_server_requests_total", 5),
        ("c1m_server_errors_total{operation=\"connection\",error=\"ECONNRESET\"}", 3),
        ("c1m_server_errors_total{operation=\"accept\",error=\"EMFILE\"}", 0),
    ];
    for (name, value) in expected {
        assert_eq!(samples[name], value as f64, "{name}");
    }
    let [user, system] = ["user", "system"]
        .map(|mode| samples[&format!("c1m_process_cpu_seconds_total{{mode=\"{mode}\"}}")]);
    // The kernel may give a short run to one of the two whole (cputime_adjust, kernel/sched/cputime.c, 6.18).
    assert!(user + system > 0.0, "{summary:?}");
    assert!(
        user <= summary.cpu_user_s && system <= summary.cpu_system_s,
        "{user} and {system} of {summary:?}"
    );
    assert!(samples["c1m_process_resident_memory_bytes"] > 4096.0);
    assert!(samples["c1m_scrapes_total"] >= 1.0 && samples["c1m_scrape_duration_seconds"] > 0.0);
}

#[test]
fn a_bad_scraper_disturbs_nobody() {
    let (mut program, url) = start(&[]);
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    // One asks and never reads, one never ends its request, one sends what is none.
    let mut deaf = connect(address.parse().unwrap());
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut slow = connect(address.parse().unwrap());
    slow.write_all(b"GET /metrics HT").unwrap();
    let mut rubbish = connect(address.parse().unwrap());
    rubbish.write_all(&[0; 300]).unwrap();
    let mut answer = String::new();
    rubbish.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(get(&url.replace("metrics", "")).starts_with("HTTP/1.1 404 Not Found\r\n"));
    let mut stream = connect(program.address);
    ask(&mut stream);
    held(&url, 1.0);
    program.wait_for("one connection", |record| match record {
        Record::Online(online) => (online.online == 1).then_some(()),
        _ => None,
    });
    assert_eq!(program.finish().held, 1);
}

#[test]
fn silent_connections_keep_no_scraper_out() {
    /// Connections at a time.
    const PLACES: usize = 16;
    let (_program, url) = start(&["--quiet"]);
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let errors = |operation: &str, error: &str| {
        format!("c1m_scrape_errors_total{{operation=\"{operation}\",error=\"{error}\"}}")
    };
    let samples = scrape(&url);
    for (operation, error) in
        [("accept", "EMFILE"), ("connection", "evicted"), ("request", "408"), ("request", "400")]
    {
        assert_eq!(samples[&errors(operation, error)], 0.0, "{samples:#?}");
    }
    let mut silent = Vec::new();
    for count in [PLACES, 200] {
        while silent.len() < count {
            let mut stream = connect(address.parse().unwrap());
            stream.write_all(b"GET /met").unwrap();
            silent.push(stream);
        }
        let samples = scrape(&url);
        let evicted = samples[&errors("connection", "evicted")];
        // On a machine that pauses for seconds some time out before.
        let over = evicted + samples[&errors("request", "408")];
        assert!(evicted > 0.0 && over > (count - PLACES) as f64, "{samples:#?}");
        // The last one still has its place, until it has said what it wants.
        let mut last = silent.pop().unwrap();
        last.write_all(b"rics HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        last.read_to_string(&mut answer).unwrap();
        let statuses = ["HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 408 Request Timeout\r\n"];
        assert!(statuses.iter().any(|status| answer.starts_with(status)), "no Host: {answer}");
    }
}

#[test]
fn a_head_of_the_page_says_how_long_it_is() {
    let (_program, url) = start(&["--quiet"]);
    let mut stream = connect(url.split('/').nth(2).unwrap().parse().unwrap());
    stream.write_all(b"HEAD /metrics?a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert!(length.parse::<usize>().unwrap() > 1000, "{head}");
    assert_eq!(body, "");
}

#[test]
fn an_address_that_cannot_be_had_is_told_before_anything_starts() {
    let (_program, url) = start(&[]);
    let taken = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    for arguments in [&["--metrics-addr", &taken][..], &["--trace", "--metrics-addr", &taken]] {
        let outcome = outcome(&mut command(None, arguments));
        assert_eq!((outcome.code, outcome.lines.len()), (Some(3), 0), "{outcome:?}");
        assert_eq!(
            outcome.stderr,
            format!(
                "c1m-server: cannot bind {taken} for metrics (Address already in use (os error 98)): choose another --metrics-addr\n"
            )
        );
    }
}
