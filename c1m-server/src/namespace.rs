//! Which network namespace `--netns` names: one answer for all commands that have it.

use c1m_host::namespaces;
use c1m_program::EnvironmentRefused;
use c1m_sys::netns::Namespace;

use crate::cli::NetnsChoice;

/// `None`: all of them.
///
/// # Errors
/// It can't be found or opened, with what to do.
pub(super) fn named(choice: NetnsChoice) -> anyhow::Result<Option<Namespace>> {
    match choice {
        NetnsChoice::All => Ok(None),
        NetnsChoice::Own => Ok(Some(namespaces::own()?)),
        NetnsChoice::Process(pid) => of_process(pid).map(Some),
        NetnsChoice::Inode(inode) => namespaces::by_inode(inode)?.map(Some).ok_or_else(|| {
            EnvironmentRefused(format!(
                "no network namespace with inode {inode} was found: lsns -t net shows those that have a process, and ls -i /run/netns those of ip netns"
            ))
            .into()
        }),
    }
}

/// That of a process.
///
/// # Errors
/// It has ended, or belongs to somebody else.
pub(super) fn of_process(pid: u32) -> anyhow::Result<Namespace> {
    namespaces::of_process(pid).map_err(|error| {
        EnvironmentRefused(format!(
            "the network namespace of process {pid} can't be opened ({error}): use the number of a running process, and sudo where it \
             belongs to somebody else"
        ))
        .into()
    })
}
