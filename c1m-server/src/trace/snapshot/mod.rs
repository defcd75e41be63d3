//! Snapshots: every TCP socket that there is at this moment, with what it holds and who holds it.
//!
//! The iterators are loaded once; taking a snapshot costs a walk over all sockets and all descriptors, and attaches nothing that stays.
//!
//! - [`held`]: one socket, as it was found.
//! - `iterator`: runs an iterator, and reads what it writes.
//! - `layout`: offsets that only snapshots need.

pub mod held;
mod iterator;
mod layout;

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io,
    path::PathBuf,
};

use aya::{
    Btf as KernelTypes, Ebpf,
    maps::{Array, HashMap as KernelMap},
};
use c1m_ebpf::{
    ITER_CLOSED, ITER_DESCRIPTORS, ITER_SOCKETS, ITER_STATES, SnapshotLayout, StateKey,
};

pub use self::held::Held;
use super::{TraceError, attach, btf::Btf};
use crate::{
    output::record::{StateRow, TcpState},
    sys::netns::Namespace,
};

/// Rows of states and ports that one namespace may have: 11 states of all ports would be more, but nobody has them.
const STATE_ROWS: u32 = 1 << 18;

/// The loaded iterators.
pub struct Snapshots {
    ebpf: Ebpf,
    kernel_types: KernelTypes,
    /// Since Linux 6.0 a CPU may hold pages that the kernel's counter does not have.
    has_reserve: bool,
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
        let ebpf = aya::EbpfLoader::new()
            .btf(None)
            .override_global("LAYOUT", layout.words(), true)
            .override_global("SNAPSHOT_LAYOUT", own.words(), true)
            .map_max_entries("STATES", STATE_ROWS)
            .load(attach::OBJECT)
            .map_err(|error| TraceError::Load(attach::chain(&error)))?;
        let kernel_types =
            KernelTypes::from_sys_fs().map_err(|error| TraceError::Load(attach::chain(&error)))?;
        let mut snapshots = Self { ebpf, kernel_types, has_reserve };
        for iterator in [ITER_STATES, ITER_SOCKETS, ITER_DESCRIPTORS, ITER_CLOSED] {
            iterator::load(&mut snapshots.ebpf, iterator, &snapshots.kernel_types)?;
        }
        Ok(snapshots)
    }

    /// May the kernel's counter of pages be off by what the CPUs hold?
    #[must_use]
    pub fn has_reserve(&self) -> bool {
        self.has_reserve
    }

    /// Takes one. Sockets with a descriptor are found wherever they are; those without one in `namespaces`, and in namespaces that a
    /// descriptor led to when `follow` says so.
    ///
    /// # Errors
    /// An iterator can't be run at all. A namespace that can't be entered is in `unseen`.
    pub fn take(&mut self, namespaces: &[Namespace], follow: bool) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        // By the socket's address.
        let mut known: HashMap<u64, usize> = HashMap::new();
        let mut led_to: HashMap<u32, (u32, u32)> = HashMap::new();
        let file = iterator::open(&mut self.ebpf, ITER_DESCRIPTORS)?;
        iterator::read(file, |record| {
            led_to.entry(record.netns).or_insert((record.tgid, record.tid));
            match known.entry(record.socket) {
                Entry::Vacant(place) => {
                    place.insert(snapshot.sockets.len());
                    snapshot.sockets.push(Held::of(record));
                }
                Entry::Occupied(place) => snapshot.sockets[*place.get()].add_holder(record.tgid),
            }
        })?;
        let found = if follow { self.found(namespaces, led_to) } else { Vec::new() };
        for namespace in namespaces.iter().chain(&found) {
            let ebpf = &mut self.ebpf;
            let sockets = &mut snapshot.sockets;
            let known = &mut known;
            let result = namespace.within(|| {
                iterator::read(iterator::open(ebpf, ITER_SOCKETS)?, |record| {
                    if let Entry::Vacant(place) = known.entry(record.socket) {
                        place.insert(sockets.len());
                        sockets.push(Held::of(record));
                    }
                })
            });
            if let Err(error) = result.and_then(|inside| inside) {
                snapshot.unseen.push(not_entered(namespace.inode, &error));
            }
        }
        Ok(snapshot)
    }

    /// Counts connections by state, local port and namespace, in the kernel.
    ///
    /// # Errors
    /// As of [`Snapshots::take`].
    pub fn count_states(
        &mut self,
        namespaces: &[Namespace],
        follow: bool,
    ) -> io::Result<StateCounts> {
        let mut counts = StateCounts::default();
        let mut led_to: HashMap<u32, (u32, u32)> = HashMap::new();
        let mut closed: HashMap<u64, Held> = HashMap::new();
        let file = iterator::open(&mut self.ebpf, ITER_CLOSED)?;
        iterator::read(file, |record| {
            led_to.entry(record.netns).or_insert((record.tgid, record.tid));
            closed.entry(record.socket).or_insert_with(|| Held::of(record));
        })?;
        let found = if follow { self.found(namespaces, led_to) } else { Vec::new() };
        self.forget_states()?;
        for namespace in namespaces.iter().chain(&found) {
            let ebpf = &mut self.ebpf;
            let result = namespace
                .within(|| iterator::read(iterator::open(ebpf, ITER_STATES)?, |_| ()))
                .and_then(|inside| inside);
            if let Err(error) = result {
                counts.unseen.push(not_entered(namespace.inode, &error));
            }
        }
        let mut rows = self.states()?;
        for held in closed.into_values() {
            *rows.entry((held.netns, held.state, held.local_port)).or_default() += 1;
        }
        counts.rows = rows
            .into_iter()
            .map(|((netns, state, port), count)| StateRow { state, port, netns, count })
            .collect();
        counts.uncounted = self.uncounted()?;
        Ok(counts)
    }

    /// Namespaces of descriptors that nobody told us of: those of threads, which have left their process's.
    fn found(&self, told: &[Namespace], led_to: HashMap<u32, (u32, u32)>) -> Vec<Namespace> {
        let unknown = led_to
            .into_iter()
            .filter(|(inode, _)| told.iter().all(|namespace| namespace.inode != *inode));
        unknown
            .filter_map(|(inode, (tgid, tid))| {
                let path = PathBuf::from(format!("/proc/{tgid}/task/{tid}/ns/net"));
                // A socket may be of a namespace that its holder is not in.
                Namespace::open(&path).ok().filter(|namespace| namespace.inode == inode)
            })
            .collect()
    }

    fn states(&self) -> io::Result<HashMap<(u32, TcpState, u16), u64>> {
        let map = self.ebpf.map("STATES").ok_or_else(|| io::Error::other("no map STATES"))?;
        let map: KernelMap<_, u64, u64> = map.try_into().map_err(io::Error::other)?;
        let mut rows = HashMap::new();
        for entry in map.iter() {
            let (key, count) = entry.map_err(io::Error::other)?;
            let StateKey { netns, state, port } = StateKey::from_words([key]);
            *rows.entry((netns, TcpState::from_kernel(state, true), port)).or_default() += count;
        }
        Ok(rows)
    }

    fn forget_states(&mut self) -> io::Result<()> {
        let map = self.ebpf.map_mut("STATES").ok_or_else(|| io::Error::other("no map STATES"))?;
        let mut map: KernelMap<_, u64, u64> = map.try_into().map_err(io::Error::other)?;
        let keys: Vec<u64> = map.keys().filter_map(Result::ok).collect();
        for key in keys {
            map.remove(&key).map_err(io::Error::other)?;
        }
        let map = self.ebpf.map_mut("UNCOUNTED").ok_or_else(|| io::Error::other("no UNCOUNTED"))?;
        let mut map: Array<_, u64> = map.try_into().map_err(io::Error::other)?;
        map.set(0, 0, 0).map_err(io::Error::other)
    }

    fn uncounted(&self) -> io::Result<u64> {
        let map = self.ebpf.map("UNCOUNTED").ok_or_else(|| io::Error::other("no UNCOUNTED"))?;
        let map: Array<_, u64> = map.try_into().map_err(io::Error::other)?;
        map.get(&0, 0).map_err(io::Error::other)
    }
}

fn not_entered(inode: u32, error: &io::Error) -> String {
    format!("network namespace {inode} could not be looked into ({error})")
}
