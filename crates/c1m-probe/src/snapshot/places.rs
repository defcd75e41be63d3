//! Network namespaces that the iterators came upon, beside those that somebody told us of.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use c1m_ebpf::HeldSocket;
use c1m_sys::netns::Namespace;

/// By inode.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Process and thread that are in it.
    threads: BTreeMap<u32, (u32, u32)>,
    /// It has a socket that some process has a descriptor of.
    sockets: BTreeSet<u32>,
}

impl Places {
    pub(super) fn add_thread(&mut self, record: &HeldSocket) {
        // A thread that is ending is in none any more.
        if record.netns != 0 {
            self.threads.entry(record.netns).or_insert((record.tgid, record.tid));
        }
    }

    pub(super) fn add_socket(&mut self, netns: u32) {
        self.sockets.insert(netns);
    }

    /// Those that are not among `told`; and in words those that can't be opened, where `sought` is
    /// not found then.
    pub(super) fn open(self, told: &[Namespace], sought: &str) -> (Vec<Namespace>, Vec<String>) {
        let is_new = |inode: &u32| told.iter().all(|namespace| namespace.inode != *inode);
        let (mut found, mut unseen) = (Vec::new(), Vec::new());
        for (inode, (tgid, tid)) in self.threads.iter().filter(|(inode, _)| is_new(inode)) {
            let path = PathBuf::from(format!("/proc/{tgid}/task/{tid}/ns/net"));
            match Namespace::open(&path) {
                // It has moved on, and then the namespace may be gone.
                Ok(namespace) if namespace.inode == *inode => found.push(namespace),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => unseen.push(format!(
                    "{sought} in network namespace {inode}, which process {tgid} is in ({error})"
                )),
            }
        }
        let orphaned = self.sockets.iter().filter(|inode| is_new(inode));
        unseen.extend(orphaned.filter(|inode| !self.threads.contains_key(inode)).map(|inode| {
            format!(
                "{sought} in network namespace {inode}: no thread is in it, and it is not mounted"
            )
        }));
        (found, unseen)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use c1m_sys::netns::OWN;

    #[test]
    fn what_is_told_already_is_not_opened_again() {
        let own = || Namespace::open(Path::new(OWN)).unwrap();
        let pid = std::process::id();
        let at = |netns| HeldSocket { netns, tgid: pid, tid: pid, ..HeldSocket::default() };
        let places = || {
            let mut places = Places::default();
            places.add_thread(&at(own().inode));
            places.add_thread(&at(0));
            places.add_socket(own().inode);
            places
        };
        let (found, unseen) = places().open(&[], "connections");
        assert_eq!((found.len(), found[0].inode, unseen.len()), (1, own().inode, 0));
        let (found, unseen) = places().open(&[own()], "connections");
        assert_eq!((found.len(), unseen.len()), (0, 0));
        // A namespace that nobody can lead us into is told.
        let mut lost = places();
        lost.add_socket(7);
        let (_, unseen) = lost.open(&[own()], "connections");
        assert!(
            unseen.len() == 1 && unseen[0].starts_with("connections in network namespace 7"),
            "{unseen:?}"
        );
    }
}
