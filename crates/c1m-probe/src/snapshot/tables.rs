//! Counts by reading TCP's tables: several walkers, each over some buckets at a time.

use std::{
    cmp, io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use aya::{
    Ebpf, TestRun as _,
    maps::Array,
    programs::{RawTracePoint, RawTracePointRunOptions},
};
use c1m_ebpf::{
    ABSENT, COUNT_CONNECTIONS, COUNT_LISTENERS, FIND_TABLES, MAX_WALKERS, SnapshotLayout,
    TABLES_READ, Tables,
};
use c1m_sys::netns::Namespace;

use super::counted;

/// What one run reads: under a millisecond with ten sockets a bucket, since RCU is held meanwhile,
/// and a CPU without preemption does nothing else.
const BUCKETS_A_RUN: u64 = 1024;

/// How many walk at a time: one a CPU. Each has its own counts: 4 MB.
pub(super) fn walkers() -> u32 {
    thread::available_parallelism()
        .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(MAX_WALKERS).min(MAX_WALKERS))
}

/// Loads what reads the tables. `false`: this kernel has not got what that takes, and an iterator
/// has to do.
pub(super) fn load(ebpf: &mut Ebpf, layout: &SnapshotLayout) -> bool {
    let known = [
        layout.sock_nulls_node,
        layout.net_hashinfo,
        layout.hashinfo_ehash,
        layout.hashinfo_ehash_mask,
        layout.hashinfo_lhash2,
        layout.hashinfo_lhash2_mask,
        layout.listen_bucket_list,
        layout.listen_bucket_bytes,
    ];
    !known.contains(&ABSENT)
        && [FIND_TABLES, COUNT_CONNECTIONS, COUNT_LISTENERS].into_iter().all(|name| {
            ebpf.program_mut(name)
                .and_then(|program| <&mut RawTracePoint>::try_from(program).ok())
                .is_some_and(|program| program.load().is_ok())
        })
}

/// Counts the sockets of a namespace by state and port. `false`: a table changed while it was read,
/// and the counts are not to be used.
pub(super) fn count(ebpf: &mut Ebpf, walkers: u32, namespace: &Namespace) -> io::Result<bool> {
    let find = program(ebpf, FIND_TABLES)?;
    if !namespace.within(|| run(find, 0, 0..0)).and_then(|found| found)? {
        return Ok(false);
    }
    let found: Array<_, [u64; Tables::WORDS]> = counted::map_mut(ebpf, "TABLES")?;
    let tables = Tables::from_words(found.get(&0, 0).map_err(io::Error::other)?);
    let connections = program(ebpf, COUNT_CONNECTIONS)?;
    let listeners = program(ebpf, COUNT_LISTENERS)?;
    Ok(walk(connections, walkers, tables.connection_buckets)?
        && walk(listeners, walkers, tables.listener_buckets)?)
}

/// Has the walkers share the buckets.
fn walk(program: &RawTracePoint, walkers: u32, buckets: u64) -> io::Result<bool> {
    let next = AtomicU64::new(0);
    let share = |walker: u32| -> io::Result<bool> {
        loop {
            let from = next.fetch_add(BUCKETS_A_RUN, Ordering::Relaxed);
            if from >= buckets {
                return Ok(true);
            }
            if !run(program, walker, from..cmp::min(from + BUCKETS_A_RUN, buckets))? {
                return Ok(false);
            }
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> =
            (1..walkers).map(|walker| scope.spawn(move || share(walker))).collect();
        let first = share(0);
        others.into_iter().fold(first, |all, other| {
            let other = other.join().map_err(|_| io::Error::other("a walker panicked"))?;
            Ok(all? & other?)
        })
    })
}

fn run(program: &RawTracePoint, walker: u32, buckets: Range<u64>) -> io::Result<bool> {
    let mut options = RawTracePointRunOptions::new();
    options.args[..3].copy_from_slice(&[walker.into(), buckets.start, buckets.end]);
    let answer = program.test_run(options).map_err(io::Error::other)?.return_value;
    Ok(answer == TABLES_READ.cast_unsigned())
}

fn program<'a>(ebpf: &'a Ebpf, name: &str) -> io::Result<&'a RawTracePoint> {
    let program = ebpf
        .program(name)
        .ok_or_else(|| io::Error::other(format!("the object has no program {name}")))?;
    program.try_into().map_err(io::Error::other)
}
