//! Connections that the server ends while the client opens, holds or asks them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    process::Command,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use c1m_client::record::{EndedBy, Lost};
use c1m_testkit::Child;

use super::{
    ANY_PORT,
    common::{Manner, Server, client::Client},
    eventually,
};

/// Set for the process that [`victim`] starts.
const SERVES: &str = "C1M_TEST_SERVES";

/// No test: the process in which [`victim`] serves. Without the variable it does nothing.
#[test]
fn process_of_a_server() {
    if std::env::var_os(SERVES).is_some() {
        let server = Server::start(ANY_PORT, Manner::Good);
        println!("\naddress={}", server.address);
        std::io::stdout().flush().unwrap();
        // Until it is killed, or the test is gone.
        let _ = std::io::stdin().lines().count();
    }
}

/// Longer than anything here takes on a busy machine, and far less than any `--hold` here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own.
pub(super) fn victim() -> (SocketAddr, Child) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "losses::process_of_a_server", "--nocapture"]).env(SERVES, "1");
    let mut child = Child::with_input(&mut command).unwrap();
    let address = child.wait_for("it listened", |line| {
        io::Result::Ok(line.text.strip_prefix("address=").and_then(|text| text.parse().ok()))
    });
    (address.unwrap(), child)
}

/// The client holds forever, or for minutes: the end of its connections has to end it.
#[track_caller]
fn ends_with_its_server(server: impl FnOnce(&str) -> (SocketAddr, Box<dyn FnOnce()>), flags: &str) {
    let (address, end) = server(flags);
    let mut client = Client::start(&format!("--connect {address} --connections 200 {flags}"));
    client.plan();
    assert_eq!(client.ramped().answered, 200, "{flags}");
    idles_if_it_can(&client, flags);
    eventually("a client that waits for events", || waits_longer(client.pid(), PATIENCE));
    end();
    let ended = Instant::now();
    let summary = client.summary();
    // It ends within a second, where a machine that is busy takes longer. But no clock that the client has goes off within this time, so it is the
    // loss that has ended it.
    assert!(ended.elapsed() < PATIENCE, "{flags}: {:?}", ended.elapsed());
    assert_eq!((summary.connected, summary.held_at_end, summary.lost), (200, 0, 200), "{flags}");
    assert_eq!(summary.ended_by, EndedBy::AllLost, "{flags}");
    let lost: u64 = client.lost.iter().map(|lost| lost.connections).sum();
    assert_eq!((lost, client.lost.last().unwrap().held), (200, 0), "{flags}");
    let reasons = client.lost.iter().flat_map(|lost| lost.reasons.keys());
    assert!(reasons.into_iter().all(|reason| reason.ends_with("by peer")), "{:?}", client.lost);
    assert_eq!(client.end().0, Some(1), "{flags}");
}

#[cfg(target_arch = "x86_64")]
const BY_MILLISECONDS: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
#[cfg(not(target_arch = "x86_64"))]
const BY_MILLISECONDS: &[libc::c_long] = &[libc::SYS_epoll_pwait];

/// Whether the main thread, which ends the run, waits for events without a limit, or for longer than `time`.
fn waits_longer(pid: u32, time: Duration) -> bool {
    // Number and arguments of the call that it sleeps in: fs/proc/base.c, proc_pid_syscall, 6.18.
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
    let words: Vec<&str> = call.split_whitespace().collect();
    let limit = |words: &[&str]| u64::from_str_radix(words[4].strip_prefix("0x")?, 16).ok();
    match words.first().and_then(|number| number.parse::<libc::c_long>().ok()) {
        Some(libc::SYS_epoll_pwait2) => match limit(&words) {
            Some(0) => true,
            Some(address) => {
                let mut seconds = [0; 8];
                let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
                let is_read = memory.read_exact_at(&mut seconds, address).is_ok();
                is_read && u64::from_ne_bytes(seconds) > time.as_secs()
            }
            None => false,
        },
        // Before 5.11 by milliseconds, -1 without a limit.
        Some(number) if BY_MILLISECONDS.contains(&number) => limit(&words).is_some_and(|limit| {
            let milliseconds = limit & u64::from(u32::MAX);
            milliseconds == u64::from(u32::MAX) || u128::from(milliseconds) > time.as_millis()
        }),
        _ => false,
    }
}

/// Context switches of all threads of a process so far.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let count = |name| {
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        Some(count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?)
    };
    tasks.filter_map(|task| of_task(task.ok()?)).sum()
}

/// A client that has nothing to ask does not wake up to look whether its connections are still there.
fn idles_if_it_can(client: &Client, flags: &str) {
    if flags.contains("heartbeat") {
        return;
    }
    eventually("a client that does not wake up", || {
        let before = switches(client.pid());
        std::thread::sleep(Duration::from_millis(1500));
        switches(client.pid()) == before
    });
}

const HOLDS: [&str; 4] =
    ["", "--hold 30m", "--heartbeat 300ms", "--heartbeat 300ms --hold 30m --require 'lost<=100%'"];

#[test]
fn a_server_that_is_killed_ends_the_hold() {
    for flags in HOLDS {
        ends_with_its_server(
            |_| {
                let (address, victim) = victim();
                (address, Box::new(move || drop(victim)))
            },
            flags,
        );
    }
}

#[test]
fn a_server_that_ends_in_order_ends_the_hold() {
    for flags in HOLDS {
        ends_with_its_server(
            |_| {
                let server = Server::start(ANY_PORT, Manner::Good);
                (server.address, Box::new(move || drop(server)))
            },
            flags,
        );
    }
}

#[test]
fn a_part_of_the_connections_that_is_lost_is_told_and_the_rest_is_held() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!("--connect {} --connections 100", server.address));
    client.plan();
    client.ramped();
    server.close(30);
    client.loses(30);
    assert_eq!(server.held.load(Relaxed), 70);
    client.signal(&["TERM"]);
    let summary = client.summary();
    assert_eq!((summary.connected, summary.held_at_end, summary.lost), (100, 70, 30));
    assert_eq!(summary.ended_by, EndedBy::Signal);
    let lost: u64 = client.lost.iter().map(|lost| lost.connections).sum();
    assert_eq!((lost, client.lost.last().unwrap().held), (30, 70), "{:?}", client.lost);
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn losses_can_be_required_not_to_be() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client =
        Client::start(&format!("--connect {} --connections 50 --require lost==0", server.address));
    client.plan();
    client.ramped();
    server.close(1);
    client.loses(1);
    client.signal(&["TERM"]);
    assert_eq!(client.summary().requirements[0].actual, Some(1.0));
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn a_server_that_closes_during_the_ramp_is_counted_and_ends_the_hold() {
    let server = Server::start(ANY_PORT, Manner::Closing);
    let mut client = Client::start(&format!("--connect {} --connections 40", server.address));
    client.plan();
    assert_eq!(client.ramped().answered, 40);
    let summary = client.summary();
    assert_eq!((summary.connected, summary.held_at_end, summary.lost), (40, 0, 40));
    assert_eq!(summary.errors, BTreeMap::from([("closed by peer".into(), 40)]));
    let told = |lost: &Lost| lost.reasons["closed by peer"];
    assert_eq!(client.lost.iter().map(told).sum::<u64>(), 40);
    assert_eq!(client.end().0, Some(1));
}
