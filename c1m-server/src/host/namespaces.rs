//! The network namespaces of this host, as far as /proc and the mounts show them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::sys::netns::{Namespace, OWN};

/// The inode of the first PID namespace: include/linux/proc_ns.h, PROC_PID_INIT_INO.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Those of all processes that let us look, and those that `ip netns` and container runtimes keep by a mount. One that only a descriptor or a
/// thread keeps is not among them.
///
/// # Errors
/// There is no /proc.
pub fn all() -> io::Result<Vec<Namespace>> {
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let path = entry.path().join("ns/net");
        // It may have ended meanwhile, or be somebody else's.
        if let Ok(link) = fs::read_link(&path) {
            paths.entry(link.to_string_lossy().into_owned()).or_insert(path);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for (link, path) in mounted(&mounts) {
        paths.entry(link).or_insert(path);
    }
    Ok(paths.values().filter_map(|path| Namespace::open(path).ok()).collect())
}

/// The one with this inode, also when only a thread is in it. `None`: it was not found.
///
/// # Errors
/// There is no /proc.
pub fn by_inode(inode: u32) -> io::Result<Option<Namespace>> {
    if let Some(namespace) = all()?.into_iter().find(|it| it.inode == inode) {
        return Ok(Some(namespace));
    }
    let name = PathBuf::from(format!("net:[{inode}]"));
    let threads = fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|process| fs::read_dir(process.path().join("task")).ok())
        .flat_map(|threads| threads.filter_map(Result::ok));
    let mut paths = threads.map(|thread| thread.path().join("ns/net"));
    let path = paths.find(|path| fs::read_link(path).is_ok_and(|link| link == name));
    let namespace = path.and_then(|path| Namespace::open(&path).ok());
    Ok(namespace.filter(|it| it.inode == inode))
}

/// That of the calling thread.
///
/// # Errors
/// There is no /proc.
pub fn own() -> io::Result<Namespace> {
    Namespace::open(Path::new(OWN))
}

/// That of a process.
///
/// # Errors
/// It has ended, or belongs to somebody else.
pub fn of_process(pid: u32) -> io::Result<Namespace> {
    Namespace::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
}

/// Are the processes that are seen from here all that there are?
#[must_use]
pub fn is_initial_pid_namespace() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == INITIAL_PID_NAMESPACE)
}

/// Name and place of each network namespace that is mounted: `net:[4026532001]` and `/run/netns/blue`.
fn mounted(mountinfo: &str) -> impl Iterator<Item = (String, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (root, place) = (words.nth(3)?, words.next()?);
        // The kernel writes a space in a path as \040, as it does tab, newline and backslash.
        (root.starts_with("net:[") && !place.contains('\\'))
            .then(|| (root.to_owned(), PathBuf::from(place)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_namespaces_are_found() {
        let text = "\
22 1 0:20 / /proc rw,nosuid - proc proc rw
45 22 0:4 net:[4026532001] /run/netns/blue rw shared:7 - nsfs nsfs rw
46 22 0:4 mnt:[4026532002] /run/mnt rw - nsfs nsfs rw
";
        let found: Vec<_> = mounted(text).collect();
        assert_eq!(found, [("net:[4026532001]".into(), "/run/netns/blue".into())]);
        assert_eq!(mounted("22 1").count(), 0);
    }

    #[test]
    fn the_own_namespace_is_among_all() {
        let own = own().unwrap();
        let all = all().unwrap();
        assert_eq!(all.iter().filter(|it| it.inode == own.inode).count(), 1);
        assert_eq!(of_process(std::process::id()).unwrap().inode, own.inode);
        assert!(of_process(u32::MAX).is_err());
    }
}
