//! Servers that do not answer: what the client says of it, what it does meanwhile, and when it gives up.

use std::{fs, net::TcpListener, time::Duration};

use c1m_client::record::EndedBy;
use c1m_record::LimitName;
use c1m_testkit::namespace::is_own_network;

use super::{
    ANY_PORT,
    common::{Manner, Server, client::Client, never_accepting},
    eventually,
};

#[test]
fn the_rest_is_opened_side_by_side_when_nothing_answers() {
    let (_socket, address) = never_accepting(9);
    // Twenty at a time would take 20 timeouts, which is 40 s. The client is patient enough for that.
    let mut client = Client::start(&format!(
        "--connect {address} --connections 400 --in-flight 20 --workers 1 --timeout 2s --give-up 5m --hold 0s"
    ));
    client.plan();
    let ramped = client.ramped();
    assert_eq!((ramped.established + ramped.failed, ramped.answered), (400, 0));
    assert!((10..20).contains(&ramped.established), "{ramped:?}");
    assert!(ramped.ramp_s < 30.0, "a few at a time: {} s", ramped.ramp_s);
    let queue = client.waiting[0].accept_queue.unwrap();
    assert_eq!((queue.listeners, queue.most), (1, 9), "{queue:?}");
    let full = client
        .waiting
        .iter()
        .filter_map(|it| it.accept_queue)
        .any(|it| it.full == 1 && it.queued >= 10);
    assert!(full, "{:?}", client.waiting);
    let (verdict, summary) = client.verdict_and_summary();
    assert_eq!(summary.ended_by, EndedBy::Hold);
    assert_eq!(verdict.causes[0].limit, LimitName::AcceptQueue, "{verdict:?}");
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn a_client_that_nothing_answers_gives_up() {
    let (_socket, address) = never_accepting(0);
    // Hours of it, so that the ramp alone never ends it.
    let mut client = Client::start(&format!(
        "--connect {address} --connections 100k --rate 10 --timeout 200ms --hold 30m --require 'connected>=0'"
    ));
    let plan = client.plan();
    assert!((plan.asked.give_up_s - 0.6).abs() < 1e-9, "{plan:?}");
    let summary = client.summary();
    assert_eq!(summary.ended_by, EndedBy::NoAnswer);
    assert_eq!((summary.ramp_s, summary.answered), (None, 0));
    let last = client.waiting.last().unwrap();
    assert!(last.unanswered_s >= 0.6 && last.left.unwrap() > 99_000, "{last:?}");
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn a_sample_that_nothing_answers_is_given_up() {
    let server = Server::start(ANY_PORT, Manner::Once);
    let mut client = Client::start(&format!(
        "--connect {} --connections 50 --sample 50 --timeout 30m --give-up 300ms --hold 30m",
        server.address
    ));
    client.plan();
    client.ramped();
    let summary = client.summary();
    assert_eq!((summary.ended_by, summary.sample), (EndedBy::NoAnswer, None));
    assert_eq!(client.waiting.last().unwrap().in_flight, None);
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn a_signal_ends_a_client_whose_openings_all_fail_at_once() {
    // Where it takes all ports.
    const NAME: &str = "silence::a_signal_ends_a_client_whose_openings_all_fail_at_once";
    if is_own_network(NAME, "ip link set lo up") {
        all_openings_fail();
    }
}

/// The ports of all sources are taken, so that one opening tries each of two million 4-tuples, and fails at once with each.
fn all_openings_fail() {
    let ports = c1m_host::ports::Ports::read().unwrap().usable;
    let _taken: Vec<_> =
        ports[..20].iter().map(|port| TcpListener::bind(("0.0.0.0", *port)).unwrap()).collect();
    let mut client = Client::start(
        "--connect 127.0.0.1:9 --source 127.2.0.0-127.3.127.255 --per-source 20 --connections 5 --workers 1",
    );
    let capacity = client.plan().capacity;
    // By then it has tried thousands of them, and has most of them left.
    eventually("a worker that opens", || {
        cpu_of_other_threads(client.pid()) > Duration::from_millis(50)
    });
    client.signal(&["INT"]);
    let summary = client.summary();
    assert_eq!((summary.ended_by, summary.connected), (EndedBy::Signal, 0));
    assert!(summary.errors["bind EADDRINUSE"] < capacity, "it tried them all: {summary:?}");
    assert_eq!(client.end().0, Some(1));
}

/// What the threads of a process have run, but for its first one (schedstat: nanoseconds; fs/proc/base.c, proc_pid_schedstat, 6.18).
fn cpu_of_other_threads(pid: u32) -> Duration {
    let threads =
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
    let others = threads.filter(|path| !path.ends_with(pid.to_string()));
    let ran = others.map(|path| {
        let schedstat = fs::read_to_string(path.join("schedstat")).unwrap();
        schedstat.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(ran.sum())
}
