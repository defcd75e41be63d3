//! The client against a real server on loopback, as a process.

#[path = "client/addresses.rs"]
mod addresses;
mod common;
#[path = "client/ends.rs"]
mod ends;
#[path = "client/figures.rs"]
mod figures;
#[path = "client/foreign.rs"]
mod foreign;
#[path = "client/losses.rs"]
mod losses;
#[path = "client/rates.rs"]
mod rates;
#[path = "client/shards.rs"]
mod shards;
#[path = "client/silence.rs"]
mod silence;

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use c1m_host::ports::Ports;
use c1m_record::LimitName;
use c1m_testkit::until as eventually;
use common::{
    Manner, Server,
    client::Client,
    diag::{ESTABLISHED, TIME_WAIT, sockets},
    never_accepting,
};

const ANY_PORT: &str = "127.0.0.1:0";

/// A source address that no other test uses, in this run or one before.
fn own_source() -> IpAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = u64::from(std::process::id()) * 32 + NEXT.fetch_add(1, Relaxed);
    let [high, low] = [number / 250 % 250, number % 250].map(|n| u8::try_from(n).unwrap());
    [127, 77, high + 1, low + 1].into()
}

#[test]
fn five_thousand_connections_from_several_sources_and_tables() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let flags = format!(
        "--connect {} --connections 5k --per-source 1000 --sample 500 --quiet",
        server.address
    );
    // One table is too small for them, so there are two, whatever the number of cores.
    let mut client = Client::start_with_limit(&flags, Some(2600));
    let plan = client.plan();
    assert_eq!((plan.connections, plan.ports_per_source), (5000, 1000));
    assert!(plan.workers >= 2 && plan.capacity >= 5000, "{plan:?}");
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.answered, ramped.failed), (5000, 5000, 0));
    assert_eq!((ramped.connect_us.count, ramped.first_byte_us.count), (5000, 5000));
    let sample = client.sample();
    assert_eq!((sample.asked, sample.answered), (500, 500));
    assert_eq!(server.held.load(Relaxed), 5000);
    let peers = server.peers.lock().unwrap().clone();
    assert_eq!(peers.len(), 5000, "a 4-tuple was used twice");
    assert!(peers.iter().map(SocketAddr::ip).collect::<HashSet<_>>().len() >= 5);
    client.signal(&["TERM"]);
    let summary = client.summary();
    assert_eq!((summary.connected, summary.held_at_end, summary.failed), (5000, 5000, 0));
    assert_eq!(summary.errors, BTreeMap::new());
    assert_eq!(client.end(), (Some(0), String::new()));
    eventually("the server's end of all connections", || server.held.load(Relaxed) == 0);
}

#[test]
fn idle_connections_ask_for_nothing_until_they_are_sampled() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let flags =
        format!("--connect {} --connections 500 --idle --sample 50 --quiet", server.address);
    let mut client = Client::start(&flags);
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.answered, ramped.failed), (500, 0, 0));
    assert_eq!((ramped.connect_us.count, ramped.first_byte_us.count), (500, 0));
    let sample = client.sample();
    assert_eq!((sample.asked, sample.answered), (50, 50));
    client.signal(&["TERM"]);
    let summary = client.summary();
    // Only the sample was answered, and that is not a first answer.
    assert_eq!((summary.held_at_end, summary.answered), (500, 0));
    assert!(summary.errors.is_empty(), "{:?}", summary.errors);
}

#[test]
fn idle_connections_that_are_refused_are_told() {
    // Bound and not listening: every handshake is refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut client =
        Client::start(&format!("--connect {address} --connections 20 --idle --quiet --hold 1s"));
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.failed), (0, 20));
    let (verdict, summary) = client.verdict_and_summary();
    assert_eq!(summary.errors.get("connect ECONNREFUSED"), Some(&20), "{:?}", summary.errors);
    assert!(verdict.quiet, "nobody listens, which is no limit: {verdict:?}");
}

