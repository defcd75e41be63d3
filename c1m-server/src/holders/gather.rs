//! Looks at every socket: by iterators where the host lets us, else by sock_diag and /proc.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use c1m_host::{descriptors, namespaces, sock_diag, sockstat};
use c1m_probe::{
    TraceError,
    snapshot::{Held, Snapshots, StateCounts, Which},
};
use c1m_program::EnvironmentRefused;
use c1m_record::{Holder, Source, StateRow, TcpState};
use c1m_sys::{netns::Namespace, process::raise_soft_nofile};

use crate::{cli::NetnsChoice, namespace};

/// What a dump of the kernel lacks that every attempt of it was interrupted by changes.
const INTERRUPTED: &str =
    "sockets that came or went while the kernel told them: some may be missing, or counted twice";
/// What is missing inside a PID namespace.
const OTHER_PROCESSES: &str =
    "processes outside of this PID namespace, and the closed sockets that they hold";

/// What was found.
pub(crate) struct Gathered {
    pub(crate) source: Source,
    pub(crate) sockets: Vec<Held>,
    /// Nothing was left out on purpose: all namespaces were asked for, and all processes are visible.
    pub(crate) is_whole: bool,
    /// A process's number is the same here and in the kernel.
    pub(crate) names_processes: bool,
    pub(crate) has_reserve: bool,
    /// What could not be seen, and why.
    pub(crate) unseen: Vec<String>,
}

/// A way to look, made once.
pub(crate) struct Look {
    choice: NetnsChoice,
    own: u32,
    /// `Err`: why there are no iterators.
    iterators: Result<Snapshots, String>,
}

impl Look {
    /// Loads what can be loaded.
    ///
    /// # Errors
    /// There is no /proc, or a namespace is asked for that only iterators can look into, and they can't be had.
    pub(crate) fn begin(choice: NetnsChoice) -> anyhow::Result<Self> {
        // Each namespace that is looked into is a descriptor; fewer fit if it fails.
        let _ = raise_soft_nofile();
        let own = namespaces::own()?.inode;
        let iterators = Snapshots::load().map_err(|error| reason(&error));
        let look = Self { choice, own, iterators };
        if choice == NetnsChoice::All {
            return Ok(look);
        }
        // What is wrong with the choice is told before anything is looked at.
        let namespaces = look.asked_for()?.0;
        if let Err(why) = &look.iterators
            && namespaces.iter().any(|namespace| namespace.inode != own)
        {
            return Err(EnvironmentRefused(format!(
                "another network namespace takes eBPF iterators, and there are none ({why}): use --netns self, or start it with sudo"
            ))
            .into());
        }
        Ok(look)
    }

    /// Every socket, as it is now.
    pub(crate) fn sockets(&mut self, which: Which) -> anyhow::Result<Gathered> {
        let (namespaces, mut unseen) = self.asked_for()?;
        let all = self.choice == NetnsChoice::All;
        let sees_all = namespaces::is_initial_pid_namespace();
        let snapshots = match &mut self.iterators {
            Ok(snapshots) => snapshots,
            Err(why) => {
                let gathered = by_sock_diag(self.own, why).map_err(|error| neither(why, &error))?;
                return Ok(gathered);
            }
        };
        let mut snapshot = snapshots.take(which, &namespaces, all)?;
        if !all {
            let wanted = |held: &Held| namespaces.iter().any(|it| it.inode == held.netns);
            snapshot.sockets.retain(wanted);
        }
        unseen.append(&mut snapshot.unseen);
        Ok(Gathered {
            source: Source::Iterators,
            sockets: snapshot.sockets,
            is_whole: all && sees_all,
            names_processes: sees_all,
            has_reserve: snapshots.has_reserve(),
            unseen,
        })
    }

    /// Connections by state, as they are now.
    pub(crate) fn states(&mut self) -> anyhow::Result<(Source, StateCounts)> {
        let (namespaces, mut unseen) = self.asked_for()?;
        let all = self.choice == NetnsChoice::All;
        let snapshots = match &mut self.iterators {
            Ok(snapshots) => snapshots,
            Err(why) => {
                let counts =
                    states_by_sock_diag(self.own, why).map_err(|error| neither(why, &error))?;
                return Ok((Source::SockDiag, counts));
            }
        };
        let mut counts =
            snapshots.count_states(&namespaces, all, are_all_in_tables(&namespaces))?;
        if !all {
            counts.rows.retain(|row| namespaces.iter().any(|it| it.inode == row.netns));
        }
        counts.unseen.append(&mut unseen);
        Ok((Source::Iterators, counts))
    }

    /// The namespaces, and what keeps us from finding more.
    fn asked_for(&self) -> anyhow::Result<(Vec<Namespace>, Vec<String>)> {
        let mut unseen = Vec::new();
        // Theirs are also in the network namespaces that can be entered from here.
        if !namespaces::is_initial_pid_namespace() {
            unseen.push(OTHER_PROCESSES.into());
        }
        let namespaces = match namespace::named(self.choice)? {
            Some(named) => vec![named],
            None => namespaces::all()?,
        };
        Ok((namespaces, unseen))
    }
}

