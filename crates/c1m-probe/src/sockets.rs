//! Reads every TCP socket: by iterators where the host allows it, else by sock_diag and /proc.

mod fallback;

use c1m_host::{
    namespaces::{self, NetnsArgument},
    sockstat,
};
use c1m_record::Source;
use c1m_sys::{netns::Namespace, process::raise_soft_nofile};

use crate::{
    TraceError,
    snapshot::{Held, Snapshots, StateCounts, Which},
};

/// What is missing inside a PID namespace.
const OTHER_PROCESSES: &str =
    "processes outside of this PID namespace, and the closed sockets that they hold";

/// The sockets, and how complete they are.
pub struct Sockets {
    pub source: Source,
    pub sockets: Vec<Held>,
    /// Nothing was left out on purpose: all namespaces were asked for, and all processes are
    /// visible.
    pub is_whole: bool,
    /// A process's number is the same here and in the kernel.
    pub names_processes: bool,
    pub has_reserve: bool,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
}

/// Reads sockets; what it needs is loaded once.
pub struct SocketReader {
    netns: NetnsArgument,
    own: u32,
    /// `Err`: why there are no iterators.
    iterators: Result<Snapshots, String>,
}

impl SocketReader {
    /// Loads what can be loaded.
    ///
    /// # Errors
    /// There is no /proc, or a namespace is asked for that only iterators can look into, and they
    /// can't be had.
    pub fn open(netns: NetnsArgument) -> Result<Self, TraceError> {
        // Each namespace that is read is a descriptor; fewer fit if it fails.
        let _ = raise_soft_nofile();
        let own = namespaces::own()?.inode;
        let iterators = Snapshots::load().map_err(|error| reason(&error));
        let reader = Self { netns, own, iterators };
        if netns == NetnsArgument::All {
            return Ok(reader);
        }
        // An error of the argument comes before any socket is read.
        let namespaces = reader.namespaces()?.0;
        match &reader.iterators {
            Err(why) if namespaces.iter().any(|namespace| namespace.inode != own) => {
                Err(TraceError::OtherNamespace(why.clone()))
            }
            _ => Ok(reader),
        }
    }

    /// Every socket, as it is now.
    ///
    /// # Errors
    /// Neither iterators nor sock_diag can be used, or a namespace has gone.
    pub fn sockets(&mut self, which: Which) -> Result<Sockets, TraceError> {
        let (namespaces, mut unseen) = self.namespaces()?;
        let all = self.netns == NetnsArgument::All;
        let sees_all = namespaces::is_initial_pid_namespace();
        let snapshots = match &mut self.iterators {
            Ok(snapshots) => snapshots,
            Err(why) => {
                return fallback::sockets(self.own, why)
                    .map_err(|error| TraceError::NoSockets { why: why.clone(), error });
            }
        };
        let mut snapshot = snapshots.take(which, &namespaces, all)?;
        if !all {
            let wanted = |held: &Held| namespaces.iter().any(|it| it.inode == held.netns);
            snapshot.sockets.retain(wanted);
        }
        unseen.append(&mut snapshot.unseen);
        Ok(Sockets {
            source: Source::Iterators,
            sockets: snapshot.sockets,
            is_whole: all && sees_all,
            names_processes: sees_all,
            has_reserve: snapshots.has_reserve(),
            unseen,
        })
    }

    /// Connections by state, as they are now.
    ///
    /// # Errors
    /// As of [`SocketReader::sockets`].
    pub fn states(&mut self) -> Result<(Source, StateCounts), TraceError> {
        let (namespaces, mut unseen) = self.namespaces()?;
        let all = self.netns == NetnsArgument::All;
        let snapshots = match &mut self.iterators {
            Ok(snapshots) => snapshots,
            Err(why) => {
                return fallback::states(self.own, why)
                    .map(|counts| (Source::SockDiag, counts))
                    .map_err(|error| TraceError::NoSockets { why: why.clone(), error });
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

    /// The namespaces to read, and what is missing from them.
    fn namespaces(&self) -> Result<(Vec<Namespace>, Vec<String>), TraceError> {
        let mut unseen = Vec::new();
        // Theirs are also in the network namespaces that can be entered from here.
        if !namespaces::is_initial_pid_namespace() {
            unseen.push(OTHER_PROCESSES.into());
        }
        let namespaces = match self.netns.open()? {
            Some(named) => vec![named],
            None => namespaces::all()?,
        };
        Ok((namespaces, unseen))
    }
}

/// Are all TCP sockets of the host in the tables of these namespaces? Then none is closed, or not
/// yet connected, and no descriptor needs to be read. Each socket that is made is counted in
/// `alloc`, those in tables in `inuse` (net/ipv4/proc.c, sockstat_seq_show, 5.10 to 6.18).
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
