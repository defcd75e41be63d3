//! The host: its settings, changed through the guard alone, and connections to it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::{Duration, Instant},
};

use c1m_host::{
    guard::{Change, Guard, GuardError, STATE_FOLDER},
    netstat, sockstat,
    sysctl::{Name, SysctlError, Tree},
};
use c1m_record::Sockstat;
use socket2::{Domain, SockRef, Socket, Type};

use crate::server::{PATIENCE, Skip};

/// Somebody may be in the middle of a whole reproduction, which changes the same settings.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// Settings of the host that are put back when this is dropped, and by the next run after a crash.
pub(crate) struct Settings(Guard);

impl Settings {
    /// Waits until nobody else changes settings.
    pub(crate) fn take() -> Result<Self, Skip> {
        match Guard::take(Tree::at(Tree::KERNEL), Path::new(STATE_FOLDER), LOCK_PATIENCE) {
            Ok((guard, _)) => Ok(Self(guard)),
            Err(error @ GuardError::Folder { .. }) => Err(Skip(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }

    /// Skips the test where the host does not let them be changed.
    pub(crate) fn set(&mut self, settings: &[(&str, String)]) -> Result<(), Skip> {
        let change = |(name, value): &(&str, String)| Change {
            name: Name::new(name).unwrap(),
            value: value.clone(),
        };
        match self.0.set(&settings.iter().map(change).collect::<Vec<_>>()) {
            Ok(()) => Ok(()),
            // Absent in a network namespace of its own, read-only in a container.
            Err(GuardError::Sysctl(
                error @ (SysctlError::Read { .. } | SysctlError::Write { .. }),
            )) => Err(Skip(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn put_back(&mut self) {
        for outcome in self.0.restore() {
            assert!(outcome.is_back(), "{outcome}");
        }
    }
}

pub(crate) fn sockets() -> Sockstat {
    sockstat::sockstat().unwrap()
}

/// One of the kernel's own counters of TcpExt.
pub(crate) fn counter(name: &str) -> u64 {
    netstat::tcp_ext().unwrap()[name]
}

/// CPUs that may each hold pages outside of the kernel's counter.
pub(crate) fn cpus() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let is_cpu = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
    stat.lines().filter(is_cpu).count().try_into().unwrap()
}

/// Runs until `done`; `false` when that takes longer than `patience`.
pub(crate) fn eventually(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// A connection whose end is a FIN.
///
/// Its source is bound before. A `connect` that has to choose a port passes over each one that any socket of the host is bound to,
/// whatever its address (net/ipv4/inet_hashtables.c, __inet_hash_connect, 6.18): beside a load client none is left. Over IPv4 the
/// source addresses take turns, so that the TIME_WAIT of earlier runs do not make the search for a port long.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let source = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::new(127, 0, 0, 2 + NEXT.fetch_add(1, Relaxed) % 128).into(),
        IpAddr::V6(_) => address.ip(),
    };
    loop {
        let socket = bound(SocketAddr::new(source, 0));
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        // A client whose own port is the number that is watched is a case of its own: `a_client_on_the_watched_port_is_not_counted`.
        if port != address.port() {
            return connected(socket, address);
        }
    }
}

pub(crate) fn bound(source: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket
}

pub(crate) fn connected(socket: Socket, address: SocketAddr) -> TcpStream {
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Ends it by reset: neither an orphan nor a TIME_WAIT is left.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
