//! Which process has which socket, by /proc: as far as it lets us look.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use c1m_sys::files::{share_table, socket_protocol};

use super::{
    listeners::low_inode,
    task::{self, socket_inode},
};

/// Descriptors of TCP sockets.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// By the socket's inode.
    pub holders: HashMap<u32, Holders>,
    /// TCP sockets that the kernel's tables do not have: closed, or not yet connected. By inode.
    pub closed: HashMap<u32, Holders>,
    /// Processes whose descriptors belong to somebody else.
    pub unseen: u64,
}

/// The processes that have one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// The first that was found.
    pub pid: u32,
    pub is_shared: bool,
}

/// Looks through the descriptor tables of all processes, and of threads that have one of their own.
/// `is_known`: is this inode one of a socket in the kernel's tables?
///
/// # Errors
/// There is no /proc.
pub fn of_tcp(is_known: impl Fn(u32) -> bool) -> io::Result<Descriptors> {
    let mut found = Descriptors::default();
    let mut foreign = HashSet::new();
    for pid in task::all()? {
        let process = PathBuf::from(format!("/proc/{pid}"));
        match fs::read_dir(process.join("fd")) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.unseen += 1;
                continue;
            }
            Err(_) => continue,
        }
        for thread in task::threads_of(pid) {
            let has_own = thread == pid || !matches!(share_table(pid, thread), Ok(true));
            if has_own {
                let table = process.join("task").join(thread.to_string()).join("fd");
                look_through(&table, pid, &is_known, &mut found, &mut foreign);
            }
        }
    }
    Ok(found)
}

/// `foreign`: sockets of other protocols, which need not be asked again.
fn look_through(
    table: &Path,
    pid: u32,
    is_known: &impl Fn(u32) -> bool,
    found: &mut Descriptors,
    foreign: &mut HashSet<u32>,
) {
    // A thread that ended meanwhile holds nothing.
    let Ok(entries) = fs::read_dir(table) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let inode = fs::read_link(&path).ok().and_then(|link| socket_inode(&link));
        let Some(inode) = inode.map(low_inode) else {
            continue;
        };
        let map = if is_known(inode) {
            &mut found.holders
        } else if found.closed.contains_key(&inode) {
            &mut found.closed
        } else if foreign.contains(&inode) {
            continue;
        } else if socket_protocol(&path).is_some_and(|name| name == "TCP" || name == "TCPv6") {
            &mut found.closed
        } else {
            foreign.insert(inode);
            continue;
        };
        let holders = map.entry(inode).or_insert(Holders { pid, is_shared: false });
        holders.is_shared |= holders.pid != pid;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsRawFd, unix::fs::MetadataExt as _},
    };

    use super::*;

    fn inode(socket: &impl AsRawFd) -> u32 {
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        fs::metadata(link).unwrap().ino().try_into().unwrap()
    }

    #[test]
    fn each_socket_has_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let (udp, unconnected) = (UdpSocket::bind("127.0.0.1:0").unwrap(), unconnected.unwrap());
        let own = Holders { pid: std::process::id(), is_shared: false };
        let known = inode(&listener);
        let found = of_tcp(|inode| inode == known).unwrap();
        assert_eq!(found.holders, HashMap::from([(known, own)]));
        // Not known as one of the tables, it counts as closed, as the one does that really is in
        // none.
        for socket in [inode(&stream), inode(&unconnected)] {
            assert_eq!(found.closed.get(&socket), Some(&own));
        }
        assert_eq!(found.closed.get(&inode(&udp)), None);
    }
}