#[test]
fn ports_that_are_taken_are_stepped_over_while_there_are_spare_ones() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let source = own_source();
    let ports = Ports::read().unwrap().usable;
    let _taken = [0, 17, 39].map(|n| TcpListener::bind((source, ports[n])).unwrap());
    let run = |connections| {
        let mut client = Client::start(&format!(
            "--connect {} --source {source} --per-source 50 --connections {connections} --hold 0s",
            server.address
        ));
        assert_eq!(client.plan().capacity, 50);
        let ramped = client.ramped();
        let (verdict, summary) = client.verdict_and_summary();
        let limit = verdict.causes.first().map(|cause| cause.limit);
        (ramped.established, summary.errors, limit, client.end().0)
    };
    let taken = |count| ("bind EADDRINUSE".to_string(), count);
    assert_eq!(run(40), (40, BTreeMap::from([taken(3)]), None, Some(0)));
    let none_left = ("no spare 4-tuple left".to_string(), 1);
    let errors = BTreeMap::from([taken(3), none_left]);
    assert_eq!(run(48), (47, errors, Some(LimitName::Ports), Some(1)));
}

#[test]
fn an_impossible_plan_is_refused_with_what_would_do() {
    let refused = |flags: &str, nofile, text: &str| {
        let (code, stderr) = Client::start_with_limit(flags, nofile).end();
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    };
    let per_source = "--connect 127.0.0.1:9 --source 127.0.0.9 --per-source 100";
    let text = "1000 connections do not fit: 1 source addresses x 100 source ports x 1 destination ports hold 100. Any one of \
                these would do: 10 source addresses (--source); 10 destination ports (--connect 127.0.0.1:9-18)";
    refused(&format!("{per_source} --connections 1000"), None, text);
    let few = "--connect 127.0.0.1:9 --connections 1000 --workers 2";
    refused(few, Some(100), "use --workers");
    refused(
        "--connect 127.0.0.1:9 --connections 1 --source 198.51.100.77",
        None,
        "ip address add 198.51.100.77",
    );
    refused("--connect 127.0.0.1:9 --connections 1 --pin 64K", None, "49152");
    refused(
        "--connect 127.0.0.1:9 --connections 1 --unread --heartbeat 1s",
        None,
        "cannot be used with",
    );
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let free = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let mut client = Client::start(&format!("--connect {free} --connections 10"));
    assert_eq!(client.plan().connections, 10);
    assert_eq!(
        (client.ramped().failed, client.summary().errors),
        (10, BTreeMap::from([("connect ECONNREFUSED".into(), 10)]))
    );
    assert_eq!(client.end().0, Some(1));
    let (code, stderr) =
        Client::start(&format!("--connect {free} --connections 10 --pin 4K")).end();
    assert_eq!(code, Some(3));
    assert!(stderr.contains(&format!("the probe connection to {free} failed")), "{stderr}");
}

/// How many sockets at the client's end hold how many pages, and the bytes that lie in all of them.
///
/// Looked at once the senders hold nothing any more: the kernel wakes a receiver before it acknowledges, so the last
/// answers' copies are there for an instant longer.
fn pages_of_clients(server: &Server) -> (BTreeMap<u64, u64>, u64) {
    let end = Instant::now() + Duration::from_secs(5);
    while sockets(ESTABLISHED).iter().any(|s| s.local == server.address && s.charged_bytes > 0) {
        assert!(Instant::now() < end, "a sender still holds its copy");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (mut pages, mut unread) = (BTreeMap::new(), 0);
    for socket in sockets(ESTABLISHED).into_iter().filter(|s| s.remote == server.address) {
        assert_eq!(socket.charged_bytes % 4096, 0);
        *pages.entry(u64::from(socket.charged_bytes / 4096)).or_insert(0) += 1;
        unread += u64::from(socket.unread_bytes);
    }
    (pages, unread)
}

/// tcp_mem is the whole host's: while something else drives it into its limits, the kernel splits and refuses, rightly, and
/// this test says nothing about the client.
#[test]
fn pinned_pages_are_those_that_the_kernel_charges() {
    for (flag, expected) in [
        // 7711 bytes are 1.8826 pages: 941 for 500 connections.
        ("7.53K", BTreeMap::from([(1, 59), (2, 441)])),
        ("1K", BTreeMap::from([(0, 375), (1, 125)])),
        ("20K", BTreeMap::from([(5, 500)])),
    ] {
        let server = Server::start(ANY_PORT, Manner::Good);
        let address = server.address;
        let mut client =
            Client::start(&format!("--connect {address} --connections 500 --pin {flag}"));
        let pin = client.plan().pin.unwrap();
        let planned: BTreeMap<u64, u64> =
            pin.plan.iter().map(|step| (step.pages, step.connections)).collect();
        assert_eq!(planned, expected);
        let ramped = client.ramped();
        assert_eq!(ramped.answered, 500);
        assert_eq!(ramped.pin.unwrap().planned_pages, pin.planned_pages);
        let (charged, unread) = pages_of_clients(&server);
        assert_eq!(charged, expected, "{flag}");
        let planned_bytes: u64 =
            pin.plan.iter().map(|step| step.response_bytes * step.connections).sum();
        assert_eq!(unread, planned_bytes, "{flag}");
        client.signal(&["TERM"]);
        assert_eq!(client.summary().held_at_end, 500);
        assert_eq!(client.end().0, Some(0));
    }
}

#[test]
fn a_response_that_is_more_than_one_skb_is_refused() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let (code, stderr) =
        Client::start(&format!("--connect {} --connections 10 --pin 48K", server.address)).end();
    assert_eq!(code, Some(3));
    assert!(stderr.contains("did not stay one skb"), "{stderr}");
}