/// Are all TCP sockets of the host in the tables of these namespaces? Then none is closed, or not yet connected, and no descriptor needs to be
/// looked at. Each socket that is made is counted in `alloc`, those in tables in `inuse` (net/ipv4/proc.c, sockstat_seq_show, 5.10 to 6.18).
fn are_all_in_tables(namespaces: &[Namespace]) -> bool {
    let in_tables = || {
        let counts = namespaces.iter().map(|namespace| {
            let sockets = namespace.within(sockstat::of_thread).and_then(|counts| counts).ok()?;
            Some(sockets.inuse + sockets.inuse6)
        });
        counts.sum::<Option<u64>>()
    };
    // While nothing comes or goes: a new one could make up for a closed one.
    let before = in_tables();
    let made = sockstat::sockstat().ok().map(|counts| counts.alloc);
    before.is_some() && before == made && in_tables() == before
}

/// Why there are no iterators, in the words of a command that does without them.
fn reason(error: &TraceError) -> String {
    match error {
        TraceError::NotPermitted { missing } => format!("this process lacks {missing}"),
        TraceError::UserNamespace => {
            "the capabilities of this process are those of its own user namespace alone".into()
        }
        TraceError::Load(cause) => cause.clone(),
        other => other.to_string(),
    }
}

/// There is no way left.
fn neither(why: &str, error: &io::Error) -> EnvironmentRefused {
    EnvironmentRefused(format!(
        "the sockets can't be looked at: no eBPF iterators, since {why}, and no sock_diag ({error}): start it with sudo, outside of a sandbox"
    ))
}

/// What the fallback never sees.
fn unseen_by_sock_diag(why: &str) -> Vec<String> {
    vec![format!(
        "closed sockets' memory, and other network namespaces: no eBPF iterators, since {why}"
    )]
}

fn by_sock_diag(netns: u32, why: &str) -> io::Result<Gathered> {
    let dump = sock_diag::sockets(|told: &mut Vec<sock_diag::Told>, socket| {
        if socket.is_full {
            told.push(socket);
        }
    })?;
    let told = dump.value;
    let inodes: HashSet<u32> = told.iter().map(|socket| socket.inode).collect();
    let descriptors = descriptors::of_tcp(|inode| inodes.contains(&inode))?;
    let mut unseen = unseen_by_sock_diag(why);
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
            "what {closed} TCP sockets hold that have a descriptor and are in no table: closed, not yet connected, or of another network namespace"
        ));
    }
    let nobody = if descriptors.unseen > 0 { Holder::Unknown } else { Holder::Elsewhere };
    let sockets = told.iter().map(|it| held(it, netns, &descriptors, nobody)).collect();
    Ok(Gathered {
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
    told: &sock_diag::Told,
    netns: u32,
    descriptors: &descriptors::Descriptors,
    nobody: Holder,
) -> Held {
    let state = TcpState::from_kernel(told.state.into(), told.remote_port != 0);
    let holders = descriptors.holders.get(&told.inode).filter(|_| told.inode != 0);
    let holder = match (holders, told.inode, state) {
        (Some(_), _, _) => Holder::Process,
        // Only close leads to these states, and nothing without a descriptor was closed but an orphan.
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
        local_port: told.local_port,
        remote: (told.remote_port != 0).then_some(told.remote),
        netns,
        cgroup: 0,
        receive_bytes: told.receive_bytes,
        backlog_bytes: told.backlog_bytes,
        send_bytes: told.send_bytes,
        forward_bytes: told.forward_bytes,
    }
}

fn states_by_sock_diag(netns: u32, why: &str) -> io::Result<StateCounts> {
    let dump = sock_diag::sockets(|counts: &mut HashMap<(TcpState, u16), u64>, told| {
        let state = TcpState::from_kernel(told.state.into(), told.remote_port != 0);
        *counts.entry((state, told.local_port)).or_default() += 1;
    })?;
    let mut unseen = unseen_by_sock_diag(why);
    unseen.extend(dump.is_interrupted.then(|| INTERRUPTED.to_owned()));
    let row = |((state, port), count)| StateRow { state, port, netns, count };
    Ok(StateCounts { rows: dump.value.into_iter().map(row).collect(), unseen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_process_is_told_by_its_state() {
        let descriptors = descriptors::Descriptors {
            holders: HashMap::from([(7, descriptors::Holders { pid: 42, is_shared: true })]),
            ..descriptors::Descriptors::default()
        };
        let of = |inode, state| {
            let told = sock_diag::Told {
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
            held(&told, 1, &descriptors, Holder::Unknown)
        };
        let named = of(7, 1);
        assert_eq!((named.holder, named.pid, named.is_shared), (Holder::Process, 42, true));
        assert_eq!((named.receive_bytes, named.send_bytes, named.forward_bytes), (1, 3, 4));
        // FIN_WAIT1, FIN_WAIT2, LAST_ACK and CLOSING; ESTABLISHED and CLOSE_WAIT are not left by a close.
        assert!([4, 5, 9, 11].iter().all(|state| of(0, *state).holder == Holder::Orphan));
        assert!([1, 8].iter().all(|state| of(0, *state).holder == Holder::AcceptQueue));
        assert_eq!(of(8, 4).holder, Holder::Unknown);
    }
}
