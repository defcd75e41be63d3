//! The floor of a ramp: both ends of a bare loop of accept4 and connect, with nothing in it.
//!
//! What it shares with the programs that are measured is the plan of 4-tuples (same sources, ports and destination), the descriptor
//! tables (one a thread, since a table is bounded) and the number of threads that work at a time (the cores). There is no
//! connection in an epoll, no state a connection, and no clock in the loop; the accepting end waits on its listener alone. Each
//! socket gets SO_LINGER with 0 seconds before it connects, as those of c1m-client do, so that the end leaves neither orphans nor
//! TIME_WAIT.
//!
//! There is no request either, unless an exchange is asked for: then each end sends as many bytes as the programs do and receives
//! what the other one sends, without reading any of it.
//!
//! Orders come on standard input: a line asks the server how many it has accepted; the end of the input ends all connections.

use std::{
    io::{self, BufRead as _, Write as _},
    net::SocketAddr,
    os::fd::{AsRawFd as _, IntoRawFd as _, RawFd},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use c1m_client::{ramp::Crew, shard::Shard, target::Target, tuple::Plan};
use c1m_host::ports::Ports;
use c1m_preflight::plan::Workers;
use c1m_sys::{
    epoll::{self, Epoll, Events},
    process::raise_nofile,
    socket::{accept, bind, connect, receive, reset_on_close, send, set_quick_ack},
    thread::spawn_with_own_table,
};
use c1m_text::units::parse_count;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

/// The name under which xtask starts itself again.
pub(crate) const COMMAND: &str = "__floor";
/// As of c1m-server.
const BACKLOG: i32 = 4096;
const STACK_BYTES: usize = 256 << 10;
/// As of c1m-client.
const PER_SOURCE: u64 = 64_000;
/// Descriptors of a table that are no connection, with some to spare.
const OWN_DESCRIPTORS: u64 = 16;
/// How often a thread whose queue is empty looks whether the others have accepted the last connection.
const LOOK: Duration = Duration::from_millis(100);

/// Between two looks for requests that are on their way.
const PAUSE: Duration = Duration::from_millis(1);
/// As many as c1m-client's first request and c1m-server's answer have.
const REQUEST_BYTES: usize = 40;
const ANSWER_BYTES: usize = 47;

/// One end of the floor.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    /// Connect to this address; without it, accept
    #[arg(long)]
    connect: Option<Target>,

    #[arg(long, value_parser = parse_count)]
    connections: u64,

    /// Send a request and an answer on each
    #[arg(long)]
    exchange: bool,
}

/// What an end says, one JSON value a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Said {
    Listening {
        address: SocketAddr,
    },
    /// The last `connect` has come back.
    Ramped {
        seconds: f64,
    },
    Accepted {
        connections: u64,
    },
}

pub(crate) fn main(args: &FloorArgs) -> ExitCode {
    let result = match args.connect {
        Some(target) => client(target, args.connections, args.exchange),
        None => server(args.connections, args.exchange),
    };
    crate::exit::code(result)
}