#[test]
fn a_sample_of_pinned_connections_reads_what_lies_there_first() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!(
        "--connect {} --connections 300 --pin 6K --sample 100 --hold 0s",
        server.address
    ));
    client.plan();
    client.ramped();
    let sample = client.sample();
    assert_eq!((sample.asked, sample.answered), (100, 100));
    assert_eq!(client.summary().errors, BTreeMap::new());
}

#[test]
fn unread_answers_stay_in_the_receive_queue() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let address = server.address;
    let mut client = Client::start(&format!(
        "--connect {address} --connections 100 --unread --request /bytes/100"
    ));
    client.plan();
    assert_eq!(client.ramped().answered, 100);
    let (charged, unread) = pages_of_clients(&server);
    assert_eq!(charged, BTreeMap::from([(1, 100)]));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".len() as u64;
    assert_eq!(unread, 100 * (head + 100));
}

#[test]
fn heartbeats_are_answered_over_an_open_chunked_body() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!(
        "--connect {} --connections 200 --heartbeat 300ms --hold 2s",
        server.address
    ));
    client.plan();
    client.ramped();
    let summary = client.summary();
    let beats = summary.heartbeats.unwrap();
    // 200 connections, 2 s by 300 ms; the last round is not whole, and each worker begins one more of it at most.
    assert!((1333..=1350).contains(&beats.due), "{beats:?}");
    assert_eq!((beats.answered, beats.missed), (beats.due, 0));
    assert_eq!(beats.latency_us.count, beats.answered);
    assert_eq!(summary.errors, BTreeMap::new());
    assert!(server.requests.load(Relaxed) >= 200 + beats.answered);
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn heartbeats_and_samples_that_nobody_answers_are_missed() {
    let server = Server::start(ANY_PORT, Manner::Once);
    let mut client = Client::start(&format!(
        "--connect {} --connections 20 --heartbeat 100ms --sample 10 --timeout 200ms --give-up 5m --hold 2s",
        server.address
    ));
    client.plan();
    assert_eq!(client.ramped().answered, 20);
    let sample = client.sample();
    assert_eq!((sample.asked, sample.answered, sample.wrong, sample.missed), (10, 0, 0, 10));
    let summary = client.summary();
    let beats = summary.heartbeats.unwrap();
    assert_eq!((beats.answered, beats.wrong), (0, 0));
    assert_eq!((beats.due, beats.missed), (400, 400));
    assert_eq!(summary.errors["sample timeout"], 10);
    assert_eq!(summary.errors["heartbeat timeout"], 10);
    assert_eq!(summary.held_at_end, 20);
}

#[test]
fn a_sample_checks_what_comes_back() {
    let server = Server::start(ANY_PORT, Manner::Short);
    let mut client = Client::start(&format!(
        "--connect {} --connections 30 --sample 100 --hold 0s",
        server.address
    ));
    client.plan();
    client.ramped();
    let sample = client.sample();
    assert_eq!((sample.asked, sample.answered, sample.wrong, sample.missed), (30, 0, 30, 0));
    assert_eq!(client.summary().errors["sample wrong length"], 30);
}

