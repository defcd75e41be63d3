//! Without iterators: the sockets of this network namespace by sock_diag, their processes by /proc.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use c1m_host::{descriptors, namespaces, sock_diag};
use c1m_record::{Holder, Source, StateRow, TcpState};

use super::{OTHER_PROCESSES, Sockets};
use crate::snapshot::{Held, StateCounts};

/// What may be missing when each attempt of a dump was interrupted by changes.
const INTERRUPTED: &str =
    "sockets that came or went while the kernel listed them: some may be missing, or counted twice";

/// What the fallback never sees.
fn never_seen(why: &str) -> Vec<String> {
    vec![format!(
        "closed sockets' memory, and other network namespaces: no eBPF iterators, since {why}"
    )]
}

pub(super) fn sockets(netns: u32, why: &str) -> io::Result<Sockets> {
    let dump = sock_diag::sockets(|found: &mut Vec<sock_diag::DiagSocket>, socket| {
        if socket.is_full {
            found.push(socket);
        }
    })?;
    let dumped = dump.value;
    let inodes: HashSet<u32> = dumped.iter().map(|socket| socket.inode).collect();
    let descriptors = descriptors::of_tcp(|inode| inodes.contains(&inode))?;
    let mut unseen = never_seen(why);
    unseen.extend(dump.is_interrupted.then(|| INTERRUPTED.to_owned()));
    if descriptors.unseen > 0 {
        unseen.push(format!("the descriptors of {} processes of other users", descriptors.unseen));
    }
    if !namespaces::is_initial_pid_namespace() {
        unseen.push(OTHER_PROCESSES.into());
    }
    let closed = descriptors.closed.len();
    if closed > 0 {
        unseen.push(format!(
            "what {closed} TCP sockets hold that have a descriptor and are in no table: closed, \
             not yet connected, or of another network namespace"
        ));
    }
    let nobody = if descriptors.unseen > 0 { Holder::Unknown } else { Holder::Elsewhere };
    let sockets = dumped.iter().map(|it| held(it, netns, &descriptors, nobody)).collect();
    Ok(Sockets {
        source: Source::SockDiag,
        sockets,
        is_whole: false,
        names_processes: true,
        // Unknown without the kernel's types, and so it is every time since 6.0.
        has_reserve: true,
        unseen,
    })
}

fn held(
    socket: &sock_diag::DiagSocket,
    netns: u32,
    descriptors: &descriptors::Descriptors,
    nobody: Holder,
) -> Held {
    let state = TcpState::from_kernel(socket.state.into(), socket.remote_port != 0);
    let holders = descriptors.holders.get(&socket.inode).filter(|_| socket.inode != 0);
    let holder = match (holders, socket.inode, state) {
        (Some(_), _, _) => Holder::Process,
        // Only close leads to these states, and nothing without a descriptor was closed but an
        // orphan.
        (
            None,
            0,
            TcpState::FinWait1 | TcpState::FinWait2 | TcpState::LastAck | TcpState::Closing,
        ) => Holder::Orphan,
        (None, 0, _) => Holder::AcceptQueue,
        (None, _, _) => nobody,
    };
    Held {
        sockets: 1,
        holder,
        pid: holders.map_or(0, |it| it.pid),
        is_shared: holders.is_some_and(|it| it.is_shared),
        state,
        local_port: socket.local_port,
        remote: (socket.remote_port != 0).then_some(socket.remote),
        netns,
        cgroup: 0,
        receive_bytes: socket.receive_bytes,
        backlog_bytes: socket.backlog_bytes,
        send_bytes: socket.send_bytes,
        forward_bytes: socket.forward_bytes,
    }
}

pub(super) fn states(netns: u32, why: &str) -> io::Result<StateCounts> {
    let dump = sock_diag::sockets(|counts: &mut HashMap<(TcpState, u16), u64>, socket| {
        let state = TcpState::from_kernel(socket.state.into(), socket.remote_port != 0);
        *counts.entry((state, socket.local_port)).or_default() += 1;
    })?;
    let mut unseen = never_seen(why);
    unseen.extend(dump.is_interrupted.then(|| INTERRUPTED.to_owned()));
    let row = |((state, port), count)| StateRow { state, port, netns, count };
    Ok(StateCounts { rows: dump.value.into_iter().map(row).collect(), unseen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_process_is_known_by_its_state() {
        let descriptors = descriptors::Descriptors {
            holders: HashMap::from([(7, descriptors::Holders { pid: 42, is_shared: true })]),
            ..descriptors::Descriptors::default()
        };
        let of = |inode, state| {
            let socket = sock_diag::DiagSocket {
                state,
                local_port: 80,
                remote_port: 9,
                remote: [127, 0, 0, 1].into(),
                inode,
                receive_bytes: 1,
                backlog_bytes: 2,
                send_bytes: 3,
                forward_bytes: 4,
                is_full: true,
            };
            held(&socket, 1, &descriptors, Holder::Unknown)
        };
        let named = of(7, 1);
        assert_eq!((named.holder, named.pid, named.is_shared), (Holder::Process, 42, true));
        assert_eq!((named.receive_bytes, named.send_bytes, named.forward_bytes), (1, 3, 4));
        // FIN_WAIT1, FIN_WAIT2, LAST_ACK and CLOSING; ESTABLISHED and CLOSE_WAIT are not left by a
        // close.
        assert!([4, 5, 9, 11].iter().all(|state| of(0, *state).holder == Holder::Orphan));
        assert!([1, 8].iter().all(|state| of(0, *state).holder == Holder::AcceptQueue));
        assert_eq!(of(8, 4).holder, Holder::Unknown);
    }
}
