//! Counts connections by state, local port and network namespace.

use std::{cmp::Reverse, time::Instant};

use anyhow::Context as _;
use c1m_probe::sockets::SocketReader;
use c1m_program::lines::printer;
use c1m_record::{Record, States};
use c1m_text::pages;

use crate::cli;

/// Counts once, and prints it.
///
/// # Errors
/// See [`crate::exit::exit_code`]: a namespace that can't be had, or neither way to look.
pub fn run(flags: &cli::States) -> anyhow::Result<()> {
    let mut reader = SocketReader::open(flags.netns)?;
    let start = Instant::now();
    let (source, mut counts) = reader.states().context("cannot count the sockets")?;
    counts.rows.sort_by_key(|row| (Reverse(row.count), row.netns, row.port, row.state));
    let record = States {
        source,
        rows: counts.rows,
        unseen: counts.unseen,
        took_ms: start.elapsed().as_secs_f64() * 1e3,
    };
    let page = pages::states(&record, flags.top);
    Ok(printer(flags.json, flags.color.choice)?.print(Record::States(record), &page)?)
}
