//! The table of tracked connections.

use std::{fs, io};

use c1m_sys::confine;
use c1m_testkit::{
    net::{answers, bound_for, connections, start_connecting},
    nft,
    trip::{Step, Stop},
};

use super::super::{
    fixture::{Fixture, eventually},
    program::Confined,
};

const MAX: &str = "net.netfilter.nf_conntrack_max";
const TRACKED: usize = 400;
const MORE: usize = 20;

/// The limit is the host's, and can be set in its first network namespace only; what is compared with it is each namespace's own
/// number (net/netfilter/nf_conntrack_core.c, `__nf_conntrack_alloc`, 6.18). So it is set first, and tracked is elsewhere.
pub(crate) fn full(fixture: &mut Fixture<'_>) -> Step {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
        .map_err(|error| Stop::skip(format!("no connection tracking: {error}")))?;
    if count.trim().parse().is_ok_and(|count: usize| count > TRACKED / 2) {
        return Err(Stop::skip(format!("the host tracks {} connections itself", count.trim())));
    }
    fixture.set(&[(MAX, TRACKED.to_string())])?;
    confine::unshare_network()
        .map_err(|error| Stop::skip(format!("no network namespace of its own: {error}")))?;
    nft::track_connections()
        .map_err(|error| Stop::skip(format!("no nftables with connection tracking: {error}")))?;
    let address = fixture.observe(&[], Confined::default())?;
    let mut streams = connections(address, TRACKED)?;
    // The first segment of each is dropped.
    let waiting = (0..MORE)
        .map(|_| start_connecting(bound_for(address)?, address))
        .collect::<io::Result<Vec<_>>>()?;
    eventually("connection tracking drops nothing", || Ok(dropped()? >= MORE as u64 / 2))?;
    // Who is tracked already is served as before.
    streams.iter_mut().step_by(50).try_for_each(answers)?;
    drop(waiting);
    Ok(())
}

/// The column `drop` of each CPU.
fn dropped() -> Step<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack")?;
    let mut lines = text.lines();
    let column =
        lines.next().and_then(|names| names.split_whitespace().position(|it| it == "drop"));
    let Some(column) = column else {
        return Err(Stop::skip("/proc/net/stat/nf_conntrack has no column `drop`"));
    };
    let value = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    Ok(lines.filter_map(value).sum())
}
