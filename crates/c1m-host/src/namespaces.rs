//! The network namespaces of this host, and what `--netns` names of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use c1m_sys::netns::{Namespace, OWN};
use c1m_text::units::parse_number;
use thiserror::Error;

use super::{cgroup::unescaped, task};

/// The inode of the first PID namespace: include/linux/proc_ns.h, PROC_PID_INIT_INO.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The value of `--netns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetnsArgument {
    /// That of this process.
    Own,
    /// That of another one.
    Process(u32),
    /// The one with this inode, as /proc/PID/ns/net and lsns show it.
    Inode(u32),
    /// Every one that can be found.
    All,
}

impl FromStr for NetnsArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = match text {
            "self" => Ok(Self::Own),
            "all" => Ok(Self::All),
            _ => match text.strip_prefix("inode:") {
                Some(inode) => parse_number(inode).map(Self::Inode),
                None => parse_number(text).map(Self::Process),
            },
        };
        named.map_err(|_| "use self, all, a PID, or inode:N with the number that lsns shows".into())
    }
}

impl NetnsArgument {
    /// Opens it. `None`: all of them.
    ///
    /// # Errors
    /// It can't be found or opened, with what to do.
    pub fn open(self) -> Result<Option<Namespace>, NamespaceError> {
        match self {
            Self::All => Ok(None),
            Self::Own => Ok(Some(own()?)),
            Self::Process(pid) => of_process(pid).map(Some),
            Self::Inode(inode) => {
                by_inode(inode)?.map(Some).ok_or(NamespaceError::NotFound { inode })
            }
        }
    }
}

/// A network namespace that can't be opened.
#[derive(Debug, Error)]
pub enum NamespaceError {
    #[error(
        "no network namespace with inode {inode} was found: lsns -t net shows those that have a \
         process, and ls -i /run/netns those of ip netns"
    )]
    NotFound { inode: u32 },
    #[error(
        "the network namespace of process {pid} can't be opened ({error}): use the number of a \
         running process, and sudo where it belongs to somebody else"
    )]
    Process { pid: u32, error: io::Error },
    #[error("network namespaces can't be read: {0}")]
    Proc(#[from] io::Error),
}

/// The network namespaces that a process is in or a mount keeps. One that only a descriptor or a
/// thread keeps is not among them.
#[derive(Debug, Default)]
pub struct List {
    /// By inode, a file to open each by.
    pub paths: BTreeMap<u32, PathBuf>,
    /// A process whose namespace may not be read, if there is one.
    pub denied: Option<u32>,
}

/// Lists them.
///
/// # Errors
/// There is no /proc.
pub fn list() -> io::Result<List> {
    let mut list = List::default();
    for pid in task::all()? {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        match inode_at(&path) {
            Ok(inode) => {
                list.paths.entry(inode).or_insert(path);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                list.denied = list.denied.or(Some(pid));
            }
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    for (inode, path) in mounts() {
        list.paths.entry(inode).or_insert(path);
    }
    Ok(list)
}

/// Opens those of [`list`] that can be opened.
///
/// # Errors
/// There is no /proc.
pub fn all() -> io::Result<Vec<Namespace>> {
    Ok(list()?.paths.values().filter_map(|path| Namespace::open(path).ok()).collect())
}

/// The one with this inode, whatever keeps it: a process, a mount in any mount namespace, a thread,
/// or a descriptor. `None`: it was not found.
///
/// The search goes on to the next kind only where the one before had none: descriptors of a host
/// are many.
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
        // Each mount namespace once, through the root folder of a process in it: the paths mean
        // something there.
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
pub fn of_process(pid: u32) -> Result<Namespace, NamespaceError> {
    Namespace::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
        .map_err(|error| NamespaceError::Process { pid, error })
}

/// Inode of the network namespace of this process; `None` without /proc.
#[must_use]
pub fn own_inode() -> Option<u32> {
    inode_at(Path::new("/proc/self/ns/net")).ok()
}

fn inode_at(path: &Path) -> io::Result<u32> {
    u32::try_from(fs::metadata(path)?.ino()).map_err(io::Error::other)
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
    fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == INITIAL_PID_NAMESPACE)
}

fn processes() -> io::Result<Vec<PathBuf>> {
    Ok(task::all()?.iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))).collect())
}

/// Nothing of a folder that is gone, or may not be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

/// Name and place of each network namespace that is mounted where this process (its folder in
/// /proc) is: `net:[4026532001]` and `/proc/7/root/run/netns/blue`.
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
        root.starts_with("net:[").then(|| (root.to_owned(), unescaped(place)))
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
    fn a_namespace_has_four_ways_to_be_named() {
        assert_eq!("self".parse(), Ok(NetnsArgument::Own));
        assert_eq!("all".parse(), Ok(NetnsArgument::All));
        assert_eq!("17".parse(), Ok(NetnsArgument::Process(17)));
        assert_eq!("inode:4026531840".parse(), Ok(NetnsArgument::Inode(4_026_531_840)));
        for wrong in [
            "",
            "0",
            "-1",
            "inode:",
            "inode:0",
            "inode:x",
            "Self",
            "4294967296",
            "+17",
            "inode:+17",
            " 17",
        ] {
            assert!(wrong.parse::<NetnsArgument>().unwrap_err().contains("inode:N"), "{wrong}");
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        let error = |argument: NetnsArgument| argument.open().unwrap_err().to_string();
        assert!(error(NetnsArgument::Inode(1)).contains("lsns -t net"));
        assert!(error(NetnsArgument::Process(u32::MAX)).contains("sudo"));
        assert!(NetnsArgument::All.open().unwrap().is_none());
    }

    #[test]
    fn the_own_namespace_is_among_all() {
        let own = own().unwrap();
        assert_eq!(own_inode(), Some(own.inode));
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
