//! What the kernel has counted instead of writing a record for each: sockets by state and port, and
//! idle ones by process.

use std::{collections::HashMap, io, os::fd::AsFd as _};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap as KernelMap, Map, MapError},
};
use c1m_ebpf::{IdleKey, IdleRow, OfPort, PORTS, STATES};
use c1m_record::{Holder, TcpState};
use c1m_sys::mapping::Mapping;

use super::Held;

const WORDS_A_PORT: usize = size_of::<OfPort>() / 8;

/// By namespace, state and local port.
pub(super) type Counts = HashMap<(u32, TcpState, u16), u64>;

/// Counts by state and port, as the kernel writes them.
pub(super) struct PortStates(Mapping);

impl PortStates {
    pub(super) fn of(ebpf: &Ebpf, walkers: u32) -> io::Result<Self> {
        // Those of all walkers, one after the other.
        let ports = (PORTS * walkers) as usize;
        match ebpf.map("PORT_STATES") {
            Some(Map::Array(array)) => {
                Mapping::new(array.fd().as_fd(), ports * WORDS_A_PORT).map(Self)
            }
            _ => Err(absent("PORT_STATES")),
        }
    }

    /// Takes what one namespace's walk has counted, and begins anew.
    pub(super) fn take(&mut self, netns: u32, counts: &mut Counts) {
        let mut from = 0;
        while let Some(index) = self.0.next_set(from) {
            let word = self.0.word(index);
            from = index + 1;
            let state = index % WORDS_A_PORT * (STATES / WORDS_A_PORT);
            for (state, count) in [(state, word & u64::from(u32::MAX)), (state + 1, word >> 32)] {
                // Both fit: there are as many ports and states.
                let (Ok(port), Ok(state)) =
                    (u16::try_from(index / WORDS_A_PORT % PORTS as usize), u16::try_from(state))
                else {
                    continue;
                };
                if count > 0 {
                    // In the kernel's tables nothing is closed.
                    let state = TcpState::from_kernel(state, true);
                    *counts.entry((netns, state, port)).or_default() += count;
                }
            }
            self.0.clear(index);
        }
    }
}

/// Begins to count idle sockets anew.
pub(super) fn forget_idle(ebpf: &mut Ebpf) -> io::Result<()> {
    clear::<[u64; IdleKey::WORDS]>(ebpf, "IDLE")?;
    let mut latest: Array<_, [u64; IdleRow::WORDS]> = map_mut(ebpf, "IDLE_LATEST")?;
    latest.set(0, [0; IdleRow::WORDS], 0).map_err(io::Error::other)
}

/// Those that were counted since: one for many that are alike.
pub(super) fn idle(ebpf: &mut Ebpf) -> io::Result<Vec<Held>> {
    let latest: Array<_, [u64; IdleRow::WORDS]> = map_mut(ebpf, "IDLE_LATEST")?;
    let latest = latest.get(&0, 0).map_err(io::Error::other)?;
    let mut counts =
        HashMap::from([latest].map(IdleRow::from_words).map(|it| (it.key, it.sockets)));
    let idle: KernelMap<_, [u64; IdleKey::WORDS], u64> = map_mut(ebpf, "IDLE")?;
    for entry in idle.iter() {
        let (key, sockets) = entry.map_err(io::Error::other)?;
        *counts.entry(IdleKey::from_words(key)).or_default() += sockets;
    }
    counts.retain(|_, sockets| *sockets > 0);
    Ok(counts.iter().map(|(key, sockets)| held(key, *sockets)).collect())
}

/// Has the walk of [`c1m_ebpf::ITER_WANTED`] look for these sockets, by their addresses. `false`:
/// they are too many.
pub(super) fn want(ebpf: &mut Ebpf, sockets: impl Iterator<Item = u64>) -> io::Result<bool> {
    clear::<u64>(ebpf, "WANTED")?;
    let mut wanted: KernelMap<_, u64, u64> = map_mut(ebpf, "WANTED")?;
    for socket in sockets {
        if wanted.insert(socket, 0, 0).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn clear<K: Pod>(ebpf: &mut Ebpf, name: &str) -> io::Result<()> {
    let mut map: KernelMap<_, K, u64> = map_mut(ebpf, name)?;
    let keys: Result<Vec<_>, _> = map.keys().collect();
    for key in keys.map_err(io::Error::other)? {
        map.remove(&key).map_err(io::Error::other)?;
    }
    Ok(())
}

pub(super) fn map_mut<'a, M: TryFrom<&'a mut Map, Error = MapError>>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> io::Result<M> {
    ebpf.map_mut(name).ok_or_else(|| absent(name))?.try_into().map_err(io::Error::other)
}

fn held(key: &IdleKey, sockets: u64) -> Held {
    let IdleKey { tgid, netns, state, .. } = *key;
    Held {
        sockets,
        holder: Holder::Process,
        pid: tgid,
        is_shared: false,
        // A closed one is never counted.
        state: TcpState::from_kernel(u16::try_from(state).unwrap_or(0), true),
        local_port: 0,
        remote: None,
        netns,
        cgroup: 0,
        receive_bytes: 0,
        backlog_bytes: 0,
        send_bytes: 0,
        forward_bytes: 0,
    }
}

fn absent(map: &str) -> io::Error {
    io::Error::other(format!("the object has no map {map}"))
}
