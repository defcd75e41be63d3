//! Sockets by what holds them. Pure but for the names, which are asked for once each.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use c1m_host::{cgroup, task};
use c1m_record::{Holder, HolderRow, Memory, TcpState};

use super::GroupBy;
use crate::snapshot::Held;

/// Processes and cgroups by name.
pub(super) struct Names {
    /// The numbers of processes mean here what they mean in the kernel.
    names_processes: bool,
    /// Name, and path of the cgroup.
    processes: HashMap<u32, (Option<String>, Option<String>)>,
    cgroups: Option<HashMap<u64, String>>,
}

impl Names {
    pub(super) fn new(names_processes: bool) -> Self {
        Self { names_processes, processes: HashMap::new(), cgroups: None }
    }

    fn process(&mut self, pid: u32) -> &(Option<String>, Option<String>) {
        let read = |pid| (task::comm(pid), cgroup::path_of(pid));
        let names = self.names_processes;
        self.processes.entry(pid).or_insert_with(|| if names { read(pid) } else { (None, None) })
    }

    /// The cgroup of the holder; without one, that which the socket was made in.
    fn cgroup(&mut self, holder: Holder, pid: u32, id: u64) -> Option<String> {
        if holder == Holder::Process
            && let (_, Some(path)) = self.process(pid)
        {
            return Some(path.clone());
        }
        self.cgroups.get_or_insert_with(cgroup::paths_by_id).get(&id).cloned()
    }
}

/// What a row is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Holder(Holder, u32),
    Cgroup(Option<String>),
    Port(u32, u16),
    Remote(Option<IpAddr>),
}

/// All of them together.
pub(super) fn memory_of(sockets: &[Held], page_bytes: u64, knows_closed: bool) -> Memory {
    let mut memory = empty(knows_closed);
    sockets.iter().for_each(|held| add(&mut memory, held, page_bytes));
    memory
}

/// One row a holder, cgroup, port or remote address, those with the most pages first.
pub(super) fn grouped(
    sockets: &[Held],
    by: GroupBy,
    page_bytes: u64,
    knows_closed: bool,
    names: &mut Names,
) -> Vec<HolderRow> {
    let mut groups: BTreeMap<Key, Memory> = BTreeMap::new();
    // A million sockets have few cgroups, and names are strings.
    let mut cgroups: HashMap<(Holder, u32, u64), Option<String>> = HashMap::new();
    for held in sockets {
        let key = match by {
            GroupBy::Process => Key::Holder(held.holder, held.pid),
            GroupBy::Port => Key::Port(held.netns, held.local_port),
            GroupBy::Remote => Key::Remote(held.remote),
            GroupBy::Cgroup => {
                let key = (held.holder, held.pid, held.cgroup);
                let path = cgroups.entry(key).or_insert_with(|| names.cgroup(key.0, key.1, key.2));
                Key::Cgroup(path.clone())
            }
        };
        add(groups.entry(key).or_insert_with(|| empty(knows_closed)), held, page_bytes);
    }
    let mut rows: Vec<HolderRow> =
        groups.into_iter().map(|(key, memory)| row(key, memory, names)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.memory.pages, row.memory.sockets)));
    rows
}

fn row(key: Key, memory: Memory, names: &mut Names) -> HolderRow {
    let mut row = HolderRow {
        holder: None,
        pid: None,
        comm: None,
        cgroup: None,
        port: None,
        netns: None,
        remote: None,
        memory,
    };
    match key {
        Key::Holder(holder, pid) => {
            row.holder = Some(holder);
            if pid != 0 {
                row.pid = Some(pid);
                (row.comm, row.cgroup) = names.process(pid).clone();
            }
        }
        Key::Cgroup(path) => row.cgroup = path,
        Key::Port(netns, port) => (row.netns, row.port) = (Some(netns), Some(port)),
        Key::Remote(remote) => row.remote = remote.map(|address| address.to_string()),
    }
    row
}

fn empty(knows_closed: bool) -> Memory {
    Memory { closed_but_open: knows_closed.then_some(0), ..Memory::default() }
}

fn add(memory: &mut Memory, held: &Held, page_bytes: u64) {
    memory.sockets += held.sockets;
    if let Some(closed) = &mut memory.closed_but_open {
        *closed += held.sockets * u64::from(held.state == TcpState::ClosedButOpen);
    }
    memory.shared += held.sockets * u64::from(held.is_shared);
    memory.pages += held.pages(page_bytes);
    memory.receive_bytes += u64::from(held.receive_bytes);
    memory.backlog_bytes += u64::from(held.backlog_bytes);
    memory.send_bytes += u64::from(held.send_bytes);
    memory.forward_bytes += i64::from(held.forward_bytes);
    *memory.states.entry(held.state).or_default() += held.sockets;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pid: u32, port: u16, receive_bytes: u32) -> Held {
        Held {
            sockets: 1,
            holder: if pid == 0 { Holder::Orphan } else { Holder::Process },
            pid,
            is_shared: false,
            state: TcpState::Established,
            local_port: port,
            remote: Some(IpAddr::from([127, 0, 0, 9])),
            netns: 1,
            cgroup: 0,
            receive_bytes,
            backlog_bytes: 1,
            send_bytes: 0,
            forward_bytes: 0,
        }
    }

    fn rows(sockets: &[Held], by: GroupBy) -> Vec<HolderRow> {
        grouped(sockets, by, 4096, true, &mut Names::new(false))
    }

    #[test]
    fn those_with_the_most_pages_come_first_and_nothing_is_lost() {
        let mut closed = held(2, 80, 5000);
        closed.state = TcpState::ClosedButOpen;
        let sockets = [held(1, 80, 100), closed, held(1, 81, 100), held(0, 80, 1)];
        let by_process = rows(&sockets, GroupBy::Process);
        let seen: Vec<_> = by_process.iter().map(|row| (row.pid, row.memory.pages)).collect();
        assert_eq!(seen, [(Some(1), 2), (Some(2), 2), (None, 1)]);
        assert_eq!(by_process[1].memory.closed_but_open, Some(1));
        assert_eq!(by_process[2].holder, Some(Holder::Orphan));
        let total = memory_of(&sockets, 4096, true);
        for by in [GroupBy::Process, GroupBy::Cgroup, GroupBy::Port, GroupBy::Remote] {
            let rows = rows(&sockets, by);
            let sum = |of: fn(&Memory) -> u64| rows.iter().map(|row| of(&row.memory)).sum::<u64>();
            assert_eq!(sum(|it| it.pages), total.pages, "{by:?}");
            assert_eq!(sum(|it| it.sockets), 4, "{by:?}");
            assert_eq!(sum(|it| it.receive_bytes + it.backlog_bytes), 5205, "{by:?}");
        }
        assert_eq!(rows(&sockets, GroupBy::Port)[0].port, Some(80));
        assert_eq!(rows(&sockets, GroupBy::Remote)[0].remote.as_deref(), Some("127.0.0.9"));
    }

    #[test]
    fn what_can_not_be_seen_is_not_zero() {
        assert_eq!(memory_of(&[held(1, 80, 1)], 4096, false).closed_but_open, None);
        assert_eq!(memory_of(&[], 4096, true).closed_but_open, Some(0));
    }
}
