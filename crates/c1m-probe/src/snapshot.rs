//! Snapshots: every TCP socket that there is at this moment, with what it holds and who holds it.
//!
//! The iterators are loaded once; taking a snapshot costs a walk over all sockets and all
//! descriptors, and attaches nothing that stays.
//!
//! - [`held`]: one socket, as it was found.
//! - `iterator`: runs an iterator, and reads what it writes.
//! - `layout`: offsets that only snapshots need.
//! - `places`: network namespaces that the iterators come upon.
//! - `counted`: what the kernel counts instead of writing a record for each.
//! - `tables`: counts by reading the kernel's tables, which is faster than an iterator.

mod counted;
pub mod held;
mod iterator;
mod layout;
mod places;
mod tables;

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io, slice, thread,
};

use aya::Ebpf;
use c1m_btf::Btf;
use c1m_ebpf::{
    HELD_FILE, HeldSocket, ITER_CLOSED, ITER_DESCRIPTORS, ITER_HOLDING, ITER_PROCESSES,
    ITER_SOCKETS, ITER_STATES, ITER_TASKS, ITER_WANTED, PORTS, SnapshotLayout,
};
use c1m_record::StateRow;
use c1m_sys::{netns::Namespace, process};

pub use self::held::Held;
use self::{
    counted::{Counts, PortStates},
    places::Places,
};
use super::{TraceError, attach, chain};

/// Processes with idle sockets, by namespace, cgroup and state; and sockets that are come upon a
/// second time. What finds no room is looked at one by one.
const ROWS: u32 = 1 << 16;

/// The loaded iterators.
pub struct Snapshots {
    ebpf: Ebpf,
    /// Since Linux 6.0 a CPU may hold pages that the kernel's counter does not have.
    has_reserve: bool,
    /// This kernel's tables can be read without an iterator.
    reads_tables: bool,
    /// How many read them at a time
    walkers: u32,
}

/// Which sockets with a descriptor a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// The same, but those that hold nothing are not told one by one: a million idle connections of
    /// a process are one entry. Without their ports and addresses.
    ByProcess,
    /// Those that hold memory, and those that are closed: what a list of top holders needs. A
    /// million idle connections then cost a walk over them, and no memory.
    Holding,
}

/// Every socket that was found.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub sockets: Vec<Held>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// Connections by state.
#[derive(Debug, Default)]
pub struct StateCounts {
    pub rows: Vec<StateRow>,
    pub unseen: Vec<String>,
}

impl Snapshots {
    /// Loads the iterators. Needs what `--trace` needs, and no runtime.
    ///
    /// # Errors
    /// No privilege, no BTF, or a kernel before 5.11, whose verifier does not know
    /// `bpf_sock_from_file`.
    pub fn load() -> Result<Self, TraceError> {
        attach::check_privilege()?;
        let btf = Btf::parse(
            fs::read(c1m_btf::PATH)
                .map_err(|error| TraceError::NoBtf { path: c1m_btf::PATH, error })?,
        )
        .map_err(|error| TraceError::BadBtf { path: c1m_btf::PATH, error })?;
        let layout = super::layout::layout(&btf)?;
        let own: SnapshotLayout = layout::layout(&btf)?;
        let has_reserve = layout::has_reserve(&btf)?;
        let walkers = tables::walkers();
        let iterators = [
            ITER_STATES,
            ITER_SOCKETS,
            ITER_DESCRIPTORS,
            ITER_PROCESSES,
            ITER_WANTED,
            ITER_HOLDING,
            ITER_CLOSED,
            ITER_TASKS,
        ];
        let names = iterators.iter().map(|(target, _)| format!("bpf_iter_{target}"));
        let kernel_types =
            super::layout::outline(&btf, names).map_err(|error| TraceError::Load(chain(&error)))?;
        drop(btf);
        let mut ebpf = aya::EbpfLoader::new()
            .btf(None)
            .override_global("LAYOUT", layout.words(), true)
            .override_global("SNAPSHOT_LAYOUT", own.words(), true)
            .map_max_entries("PORT_STATES", PORTS * walkers)
            .map_max_entries("IDLE", ROWS)
            .map_max_entries("WANTED", ROWS)
            .load(attach::OBJECT)
            .map_err(|error| TraceError::Load(chain(&error)))?;
        for iterator in iterators {
            iterator::load(&mut ebpf, iterator, &kernel_types)?;
        }
        let reads_tables = tables::load(&mut ebpf, &own);
        // The kernel's types took megabytes.
        drop(kernel_types);
        process::trim_heap();
        Ok(Self { ebpf, has_reserve, reads_tables, walkers })
    }

