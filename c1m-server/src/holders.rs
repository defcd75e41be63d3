//! Says who holds TCP memory now, and whether that is all which the kernel counts.

use anyhow::Context as _;
use c1m_probe::{
    holders::{self, GroupBy},
    snapshot::Which,
    sockets::SocketReader,
};
use c1m_program::lines::printer;
use c1m_record::Record;
use c1m_sys::process::page_bytes;
use c1m_text::pages;

use crate::cli::Holders as Flags;

/// Looks once, and prints it.
///
/// # Errors
/// See [`crate::exit::exit_code`]: a namespace that can't be had, or neither way to look.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let which = match flags.by {
        GroupBy::Process | GroupBy::Cgroup => Which::ByProcess,
        GroupBy::Port | GroupBy::Remote => Which::All,
    };
    let mut reader = SocketReader::open(flags.netns)?;
    let record = holders::read(&mut reader, which, flags.by, flags.top)
        .context("cannot look at the sockets")?;
    let page = pages::holders(&record, page_bytes()?);
    Ok(printer(flags.json, flags.color.choice)?.print(Record::Holders(record), &page)?)
}
