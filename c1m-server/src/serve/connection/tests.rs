//! What no event of a healthy kernel shows: readiness that is not true, and an epoll that refuses.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use c1m_preflight::plan::Plan;
use c1m_sys::{epoll::Events, thread::spawn_with_own_table};

use super::*;
use crate::serve::counters::Snapshot;

const HEADER_TIMEOUT: Duration = Duration::from_millis(200);
const PLAN: Plan = Plan { workers: 1, window: 1, table: 100, margin: 10, backlog: 9 };

fn connections() -> Connections {
    let shared = Arc::new(Shared::new(&PLAN, None, HEADER_TIMEOUT).unwrap());
    Connections::new(Epoll::new().unwrap(), shared, 0)
}

fn snapshot(connections: &Connections) -> Snapshot {
    Snapshot::of(&connections.shared.counters, &connections.shared.slots)
}

/// A client, and the number of its connection on the server's side.
fn admitted(connections: &mut Connections) -> (TcpStream, RawFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    let fd = server.as_raw_fd();
    connections.admit(server.into());
    (client, fd)
}

/// What epoll reports within a moment.
fn reported(connections: &Connections) -> Vec<u64> {
    let mut events = Events::with_capacity(8);
    connections.epoll().wait(&mut events, Some(Duration::from_millis(50))).unwrap();
    events.iter().map(|(token, _)| token).collect()
}

#[test]
fn a_socket_that_is_writable_and_takes_nothing_is_left_alone_for_a_while() {
    const BYTES: usize = 60_000_000;
    let mut connections = connections();
    let (mut client, fd) = admitted(&mut connections);
    client.write_all(format!("GET /bytes/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    while !reported(&connections).is_empty() {
        connections.ready(fd);
    }
    assert_eq!(connections.timeout(), None, "a full socket waits for its event");

    // As above tcp_mem high: told to be writable, until nothing more can be sent.
    while connections.timeout().is_none() {
        connections.ready(fd);
    }
    assert!(connections.timeout().is_some_and(|retry| retry <= RETRY));
    assert_eq!(reported(&connections), [0u64; 0], "it would be asked again at once");
    let reading = std::thread::spawn(move || {
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT";
        let head = format!("HTTP/1.1 200 OK\r\n{date}\r\nContent-Length: {BYTES}\r\n\r\n");
        let mut left = BYTES + head.len();
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            left -= client.read(&mut buffer).unwrap();
        }
        client
    });
    std::thread::sleep(RETRY / 2);
    // Now it is truly writable, but the clock decides.
    assert_eq!(connections.partials.get(fd).unwrap().interest, 0);
    while connections.partials.get(fd).is_some() {
        connections.expire();
        for _ in reported(&connections) {
            connections.ready(fd);
        }
    }
    let _client = reading.join().unwrap();
    assert_eq!(connections.timeout(), None);
    assert_eq!(connections.counters().held(), 1);
}

#[test]
fn a_connection_that_epoll_refuses_is_counted_and_closed() {
    let mut connections = connections();
    // epoll takes no regular files; fs.epoll.max_user_watches refuses in the same way, with ENOSPC.
    connections.admit(tempfile::tempfile().unwrap().into());
    assert_eq!(connections.take_closed(), 1);
    let now = snapshot(&connections);
    assert_eq!((now.accepted, now.closed), (1, 1));
    assert_eq!(now.errors.get("epoll EPERM"), Some(&1));
}

#[test]
fn a_connection_that_somebody_else_looks_at_is_closed_once() {
    let closed = || {
        let mut connections = connections();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client: socket2::Socket =
            TcpStream::connect(listener.local_addr().unwrap()).unwrap().into();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let look = server.try_clone().unwrap();
        let fd = server.as_raw_fd();
        connections.admit(server.into());
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        for _ in 0..3 {
            assert_eq!(reported(&connections), [token(fd)]);
            connections.ready(fd);
        }
        drop(look);
        assert_eq!(reported(&connections), [0u64; 0]);
        let now = snapshot(&connections);
        (now.closed, now.errors)
    };
    // In a table of its own nobody else takes the number meanwhile.
    let thread = spawn_with_own_table("closed".into(), 1 << 20, vec![0, 1, 2], closed).unwrap();
    let (closed, errors) = thread.join().unwrap().unwrap();
    assert_eq!((closed, errors.len()), (1, 1), "{errors:?}");
    assert_eq!(errors.get("connection ECONNRESET"), Some(&1));
}

#[test]
fn an_idle_connection_has_no_entry() {
    let mut connections = connections();
    let (mut client, fd) = admitted(&mut connections);
    client.write_all(b"GET / HT").unwrap();
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    assert_eq!(connections.partials.len(), 1, "half a request");
    client.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    assert!(connections.partials.len() == 0 && connections.timers.is_empty());
    let mut head = [0; 15];
    client.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    drop(client);
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    assert_eq!(snapshot(&connections).closed, 1);
    assert!(
        !connections.open_bodies.take(index(fd)),
        "the next connection with this number is a new one"
    );
}

