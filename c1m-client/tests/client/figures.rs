//! Figures of servers that answer late, not at all, or that go away.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use c1m_client::record::EndedBy;
use c1m_testkit::scrape::scrape;

use super::{
    ANY_PORT,
    common::{
        Manner, Server,
        client::Client,
        foreign::{Foreign, Reply},
        never_accepting,
    },
    eventually,
    losses::victim,
};

/// Threads wait for it, and it opens once.
#[derive(Debug, Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }
}

fn ok(body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into())
}

#[test]
fn answers_after_the_timeout_are_slower_than_all_others() {
    let (gate, late) = (Arc::new(Gate::default()), Arc::new(AtomicU64::new(0)));
    let (waits, answers_late) = (gate.clone(), late.clone());
    let server = Foreign::start(1000, move |asked| {
        if asked.connection % 2 == 1 {
            waits.wait();
            answers_late.fetch_add(1, Relaxed);
        }
        ok("hello")
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 40 --timeout 2s --request /a --require 'first_byte_p99<100ms' --require 'first_byte_p40<2s' \
         --require 'answered==20'",
        server.address
    ));
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.answered), (40, 20));
    let first_byte = ramped.first_byte_us;
    assert_eq!((first_byte.count, first_byte.unanswered), (20, 20));
    assert!(first_byte.p50.is_some() && first_byte.p90.is_none() && first_byte.max.is_none());
    // They come all the same, and are no answers any more.
    gate.open();
    eventually("the late answers", || late.load(Relaxed) == 20);
    std::thread::sleep(Duration::from_millis(200));
    client.signal(&["TERM"]);
    let summary = client.summary();
    assert_eq!((summary.answered, summary.held_at_end), (20, 40));
    assert_eq!(summary.first_byte_us, first_byte);
    assert_eq!(summary.errors["first byte timeout"], 20);
    let [p99, p40, answered] = &summary.requirements[..] else { panic!("{summary:?}") };
    assert!(!p99.held && p40.held && answered.held, "{summary:?}");
    let why = p99.unknown.as_deref().unwrap();
    assert!(why.starts_with("20 of 40 had no right answer within --timeout"), "{why}");
    assert_eq!(client.end().0, Some(1));
}

/// The metrics that the client serves at `url`.
fn latencies(url: &str, name: &str) -> (Vec<(String, f64)>, f64, f64) {
    let samples = scrape(url);
    let prefix = format!("c1m_client_{name}_seconds_bucket{{le=\"");
    let mut buckets: Vec<(String, f64)> = samples
        .iter()
        .filter_map(|(name, count)| {
            Some((name.strip_prefix(&prefix)?.strip_suffix("\"}")?.to_owned(), *count))
        })
        .collect();
    let bound = |le: &str| le.parse::<f64>().unwrap();
    buckets.sort_by(|one, other| bound(&one.0).total_cmp(&bound(&other.0)));
    let of =
        |name: String| *samples.get(&name).unwrap_or_else(|| panic!("no {name}: {samples:#?}"));
    let unanswered = of(format!("c1m_client_unanswered_total{{stage=\"{name}\"}}"));
    (buckets, of(format!("c1m_client_{name}_seconds_sum")), unanswered)
}