fn say(said: &Said) -> Result<()> {
    let text = serde_json::to_string(said)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

fn cores() -> Result<usize> {
    Ok(thread::available_parallelism().context("cannot count the cores")?.get())
}

/// A full table. Dropping the sender ends it, with all its connections.
struct Table {
    ender: Sender<()>,
    thread: JoinHandle<io::Result<io::Result<()>>>,
}

/// What a table's thread does: fills it, says so by dropping the first, and holds until the second is dropped.
type Fill = Box<dyn FnOnce(Sender<()>, Receiver<()>) -> io::Result<()> + Send>;

/// Fills one table after the other, as long as there is a next one; then holds them, and ends one after the other.
fn lane(
    keep: &[RawFd],
    mut next: impl FnMut() -> Option<Fill>,
    filled: Sender<()>,
    end: &Receiver<()>,
) -> Result<()> {
    let mut tables = Vec::new();
    while let Some(fill) = next() {
        let (full, is_full) = channel::<()>();
        let (ender, is_ended) = channel();
        let body = move || fill(full, is_ended);
        let thread = spawn_with_own_table("floor".into(), STACK_BYTES, keep.to_vec(), body)?;
        // Nothing is ever sent: it is dropped, by a thread that failed as well.
        let _ = is_full.recv();
        tables.push(Table { ender, thread });
    }
    drop(filled);
    let _ = end.recv();
    for Table { ender, thread } in tables {
        drop(ender);
        match thread.join() {
            Ok(result) => result.and_then(|filled| filled).context("a table of the floor")?,
            Err(_) => bail!("a thread of the floor panicked"),
        }
    }
    Ok(())
}

/// One lane a core. Dropping `ends` ends them.
struct Lanes {
    ends: Vec<Sender<()>>,
    threads: Vec<JoinHandle<Result<()>>>,
    filled: Receiver<()>,
}

impl Lanes {
    /// `each` has what a lane keeps in its tables, and its next table.
    fn start<N>(mut each: impl FnMut(usize) -> (Vec<RawFd>, N)) -> Result<Self>
    where
        N: FnMut() -> Option<Fill> + Send + 'static,
    {
        let (sender, filled) = channel();
        let (mut ends, mut threads) = (Vec::new(), Vec::new());
        for index in 0..cores()? {
            let (ender, end) = channel();
            let (keep, next) = each(index);
            let sender = sender.clone();
            ends.push(ender);
            threads.push(thread::spawn(move || lane(&keep, next, sender, &end)));
        }
        Ok(Self { ends, threads, filled })
    }

    fn end(self) -> Result<()> {
        drop(self.ends);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a lane of the floor panicked"))??;
        }
        Ok(())
    }
}

/// How many connections a lane has accepted. A cache line each: one thread at a time writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU64);

#[derive(Debug)]
struct Counts(Vec<Count>);

impl Counts {
    fn sum(&self) -> u64 {
        self.0.iter().map(|count| count.0.load(Relaxed)).sum()
    }
}

fn server(connections: u64, exchange: bool) -> Result<()> {
    let room = raise_nofile()?.saturating_sub(OWN_DESCRIPTORS);
    let listeners = listeners(cores()?)?;
    let address = listeners.first().map(Socket::local_addr).transpose()?;
    let address = address.and_then(|address| address.as_socket());
    let counts = Arc::new(Counts(listeners.iter().map(|_| Count::default()).collect()));
    let lanes = Lanes::start(|index| {
        let (fd, counts) = (listeners[index].as_raw_fd(), Arc::clone(&counts));
        let next = move || {
            let counts = Arc::clone(&counts);
            (counts.sum() < connections).then(|| {
                Box::new(move |full: Sender<()>, ended: Receiver<()>| {
                    let mut asked = exchange.then(Vec::new);
                    accept_all(fd, room, connections, &counts, index, &mut asked)?;
                    drop(full);
                    let _ = ended.recv();
                    Ok(())
                }) as Fill
            })
        };
        (vec![fd], next)
    })?;
    say(&Said::Listening { address: address.context("the floor has no address")? })?;
    for line in io::stdin().lock().lines() {
        line.context("cannot read orders")?;
        say(&Said::Accepted { connections: counts.sum() })?;
    }
    lanes.end()
}

