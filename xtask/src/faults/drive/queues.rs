//! The two queues of a listener.

use std::{io, net::SocketAddr, thread, time::Duration};

use c1m_testkit::{
    Child,
    host::set_own,
    net::{answers, arrived, bound_for, connect, start_connecting},
    trip::{Step, overflow},
};
use socket2::SockFilter;

use super::super::{
    fixture::{Fixture, all_answer},
    program::Confined,
};

const BACKLOG: usize = 8;
const BACKLOG_FLAG: [&str; 4] = ["--workers", "1", "--backlog", "8"];
const MORE: usize = 20;
/// Some intervals of the observer.
const SAMPLES: Duration = Duration::from_millis(500);

/// The server is stopped as by a debugger: its accept queue fills, and further SYNs are dropped.
pub(crate) fn accept(fixture: &mut Fixture<'_>) -> Step {
    let mut server = fixture.start(&BACKLOG_FLAG, Confined::default())?;
    fixture.watch(server.pid())?;
    stopped(server.address, server.child())?;
    server.finish()
}

/// The same with somebody else's server.
pub(crate) fn accept_of_other(fixture: &mut Fixture<'_>) -> Step {
    let mut other = fixture.watched(None)?;
    stopped(other.address, other.child())?;
    other.finish()
}

/// Stops a server until more connections have come than its queue holds.
fn stopped(address: SocketAddr, server: &mut Child) -> Step {
    let mut streams = vec![connect(address)?];
    all_answer(address, &mut streams)?;
    server.stop()?;
    let waiting = overflow(address, BACKLOG + MORE, MORE as u64 / 2)?;
    // The watch samples the full queue. One that is too slow for it says likely, and not certain.
    thread::sleep(SAMPLES);
    server.signal(libc::SIGCONT)?;
    for socket in waiting {
        streams.push(arrived(socket)?);
    }
    all_answer(address, &mut streams)
}

/// Clients that never see the answer to their SYN: a socket filter drops it. Each leaves a request in the SYN queue.
pub(crate) fn syn(fixture: &mut Fixture<'_>) -> Step {
    set_own("net.ipv4.tcp_syncookies", "0")?;
    let address = fixture.observe(&BACKLOG_FLAG, Confined::default())?;
    let mut healthy = vec![connect(address)?];
    answers(&mut healthy[0])?;
    let deaf = (0..BACKLOG + MORE)
        .map(|_| {
            let socket = bound_for(address)?;
            socket.attach_filter(&[DROP_ALL])?;
            start_connecting(socket, address)
        })
        .collect::<io::Result<Vec<_>>>()?;
    fixture.until_moved("TCPReqQFullDrop", MORE as u64 / 2)?;
    drop(deaf);
    // The next answer to each SYN finds nobody, and the reset empties the queue.
    all_answer(address, &mut healthy)
}

/// BPF_RET | BPF_K with 0: nothing of the packet is kept (include/uapi/linux/bpf_common.h).
const DROP_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0);