#[test]
fn histograms_count_what_is_not_answered_in_no_bucket_that_has_a_bound() {
    let gate = Arc::new(Gate::default());
    let waits = gate.clone();
    let server = Foreign::start(1000, move |asked| {
        if asked.connection % 4 == 3 {
            waits.wait();
        }
        ok("hello")
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 40 --timeout 3s --request /a --metrics-addr 127.0.0.1:0",
        server.address
    ));
    let url = client.plan().metrics.unwrap();
    // From the start of the ramp: nothing is absent that is 0.
    let buckets = latencies(&url, "first_byte").0;
    assert_eq!(buckets.len(), 19, "{buckets:?}");
    let ramped = client.ramped();
    gate.open();
    for (name, record) in [("connect", ramped.connect_us), ("first_byte", ramped.first_byte_us)] {
        let (buckets, sum, unanswered) = latencies(&url, name);
        assert_eq!(unanswered, record.unanswered as f64);
        // The last bounds are the timeout, and none: answers are below the one, all are below the other.
        let [.., (last, answered), (none, all)] = &buckets[..] else { panic!("{buckets:?}") };
        assert_eq!((last.as_str(), none.as_str()), ("3", "+Inf"));
        assert_eq!(*answered, record.count as f64);
        assert_eq!(*all, (record.count + record.unanswered) as f64);
        // Half of all are below each bound that is above the median, and fewer below each that is not. The record's has three digits.
        let median = record.p50.unwrap() as f64 / 1e6;
        for (bound, below) in &buckets {
            let bound: f64 = bound.parse().unwrap();
            assert!(bound < median || *below >= all / 2.0, "{bound}: {below} of {buckets:?}");
            assert!(
                bound > median * 0.998 || *below < all / 2.0,
                "{bound}: {below} of {buckets:?}"
            );
        }
        // Those that have a time, and no others: no more than each as long as the longest.
        assert!(sum > 0.0 && sum <= record.count as f64 * 3.0, "{sum} of {record:?}");
    }
    assert_eq!(ramped.first_byte_us.unanswered, 10);
    client.signal(&["TERM"]);
    client.summary();
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn what_is_lost_before_it_is_answered_is_unanswered() {
    let server = Foreign::start(1000, |asked| match asked.connection % 2 {
        0 => ok("hello"),
        _ => Reply::Last(Vec::new()),
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --request /a --hold 0s --require 'first_byte_p99<3600s'",
        server.address
    ));
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.answered), (20, 10));
    assert_eq!((ramped.first_byte_us.count, ramped.first_byte_us.unanswered), (10, 10));
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn handshakes_that_time_out_are_unanswered() {
    // The kernel drops the handshakes that the queue has no place for.
    let (_socket, address) = never_accepting(1);
    let mut client = Client::start(&format!(
        "--connect {address} --connections 8 --idle --timeout 300ms --hold 0s --require 'connected>=2' --require 'connect_p90<3600s'"
    ));
    client.plan();
    let ramped = client.ramped();
    let connect = ramped.connect_us;
    assert_eq!((connect.count, connect.count + connect.unanswered), (ramped.established, 8));
    assert!(connect.count >= 2 && connect.unanswered > 0, "{connect:?}");
    assert!(connect.p50.is_none() && connect.max.is_none(), "{connect:?}");
    let summary = client.summary();
    assert!(summary.requirements[0].held && !summary.requirements[1].held, "{summary:?}");
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn connections_that_are_refused_are_unanswered() {
    // Of two destinations one refuses: half of the connections have no time to connect, whatever those of the other half were.
    let (server, _refusing) = loop {
        let server = Server::start(ANY_PORT, Manner::Good);
        let next = SocketAddr::new(server.address.ip(), server.address.port().saturating_add(1));
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // Bound and not listening. The port may be somebody's.
        if socket.bind(&next.into()).is_ok() {
            break (server, socket);
        }
    };
    let port = server.address.port();
    for more in ["--idle", ""] {
        let mut client = Client::start(&format!(
            "--connect 127.0.0.1:{port}-{} --connections 40 --hold 0s --require connected==20 --require 'connect_p99<3600s' {more}",
            port + 1
        ));
        client.plan();
        let connect = client.ramped().connect_us;
        assert_eq!((connect.count, connect.unanswered), (20, 20), "{more}");
        assert!(connect.p50.is_some() && connect.p90.is_none(), "{connect:?}");
        let summary = client.summary();
        assert_eq!((summary.connected, summary.failed, summary.connect_us), (20, 20, connect));
        let held: Vec<bool> = summary.requirements.iter().map(|it| it.held).collect();
        assert_eq!(held, [true, false], "{more}: {summary:?}");
        assert_eq!(client.end().0, Some(1), "{more}");
    }
}

#[test]
fn slots_that_the_end_frees_answer_nobody() {
    // Those that wait in the accept queue are accepted as soon as the client closes the first ones.
    let server = Foreign::start(100, |_| ok("hello"));
    let mut client = Client::start(&format!(
        "--connect {} --connections 400 --workers 8 --in-flight 100 --timeout 2s --request /a --hold 0s",
        server.address
    ));
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.answered), (400, 100));
    let summary = client.summary();
    assert_eq!((summary.connected, summary.held_at_end, summary.answered), (400, 400, 100));
    let first_byte = summary.first_byte_us;
    assert_eq!((first_byte.count, first_byte.unanswered), (100, 300));
    assert_eq!(summary.errors["first byte timeout"], 300);
    assert_eq!(summary.errors.len(), 1, "{:?}", summary.errors);
}

#[test]
fn heartbeats_of_lost_connections_are_due() {
    let server = Foreign::start(1000, |_| ok("hello"));
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --request /a --heartbeat 200ms --hold 6s --require 'heartbeat_answered>=90%'",
        server.address
    ));
    client.plan();
    client.ramped();
    eventually("a round of heartbeats", || server.state.requests.load(Relaxed) >= 60);
    server.close(|_| true);
    let summary = client.summary();
    assert_eq!((summary.connected, summary.held_at_end), (20, 0));
    assert_eq!(summary.errors["closed by peer"], 20);
    let beats = summary.heartbeats.clone().unwrap();
    // 20 connections, 30 times each, whenever they went.
    assert_eq!(beats.due, 600, "{beats:?}");
    assert_eq!(beats.due, beats.answered + beats.wrong + beats.missed);
    assert!(beats.answered >= 40 && beats.missed >= 100, "{beats:?}");
    assert_eq!(beats.latency_us.unanswered, beats.missed);
    assert_eq!(beats.latency_us.max, None);
    assert!(!summary.requirements[0].held, "{summary:?}");
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn connections_that_are_left_do_not_hide_those_that_are_lost() {
    let server = Foreign::start(1000, |_| ok("hello"));
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --request /a --heartbeat 200ms --hold 3s",
        server.address
    ));
    client.plan();
    client.ramped();
    eventually("a round of heartbeats", || server.state.requests.load(Relaxed) >= 60);
    server.close(|number| number % 2 == 0);
    let summary = client.summary();
    assert_eq!(summary.held_at_end, 10);
    let beats = summary.heartbeats.unwrap();
    // Half of what came after.
    assert!(beats.missed > 0 && beats.answered > beats.missed, "{beats:?}");
    assert_eq!(beats.due, beats.answered + beats.missed);
}

