//! Start, look, stop.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::JoinHandle,
    time::Duration,
};

use c1m_preflight::plan::Plan;

use super::{
    bind,
    counters::Snapshot,
    error::ServeError,
    group::steering_refused,
    shared::{Ending, Notice, Shared, order},
    worker::Worker,
};
use c1m_sys::{errno, thread::spawn_with_own_table};

/// Room for the deepest call of a worker in a debug build. Only the pages that are used cost memory.
const STACK_BYTES: usize = 256 * 1024;
/// What TCP_KEEPIDLE takes: include/net/tcp.h, MAX_TCP_KEEPIDLE.
const KEEPIDLE_SECONDS: std::ops::RangeInclusive<u64> = 1..=32767;

/// What a server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0: the kernel chooses.
    pub listen: SocketAddr,
    pub plan: Plan,
    /// Accept no more while so many are held.
    pub max_connections: Option<u64>,
    /// Probe connections that were idle for this long.
    pub keepalive: Option<Duration>,
    /// How long a request head may take from its first byte to its last. Then it is answered with 408, and its connection closed;
    /// closed without an answer, and counted as 408, if a response waits before it that the peer does not read.
    pub header_timeout: Duration,
}

/// A server that is bound. Connections wait in its queues, nobody takes them yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    address: SocketAddr,
    listeners: Vec<OwnedFd>,
}

impl Server {
    /// Binds the port, with one listener a worker.
    ///
    /// # Errors
    /// The address can't be bound; in particular when anybody listens there already.
    pub fn bind(config: Config) -> Result<Self, ServeError> {
        if let Some(idle) = config.keepalive
            && !KEEPIDLE_SECONDS.contains(&idle.as_secs())
        {
            return Err(ServeError::Keepalive(idle));
        }
        let Plan { workers, backlog, .. } = config.plan;
        let (address, listeners) =
            bind::listeners(config.listen, workers, backlog, config.keepalive)?;
        Ok(Self { config, address, listeners })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The inodes of its listeners.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn inodes(&self) -> io::Result<BTreeSet<u64>> {
        let inode = |listener: &OwnedFd| Ok(File::from(listener.try_clone()?).metadata()?.ino());
        self.listeners.iter().map(inode).collect()
    }

    /// Starts the workers. From here on the listeners are theirs alone.
    ///
    /// # Errors
    /// A thread, a descriptor table or an epoll instance could not be had; the workers already started are gone.
    pub fn start(self) -> Result<Running, ServeError> {
        let plan = self.config.plan;
        let Config { max_connections, header_timeout, .. } = self.config;
        let shared = Shared::new(&plan, max_connections, header_timeout);
        let shared = Arc::new(shared.map_err(ServeError::Start)?);
        if let Some(first) = self.listeners.first()
            && let Err(error) = shared.group.begin(first.as_raw_fd())
        {
            shared.notices.post(errno::of(&error), steering_refused(&error).into());
        }
        let mut running =
            Running { address: self.address, shared, workers: Vec::with_capacity(plan.workers) };
        for (index, listener) in bind::numbers(&self.listeners).into_iter().enumerate() {
            let worker =
                spawn(index, listener, &running.shared, plan).map_err(ServeError::Start)?;
            running.workers.push(worker);
        }
        Ok(running)
    }
}

type Handle = JoinHandle<io::Result<io::Result<()>>>;

fn spawn(index: usize, listener: RawFd, shared: &Arc<Shared>, plan: Plan) -> io::Result<Handle> {
    let keep = vec![listener, shared.waker.as_raw_fd(), shared.notices.fd().as_raw_fd()];
    let shared = Arc::clone(shared);
    spawn_with_own_table(format!("worker-{index}"), STACK_BYTES, keep, move || {
        let _alarm = Alarm(Arc::clone(&shared));
        Worker::new(index, listener, shared, &plan)?.run()
    })
}

/// Tells the main thread that a worker has ended, also when it panics.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
        self.0.notices.wake();
    }
}

/// A server whose workers run. Dropping it ends them.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    workers: Vec<Handle>,
}

impl Running {
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.shared.counters, &self.shared.slots)
    }

    /// Becomes readable (edge-triggered) when there are notices, or when a worker has ended.
    #[must_use]
    pub fn notice_fd(&self) -> BorrowedFd<'_> {
        self.shared.notices.fd()
    }

    /// What the user should know, since this was last asked.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        self.shared.notices.take()
    }

    /// Whether a worker has ended without being told to; [`Running::stop`] then says why.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.shared.ended.load(SeqCst) > 0
    }

    /// Takes no more connections; those that are held are served on.
    pub fn stop_accepting(&self) {
        self.give(order::STOP_ACCEPTING);
    }

    /// Ends all connections and workers, and waits until they are gone.
    ///
    /// # Errors
    /// A worker had failed before.
    pub fn stop(mut self, ending: Ending) -> Result<(), ServeError> {
        self.end(ending)
    }

    fn end(&mut self, ending: Ending) -> Result<(), ServeError> {
        self.give(match ending {
            Ending::Finish => order::FINISH,
            Ending::Reset => order::RESET,
        });
        let mut result = Ok(());
        for worker in self.workers.drain(..) {
            let ended = match worker.join() {
                Ok(ended) => ended.flatten(),
                Err(_) => Err(io::Error::other("it panicked")),
            };
            result = result.and(ended.map_err(ServeError::Internal));
        }
        result
    }

    fn give(&self, order: u8) {
        self.shared.order.store(order, SeqCst);
        self.shared.waker.wake();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = self.end(Ending::Finish);
    }
}
