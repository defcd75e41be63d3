//! Runs that are not those of the two programs alone.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use c1m_record::Sockstat;
use c1m_sys::process::unshare_files;
use c1m_testkit::{PATIENCE, host};
use socket2::{Domain, Socket, Type};

use crate::world::World;

/// Of this thread's network namespace.
fn sockets() -> Sockstat {
    host::sockets().expect("every kernel has it")
}

/// Connects from so many addresses until the kernel finds no port any more.
pub(crate) fn by_a_client_that_lets_the_kernel_choose(world: &World, sources: u8) -> u64 {
    let (_server, address) = world.serve(&[]);
    let address: SocketAddr = address.parse().expect("an address");
    let mut open = Vec::new();
    for source in 1..=sources {
        let local = SocketAddr::from(([127, 0, 7, source], 0));
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            // Chosen by bind, which says so in another way than connect does.
            match socket.bind(&local.into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => break,
                bound => bound.expect("all of 127.0.0.0/8 is local"),
            }
            socket
                .connect_timeout(&address.into(), PATIENCE)
                .unwrap_or_else(|error| panic!("{error} after {}", open.len()));
            open.push(socket);
        }
    }
    let opened = open.len() as u64;
    for socket in &open {
        // Neither TIME_WAIT nor orphans.
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }
    opened
}

/// Connections that are established while the server is stopped, all the time or for `pause`; in the latter case those that it holds at last.
pub(crate) fn while_nobody_accepts(
    world: &World,
    server: &[&str],
    client: &[&str],
    pause: Option<Duration>,
) -> u64 {
    let (mut server, address) = world.serve(server);
    server.child().stop().expect("it is ours");
    let before = sockets().inuse;
    let _client = world.connect(&address, client);
    if let Some(pause) = pause {
        thread::sleep(pause);
        server.child().signal(libc::SIGCONT).expect("it is ours");
        return server.held_at_standstill(world.connections);
    }
    let established = standstill(|| sockets().inuse.saturating_sub(before));
    // Sockets of the client alone: what waits for accept is in use as well, and there is one for each.
    established / 2
}

/// The value that does not change any more.
fn standstill(mut value: impl FnMut() -> u64) -> u64 {
    let (mut last, mut since) = (0, Instant::now());
    let end = Instant::now() + PATIENCE;
    while since.elapsed() < Duration::from_millis(500) || last == 0 {
        assert!(Instant::now() < end, "nothing comes");
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(10));
    }
    last
}

/// How many connections there were when the kernel first refused memory for what waits unread in them. `None`: it did not until all were there.
pub(crate) fn first_refused(world: &World, path: &str) -> Option<u64> {
    // Sockets and counters of one's own; the limit is the host's, wherever one is.
    world.unshare_network().unwrap_or_else(|why| panic!("{why:?}"));
    let refused = refused_here(world, path);
    world.back_to_first_network();
    refused
}

fn refused_here(world: &World, path: &str) -> Option<u64> {
    const SIGNS: [&str; 5] =
        ["TCPRcvQDrop", "PruneCalled", "TCPFromZeroWindowAdv", "TCPZeroWindowDrop", "TCPOFODrop"];
    let sum = || {
        let now = host::tcp_ext().expect("every kernel has it");
        SIGNS.iter().filter_map(|name| now.get(*name)).sum::<u64>()
    };
    let (_server, address) = world.serve(&[]);
    let (before, at_start) = (sockets().inuse, sum());
    let connections = || sockets().inuse.saturating_sub(before) / 2;
    let flags = ["--unread", "--request", path, "--rate", "8k", "--in-flight", "8"];
    let _client = world.connect(&address, &flags);
    let end = Instant::now() + PATIENCE;
    loop {
        if sum() > at_start {
            return Some(connections());
        }
        if connections() >= world.connections {
            // The last ones are still being answered.
            thread::sleep(Duration::from_millis(500));
            return (sum() > at_start).then(connections);
        }
        assert!(Instant::now() < end, "the run does not come to its end");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Has all connections be closed by one end while the other one keeps them: how many stay as orphans, and are not reset. `at`: where they are
/// said to be too many.
pub(crate) fn cut_at_once(world: &World, at: u64) -> u64 {
    /// More than one descriptor table holds.
    const THREADS: u64 = 4;
    /// The kernel looks at the number of orphans ten times a second: net/ipv4/tcp.c, `tcp_orphan_update`, 6.18.
    const LOOKS: Duration = Duration::from_millis(110);
    const BATCH: u64 = 100;
    let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let address = listener.local_addr().expect("an address").to_string();
    let all = world.connections;
    let accepted = Arc::new(AtomicU64::new(0));
    let full = Arc::new(Barrier::new(usize::try_from(THREADS).expect("a few") + 1));
    // Of all threads together: how many may be closed by now.
    let (allowed, closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (listener, accepted, full) = (listener.clone(), accepted.clone(), full.clone());
            let (allowed, closed) = (allowed.clone(), closed.clone());
            thread::spawn(move || {
                unshare_files().expect("needs no privilege");
                full.wait();
                let mut held: Vec<TcpStream> = Vec::new();
                for _ in 0..all / THREADS {
                    held.push(listener.accept().expect("there is room").0);
                    accepted.fetch_add(1, Relaxed);
                }
                full.wait();
                while let Some(stream) = held.pop() {
                    while closed.fetch_add(1, Relaxed) >= allowed.load(Relaxed) {
                        closed.fetch_sub(1, Relaxed);
                        thread::sleep(Duration::from_millis(1));
                    }
                    drop(stream);
                }
            })
        })
        .collect();
    let before = sockets().orphan;
    // Not before all have tables of their own: what tells a program's start apart from its failure would stay open in a copy of this one, and be waited for.
    full.wait();
    let mut client = world.connect(&address, &["--idle"]);
    let end = Instant::now() + PATIENCE;
    while accepted.load(Relaxed) < all / THREADS * THREADS {
        assert!(Instant::now() < end, "{} of {all} came", accepted.load(Relaxed));
        thread::sleep(Duration::from_millis(10));
    }
    // Who does not run does not close its end.
    client.stop().expect("it is ours");
    full.wait();
    // Fast where nothing is at stake.
    let (slow_from, slow_until) = (at / 20 * 19, (at / 20 * 21).min(all));
    allowed.store(slow_from, Relaxed);
    let until_closed = |count: u64| {
        while closed.load(Relaxed) < count {
            assert!(Instant::now() < end, "{} of {count} are closed", closed.load(Relaxed));
            thread::sleep(Duration::from_millis(1));
        }
    };
    let mut next = slow_from;
    until_closed(next);
    thread::sleep(LOOKS);
    while next < slow_until {
        next = (next + BATCH).min(slow_until);
        allowed.store(next, Relaxed);
        until_closed(next);
        thread::sleep(LOOKS);
    }
    allowed.store(all + THREADS, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("it can't panic"));
    sockets().orphan.saturating_sub(before)
}