#[test]
fn connections_that_were_lost_before_the_hold_have_no_heartbeats() {
    let server = Foreign::start(1000, |asked| match asked.connection {
        0..10 => Reply::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
        _ => ok("hello"),
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --rate 20 --request /a --heartbeat 200ms --hold 1s",
        server.address
    ));
    client.plan();
    client.ramped();
    let summary = client.summary();
    assert_eq!(summary.held_at_end, 10);
    let beats = summary.heartbeats.unwrap();
    assert!((10..=60).contains(&beats.due), "{beats:?}");
    assert_eq!((beats.answered, beats.missed), (beats.due, 0));
}

#[test]
fn heartbeats_that_nobody_answers_are_all_due() {
    let server = Server::start(ANY_PORT, Manner::Once);
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --heartbeat 100ms --timeout 3s --hold 1s --require 'heartbeat_answered>=99%'",
        server.address
    ));
    client.plan();
    client.ramped();
    let summary = client.summary();
    let beats = summary.heartbeats.clone().unwrap();
    // Of each connection one is sent, and nine wait behind it.
    assert_eq!((beats.due, beats.answered, beats.wrong, beats.missed), (200, 0, 0, 200));
    assert_eq!(summary.errors, BTreeMap::from([("heartbeat timeout".into(), 20)]));
    assert_eq!((summary.ended_by, summary.held_at_end), (EndedBy::Hold, 20));
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn heartbeats_of_a_stopped_server_are_missed() {
    let (address, mut victim) = victim();
    let mut client = Client::start(&format!(
        "--connect {} --connections 50 --heartbeat 500ms --timeout 2s --hold 5s --require 'heartbeat_answered>=99%'",
        address
    ));
    client.plan();
    client.ramped();
    // It keeps its connections, and its kernel acknowledges what they bring.
    victim.stop().unwrap();
    let summary = client.summary();
    let beats = summary.heartbeats.clone().unwrap();
    assert_eq!((beats.due, beats.answered + beats.missed), (500, 500), "{beats:?}");
    assert!(beats.missed >= 50, "at least the last of each connection: {beats:?}");
    assert_eq!((summary.ended_by, summary.lost), (EndedBy::Hold, 0));
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn answers_after_the_hold_and_within_the_timeout_count() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --heartbeat 100ms --timeout 60s --hold 1s",
        server.address
    ));
    client.plan();
    client.ramped();
    server.sleep(Duration::from_secs(3));
    let beats = client.summary().heartbeats.unwrap();
    assert_eq!((beats.due, beats.answered, beats.missed), (200, 200, 0), "{beats:?}");
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn a_signal_ends_the_wait_for_heartbeats_that_could_still_be_answered() {
    let server = Server::start(ANY_PORT, Manner::Once);
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --heartbeat 100ms --timeout 30m --hold 1s",
        server.address
    ));
    client.plan();
    client.ramped();
    eventually("a line that says what it waits for", || {
        client.has_said("heartbeats of 20 connections are unanswered: waiting for each until")
    });
    client.signal(&["TERM"]);
    let summary = client.summary();
    let beats = summary.heartbeats.unwrap();
    assert_eq!((beats.due, beats.answered, beats.missed), (0, 0, 0));
    assert!(summary.errors.is_empty(), "{:?}", summary.errors);
    assert_eq!(summary.ended_by, EndedBy::Signal);
}

#[test]
fn heartbeats_that_are_answered_too_late_are_missed() {
    let gate = Arc::new(Gate::default());
    let waits = gate.clone();
    let server = Foreign::start(1000, move |asked| {
        if asked.request > 0 {
            waits.wait();
        }
        ok("hello")
    });
    let mut client = Client::start(&format!(
        "--connect {} --connections 10 --request /a --heartbeat 10s --timeout 500ms",
        server.address
    ));
    client.plan();
    client.ramped();
    // All of the first round, each of them for longer than the timeout.
    eventually("the heartbeats", || server.state.requests.load(Relaxed) == 20);
    std::thread::sleep(Duration::from_millis(700));
    gate.open();
    std::thread::sleep(Duration::from_millis(200));
    client.signal(&["TERM"]);
    let beats = client.summary().heartbeats.unwrap();
    assert_eq!((beats.answered, beats.wrong), (0, 0), "{beats:?}");
    assert!(beats.missed >= 10, "{beats:?}");
    assert_eq!((beats.latency_us.count, beats.latency_us.unanswered), (0, beats.missed));
}

#[test]
fn text_has_no_times_where_nothing_was_measured() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_c1m-client"))
        .args(["--connect", &server.address.to_string(), "--connections", "5", "--idle"])
        .args(["--hold", "0s", "--quiet"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "first byte: count=0 unanswered=0 p50=- p90=- p99=- p99.9=- max=-";
    assert!(text.contains(expected), "{text}");
}
