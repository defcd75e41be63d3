//! The accept queues of the target: which listeners are its own, how full they are, and what they
//! dropped.
//!
//! The kernel counts overflows for the network namespace (TcpExt ListenOverflows); only a
//! listener's own queue and drops tell whose they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use c1m_host::{
    listeners::{self, Listener},
    task,
};
use c1m_limits::evidence::Listeners;

/// Whose listeners.
#[derive(Debug)]
enum Own {
    /// Everybody's.
    All,
    /// Of the server of this process: inodes.
    Server(BTreeSet<u32>),
    /// Anybody's with one of these ports.
    Ports(Vec<u16>),
    /// Of processes, on these ports; on every one if there are none.
    Processes { ports: Vec<u16>, found: OwnListeners },
}

/// The listeners that processes have, for as long as neither changes: looking for them reads
/// thousands of links. `None`: they were not looked for yet.
type OwnListeners = Option<Found>;

#[derive(Debug)]
struct Found {
    pids: Vec<u32>,
    present: BTreeSet<u32>,
    inodes: BTreeSet<u32>,
    /// Not each process could be looked at.
    is_partial: bool,
}

/// Their usage at one moment. `None`: not known, or they have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// Connections in the fullest one, and how many may wait there.
    pub(super) fullest: Option<(u64, u64)>,
    /// How many connections the longest takes.
    pub(super) longest: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Queues {
    own: Own,
    /// Drops of every listener at the first sample, by inode. `None`: nobody could tell.
    at_start: Option<BTreeMap<u32, u64>>,
    /// Of the target's, also of those that are closed by now: drops since the first sample.
    dropped: BTreeMap<u32, u64>,
    /// No drop of the target's can be missing: each sample could be read, of each process; no
    /// listener was closed, which may have dropped more after the last sample; and no process came
    /// or went that may have had one between two samples.
    is_complete: bool,
    /// Why the last one could not.
    unread: Option<String>,
}

impl Queues {
    fn new(own: Own) -> Self {
        Self { own, at_start: None, dropped: BTreeMap::new(), is_complete: true, unread: None }
    }

    /// Of the server of this process, which does not listen yet.
    pub(super) fn of_server() -> Self {
        Self::new(Own::Server(BTreeSet::new()))
    }

    /// Of a target: its processes' if it has any, else those with its ports, else everybody's.
    pub(super) fn of_target(has_processes: bool, ports: Vec<u16>) -> Self {
        Self::new(match (has_processes, ports.is_empty()) {
            (true, _) => Own::Processes { ports, found: None },
            (false, false) => Own::Ports(ports),
            (false, true) => Own::All,
        })
    }

    /// The server listens now, by sockets with these inodes.
    pub(super) fn listens(&mut self, inodes: BTreeSet<u64>) {
        self.own = Own::Server(inodes.into_iter().map(listeners::low_inode).collect());
    }

    /// A process of the target starts now. It may be gone before the next sample, with a listener
    /// that no sample has found.
    pub(super) fn process_starts(&mut self) {
        self.is_complete = false;
    }

    /// Reads all listeners; `pids` are the processes whose listeners these are.
    pub(super) fn sample(&mut self, pids: &[u32]) -> Usage {
        self.read(listeners::all(), pids)
    }

    fn read(&mut self, all: io::Result<Vec<Listener>>, pids: &[u32]) -> Usage {
        self.unread = all.as_ref().err().map(ToString::to_string);
        self.take(all.ok().as_deref(), pids)
    }

    /// That the last sample could not read the listeners, and why.
    pub(super) fn unread(&self) -> Option<String> {
        let why = self.unread.as_ref()?;
        Some(format!(
            "accept queues cannot be read ({why}): how full they are, and what they dropped, is unknown"
        ))
    }

    fn take(&mut self, all: Option<&[Listener]>, pids: &[u32]) -> Usage {
        let Some(all) = all else {
            self.is_complete = false;
            return Usage::default();
        };
        let (own, is_sure) = self.own.of(all, pids);
        let is_open = |inode: &u32| own.iter().any(|listener| listener.inode == *inode);
        self.is_complete &= self.dropped.keys().all(is_open);
        // Without a listener it is a matter of which processes there were.
        self.is_complete &= is_sure || !self.dropped.is_empty();
        let drops = |listener: &Listener| Some((listener.inode, listener.drops?));
        let at_start = self.at_start.get_or_insert_with(|| all.iter().filter_map(drops).collect());
        for listener in &own {
            self.is_complete &= listener.drops.is_some();
            if let Some(drops) = listener.drops {
                let before = at_start.get(&listener.inode).copied().unwrap_or(0);
                self.dropped.insert(listener.inode, drops.saturating_sub(before));
            }
        }
        Usage {
            fullest: listeners::fullest(&own).map(|listener| (listener.queued, listener.most)),
            longest: own.iter().map(|listener| listener.most).max(),
        }
    }

