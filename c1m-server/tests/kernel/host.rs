//! The host and connections to it. Where a step fails, so does the test.

use std::net::{SocketAddr, TcpListener, TcpStream};

use c1m_record::Sockstat;
use c1m_testkit::{host, net};
use socket2::Socket;

#[track_caller]
pub(crate) fn sockets() -> Sockstat {
    host::sockets().unwrap()
}

#[track_caller]
pub(crate) fn cpus() -> u64 {
    host::cpus().unwrap()
}

#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    net::connect(address).unwrap()
}

#[track_caller]
pub(crate) fn bound(source: SocketAddr) -> Socket {
    net::bound(source).unwrap()
}

#[track_caller]
pub(crate) fn connected(socket: Socket, address: SocketAddr) -> TcpStream {
    net::connected(socket, address).unwrap()
}

#[track_caller]
pub(crate) fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    net::pair(listener).unwrap()
}

#[track_caller]
pub(crate) fn reset(stream: TcpStream) {
    net::reset(stream).unwrap();
}
