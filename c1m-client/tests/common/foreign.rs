//! A server that is not c1m's: it answers each request as a test says, from a thread for each connection.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What a request is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Bytes(Vec<u8>),
    /// These bytes, and then the end of the connection.
    Last(Vec<u8>),
}

/// One request of a connection.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Counted from 0, over all connections.
    pub(crate) connection: u64,
    /// Counted from 0, of this connection.
    pub(crate) request: u64,
    pub(crate) path: &'a str,
}

/// Ends with the test's process; what it does not accept any more is refused by nobody.
pub(crate) struct Foreign {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) requests: AtomicU64,
    pub(crate) paths: Mutex<Vec<String>>,
    streams: Mutex<Vec<TcpStream>>,
    /// Accepted, and not ended.
    held: Mutex<u64>,
    ended: Condvar,
    stopped: AtomicBool,
}

impl Foreign {
    /// Answers by `reply`. Holds `most` connections at a time; others wait in its accept queue.
    pub(crate) fn start(
        most: u64,
        reply: impl Fn(&Asked<'_>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(4096).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let reply = Arc::new(reply);
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in 0.. {
                let mut held = shared.held.lock().unwrap();
                while *held >= most {
                    held = shared.ended.wait(held).unwrap();
                }
                *held += 1;
                drop(held);
                let Ok((stream, _)) = listener.accept() else { return };
                if shared.stopped.load(Relaxed) {
                    return;
                }
                shared.streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, reply) = (shared.clone(), reply.clone());
                std::thread::Builder::new()
                    .stack_size(64 << 10)
                    .spawn(move || {
                        serve(&stream, connection, &shared, reply.as_ref());
                        // The copy that `close` has keeps the connection open.
                        let _ = stream.shutdown(Shutdown::Both);
                        *shared.held.lock().unwrap() -= 1;
                        shared.ended.notify_all();
                    })
                    .unwrap();
            }
        });
        Self { address, state }
    }

    /// Ends those of its connections that `which` chooses, by their number.
    pub(crate) fn close(&self, which: impl Fn(usize) -> bool) {
        for (number, stream) in self.state.streams.lock().unwrap().iter().enumerate() {
            if which(number) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.state.stopped.store(true, Relaxed);
        self.close(|_| true);
        // Wakes its thread, if it waits in accept.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn serve(
    mut stream: &TcpStream,
    connection: u64,
    state: &State,
    reply: &impl Fn(&Asked<'_>) -> Reply,
) {
    let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
    for request in 0.. {
        let end = loop {
            if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => input.extend(&buffer[..count]),
            }
        };
        let head: Vec<u8> = input.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        state.paths.lock().unwrap().push(path.into());
        state.requests.fetch_add(1, Relaxed);
        let (bytes, is_last) = match reply(&Asked { connection, request, path }) {
            Reply::Bytes(bytes) => (bytes, false),
            Reply::Last(bytes) => (bytes, true),
        };
        if stream.write_all(&bytes).is_err() || is_last {
            return;
        }
    }
}
