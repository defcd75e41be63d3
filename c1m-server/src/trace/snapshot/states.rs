//! What the kernel has counted by state, port and namespace.

use std::{collections::HashMap, io};

use aya::{
    Ebpf,
    maps::{Array, HashMap as KernelMap},
};
use c1m_ebpf::StateKey;

use crate::output::record::TcpState;

/// By namespace, state and local port.
pub(super) type Counts = HashMap<(u32, TcpState, u16), u64>;

/// What was counted since [`forget`], and how many sockets found no room.
pub(super) fn counted(ebpf: &Ebpf) -> io::Result<(Counts, u64)> {
    let states: KernelMap<_, u64, u64> =
        map(ebpf.map("STATES"))?.try_into().map_err(io::Error::other)?;
    let mut counts = Counts::new();
    for entry in states.iter() {
        let (key, count) = entry.map_err(io::Error::other)?;
        let StateKey { netns, state, port } = StateKey::from_words([key]);
        // In the kernel's tables nothing is closed.
        *counts.entry((netns, TcpState::from_kernel(state, true), port)).or_default() += count;
    }
    let uncounted: Array<_, u64> =
        map(ebpf.map("UNCOUNTED"))?.try_into().map_err(io::Error::other)?;
    Ok((counts, uncounted.get(&0, 0).map_err(io::Error::other)?))
}

/// Begins anew.
pub(super) fn forget(ebpf: &mut Ebpf) -> io::Result<()> {
    let mut states: KernelMap<_, u64, u64> =
        map(ebpf.map_mut("STATES"))?.try_into().map_err(io::Error::other)?;
    let keys: Result<Vec<u64>, _> = states.keys().collect();
    for key in keys.map_err(io::Error::other)? {
        states.remove(&key).map_err(io::Error::other)?;
    }
    let mut uncounted: Array<_, u64> =
        map(ebpf.map_mut("UNCOUNTED"))?.try_into().map_err(io::Error::other)?;
    uncounted.set(0, 0, 0).map_err(io::Error::other)
}

fn map<T>(map: Option<T>) -> io::Result<T> {
    map.ok_or_else(|| io::Error::other("the object has no map of states"))
}