    /// Are sockets counted by reading the kernel's tables? Else by the iterator, a third as fast.
    #[must_use]
    pub fn reads_tables(&self) -> bool {
        self.reads_tables
    }

    /// The same, by iterators alone.
    #[must_use]
    pub fn by_iterators(self) -> Self {
        Self { reads_tables: false, ..self }
    }

    /// May the kernel's counter of pages be off by what the CPUs hold?
    #[must_use]
    pub fn has_reserve(&self) -> bool {
        self.has_reserve
    }

    /// Takes one. Sockets with a descriptor are found wherever they are; those of no process in
    /// `namespaces`, and with `follow` also in those that threads are in: orphans, what is not
    /// accepted yet, and what else holds memory.
    ///
    /// # Errors
    /// An iterator can't be run at all. A namespace that can't be entered is in `unseen`.
    pub fn take(
        &mut self,
        which: Which,
        namespaces: &[Namespace],
        follow: bool,
    ) -> io::Result<Snapshot> {
        let mut places = Places::default();
        let mut sockets: Vec<Held> = Vec::new();
        // By the socket's address.
        let mut known: HashMap<u64, usize> = HashMap::new();
        let walk = match which {
            Which::All => ITER_DESCRIPTORS,
            Which::ByProcess => ITER_PROCESSES,
            Which::Holding => ITER_HOLDING,
        };
        counted::forget_idle(&mut self.ebpf)?;
        let descriptors = iterator::open(&mut self.ebpf, walk)?;
        let mut without = Vec::new();
        let mut unseen = beside(
            || {
                iterator::read(descriptors, |record| {
                    places.add_socket(record.netns);
                    match known.entry(record.socket) {
                        Entry::Vacant(place) => {
                            place.insert(sockets.len());
                            sockets.push(Held::of(record));
                        }
                        Entry::Occupied(place) => {
                            sockets[*place.get()].add_holder(record.tgid);
                        }
                    }
                })
            },
            || self.walk(namespaces, ITER_SOCKETS, |record| without.push(*record)),
        )?;
        let mut idle = counted::idle(&mut self.ebpf)?;
        idle.iter().for_each(|held| places.add_socket(held.netns));
        let (found, closed_to_us) =
            self.further(namespaces, places, follow, sought(ITER_SOCKETS))?;
        unseen.extend(closed_to_us);
        unseen.extend(self.walk(&found, ITER_SOCKETS, |record| without.push(*record)));
        without.retain(|record| !known.contains_key(&record.socket));
        if which == Which::ByProcess && !self.give_back(&mut without, &mut idle, &mut sockets)? {
            return self.take(Which::All, namespaces, follow);
        }
        sockets.append(&mut idle);
        sockets.extend(without.iter().map(Held::of));
        Ok(Snapshot { sockets, unseen })
    }

    /// Sockets that were idle when their descriptor was come upon, and were not a moment later:
    /// they belong to their process, and are among its idle ones no more. `false`: they are too
    /// many.
    fn give_back(
        &mut self,
        without: &mut Vec<HeldSocket>,
        idle: &mut [Held],
        sockets: &mut Vec<Held>,
    ) -> io::Result<bool> {
        let has_file = |record: &&HeldSocket| record.flags & HELD_FILE != 0;
        let wanted: HashMap<u64, HeldSocket> =
            without.iter().filter(has_file).map(|record| (record.socket, *record)).collect();
        if wanted.is_empty() {
            return Ok(true);
        }
        if !counted::want(&mut self.ebpf, wanted.keys().copied())? {
            return Ok(false);
        }
        let mut known: HashMap<u64, Held> = HashMap::new();
        iterator::read(iterator::open(&mut self.ebpf, ITER_WANTED)?, |record| {
            let Some(first) = wanted.get(&record.socket) else { return };
            let held = known.entry(record.socket).or_insert_with(|| {
                Held::of(&HeldSocket { tgid: record.tgid, tid: record.tid, ..*first })
            });
            held.add_holder(record.tgid);
        })?;
        without.retain(|record| !known.contains_key(&record.socket));
        for held in known.into_values() {
            held.leave(idle);
            sockets.push(held);
        }
        Ok(true)
    }

