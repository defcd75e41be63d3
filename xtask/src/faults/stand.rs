//! What a driver has in its hands: the observer, settings, connections, and the kernel's own counters.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use c1m_host::{
    guard::{Change, Guard},
    netstat::{self, TcpExt},
    sockstat,
    sysctl::{Name, Tree},
};
use c1m_record::Sockstat;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    judge::Counted,
    other::{Kind, Other},
    program::{Confined, Program},
};

/// Longer than anything here takes, also under emulation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pages that a CPU may hold outside of the kernel's counter: net.core.mem_pcpu_rsv, less one.
const RESERVE_PAGES: u64 = 255;

/// Set by a signal: the run that is going on ends early, and nothing is started any more.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Why a driver did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// This kernel, tier or host can't have the fault, and why.
    Skip(String),
    /// The fault was not tripped, the server is dead, a connection does not answer…
    Wrong(String),
}

impl Stop {
    pub(crate) fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }

    pub(crate) fn skip(text: impl Into<String>) -> Self {
        Self::Skip(text.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// The result of a driver's step.
pub(crate) type Step<T = ()> = Result<T, Stop>;

/// One run of a fault, in the thread and network namespace in which it is tripped.
pub(crate) struct Stand<'a> {
    guard: &'a mut Guard,
    server: PathBuf,
    without_hook: &'a [String],
    before: TcpExt,
    observer: Option<Program>,
    counted: Vec<Counted>,
    subject: Option<Kind>,
    other: Option<Other>,
}

impl<'a> Stand<'a> {
    /// `server`: the program c1m-server; `without_hook`: what it leaves out as the observer; `subject`: whose server is under test, if not
    /// that one.
    pub(crate) fn new(
        guard: &'a mut Guard,
        server: PathBuf,
        without_hook: &'a [String],
        subject: Option<Kind>,
    ) -> Step<Self> {
        Ok(Self {
            guard,
            server,
            without_hook,
            before: tcp_ext()?,
            observer: None,
            counted: Vec::new(),
            subject,
            other: None,
        })
    }

    pub(crate) fn server_program(&self) -> &PathBuf {
        &self.server
    }

    /// Starts a server that observes itself, and may be the one under test.
    pub(crate) fn observe(&mut self, arguments: &[&str], confined: Confined) -> Step<SocketAddr> {
        let arguments = [&["--trace"], self.without_hooks().as_slice(), arguments].concat();
        let observer = Program::start(&self.server, &arguments, confined)?;
        let address = observer.address;
        self.observer = Some(observer);
        Ok(address)
    }

    /// Starts a watch of a process: its accept queues are judged as its own.
    pub(crate) fn watch(&mut self, pid: u32) -> Step {
        self.observer = Some(Program::watch(&self.server, pid, &self.without_hooks())?);
        Ok(())
    }

    fn without_hooks(&self) -> Vec<&'a str> {
        self.without_hook.iter().flat_map(|hook| ["--without-hook", hook.as_str()]).collect()
    }

    pub(crate) fn observer(&mut self) -> Step<&mut Program> {
        self.observer.as_mut().ok_or_else(|| Stop::wrong("there is no observer"))
    }

    /// What the driver counted itself, and where the observer's own count of it stands.
    pub(crate) fn count(&mut self, name: &'static str, value: u64, ebpf: &'static str) {
        self.counted.push(Counted { name, value, ebpf });
    }

    /// The observer, for its end, and what the driver counted.
    pub(crate) fn end(self) -> (Option<Program>, Vec<Counted>) {
        (self.observer, self.counted)
    }

    /// Starts the server under test: the observer itself, or somebody else's, which a watch observes.
    pub(crate) fn serve(&mut self) -> Step<SocketAddr> {
        if self.subject.is_none() {
            return self.observe(&[], Confined::default());
        }
        let other = self.watched(None)?;
        let address = other.address;
        self.other = Some(other);
        Ok(address)
    }

    /// Somebody else's server, and a watch of it.
    pub(crate) fn watched(&mut self, nofile: Option<u64>) -> Step<Other> {
        let kind = self.subject.ok_or_else(|| Stop::wrong("there is nobody else's server"))?;
        let other = Other::start(kind, nofile)?;
        self.watch(other.pid())?;
        Ok(other)
    }

    /// A second server, without eBPF.
    pub(crate) fn start(&self, arguments: &[&str], confined: Confined) -> Step<Program> {
        Program::start(&self.server, arguments, confined)
    }

    /// Settings of the whole host, put back after the run.
    pub(crate) fn set(&mut self, settings: &[(&str, String)]) -> Step {
        let changes: Result<Vec<Change>, _> = settings
            .iter()
            .map(|(name, value)| Ok(Change { name: Name::new(name)?, value: value.clone() }))
            .collect();
        let changes = changes
            .map_err(|error: c1m_host::sysctl::SysctlError| Stop::wrong(error.to_string()))?;
        // Absent, or read-only in a container: not this host's to have.
        self.guard.set(&changes).map_err(|error| Stop::Skip(error.to_string()))
    }

    /// Puts back what was changed so far.
    pub(crate) fn put_back(&mut self) -> Step {
        match self.guard.restore().iter().find(|outcome| !outcome.is_back()) {
            None => Ok(()),
            Some(outcome) => Err(Stop::wrong(outcome.to_string())),
        }
    }

    /// A setting of the run's own network namespace, which ends with it.
    pub(crate) fn set_own(&self, name: &str, value: &str) -> Step {
        Name::new(name)
            .and_then(|name| Tree::at(Tree::KERNEL).write(&name, value))
            .map_err(|error| Stop::Skip(error.to_string()))
    }

    /// How far a counter of TcpExt has moved since the run began, in this network namespace.
    pub(crate) fn moved(&self, counter: &str) -> Step<u64> {
        let now = tcp_ext()?;
        let value = |of: &TcpExt| of.get(counter).copied().unwrap_or(0);
        Ok(value(&now).saturating_sub(value(&self.before)))
    }

    /// Waits until a counter of TcpExt has moved by so much: the kernel's own word that the fault is there.
    pub(crate) fn until_moved(&self, counter: &str, by: u64) -> Step {
        eventually(&format!("{counter} did not move by {by}"), || Ok(self.moved(counter)? >= by))
    }
}