#[test]
fn a_server_that_never_answers_is_held_all_the_same() {
    let server = Server::start(ANY_PORT, Manner::Silent);
    let mut client = Client::start(&format!(
        "--connect {} --connections 50 --in-flight 10 --timeout 200ms --give-up 5m --hold 0s",
        server.address
    ));
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established, ramped.answered), (50, 0));
    let summary = client.summary();
    assert_eq!(summary.errors, BTreeMap::from([("first byte timeout".into(), 50)]));
    assert_eq!(summary.held_at_end, 50);
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn a_queue_that_is_full_is_a_connect_timeout() {
    // The kernel drops the handshakes that the queue has no place for.
    let (_socket, address) = never_accepting(1);
    let mut client = Client::start(&format!(
        "--connect {address} --connections 8 --workers 1 --timeout 300ms --give-up 5m --hold 0s"
    ));
    client.plan();
    let ramped = client.ramped();
    assert_eq!(ramped.established + ramped.failed, 8);
    assert!(ramped.failed > 0, "{ramped:?}");
    let (verdict, summary) = client.verdict_and_summary();
    assert_eq!(summary.errors["connect timeout"], ramped.failed);
    // The listener is on this host, whose counter tells which of the queues it was.
    assert!(!verdict.quiet);
    assert_eq!(verdict.causes[0].limit, LimitName::AcceptQueue, "{verdict:?}");
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn resets_leave_no_time_wait_and_fin_does() {
    let time_wait =
        |server: &Server| sockets(TIME_WAIT).iter().filter(|s| s.remote == server.address).count();
    for (end, left) in [("reset", 0), ("fin", 100)] {
        let server = Server::start(ANY_PORT, Manner::Good);
        let mut client = Client::start(&format!(
            "--connect {} --connections 100 --source {} --end {end} --hold 0s",
            server.address,
            own_source()
        ));
        client.plan();
        assert_eq!(client.ramped().established, 100);
        assert_eq!(client.end().0, Some(0));
        eventually("the end of all connections", || server.held.load(Relaxed) == 0);
        eventually("TIME_WAIT", || time_wait(&server) == left);
    }
}

#[test]
fn a_killed_client_leaves_no_time_wait_and_no_connection() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!("--connect {} --connections 100", server.address));
    client.plan();
    client.ramped();
    client.signal(&["KILL"]);
    assert_eq!(client.end().0, None);
    eventually("the end of all connections", || server.held.load(Relaxed) == 0);
    assert!(!sockets(TIME_WAIT).iter().any(|s| [s.remote, s.local].contains(&server.address)));
}

#[test]
fn a_signal_during_the_ramp_ends_it_in_order() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client =
        Client::start(&format!("--connect {} --connections 5000 --rate 100", server.address));
    client.plan();
    eventually("a first connection", || server.held.load(Relaxed) > 0);
    client.signal(&["INT"]);
    let summary = client.summary();
    assert!(summary.connected > 0 && summary.connected < 5000, "{summary:?}");
    assert_eq!(summary.held_at_end, summary.connected);
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn the_second_signal_ends_at_once() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!("--connect {} --connections 10", server.address));
    client.plan();
    client.ramped();
    // Stopped, it finds both at once when it goes on: there is no time in which the first one could have ended it.
    client.signal(&["STOP", "INT", "TERM", "CONT"]);
    // 128, and the number of the second one.
    assert_eq!(client.end().0, Some(143));
}

#[test]
fn ipv6_connects_from_its_one_loopback_address() {
    let server = Server::start("[::1]:0", Manner::Good);
    let flags = format!("--connect {} --connections 200 --sample 20 --hold 0s", server.address);
    let mut client = Client::start(&flags);
    assert_eq!(client.plan().sources, 1);
    assert_eq!(client.ramped().answered, 200);
    assert_eq!(client.sample().answered, 20);
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn destination_ports_share_the_connections_and_multiply_the_source_ports() {
    let (first, second) = loop {
        let first = Server::start(ANY_PORT, Manner::Good);
        let next = first.address.port().saturating_add(1);
        // The next port may be somebody's.
        if let Ok(free) = TcpListener::bind(("127.0.0.1", next)) {
            drop(free);
            break (first, Server::start(&format!("127.0.0.1:{next}"), Manner::Good));
        }
    };
    let mut client = Client::start(&format!(
        "--connect {}-{} --source {} --per-source 150 --connections 300",
        first.address,
        second.address.port(),
        own_source()
    ));
    let plan = client.plan();
    assert_eq!((plan.destinations, plan.capacity), (2, 300));
    assert_eq!(client.ramped().established, 300);
    assert_eq!([&first, &second].map(|server| server.held.load(Relaxed)), [150, 150]);
    let peers = |server: &Server| server.peers.lock().unwrap().clone();
    assert_eq!(peers(&first), peers(&second), "a source port serves both destinations");
}
