//! What no event of a healthy kernel shows: readiness that is not true, and an epoll that refuses.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use super::*;
use crate::{
    serve::{Plan, counters::Snapshot},
    sys::{epoll::Events, thread::spawn_with_own_table},
};

const PLAN: Plan = Plan { workers: 1, window: 1, table: 100, margin: 10, backlog: 9 };

fn connections() -> Connections {
    let shared = Arc::new(Shared::new(&PLAN, None).unwrap());
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
    client.write_all(format!("GET /bytes/{BYTES} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
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
        let mut left = BYTES + format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").len();
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            left -= client.read(&mut buffer).unwrap();
        }
        client
    });
    std::thread::sleep(RETRY / 2);
    // Now it is truly writable, but the clock decides.
    assert_eq!(connections.partials[&fd].interest, 0);
    while connections.partials.contains_key(&fd) {
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
    client.write_all(b"TP/1.1\r\n\r\n").unwrap();
    assert_eq!(reported(&connections), [token(fd)]);
    connections.ready(fd);
    assert!(connections.partials.is_empty() && connections.timers.is_empty());
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
