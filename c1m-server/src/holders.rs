//! Says who holds TCP memory now, and whether that is all which the kernel counts.

pub(super) mod gather;
mod group;

use std::{io, time::Instant};

use anyhow::Context as _;
use c1m_host::{cpus, sockstat};
use c1m_probe::snapshot::Which;
use c1m_program::lines::printer;
use c1m_record::{Holders, HoldersScope, Record, Sockstat, Source};
use c1m_sys::process::page_bytes;
use c1m_text::pages;

use self::{
    gather::{Gathered, Look},
    group::{Names, grouped, memory_of},
};
use crate::cli::{GroupBy, Holders as Flags};

/// Looks once, and prints it.
///
/// # Errors
/// See [`crate::exit::exit_code`]: a namespace that can't be had, or neither way to look.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let which = match flags.by {
        GroupBy::Process | GroupBy::Cgroup => Which::ByProcess,
        GroupBy::Port | GroupBy::Remote => Which::All,
    };
    let record = look(&mut Look::begin(flags.netns)?, which, flags.by, flags.top)?;
    let page = pages::holders(&record, page_bytes()?);
    Ok(printer(flags.json, flags.color.choice)?.print(Record::Holders(record), &page)?)
}

/// Looks at the sockets, and makes a record of those that hold the most.
pub(super) fn look(
    look: &mut Look,
    which: Which,
    by: GroupBy,
    top: usize,
) -> anyhow::Result<Holders> {
    let start = Instant::now();
    let gathered = look.sockets(which).context("cannot look at the sockets")?;
    // As near as can be to what the sockets said.
    let accounted = sockstat::sockstat().ok();
    let mut holders = holders((by, top), gathered, accounted, start)?;
    if which == Which::Holding {
        // Idle ones were left out, whoever has them.
        holders.unlisted_sockets = None;
    }
    Ok(holders)
}

fn holders(
    (by, top): (GroupBy, usize),
    gathered: Gathered,
    accounted: Option<Sockstat>,
    start: Instant,
) -> io::Result<Holders> {
    let page = page_bytes()?;
    let knows_closed = gathered.source == Source::Iterators;
    let total = memory_of(&gathered.sockets, page, knows_closed);
    let mut names = Names::new(gathered.names_processes);
    let mut rows = grouped(&gathered.sockets, by, page, knows_closed, &mut names);
    let omitted = rows.split_off(rows.len().min(top));
    let reserve_pages = match gathered.has_reserve {
        false => Some(0),
        true => cpus::reserve_pages(),
    };
    let is_host = gathered.is_whole && gathered.unseen.is_empty();
    let accounted_pages = accounted.map(|it| it.tcp_mem_pages);
    let accounted_sockets = accounted.map(|it| it.alloc);
    Ok(Holders {
        source: gathered.source,
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
        unseen: gathered.unseen,
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