/// A group of SO_REUSEPORT on a loopback port of the kernel's choice, among which it spreads new connections.
fn listeners(count: usize) -> Result<Vec<Socket>> {
    let mut listeners: Vec<Socket> = Vec::new();
    for _ in 0..count {
        let listener = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
        listener.set_reuse_port(true)?;
        let address = match listeners.first() {
            Some(first) => first.local_addr()?,
            None => SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        };
        listener.bind(&address).context("no port for the floor")?;
        listener.listen(BACKLOG)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Accepts until the table is full, or all have the last connection; with `asked`, until all of its own are answered as well.
fn accept_all(
    listener: RawFd,
    room: u64,
    connections: u64,
    counts: &Counts,
    lane: usize,
    asked: &mut Option<Vec<RawFd>>,
) -> io::Result<()> {
    let own = &counts.0[lane].0;
    let before = own.load(Relaxed);
    let epoll = Epoll::new()?;
    epoll.add(listener, epoll::IN, 0)?;
    let mut events = Events::with_capacity(1);
    let mut held = 0;
    loop {
        let unanswered = match asked {
            Some(asked) => answer(asked)?,
            None => false,
        };
        if held == room {
            if unanswered {
                thread::sleep(PAUSE);
                continue;
            }
            return Ok(());
        }
        match accept(listener) {
            // The end of the table closes it.
            Ok(connection) => {
                let fd = connection.into_raw_fd();
                if let Some(asked) = asked {
                    asked.push(fd);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !unanswered && counts.sum() >= connections {
                    return Ok(());
                }
                epoll.wait(&mut events, Some(if unanswered { PAUSE } else { LOOK }))?;
                continue;
            }
            Err(error) => return Err(error),
        }
        held += 1;
        own.store(before + held, Relaxed);
    }
}

/// Answers whose request is there. Whether there are others.
fn answer(asked: &mut Vec<RawFd>) -> io::Result<bool> {
    let mut later = Vec::new();
    for fd in asked.drain(..) {
        match receive(fd, &mut [0; REQUEST_BYTES]) {
            Ok(_) => drop(send(fd, &[b'a'; ANSWER_BYTES])?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => later.push(fd),
            Err(error) => return Err(error),
        }
    }
    *asked = later;
    Ok(!asked.is_empty())
}

fn client(target: Target, connections: u64, exchange: bool) -> Result<()> {
    let plan = Plan::new(target, &[], Ports::read()?, PER_SOURCE, connections, Shard::WHOLE)?;
    let crew = Crew::of_this_process(Workers::Auto, connections)??;
    let plan = Arc::new(plan);
    let taken = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let lanes = Lanes::start(|_| {
        let (plan, taken) = (Arc::clone(&plan), Arc::clone(&taken));
        let next = move || {
            let worker = taken.fetch_add(1, SeqCst);
            let plan = Arc::clone(&plan);
            (worker < crew.workers).then(|| {
                Box::new(move |full: Sender<()>, ended: Receiver<()>| {
                    let mut answers = Vec::new();
                    for index in crew.share(worker) {
                        let fd = connect_one(&plan, index, exchange)?;
                        if exchange {
                            answers.push(fd);
                        }
                    }
                    for fd in answers {
                        receive(fd, &mut [0; ANSWER_BYTES])?;
                    }
                    drop(full);
                    let _ = ended.recv();
                    Ok(())
                }) as Fill
            })
        };
        (Vec::new(), next)
    })?;
    // Each lane drops its sender when its last table is full.
    let _ = lanes.filled.recv();
    say(&Said::Ramped { seconds: start.elapsed().as_secs_f64() })?;
    // Nothing is asked of a client.
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("cannot read orders")?;
    lanes.end()
}

/// Opens one connection, which the end of the table closes.
fn connect_one(plan: &Plan, index: u64, exchange: bool) -> io::Result<RawFd> {
    let tuple = plan.tuple(index).ok_or_else(|| io::Error::other("no 4-tuple left"))?;
    let domain = Domain::for_address(tuple.source);
    let socket = Socket::new_raw(domain, Type::STREAM.cloexec(), None)?;
    let fd = socket.as_raw_fd();
    reset_on_close(fd)?;
    socket.set_reuse_address(true)?;
    if exchange {
        // As c1m-client does: the end of the handshake travels with the request.
        set_quick_ack(fd, false)?;
    }
    bind(fd, &tuple.source)?;
    connect(fd, &tuple.destination)?;
    if exchange {
        send(fd, &[b'q'; REQUEST_BYTES])?;
    }
    Ok(socket.into_raw_fd())
}
