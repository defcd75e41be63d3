//! What the tests share: a server that speaks as c1m-server does, the client as a process, and what the kernel says of sockets.

pub(crate) mod client;
pub(crate) mod diag;
pub(crate) mod foreign;

use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use c1m_sys::epoll::{self, Epoll, Events};

const OPEN_BODY: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// How the server departs from answering everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Takes connections and never answers.
    Silent,
    /// Answers every body one byte short of what was asked for.
    Short,
    /// Closes each connection right after its first answer.
    Closing,
    /// Answers the first request of each connection, and no other.
    Once,
}

/// A listener that accepts nothing, whose queue takes one connection more than `backlog`; and a few more where handshakes end on several
/// processors at once, since each looks at the queue before it has added to it (`tcp_v4_syn_recv_sock`, 6.18).
pub(crate) fn never_accepting(backlog: i32) -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&super::ANY_PORT.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(backlog).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Runs in a thread of its own until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Connections that it holds now.
    pub(crate) held: Arc<AtomicU64>,
    /// Requests that it has read.
    pub(crate) requests: Arc<AtomicU64>,
    /// Every peer that ever connected.
    pub(crate) peers: Arc<Mutex<HashSet<SocketAddr>>>,
    to_close: Arc<AtomicU64>,
    to_sleep_ms: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    answered: bool,
    open_body: bool,
}

impl Server {
    pub(crate) fn start(address: &str, manner: Manner) -> Self {
        c1m_sys::process::raise_nofile().unwrap();
        // The queue must hold what the client opens while this thread is not running.
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address.parse().unwrap()),
            socket2::Type::STREAM,
            None,
        )
        .unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(4096).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let (held, requests, peers) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<_>)>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (to_close, to_sleep_ms) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut state = State {
            manner,
            held: held.clone(),
            requests: requests.clone(),
            peers: Arc::clone(&peers),
            to_close: to_close.clone(),
            to_sleep_ms: to_sleep_ms.clone(),
            connections: HashMap::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || state.serve(&listener, &stopped));
        Self { address, held, requests, peers, to_close, to_sleep_ms, stop, thread: Some(thread) }
    }

    /// Has it do nothing for so long. The kernel goes on to take connections.
    pub(crate) fn sleep(&self, time: Duration) {
        self.to_sleep_ms.store(time.as_millis().try_into().unwrap(), Relaxed);
    }

    /// Has it end so many of its connections.
    pub(crate) fn close(&self, connections: u64) {
        self.to_close.fetch_add(connections, Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || std::thread::panicking(), "the test server panicked");
    }
}

struct State {
    manner: Manner,
    held: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    to_close: Arc<AtomicU64>,
    to_sleep_ms: Arc<AtomicU64>,
    connections: HashMap<u64, Connection>,
}

impl State {
    fn serve(&mut self, listener: &TcpListener, stop: &AtomicBool) {
        const LISTENER: u64 = u64::MAX;
        listener.set_nonblocking(true).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(listener.as_raw_fd(), epoll::IN, LISTENER).unwrap();
        let mut events = Events::with_capacity(256);
        while !stop.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(self.to_sleep_ms.swap(0, Relaxed)));
            epoll.wait(&mut events, Some(Duration::from_millis(20))).unwrap();
            for token in self
                .connections
                .keys()
                .copied()
                .take(usize::try_from(self.to_close.swap(0, Relaxed)).unwrap())
                .collect::<Vec<_>>()
            {
                self.end(token);
            }
            for (token, _) in events.iter() {
                if token == LISTENER {
                    self.accept(listener, &epoll);
                } else if !self.serve_one(token) {
                    self.end(token);
                }
            }
        }
    }

    fn end(&mut self, token: u64) {
        if self.connections.remove(&token).is_some() {
            self.held.fetch_sub(1, Relaxed);
        }
    }

    fn accept(&mut self, listener: &TcpListener, epoll: &Epoll) {
        while let Ok((stream, peer)) = listener.accept() {
            self.peers.lock().unwrap().insert(peer);
            stream.set_nonblocking(true).unwrap();
            let token = u64::try_from(stream.as_raw_fd()).unwrap();
            epoll.add(stream.as_raw_fd(), epoll::IN, token).unwrap();
            let connection =
                Connection { stream, input: Vec::new(), answered: false, open_body: false };
            self.connections.insert(token, connection);
            self.held.fetch_add(1, Relaxed);
        }
    }

    /// `false`: the connection is over.
    fn serve_one(&mut self, token: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&token) else { return true };
        let mut buffer = [0; 4096];
        match connection.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => connection.input.extend(&buffer[..count]),
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
        while let Some(end) = connection.input.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = connection.input.drain(..end + 4).collect();
            self.requests.fetch_add(1, Relaxed);
            let answered = std::mem::replace(&mut connection.answered, true);
            if self.manner == Manner::Silent || (self.manner == Manner::Once && answered) {
                continue;
            }
            let answer = connection.answer(std::str::from_utf8(&head).unwrap(), self.manner);
            // One response is one call, so that it is one skb.
            assert_eq!(connection.stream.write(&answer).unwrap_or(answer.len()), answer.len());
            if self.manner == Manner::Closing {
                return false;
            }
        }
        true
    }
}

impl Connection {
    fn answer(&mut self, head: &str, manner: Manner) -> Vec<u8> {
        let path = head.strip_prefix("GET ").unwrap().split(' ').next().unwrap();
        let mut answer = if self.open_body { b"0\r\n\r\n".to_vec() } else { Vec::new() };
        match path.strip_prefix("/bytes/") {
            Some(length) => {
                let length: usize = length.parse().unwrap();
                let length = length - usize::from(manner == Manner::Short);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                answer.extend(head.as_bytes());
                answer.resize(answer.len() + length, b'x');
                self.open_body = false;
            }
            None => {
                answer.extend(OPEN_BODY);
                self.open_body = true;
            }
        }
        answer
    }
}
