//! Who holds TCP memory: a snapshot of all sockets, grouped, beside what the kernel accounts.

mod group;

use std::{io, time::Instant};

use c1m_host::{cpus, sockstat};
use c1m_record::{Holders, HoldersScope, Sockstat, Source};
use c1m_sys::process::page_bytes;

use self::group::{Names, grouped, memory_of};
use crate::{
    TraceError,
    snapshot::Which,
    sockets::{SocketReader, Sockets},
};

/// What makes a row of `holders`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupBy {
    Process,
    Cgroup,
    /// Local port, in its network namespace
    Port,
    /// Remote address
    Remote,
}

/// Takes a snapshot, and makes a record of the `top` rows with the most pages.
///
/// # Errors
/// As of [`SocketReader::sockets`].
pub fn read(
    reader: &mut SocketReader,
    which: Which,
    by: GroupBy,
    top: usize,
) -> Result<Holders, TraceError> {
    let start = Instant::now();
    let sockets = reader.sockets(which)?;
    // At once: the two are compared.
    let accounted = sockstat::sockstat().ok();
    let mut holders = holders((by, top), sockets, accounted, start)?;
    if which == Which::Holding {
        // Idle ones were left out, whoever has them.
        holders.unlisted_sockets = None;
    }
    Ok(holders)
}

fn holders(
    (by, top): (GroupBy, usize),
    sockets: Sockets,
    accounted: Option<Sockstat>,
    start: Instant,
) -> io::Result<Holders> {
    let page = page_bytes()?;
    let knows_closed = sockets.source == Source::Iterators;
    let total = memory_of(&sockets.sockets, page, knows_closed);
    let mut names = Names::new(sockets.names_processes);
    let mut rows = grouped(&sockets.sockets, by, page, knows_closed, &mut names);
    let omitted = rows.split_off(rows.len().min(top));
    let reserve_pages = match sockets.has_reserve {
        false => Some(0),
        true => cpus::reserve_pages(),
    };
    let is_host = sockets.is_whole && sockets.unseen.is_empty();
    let accounted_pages = accounted.map(|it| it.tcp_mem_pages);
    let accounted_sockets = accounted.map(|it| it.alloc);
    Ok(Holders {
        source: sockets.source,
        scope: if is_host { HoldersScope::Host } else { HoldersScope::Part },
        rows,
        rows_omitted: omitted.len() as u64,
        pages_omitted: omitted.iter().map(|row| row.memory.pages).sum(),
        accounted_pages,
        found_pages: total.pages,
        unexplained_pages: accounted_pages
            .zip(reserve_pages)
            .filter(|_| is_host)
            .map(|(accounted, reserve)| unexplained(accounted, total.pages, reserve)),
        accounted_sockets,
        unlisted_sockets: accounted_sockets
            .filter(|_| is_host)
            .map(|accounted| accounted.cast_signed() - total.sockets.cast_signed()),
        total,
        reserve_pages,
        unseen: sockets.unseen,
        took_ms: start.elapsed().as_secs_f64() * 1e3,
    })
}

/// By how much the two differ more than the reserve lets them.
fn unexplained(accounted: u64, found: u64, reserve: u64) -> i64 {
    let beyond = accounted.abs_diff(found).saturating_sub(reserve);
    let beyond = i64::try_from(beyond).unwrap_or(i64::MAX);
    if accounted < found { -beyond } else { beyond }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reserve_can_explain_is_explained() {
        assert_eq!(unexplained(1000, 600, 510), 0);
        assert_eq!(unexplained(600, 1000, 510), 0);
        assert_eq!(unexplained(1111, 600, 510), 1);
        assert_eq!(unexplained(600, 1111, 510), -1);
    }
}
