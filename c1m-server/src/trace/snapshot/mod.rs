//! Snapshots: every TCP socket that there is at this moment, with what it holds and who holds it.
//!
//! The iterators are loaded once; taking a snapshot costs a walk over all sockets and all descriptors, and attaches nothing that stays.
//!
//! - [`held`]: one socket, as it was found.
//! - `iterator`: runs an iterator, and reads what it writes.
//! - `layout`: offsets that only snapshots need.
//! - `places`: network namespaces that the iterators come upon.
//! - `states`: what the kernel counts by state.

pub mod held;
mod iterator;
mod layout;
mod places;
mod states;

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io, thread,
};

use aya::{Btf as KernelTypes, Ebpf};
use c1m_ebpf::{
    HeldSocket, ITER_CLOSED, ITER_DESCRIPTORS, ITER_HOLDING, ITER_SOCKETS, ITER_STATES, ITER_TASKS,
    SnapshotLayout,
};

pub use self::held::Held;
use self::places::Places;
use super::{TraceError, attach, btf::Btf};
use crate::{
    output::record::StateRow,
    sys::{netns::Namespace, process},
};

/// Rows of states and ports, of all namespaces together: all 64,512 ports of four clients that do nothing else.
const STATE_ROWS: u32 = 1 << 18;

/// The loaded iterators.
pub struct Snapshots {
    ebpf: Ebpf,
    /// Since Linux 6.0 a CPU may hold pages that the kernel's counter does not have.
    has_reserve: bool,
}

/// Which sockets with a descriptor a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that hold memory, and those that are closed: what a list of top holders needs. A million idle connections then cost a walk
    /// over them, and no memory.
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
    pub uncounted: u64,
    pub unseen: Vec<String>,
}

impl Snapshots {
    /// Loads the iterators. Needs what `--trace` needs, and no runtime.
    ///
    /// # Errors
    /// No privilege, no BTF, or a kernel before 5.11, whose verifier does not know `bpf_sock_from_file`.
    pub fn load() -> Result<Self, TraceError> {
        attach::check_privilege()?;
        let btf = Btf::parse(
            fs::read(attach::BTF_PATH)
                .map_err(|error| TraceError::NoBtf { path: attach::BTF_PATH, error })?,
        )
        .map_err(|error| TraceError::BadBtf { path: attach::BTF_PATH, error })?;
        let layout = super::layout::layout(&btf)?;
        let own: SnapshotLayout = layout::layout(&btf)?;
        let has_reserve = layout::has_reserve(&btf)?;
        drop(btf);
        let mut ebpf = aya::EbpfLoader::new()
            .btf(None)
            .override_global("LAYOUT", layout.words(), true)
            .override_global("SNAPSHOT_LAYOUT", own.words(), true)
            .map_max_entries("STATES", STATE_ROWS)
            .load(attach::OBJECT)
            .map_err(|error| TraceError::Load(attach::chain(&error)))?;
        let kernel_types =
            KernelTypes::from_sys_fs().map_err(|error| TraceError::Load(attach::chain(&error)))?;

        for iterator in
            [ITER_STATES, ITER_SOCKETS, ITER_DESCRIPTORS, ITER_HOLDING, ITER_CLOSED, ITER_TASKS]
        {
            iterator::load(&mut ebpf, iterator, &kernel_types)?;
        }
        // The kernel's types took megabytes.
        drop(kernel_types);
        process::trim_heap();
        Ok(Self { ebpf, has_reserve })
    }

    /// May the kernel's counter of pages be off by what the CPUs hold?
    #[must_use]
    pub fn has_reserve(&self) -> bool {
        self.has_reserve
    }

    /// Takes one. Sockets with a descriptor are found wherever they are; those of no process in `namespaces`, and with `follow` also in
    /// those that threads are in: orphans, what is not accepted yet, and what else holds memory.
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
            Which::Holding => ITER_HOLDING,
        };
        let descriptors = iterator::open(&mut self.ebpf, walk)?;
        let mut without = Vec::new();
        let mut unseen = beside(
            || {
                iterator::read(descriptors, |record| {
                    places.add_socket(record);
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
        let (found, closed_to_us) =
            self.further(namespaces, places, follow, sought(ITER_SOCKETS))?;
        unseen.extend(closed_to_us);
        unseen.extend(self.walk(&found, ITER_SOCKETS, |record| without.push(*record)));
        let without = without.iter().filter(|record| !known.contains_key(&record.socket));
        sockets.extend(without.map(Held::of));
        Ok(Snapshot { sockets, unseen })
    }

    /// Counts connections by state, local port and namespace, in the kernel; and sockets that are closed, or not yet connected, by their
    /// descriptors.
    ///
    /// # Errors
    /// As of [`Snapshots::take`].
    pub fn count_states(
        &mut self,
        namespaces: &[Namespace],
        follow: bool,
    ) -> io::Result<StateCounts> {
        let mut places = Places::default();
        let mut closed: HashMap<u64, Held> = HashMap::new();
        let descriptors = iterator::open(&mut self.ebpf, ITER_CLOSED)?;
        states::forget(&mut self.ebpf)?;
        let mut unseen = beside(
            || {
                iterator::read(descriptors, |record| {
                    places.add_socket(record);
                    closed.entry(record.socket).or_insert_with(|| Held::of(record));
                })
            },
            || self.walk(namespaces, ITER_STATES, |_| ()),
        )?;
        let (found, closed_to_us) =
            self.further(namespaces, places, follow, sought(ITER_STATES))?;
        unseen.extend(closed_to_us);
        unseen.extend(self.walk(&found, ITER_STATES, |_| ()));
        let (mut counts, uncounted) = states::counted(&self.ebpf)?;
        for held in closed.into_values() {
            *counts.entry((held.netns, held.state, held.local_port)).or_default() += 1;
        }
        let row = |((netns, state, port), count)| StateRow { state, port, netns, count };
        Ok(StateCounts { rows: counts.into_iter().map(row).collect(), uncounted, unseen })
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

/// What is not found where a namespace can't be entered: sockets that a process has are found by their descriptors, but states are counted in
/// the namespace alone.
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