    /// Counts connections by state, local port and namespace, in the kernel; and unless there is
    /// known to be `none_closed`, sockets that are closed, or not yet connected, by their
    /// descriptors.
    ///
    /// # Errors
    /// As of [`Snapshots::take`].
    pub fn count_states(
        &mut self,
        namespaces: &[Namespace],
        follow: bool,
        none_closed: bool,
    ) -> io::Result<StateCounts> {
        let mut places = Places::default();
        let mut closed: HashMap<u64, Held> = HashMap::new();
        let mut states = PortStates::of(&self.ebpf, self.walkers)?;
        let mut counts = Counts::new();
        let mut unseen = if none_closed {
            self.count_in(namespaces, &mut states, &mut counts)
        } else {
            let descriptors = iterator::open(&mut self.ebpf, ITER_CLOSED)?;
            beside(
                || {
                    iterator::read(descriptors, |record| {
                        places.add_socket(record.netns);
                        closed.entry(record.socket).or_insert_with(|| Held::of(record));
                    })
                },
                || self.count_in(namespaces, &mut states, &mut counts),
            )?
        };
        let (found, closed_to_us) =
            self.further(namespaces, places, follow, sought(ITER_STATES))?;
        unseen.extend(closed_to_us);
        unseen.extend(self.count_in(&found, &mut states, &mut counts));
        for held in closed.into_values() {
            *counts.entry((held.netns, held.state, held.local_port)).or_default() += 1;
        }
        let row = |((netns, state, port), count)| StateRow { state, port, netns, count };
        Ok(StateCounts { rows: counts.into_iter().map(row).collect(), unseen })
    }

    /// Counts the sockets of each namespace in the kernel. Says where and why it can't.
    fn count_in(
        &mut self,
        namespaces: &[Namespace],
        states: &mut PortStates,
        counts: &mut Counts,
    ) -> Vec<String> {
        let mut unseen = Vec::new();
        for namespace in namespaces {
            let is_read = self.reads_tables
                && tables::count(&mut self.ebpf, self.walkers, namespace).unwrap_or(false);
            if !is_read {
                // What was counted so far is not all.
                states.take(namespace.inode, &mut Counts::new());
                unseen.extend(self.walk(slice::from_ref(namespace), ITER_STATES, |_| ()));
            }
            states.take(namespace.inode, counts);
        }
        unseen
    }

    /// Namespaces that are not told, and what keeps us out of them.
    fn further(
        &mut self,
        told: &[Namespace],
        mut places: Places,
        follow: bool,
        sought: &str,
    ) -> io::Result<(Vec<Namespace>, Vec<String>)> {
        if !follow {
            return Ok((Vec::new(), Vec::new()));
        }
        let threads = iterator::open(&mut self.ebpf, ITER_TASKS)?;
        iterator::read(threads, |record| places.add_thread(record))?;
        Ok(places.open(told, sought))
    }

    /// Runs an iterator over the sockets of each namespace. Says where and why it can't.
    fn walk(
        &mut self,
        namespaces: &[Namespace],
        iterator: iterator::Iterator,
        mut take: impl FnMut(&HeldSocket) + Send,
    ) -> Vec<String> {
        let mut unseen = Vec::new();
        for namespace in namespaces {
            let (ebpf, take) = (&mut self.ebpf, &mut take);
            let walked = namespace
                .within(|| iterator::read(iterator::open(ebpf, iterator)?, take))
                .and_then(|inside| inside);
            if let Err(error) = walked {
                let inode = namespace.inode;
                unseen.push(format!("{} in network namespace {inode} ({error})", sought(iterator)));
            }
        }
        unseen
    }
}

/// What is not found where a namespace can't be entered: sockets that a process has are found by
/// their descriptors, but states are counted in the namespace alone.
fn sought(iterator: iterator::Iterator) -> &'static str {
    if iterator == ITER_STATES { "connections" } else { "sockets without a process" }
}

/// Runs `one` in a thread of its own beside `other`: the two walks take about the same time.
fn beside<T>(
    one: impl FnOnce() -> io::Result<()> + Send,
    other: impl FnOnce() -> T,
) -> io::Result<T> {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        one.join().map_err(|_| io::Error::other("a thread that read an iterator panicked"))??;
        Ok(other)
    })
}