    /// For the verdict. Drops that were counted are at least that many; that there were none is
    /// known only if none can be missing.
    pub(super) fn listeners(&self) -> Listeners {
        let counted = self.dropped.values().sum();
        match self.own {
            Own::All => Listeners::All,
            _ => Listeners::Target { drops: (self.is_complete || counted > 0).then_some(counted) },
        }
    }
}

impl Own {
    /// Of `all`, the target's; and whether these are known to be all that it has had since the last
    /// sample.
    fn of(&mut self, all: &[Listener], pids: &[u32]) -> (Vec<Listener>, bool) {
        let on = |ports: &[u16], listener: &Listener| {
            ports.is_empty() || ports.contains(&listener.address.port())
        };
        let chosen = |is_own: &dyn Fn(&Listener) -> bool| {
            all.iter().filter(|listener| is_own(listener)).copied().collect()
        };
        match self {
            Self::All => (all.to_vec(), true),
            Self::Server(inodes) => (chosen(&|listener| inodes.contains(&listener.inode)), true),
            Self::Ports(ports) => (chosen(&|listener| on(ports, listener)), true),
            Self::Processes { ports, found } => {
                let is_same = found.as_ref().is_none_or(|found| found.pids == pids);
                let found = Found::of(found, all, pids);
                let own: Vec<Listener> =
                    chosen(&|it| on(ports, it) && found.inodes.contains(&it.inode));
                // A listener on its port that none of its processes is seen to have.
                let is_elsewhere =
                    own.is_empty() && !ports.is_empty() && all.iter().any(|it| on(ports, it));
                (own, is_same && !found.is_partial && !is_elsewhere)
            }
        }
    }
}

