//! The two queues of a listener.

use std::{net::SocketAddr, thread, time::Duration};

use socket2::{SockFilter, Socket};

use super::super::{
    program::Confined,
    stand::{Stand, Step, all_answer, answers, arrived, bound, connect, start_connecting},
};

const BACKLOG: usize = 8;
const BACKLOG_FLAG: [&str; 4] = ["--workers", "1", "--backlog", "8"];
const MORE: usize = 20;
/// Some intervals of the observer
const SAMPLES: Duration = Duration::from_millis(500);

/// The server is stopped as by a debugger: its accept queue fills, and further SYNs are dropped.
pub(crate) fn accept(stand: &mut Stand<'_>) -> Step {
    let mut server = stand.start(&BACKLOG_FLAG, Confined::default())?;
    stand.watch(server.pid())?;
    let mut streams = vec![connect(server.address)?];
    all_answer(server.address, &mut streams)?;
    server.stop()?;
    let waiting = overflow(stand, server.address)?;
    server.signal(libc::SIGCONT)?;
    waiting.into_iter().try_for_each(|socket| arrived(socket).map(|it| streams.push(it)))?;
    all_answer(server.address, &mut streams)?;
    server.finish()
}

/// The same with somebody else's server.
pub(crate) fn accept_of_other(stand: &mut Stand<'_>) -> Step {
    let mut other = stand.watched(None)?;
    let mut streams = vec![connect(other.address)?];
    all_answer(other.address, &mut streams)?;
    other.stop()?;
    let waiting = overflow(stand, other.address)?;
    other.signal(libc::SIGCONT)?;
    waiting.into_iter().try_for_each(|socket| arrived(socket).map(|it| streams.push(it)))?;
    all_answer(other.address, &mut streams)?;
    other.finish()
}

/// More connections than a queue holds that nobody empties.
fn overflow(stand: &Stand<'_>, address: SocketAddr) -> Step<Vec<Socket>> {
    let waiting = (0..BACKLOG + MORE)
        .map(|_| start_connecting(bound()?, address))
        .collect::<Step<Vec<_>>>()?;
    stand.until_moved("ListenOverflows", MORE as u64 / 2)?;
    // The watch samples the full queue. One that is too slow for it says likely, and not certain.
    thread::sleep(SAMPLES);
    Ok(waiting)
}

/// Clients that never see the answer to their SYN: a socket filter drops it. Each leaves a request in the SYN queue.
pub(crate) fn syn(stand: &mut Stand<'_>) -> Step {
    stand.set_own("net.ipv4.tcp_syncookies", "0")?;
    let address = stand.observe(&BACKLOG_FLAG, Confined::default())?;
    let mut healthy = vec![connect(address)?];
    answers(&mut healthy[0])?;
    let deaf = (0..BACKLOG + MORE)
        .map(|_| {
            let socket = bound()?;
            socket.attach_filter(&[DROP_ALL])?;
            start_connecting(socket, address)
        })
        .collect::<Step<Vec<_>>>()?;
    stand.until_moved("TCPReqQFullDrop", MORE as u64 / 2)?;
    drop(deaf);
    // The next answer to each SYN finds nobody, and the reset empties the queue.
    all_answer(address, &mut healthy)
}

/// BPF_RET | BPF_K with 0: nothing of the packet is kept (include/uapi/linux/bpf_common.h).
const DROP_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0);
