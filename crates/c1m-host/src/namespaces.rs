//! The network namespaces of this host: one reader, whatever names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use c1m_sys::netns::{Namespace, OWN};

/// The inode of the first PID namespace: include/linux/proc_ns.h, PROC_PID_INIT_INO.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Those of all processes that let us look, and those that `ip netns` and container runtimes keep by a mount. One that only a descriptor or a
/// thread keeps is not among them.
///
/// # Errors
/// There is no /proc.
pub fn all() -> io::Result<Vec<Namespace>> {
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    for process in processes()? {
        let path = process.join("ns/net");
        // It may have ended meanwhile, or be somebody else's.
        if let Ok(link) = fs::read_link(&path) {
            paths.entry(link.to_string_lossy().into_owned()).or_insert(path);
        }
    }
    for (link, path) in mounted(Path::new("/proc/self")) {
        paths.entry(link).or_insert(path);
    }
    Ok(paths.values().filter_map(|path| Namespace::open(path).ok()).collect())
}

/// The one with this inode, whatever keeps it: a process, a mount in any mount namespace, a thread, or a descriptor. `None`: it was not found.
///
/// The search goes on to the next kind only where the one before had none: descriptors of a host are many.
///
/// # Errors
/// There is no /proc.
pub fn by_inode(inode: u32) -> io::Result<Option<Namespace>> {
    let link = PathBuf::from(format!("net:[{inode}]"));
    let is_it = |path: &PathBuf| fs::read_link(path).is_ok_and(|it| it == link);
    let open = |path: PathBuf| Namespace::open(&path).ok().filter(|it| it.inode == inode);
    let processes = processes()?;
    let of_processes =
        || processes.iter().map(|process| process.join("ns/net")).filter(is_it).find_map(open);
    let of_mounts = || {
        let mut seen = BTreeSet::new();
        // Each mount namespace once, through the root folder of a process in it: the paths mean something there.
        let views = processes
            .iter()
            .filter(|it| fs::read_link(it.join("ns/mnt")).is_ok_and(|link| seen.insert(link)));
        let paths =
            views.flat_map(|view| mounted(view)).filter(|(root, _)| Path::new(root) == link);
        paths.map(|(_, path)| path).find_map(open)
    };
    let below = |folder: &'static str| {
        processes.iter().flat_map(move |process| entries(&process.join(folder)))
    };
    let of_threads =
        || below("task").map(|thread| thread.join("ns/net")).filter(is_it).find_map(open);
    let of_descriptors = || below("fd").filter(is_it).find_map(open);
    Ok(of_processes().or_else(of_mounts).or_else(of_threads).or_else(of_descriptors))
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

/// Inode and place of those that a mount keeps, as seen from here.
#[must_use]
pub fn mounts() -> Vec<(u32, PathBuf)> {
    let inode = |link: &str| link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok();
    mounted(Path::new("/proc/self"))
        .filter_map(|(link, path)| Some((inode(&link)?, path)))
        .collect()
}

/// Are the processes that are seen from here all that there are?
#[must_use]
pub fn is_initial_pid_namespace() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == INITIAL_PID_NAMESPACE)
}

fn processes() -> io::Result<Vec<PathBuf>> {
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(processes
        .filter(|it| it.file_name().to_str().is_some_and(is_number))
        .map(|it| it.path())
        .collect())
}

/// Nothing of a folder that is gone, or may not be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

/// Name and place of each network namespace that is mounted where this process (its folder in /proc) is: `net:[4026532001]` and
/// `/proc/7/root/run/netns/blue`.
fn mounted(process: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let root = process.join("root");
    let mounts: Vec<_> = in_mountinfo(&mounts).collect();
    mounts
        .into_iter()
        .map(move |(link, place)| (link, root.join(place.strip_prefix("/").unwrap_or(&place))))
}

fn in_mountinfo(mountinfo: &str) -> impl Iterator<Item = (String, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (root, place) = (words.nth(3)?, words.next()?);
        root.starts_with("net:[").then(|| (root.to_owned(), super::cgroup::unescaped(place)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use c1m_sys::confine::unshare_network;

    #[test]
    fn mounted_namespaces_are_found() {
        let text = "\
22 1 0:20 / /proc rw,nosuid - proc proc rw
45 22 0:4 net:[4026532001] /run/netns/blue\\040sky rw shared:7 - nsfs nsfs rw
46 22 0:4 mnt:[4026532002] /run/mnt rw - nsfs nsfs rw
";
        let found: Vec<_> = in_mountinfo(text).collect();
        assert_eq!(found, [("net:[4026532001]".into(), "/run/netns/blue sky".into())]);
        assert_eq!(in_mountinfo("22 1").count(), 0);
    }

    #[test]
    fn the_own_namespace_is_among_all() {
        let own = own().unwrap();
        let all = all().unwrap();
        assert_eq!(all.iter().filter(|it| it.inode == own.inode).count(), 1);
        assert_eq!(by_inode(own.inode).unwrap().unwrap().inode, own.inode);
        assert_eq!(of_process(std::process::id()).unwrap().inode, own.inode);
        assert!(of_process(u32::MAX).is_err());
        // Inodes of namespaces begin far above (fs/proc/generic.c, PROC_DYNAMIC_FIRST).
        assert!(by_inode(1).unwrap().is_none());
    }

    #[test]
    fn one_that_only_a_thread_or_a_descriptor_keeps_is_found() {
        let (told, namespace) = channel();
        let (end, ended) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = unshare_network().ok().map(|()| own().unwrap());
            let inode = own.as_ref().map(|own| own.inode);
            // The descriptor would be found too.
            drop(own);
            told.send(inode).unwrap();
            let _ = ended.recv();
            inode.map(|_| super::own().unwrap())
        });
        // Without the privilege there is no other namespace.
        let Some(inode) = namespace.recv().unwrap() else { return };
        assert_eq!(by_inode(inode).unwrap().map(|it| it.inode), Some(inode), "kept by a thread");
        drop(end);
        let kept = thread.join().unwrap().unwrap();
        assert_eq!(
            by_inode(inode).unwrap().map(|it| it.inode),
            Some(inode),
            "kept by a descriptor"
        );
        drop(kept);
    }
}