impl Found {
    /// What was found before, if it still holds, or what is found now.
    fn of<'a>(before: &'a mut OwnListeners, all: &[Listener], pids: &[u32]) -> &'a Self {
        let present: BTreeSet<u32> = all.iter().map(|listener| listener.inode).collect();
        let _stale = before.take_if(|found| found.pids != pids || found.present != present);
        before.get_or_insert_with(|| Self::now(present, pids))
    }

    fn now(present: BTreeSet<u32>, pids: &[u32]) -> Self {
        let mut inodes = BTreeSet::new();
        let mut is_partial = pids.len() >= task::PROCESSES_MAX;
        // This process serves metrics, which is nobody's target.
        for pid in pids.iter().filter(|pid| **pid != std::process::id()) {
            match task::sockets(*pid) {
                Ok(sockets) => inodes.extend(sockets.into_iter().map(listeners::low_inode)),
                Err(_) => is_partial = true,
            }
        }
        Self { pids: pids.to_vec(), present, inodes, is_partial }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    };

    use super::*;

    fn listener(port: u16, inode: u32, queue: (u64, u64), drops: u64) -> Listener {
        Listener {
            address: ([127, 0, 0, 1], port).into(),
            is_v6_only: false,
            inode,
            queued: queue.0,
            most: queue.1,
            drops: Some(drops),
        }
    }

    #[test]
    fn listeners_that_cannot_be_read_are_unknown_and_it_is_said_why() {
        let mut queues = Queues::of_target(false, vec![1]);
        let (one, other) = (listener(1, 1, (0, 1), 0), listener(1, 1, (1, 1), 2));
        queues.read(Ok(vec![one]), &[]);
        assert_eq!(queues.unread(), None);
        // As a dump that was interrupted at each attempt.
        let changed = || Err(io::Error::other("the listeners changed while they were read"));
        assert_eq!(queues.read(changed(), &[]), Usage::default());
        let said = queues.unread().unwrap();
        assert!(said.contains("(the listeners changed while they were read)"), "{said}");
        assert_eq!(queues.listeners(), Listeners::Target { drops: None });
        queues.read(Ok(vec![one]), &[]);
        assert_eq!(queues.unread(), None);
        assert_eq!(queues.listeners(), Listeners::Target { drops: None }, "a sample is missing");
        queues.read(Ok(vec![other]), &[]);
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(2) }, "at least");
    }

    #[test]
    fn a_server_sees_its_own_queues_alone() {
        let mut queues = Queues::of_server();
        let other = listener(1, 1, (2, 1), 4);
        assert_eq!(queues.take(Some(&[other]), &[]), Usage::default());
        queues.listens([2, 3].into());
        let now = [other, listener(2, 2, (1, 10), 0), listener(2, 3, (4, 20), 0)];
        let usage = Usage { fullest: Some((4, 20)), longest: Some(20) };
        assert_eq!(queues.take(Some(&now), &[]), usage);
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(0) });
        let now = [listener(1, 1, (2, 1), 9), listener(2, 2, (11, 10), 3)];
        assert_eq!(queues.take(Some(&now), &[]).fullest, Some((11, 10)));
        // What a listener dropped stays counted when it is closed.
        queues.take(Some(&[]), &[]);
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(3) });
        queues.take(None, &[]);
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(3) }, "at least");
    }

    #[test]
    fn what_a_listener_dropped_before_it_was_closed_is_unknown() {
        for mut queues in [Queues::of_server(), Queues::of_target(false, vec![2])] {
            queues.listens([2].into());
            queues.take(Some(&[listener(2, 2, (1, 10), 0)]), &[]);
            assert_eq!(queues.listeners(), Listeners::Target { drops: Some(0) });
            queues.take(Some(&[]), &[]);
            assert_eq!(queues.listeners(), Listeners::Target { drops: None });
        }
    }

    #[test]
    fn processes_that_come_and_go_may_have_listened() {
        let drops = |samples: &[&[u32]]| {
            let mut queues = Queues::of_target(true, Vec::new());
            for pids in samples {
                queues.take(Some(&[listener(1, 1, (2, 1), 4)]), pids);
            }
            match queues.listeners() {
                Listeners::Target { drops } => drops,
                Listeners::All => panic!("it has a target"),
            }
        };
        let own = std::process::id();
        assert_eq!(drops(&[&[own], &[own]]), Some(0));
        // A command of a watch that ends between two samples, and one that is gone when it is looked at.
        assert_eq!(drops(&[&[own], &[own, u32::MAX], &[own]]), None);
        assert_eq!(drops(&[&[u32::MAX]]), None);
    }

    #[test]
    fn a_listener_of_its_port_in_no_process_of_it_is_not_no_listener() {
        let mut queues = Queues::of_target(true, vec![7]);
        queues.take(Some(&[listener(1, 1, (2, 1), 4)]), &[std::process::id()]);
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(0) });
        queues.take(Some(&[listener(7, 1, (2, 1), 4)]), &[std::process::id()]);
        assert_eq!(queues.listeners(), Listeners::Target { drops: None });
    }

    #[test]
    fn drops_from_before_the_start_are_not_counted() {
        let mut queues = Queues::of_target(false, vec![2]);
        queues.take(Some(&[listener(1, 1, (0, 1), 7), listener(2, 2, (0, 1), 5)]), &[]);
        queues.take(Some(&[listener(2, 2, (0, 1), 6), listener(2, 3, (0, 1), 2)]), &[]);
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(3) });
    }

    #[test]
    fn without_a_target_every_listener_counts() {
        let mut queues = Queues::of_target(false, Vec::new());
        let now = [listener(1, 1, (2, 1), 4), listener(2, 2, (0, 9), 0)];
        let usage = Usage { fullest: Some((2, 1)), longest: Some(9) };
        assert_eq!(queues.take(Some(&now), &[]), usage);
        assert_eq!(queues.listeners(), Listeners::All);
    }

    #[test]
    fn a_processs_listeners_are_those_that_it_has_open() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut queues = Queues::of_target(true, Vec::new());
        let usage = queues.sample(&[child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(usage, Usage::default(), "sleep does not listen");
        assert_eq!(queues.listeners(), Listeners::Target { drops: Some(0) });
        let link = format!("/proc/self/fd/{}", own.as_raw_fd());
        let inode = std::fs::metadata(link).unwrap().ino();
        assert!(task::sockets(std::process::id()).unwrap().contains(&inode));
    }
}