#[test]
fn one_connection_has_its_turn_and_then_the_others_have_theirs() {
    for (bytes, turns) in [(0, 4), (100_000, 10)] {
        let mut connections = connections();
        let (mut greedy, fd) = admitted(&mut connections);
        let (mut modest, other) = admitted(&mut connections);
        let requests = format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(200);
        greedy.write_all(requests.as_bytes()).unwrap();
        // It takes whatever it gets, so that nothing but its turn holds it up.
        let mut reader = greedy.try_clone().unwrap();
        let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        modest.write_all(b"GET /bytes/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (mut used, mut answered) = (0, false);
        let requests = |connections: &Connections| snapshot(connections).requests;
        while requests(&connections) < 201 {
            for token in reported(&connections) {
                if token == super::token(other) {
                    connections.ready(other);
                    answered = true;
                    continue;
                }
                let before = requests(&connections);
                connections.ready(fd);
                used += 1;
                assert!(requests(&connections) - before <= 64, "more than a turn");
                assert!(answered || used <= 1, "the other one waits for all of it");
            }
        }
        assert!(used >= turns, "{bytes}: {used} turns");
        while connections.partials.len() > 0 {
            reported(&connections);
            connections.ready(fd);
        }
        // It reads all that is still sent: with a client that is gone, the rest would stay in the kernel as an orphan's.
        greedy.shutdown(std::net::Shutdown::Write).unwrap();
        while snapshot(&connections).closed == 0 {
            for _ in reported(&connections) {
                connections.ready(fd);
            }
        }
        assert!(reading.join().unwrap().unwrap() > 200 * bytes);
    }
}

#[test]
fn half_a_head_is_refused_when_its_time_is_over() {
    let mut connections = connections();
    let (mut slow, fd) = admitted(&mut connections);
    let (_idle, _) = admitted(&mut connections);
    slow.write_all(b"GET / HT").unwrap();
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    assert!(connections.timeout().is_some_and(|left| left <= HEADER_TIMEOUT));
    // More of it is no new beginning.
    std::thread::sleep(HEADER_TIMEOUT / 2);
    slow.write_all(b"TP/1.1\r\nX: y").unwrap();
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    assert!(connections.timeout().is_some_and(|left| left <= HEADER_TIMEOUT / 2));
    std::thread::sleep(HEADER_TIMEOUT / 2);
    connections.expire();
    let mut head = [0; 28];
    slow.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 408 Request Timeout");
    drop(slow);
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    let now = snapshot(&connections);
    assert_eq!((now.errors.get("408"), now.closed), (Some(&1), 1));
    assert_eq!(connections.timeout(), None, "an idle connection has no time");
}

/// A connection with a response that the client does not read, and `tail` behind its request.
fn stuck(connections: &mut Connections, tail: &[u8]) -> (TcpStream, RawFd) {
    let (mut client, fd) = admitted(connections);
    client.write_all(&[b"GET /bytes/60000000 HTTP/1.1\r\nHost: a\r\n\r\n", tail].concat()).unwrap();
    while !reported(connections).is_empty() {
        connections.ready(fd);
    }
    (client, fd)
}

#[test]
fn half_a_head_behind_a_response_that_is_not_read_has_its_time_too() {
    let tails: [&[u8]; 3] = [
        &[b"GET /", [b'a'; 8000].as_slice()].concat(),
        &[b"GET /", [b'a'; 9000].as_slice()].concat(),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HT",
    ];
    for tail in tails {
        let mut connections = connections();
        let (mut client, fd) = stuck(&mut connections, tail);
        assert!(connections.timeout().is_some_and(|left| left <= HEADER_TIMEOUT));
        std::thread::sleep(HEADER_TIMEOUT);
        connections.expire();
        assert!(connections.partials.get(fd).is_none(), "{} bytes are kept", tail.len());
        let now = snapshot(&connections);
        assert_eq!((now.errors.get("408"), now.closed), (Some(&1), 1));
        assert_eq!(connections.timeout(), None);
        let end = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "no orphan is left");
    }
}

#[test]
fn what_is_complete_behind_a_response_may_wait() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    // The rest of the second one comes while nothing is read.
    for (tail, rest) in [(&get[..], &b""[..]), (&get[..9], &get[9..])] {
        let mut connections = connections();
        let (mut client, fd) = stuck(&mut connections, tail);
        client.write_all(rest).unwrap();
        std::thread::sleep(HEADER_TIMEOUT);
        connections.expire();
        assert!(connections.partials.get(fd).is_some_and(|partial| partial.write.is_some()));
        assert_eq!(snapshot(&connections).errors.len(), 0);
        assert_eq!(connections.timeout(), None, "its time is not asked for again");
    }
}

#[test]
fn nothing_is_kept_behind_the_last_response_of_a_connection() {
    let mut connections = connections();
    let (mut client, fd) = admitted(&mut connections);
    let request = b"GET /bytes/60000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(&[request, [b'a'; 8000].as_slice()].concat()).unwrap();
    while !reported(&connections).is_empty() {
        connections.ready(fd);
    }
    let partial = connections.partials.get(fd).unwrap();
    assert!(partial.write.is_some() && partial.input.is_empty() && partial.head_since.is_none());
}
