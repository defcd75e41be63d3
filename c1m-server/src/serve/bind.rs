//! The listeners: one a worker, all on one port, made in order.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::error::ServeError;

/// Binds `count` listeners to one address; their order is their index in the SO_REUSEPORT group.
pub(super) fn listeners(
    address: SocketAddr,
    count: usize,
    backlog: u32,
    keepalive: Option<Duration>,
) -> Result<(SocketAddr, Vec<OwnedFd>), ServeError> {
    let failed = |address| move |error| ServeError::bind(address, error);
    let first = socket(address, keepalive).map_err(failed(address))?;
    // The first one is bound without SO_REUSEPORT: so a port that somebody else listens on is refused, be it another
    // instance of this program, instead of being shared with it. The option comes after, for the others.
    first.bind(&address.into()).map_err(failed(address))?;
    // With port 0 the kernel has chosen one, and the others follow.
    let address = first
        .local_addr()
        .map_err(failed(address))?
        .as_socket()
        .ok_or(ServeError::Internal(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)))?;
    let mut listeners = Vec::with_capacity(count);
    let mut next = Some(first);
    for _ in 0..count {
        let listener = match next.take() {
            Some(first) => first.set_reuse_port(true).map(|()| first),
            None => socket(address, keepalive).and_then(|socket| {
                socket.set_reuse_port(true)?;
                socket.bind(&address.into())?;
                Ok(socket)
            }),
        }
        .map_err(failed(address))?;
        listen(&listener, backlog).map_err(failed(address))?;
        listeners.push(OwnedFd::from(listener));
    }
    Ok((address, listeners))
}

/// What is set here is inherited by every connection, so that none costs a system call.
fn socket(address: SocketAddr, keepalive: Option<Duration>) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Without it a port with connections in TIME_WAIT cannot be bound.
    socket.set_reuse_address(true)?;
    // The short end of a chunked body must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    if let Some(idle) = keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(socket)
}

/// The address, with a free port if it has none. Nothing is bound to it afterwards, so somebody else may take it.
///
/// # Errors
/// The address can't be bound.
pub fn with_port(address: SocketAddr) -> Result<SocketAddr, ServeError> {
    if address.port() != 0 {
        return Ok(address);
    }
    std::net::TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|error| ServeError::bind(address, error))
}

fn listen(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// The numbers of the listeners, which stay the same in the workers' tables.
pub(super) fn numbers(listeners: &[OwnedFd]) -> Vec<i32> {
    listeners.iter().map(|listener| listener.as_raw_fd()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    #[test]
    fn all_listeners_share_the_port_of_the_first() {
        let (address, listeners) = listeners(LOOPBACK.parse().unwrap(), 3, 16, None).unwrap();
        assert_ne!(address.port(), 0);
        for listener in listeners {
            let bound = Socket::from(listener).local_addr().unwrap().as_socket();
            assert_eq!(bound, Some(address));
        }
    }

    #[test]
    fn a_port_in_use_is_not_shared() {
        let (address, _first) = listeners(LOOPBACK.parse().unwrap(), 2, 16, None).unwrap();
        let error = listeners(address, 2, 16, None).unwrap_err();
        assert!(error.to_string().contains("EADDRINUSE"), "{error}");
    }

    #[test]
    fn keepalive_is_set_on_the_listener() {
        let idle = Duration::from_secs(77);
        let (_, mut listeners) = listeners(LOOPBACK.parse().unwrap(), 1, 16, Some(idle)).unwrap();
        let socket = Socket::from(listeners.remove(0));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
    }
}