fn tcp_ext() -> Step<TcpExt> {
    // Of the thread: /proc/net is that of the whole process.
    let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    netstat::parse(&text).map_err(|error| Stop::wrong(error.to_string()))
}

/// TCP sockets and pages.
pub(crate) fn sockets() -> Step<Sockstat> {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat")?;
    sockstat::parse(&text, "").ok_or_else(|| Stop::wrong("/proc/net/sockstat is not understood"))
}

/// Waits until `done`; that it does not come is an error in the words of `else_wrong`.
pub(crate) fn eventually(else_wrong: &str, mut done: impl FnMut() -> Step<bool>) -> Step {
    let end = Instant::now() + PATIENCE;
    while !done()? {
        if INTERRUPTED.load(Relaxed) {
            return Err(Stop::wrong("interrupted"));
        }
        if Instant::now() > end {
            return Err(Stop::wrong(format!("not tripped: {else_wrong}")));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// CPUs that may each hold pages outside of the kernel's counter.
pub(crate) fn cpus() -> Step<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let is_cpu = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
    Ok(stat.lines().filter(is_cpu).map(|_| 1).sum())
}

/// Pages that may be outside of the kernel's counter.
pub(crate) fn reserve_pages() -> Step<u64> {
    Ok(cpus()? * RESERVE_PAGES)
}

/// A socket whose source is bound before, taking turns over 127.0.0.2 and the following: the TIME_WAIT of earlier connections
/// then do not make the search for a port long.
pub(crate) fn bound() -> Step<Socket> {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let source = Ipv4Addr::new(127, 0, 0, 2 + NEXT.fetch_add(1, Relaxed) % 128);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    Ok(socket)
}

/// A connection that waits for nothing longer than [`PATIENCE`].
pub(crate) fn connect(address: SocketAddr) -> Step<TcpStream> {
    connected(bound()?, address)
}

pub(crate) fn connected(socket: Socket, address: SocketAddr) -> Step<TcpStream> {
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// A connection on its way: it may be dropped before it is there.
pub(crate) fn start_connecting(socket: Socket, address: SocketAddr) -> Step<Socket> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error.into()),
        _ => Ok(socket),
    }
}

/// Waits for it: a SYN that was dropped is sent again after 1 s, 2 s, 4 s.
pub(crate) fn arrived(socket: Socket) -> Step<TcpStream> {
    eventually("a connection that was dropped does not come", || Ok(socket.peer_addr().is_ok()))?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Both ends of a connection to a listener of one's own.
pub(crate) fn pair(listener: &TcpListener) -> Step<(TcpStream, TcpStream)> {
    let near = connect(listener.local_addr()?)?;
    Ok((near, listener.accept()?.0))
}

/// Ends it by reset: neither an orphan nor a TIME_WAIT is left.
pub(crate) fn reset(stream: TcpStream) -> Step {
    Ok(SockRef::from(&stream).set_linger(Some(Duration::ZERO))?)
}

/// Asks for `bytes` bytes, and leaves the answer where it is.
pub(crate) fn ask(stream: &mut TcpStream, bytes: u64) -> Step {
    Ok(stream.write_all(format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?)
}

/// Asks for a small answer, and reads it whole.
pub(crate) fn answers(stream: &mut TcpStream) -> Step {
    const BODY: usize = 64;
    let no_answer =
        |error: io::Error| Stop::wrong(format!("a connection does not answer: {error}"));
    stream.write_all(b"GET /bytes/64 HTTP/1.1\r\nHost: x\r\n\r\n").map_err(no_answer)?;
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
        false => Err(Stop::wrong(format!("not a 200: {}", String::from_utf8_lossy(&answer)))),
    }
}

/// Each of them answers, and so does a new one: the server is alive, and who was taken by no limit is served.
pub(crate) fn all_answer(address: SocketAddr, streams: &mut [TcpStream]) -> Step {
    for stream in streams {
        answers(stream)?;
    }
    let mut fresh = connect(address)?;
    answers(&mut fresh)?;
    reset(fresh)
}
