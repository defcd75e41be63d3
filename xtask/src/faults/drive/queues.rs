//! The two queues of a listener.

use socket2::SockFilter;

use super::super::{
    program::Confined,
    stand::{Stand, Step, all_answer, answers, arrived, bound, connect, start_connecting},
};

const BACKLOG: usize = 8;
const BACKLOG_FLAG: [&str; 4] = ["--workers", "1", "--backlog", "8"];
const MORE: usize = 20;

/// The server is stopped like by a debugger: its accept queue fills, and further SYNs are dropped.
pub(crate) fn accept(stand: &mut Stand<'_>) -> Step {
    stand.observe(&[], Confined::default())?;
    let mut server = stand.start(&BACKLOG_FLAG, Confined::default())?;
    let mut streams = vec![connect(server.address)?];
    all_answer(server.address, &mut streams)?;
    server.stop()?;
    let waiting = (0..BACKLOG + MORE)
        .map(|_| start_connecting(bound()?, server.address))
        .collect::<Step<Vec<_>>>()?;
    stand.until_moved("ListenOverflows", MORE as u64 / 2)?;
    server.signal(libc::SIGCONT)?;
    for socket in waiting {
        streams.push(arrived(socket)?);
    }
    all_answer(server.address, &mut streams)?;
    server.finish()
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
