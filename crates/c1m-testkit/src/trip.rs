//! How limits are met, with real sockets: for the faults, for the tests of `doctor`, and for those of the probes.
//!
//! Each proves by the kernel's own counters that the limit was met, or says that it was not.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use socket2::{SockRef, Socket};

use crate::{
    Settings, Skip,
    host::{counter, sockets},
    net::{ask, bound_for, connect, connected, pair, pairs, reset, start_connecting},
    wait::{PATIENCE, tried},
};

/// Two pages in a receive queue, on every kernel: see docs/faults.md. In the sender's call more than one page and less than SOCK_MIN_SNDBUF.
pub const TWO_PAGES: u64 = 5_000;
/// More orphans than that are reset.
pub const MAX_ORPHANS: u64 = 50;
/// So many orphans are reset at least.
pub const ABORTED: u64 = 40;
/// What a slow reader asks for, and how little it takes.
const LARGE: u64 = 1 << 20;
const SMALL_BUFFER: usize = 4096;
const SLOW_READERS: usize = 2_000;

/// Why a scenario did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// This kernel or host can't have it, and why.
    Skip(String),
    /// The limit was not met, a program is dead, a connection does not answer…
    Wrong(String),
}

impl Stop {
    pub fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }

    pub fn skip(text: impl Into<String>) -> Self {
        Self::Skip(text.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<Skip> for Stop {
    fn from(Skip(reason): Skip) -> Self {
        Self::Skip(reason)
    }
}

/// A test is skipped for what the host does not have. Whatever else stopped it is a failure.
impl From<Stop> for Skip {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Skip(reason) => Self(reason),
            Stop::Wrong(text) => panic!("{text}"),
        }
    }
}

/// The result of a step.
pub type Step<T = ()> = Result<T, Stop>;

/// Waits until a counter of TcpExt is `at_least` so much.
pub fn until_counted(name: &str, at_least: u64) -> io::Result<()> {
    let problem = format!("not tripped: {name} did not come to {at_least}");
    tried(&problem, || Ok(counter(name)? >= at_least))
}

/// A connection with an answer of [`TWO_PAGES`] that is left where it is.
pub fn unread(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    ask(&mut stream, TWO_PAGES)?;
    stream.peek(&mut [0])?;
    Ok(stream)
}

/// A client that asks for much and takes little: the rest stays in the server's send queue.
pub fn slow_reader(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = bound_for(address)?;
    socket.set_recv_buffer_size(SMALL_BUFFER)?;
    let mut stream = connected(socket, address)?;
    ask(&mut stream, LARGE)?;
    Ok(stream)
}

/// [`slow_reader`]s until usage is above `high` pages, and `more` of them besides.
pub fn slow_readers(address: SocketAddr, high: u64, more: usize) -> io::Result<Vec<TcpStream>> {
    let (mut readers, mut above) = (Vec::new(), 0);
    while above < more {
        if readers.len() == SLOW_READERS {
            let problem = format!("not tripped: usage is not above {high}: {:?}", sockets()?);
            return Err(io::Error::other(problem));
        }
        let stream = slow_reader(address)?;
        // The first bytes have come, and stay where they are.
        stream.peek(&mut [0])?;
        readers.push(stream);
        above += usize::from(sockets()?.tcp_mem_pages > high);
    }
    Ok(readers)
}

/// Begins so many connections to a listener that accepts nothing, until `dropped` of them at least found its queue full.
pub fn overflow(address: SocketAddr, count: usize, dropped: u64) -> io::Result<Vec<Socket>> {
    let before = counter("ListenOverflows")?;
    let waiting = (0..count)
        .map(|_| start_connecting(bound_for(address)?, address))
        .collect::<io::Result<Vec<_>>>()?;
    until_counted("ListenOverflows", before + dropped)?;
    Ok(waiting)
}

/// Connects so many times from a source that is left to the kernel: the connections, and how often it had no port for one.
pub fn without_ports(address: SocketAddr, connects: u64) -> io::Result<(Vec<TcpStream>, u64)> {
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..connects {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                streams.push(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((streams, refused))
}

/// Closes connections whose peers stay, until more than [`MAX_ORPHANS`] are orphans and [`ABORTED`] of them are reset for it. The peers.
pub fn too_many_orphans(listener: &TcpListener, settings: &mut Settings) -> Step<Vec<TcpStream>> {
    settings.set(&[
        // Above 60 s an orphan in FIN_WAIT2 stays a whole socket: net/ipv4/tcp.c, __tcp_close, 6.18.
        ("net.ipv4.tcp_fin_timeout", "120".into()),
        ("net.ipv4.tcp_max_orphans", MAX_ORPHANS.to_string()),
    ])?;
    let before = counter("TCPAbortOnMemory")?;
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (first, mut peers) = pairs(listener, count(MAX_ORPHANS + 10))?;
    let (last, others) = pairs(listener, count(ABORTED))?;
    peers.extend(others);
    drop(first);
    // What the kernel compares is refreshed by a timer, each 100 ms at most: net/ipv4/tcp.c, tcp_orphan_update, 6.18.
    tried("not tripped: the orphans are not too many", || {
        let (near, far) = pair(listener)?;
        drop(near);
        peers.push(far);
        Step::Ok(counter("TCPAbortOnMemory")? > before)
    })?;
    drop(last);
    until_counted("TCPAbortOnMemory", before + ABORTED)?;
    Ok(peers)
}

/// Fills send queues under the host's own tcp_mem, lowers it below what they hold, and closes: no allocation is refused, but each
/// of the orphans has unsent data while usage is above high (net/ipv4/tcp.c, `tcp_check_oom`, 6.18), and is reset for it. The peers.
pub fn orphans_out_of_memory(
    listener: &TcpListener,
    settings: &mut Settings,
) -> Step<Vec<TcpStream>> {
    const WRITERS: usize = 40;
    const SEND_BUFFER: usize = 1 << 18;
    const HIGH_PAGES: u64 = 128;
    let (writers, readers) = pairs(listener, WRITERS)?;
    for mut writer in &writers {
        SockRef::from(writer).set_send_buffer_size(SEND_BUFFER)?;
        writer.set_nonblocking(true)?;
        let block = vec![0; SEND_BUFFER];
        while writer.write(&block).is_ok() {}
    }
    let enough = HIGH_PAGES + 2 * crate::host::reserve_pages()?;
    let held = sockets()?.tcp_mem_pages;
    if held < enough {
        let problem = format!("not tripped: {held} pages are queued, less than {enough}");
        return Err(Stop::Wrong(problem));
    }
    let [low, pressure] = [HIGH_PAGES / 2, HIGH_PAGES * 3 / 4];
    settings.set(&[("net.ipv4.tcp_mem", format!("{low} {pressure} {HIGH_PAGES}"))])?;
    let before = counter("TCPAbortOnMemory")?;
    drop(writers);
    until_counted("TCPAbortOnMemory", before + WRITERS as u64)?;
    Ok(readers)
}

/// Resets all of them.
pub fn reset_all(streams: impl IntoIterator<Item = TcpStream>) -> io::Result<()> {
    streams.into_iter().try_for_each(reset)
}
