//! Connections on this host.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::wait::{PATIENCE, tried};

/// A connection whose end is a FIN, and that waits for nothing longer than [`PATIENCE`].
///
/// Its source is bound before. A `connect` that has to choose a port passes over each one that any socket of the host is bound to,
/// whatever its address (net/ipv4/inet_hashtables.c, __inet_hash_connect, 6.18): beside a load client none is left. Over IPv4 the
/// source addresses take turns, so that the TIME_WAIT of earlier runs do not make the search for a port long.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        let socket = bound_for(address)?;
        // A client whose own port is the one that is watched is a case of its own.
        if socket.local_addr()?.as_socket().map(|own| own.port()) != Some(address.port()) {
            return connected(socket, address);
        }
    }
}

/// A socket whose source is bound, for a connection to `address`.
pub fn bound_for(address: SocketAddr) -> io::Result<Socket> {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let source = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::new(127, 0, 0, 2 + NEXT.fetch_add(1, Relaxed) % 128).into(),
        IpAddr::V6(_) => address.ip(),
    };
    bound(SocketAddr::new(source, 0))
}

/// A socket with this source.
pub fn bound(source: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, None)?;
    socket.bind(&source.into())?;
    Ok(socket)
}

/// Connects it; it waits for nothing longer than [`PATIENCE`].
pub fn connected(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    socket.connect_timeout(&address.into(), PATIENCE)?;
    with_patience(socket)
}

fn with_patience(socket: Socket) -> io::Result<TcpStream> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// A connection on its way: it may be dropped before it is established.
pub fn start_connecting(socket: Socket, address: SocketAddr) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Waits for it: a SYN that was dropped is sent again after 1 s, 2 s, 4 s.
pub fn arrived(socket: Socket) -> io::Result<TcpStream> {
    tried("a connection that was dropped does not come", || {
        io::Result::Ok(socket.peer_addr().is_ok())
    })?;
    socket.set_nonblocking(false)?;
    with_patience(socket)
}

/// So many connections.
pub fn connections(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count).map(|_| connect(address)).collect()
}

/// Both ends of a connection to a listener of one's own.
pub fn pair(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let near = connect(listener.local_addr()?)?;
    Ok((near, listener.accept()?.0))
}

/// The near ends and the far ends of so many.
pub fn pairs(listener: &TcpListener, count: usize) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let pairs = (0..count).map(|_| pair(listener)).collect::<io::Result<Vec<_>>>()?;
    Ok(pairs.into_iter().unzip())
}

/// Ends it by reset: neither an orphan nor a TIME_WAIT is left.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// Asks for `bytes` bytes, and leaves the answer where it is.
pub fn ask(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    stream.write_all(format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

/// Asks for a small answer, and reads it whole.
pub fn answers(stream: &mut TcpStream) -> io::Result<()> {
    const BODY: usize = 64;
    let no_answer = |error: io::Error| {
        io::Error::new(error.kind(), format!("a connection does not answer: {error}"))
    };
    ask(stream, BODY as u64).map_err(no_answer)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let count = stream.read(&mut buffer).map_err(no_answer)?;
        answer.extend_from_slice(&buffer[..count]);
        let head = answer.windows(4).position(|it| it == b"\r\n\r\n");
        match head {
            Some(head) if answer.len() >= head + 4 + BODY => break,
            _ if count == 0 => return Err(no_answer(io::ErrorKind::UnexpectedEof.into())),
            _ => {}
        }
    }
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(format!("not a 200: {}", String::from_utf8_lossy(&answer)))),
    }
}

/// Each of them answers, and so does a new one.
pub fn all_answer(address: SocketAddr, streams: &mut [TcpStream]) -> io::Result<()> {
    streams.iter_mut().try_for_each(answers)?;
    let mut fresh = connect(address)?;
    answers(&mut fresh)?;
    reset(fresh)
}
