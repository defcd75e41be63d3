//! The memory cgroup that a process is in: version 2, version 1, or both (hybrid), from inside a
//! cgroup namespace as well.

use std::{
    collections::HashMap,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

/// A limit from here on is none: version 1 says the largest multiple of a page (mm/page_counter.c,
/// PAGE_COUNTER_MAX, 6.18).
const UNLIMITED: u64 = 1 << 62;

/// Where the running kernel shows its files.
const PROC: &str = "/proc";

/// Usage and limit of one level, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Page cache that the kernel would give up is left out.
    pub used_bytes: u64,
    pub max_bytes: u64,
}

impl Level {
    /// What is left, in bytes; 0 when it is past.
    #[must_use]
    pub fn headroom(&self) -> u64 {
        self.max_bytes.saturating_sub(self.used_bytes)
    }
}

/// What a cgroup says. `None`: this version, or this kernel, has no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cgroup {
    /// Of the level that `max` is of; of the process's own level where none has a limit.
    pub used_bytes: Option<u64>,
    /// memory.max (v1: memory.limit_in_bytes) of the level with the least room, from the process's
    /// own up. `None`: no level has one.
    pub max: Option<Level>,
    /// memory.high (v2) of the level with the least room: above it processes are slowed down,
    /// nothing is refused.
    pub high: Option<Level>,
    /// memory.kmem.tcp.limit_in_bytes (v1) of the level with the least room: memory that sockets
    /// have queued data in, and nothing else.
    pub sockets: Option<Level>,
    /// Sockets are charged to the cgroup's memory; version 1 has a counter of its own for them.
    pub counts_sockets: bool,
    /// Allocations that failed at the limit, of the process's own level and below (v2).
    pub oom: Option<u64>,
    /// Processes of that level and below that were killed by any OOM killer.
    pub oom_kill: Option<u64>,
    /// Charges of socket memory that failed (v1).
    pub tcp_failed: Option<u64>,
    /// Times that sockets were held back (v2, where the kernel counts them).
    pub sock_throttled: Option<u64>,
}

impl Cgroup {
    /// What it leaves for more memory, in bytes: the tightest of memory.max and memory.high.
    /// `None`: no level has a limit.
    #[must_use]
    pub fn headroom(&self) -> Option<u64> {
        [self.max, self.high].iter().flatten().map(Level::headroom).min()
    }
}

/// The cgroup hierarchies that have memory, as they are mounted where this process is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hierarchies(Vec<Mount>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The cgroup that is at the mount's folder, as /proc/PID/cgroup names it: `/` but for
    /// containers.
    root: PathBuf,
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Reads the files of this process's own cgroup; a few, whatever it holds. `None`: there is no
/// memory controller to be seen.
#[must_use]
pub fn own() -> Option<Cgroup> {
    own_at(Path::new(PROC))
}

/// The same where the kernel shows its files in this folder.
#[must_use]
pub fn own_at(proc: &Path) -> Option<Cgroup> {
    let read = |file| fs::read_to_string(proc.join("self").join(file));
    Hierarchies::parse(&read("mountinfo").unwrap_or_default()).of(&read("cgroup").ok()?)
}

/// The same of another process. `None` also when its cgroup is not below what is mounted here: from
/// inside a container, that of a process outside of it.
#[must_use]
pub fn of(pid: u32) -> Option<Cgroup> {
    Hierarchies::here().of(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The same of a cgroup that [`find`] found.
#[must_use]
pub fn at(folder: &Path) -> Option<Cgroup> {
    Hierarchies::here().at(folder)
}

/// The folder of a cgroup that is named by its folder, or by its path as in /proc/PID/cgroup.
/// `None`: there is none.
#[must_use]
pub fn find(name: &Path) -> Option<PathBuf> {
    Hierarchies::here().find(name)
}

/// The path of a process's cgroup: of the memory controller where version 1 has it, else of
/// version 2. `None`: it has ended, or there are no cgroups.
#[must_use]
pub fn path_of(pid: u32) -> Option<String> {
    let membership = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    path_in(&String::from_utf8_lossy(&membership)).map(str::to_owned)
}

fn path_in(membership: &str) -> Option<&str> {
    [Version::One, Version::Two].iter().find_map(|version| version.path(membership))
}

/// Paths of the cgroups of version 2 by their ids, which are the inodes of their folders.
#[must_use]
pub fn paths_by_id() -> HashMap<u64, String> {
    let hierarchies = Hierarchies::here();
    let root = hierarchies.0.iter().find(|mount| mount.version == Version::Two);
    root.map_or_else(HashMap::new, |root| paths_below(&root.folder))
}

fn paths_below(root: &Path) -> HashMap<u64, String> {
    let path = |folder: PathBuf| {
        let inode = fs::metadata(&folder).ok()?.ino();
        Some((inode, format!("/{}", folder.strip_prefix(root).unwrap_or(&folder).display())))
    };
    tree(root).into_iter().filter_map(path).collect()
}

/// The processes of a cgroup and of those below it.
#[must_use]
pub fn members(folder: &Path) -> Vec<u32> {
    let procs = |folder: PathBuf| fs::read_to_string(folder.join("cgroup.procs")).ok();
    let numbers = |text: String| -> Vec<u32> {
        text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    tree(folder).into_iter().filter_map(procs).flat_map(numbers).collect()
}

/// A folder and all that are below it, level by level.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let is_folder = |it: &fs::DirEntry| it.file_type().is_ok_and(|kind| kind.is_dir());
        folders.extend(entries.filter(is_folder).map(|it| it.path()));
    }
    folders
}

/// What this process's own memory cgroups leave it, in bytes; `None` without a limit.
///
/// Sockets, their files and what is queued in them are all charged to the cgroup, so it can be the
/// nearer limit than the host's memory.
#[must_use]
pub fn headroom() -> Option<u64> {
    own()?.headroom()
}

/// The unit of systemd that this process belongs to: a service, not a log-in. `None`: none.
#[must_use]
pub fn unit() -> Option<String> {
    unit_in(&fs::read_to_string("/proc/self/cgroup").ok()?)
}

fn unit_in(membership: &str) -> Option<String> {
    let of_line = |line: &str| {
        let (_, path) = line.split_once(':')?.1.split_once(':')?;
        // Those of a user's manager have been through a log-in, and limits.conf with it.
        let service = |part: &&str| part.ends_with(".service") && !part.starts_with("user@");
        let is_user = path.split('/').any(|part| part == "user.slice");
        path.split('/').rev().find(service).filter(|_| !is_user).map(str::to_owned)
    };
    membership.lines().find_map(of_line)
}

impl Hierarchies {
    fn here() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Understands the text of /proc/self/mountinfo: `36 35 0:31 ROOT FOLDER rw,... [optional
    /// fields] - cgroup SOURCE rw,memory`.
    #[must_use]
    pub fn parse(mountinfo: &str) -> Self {
        let all: Vec<Place> = mountinfo.lines().filter_map(Place::parse).collect();
        let mount = |place: &Place| {
            let (root, folder) = (place.root.clone(), place.folder.clone());
            let mut words = place.system.split(' ');
            let (kind, options) = (words.next()?, words.nth(1)?);
            let version = match kind {
                "cgroup2" => Version::Two,
                "cgroup" if options.split(',').any(|it| it == "memory") => Version::One,
                _ => return None,
            };
            Some(Mount { version, root, folder })
        };
        let seen = |place: &Place| mount(place).filter(|_| !place.is_hidden(&all));
        Self(all.iter().filter_map(seen).collect())
    }

    /// Of a process, by the text of its /proc/PID/cgroup.
    #[must_use]
    pub fn of(&self, membership: &str) -> Option<Cgroup> {
        // The controller is in one hierarchy; in the other one the folders have no files of it.
        self.0
            .iter()
            .find_map(|mount| mount.read(&mount.folder_of(mount.version.path(membership)?)?))
    }

    fn at(&self, folder: &Path) -> Option<Cgroup> {
        let below = self.0.iter().filter(|mount| folder.starts_with(&mount.folder));
        // Of mounts in one another the inner one.
        below.max_by_key(|mount| mount.folder.as_os_str().len())?.read(folder)
    }

    fn find(&self, name: &Path) -> Option<PathBuf> {
        let below = name.strip_prefix("/").unwrap_or(name);
        let named = self.0.iter().map(|mount| mount.folder.join(below));
        let paths = self.0.iter().filter_map(|mount| mount.folder_of(&name.to_string_lossy()));
        let mut all = std::iter::once(name.to_owned()).chain(paths).chain(named);
        all.find(|folder| folder.join("cgroup.procs").is_file())
    }
}

/// A line of mountinfo: what is mounted where, on which mount.
#[derive(Debug)]
struct Place<'a> {
    id: &'a str,
    parent: &'a str,
    root: PathBuf,
    folder: PathBuf,
    /// What stands behind the dash: kind, source and options.
    system: &'a str,
}

impl<'a> Place<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut words = mount.split(' ');
        let (id, parent) = (words.next()?, words.next()?);
        let mut paths = words.skip(1).map(unescaped);
        Some(Self { id, parent, root: paths.next()?, folder: paths.next()?, system })
    }

    /// Another mount lies over its folder, and its files can't be reached: the folder shows those
    /// of the other one. So it is where cgroups are mounted anew in a mount namespace of its own;
    /// the old mount stays in the list.
    fn is_hidden(&self, all: &[Self]) -> bool {
        let mut chain = vec![self];
        // No longer than the list, whatever stands in it.
        while let Some(parent) = all.iter().find(|it| it.id == chain[chain.len() - 1].parent)
            && chain.len() < all.len()
        {
            chain.push(parent);
        }
        let is_in_chain = |id: &str| chain.iter().any(|it| it.id == id);
        all.iter().any(|other| {
            !is_in_chain(other.id)
                && is_in_chain(other.parent)
                && self.folder.starts_with(&other.folder)
        })
    }
}

impl Version {
    /// The path of a process in this hierarchy.
    fn path(self, membership: &str) -> Option<&str> {
        membership.lines().find_map(|line| {
            let (hierarchy, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = match self {
                Self::Two => hierarchy == "0" && controllers.is_empty(),
                Self::One => controllers.split(',').any(|name| name == "memory"),
            };
            is_it.then_some(path)
        })
    }
}

impl Mount {
    /// The folder of a path of /proc/PID/cgroup. `None`: it is not below what is mounted here, as
    /// `/../other` from inside a namespace. A path is relative to the root of the reader's
    /// cgroup namespace, and so is the mount's own (kernel/cgroup/cgroup.c, cgroup_show_path).
    fn folder_of(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        let is_below = below.components().all(|it| matches!(it, Component::Normal(_)));
        is_below.then(|| self.folder.join(below))
    }

    fn read(&self, folder: &Path) -> Option<Cgroup> {
        match self.version {
            Version::Two => self.unified(folder),
            Version::One => self.legacy(folder),
        }
    }

    fn unified(&self, folder: &Path) -> Option<Cgroup> {
        // A level without the controller is charged to the next one above that has it.
        let own = self.levels(folder).find(|level| level.join("memory.current").exists())?;
        let events = fs::read_to_string(own.join("memory.events")).unwrap_or_default();
        let used = |level: &Path| used(level, "memory.current", "inactive_file");
        let max = self.tightest(own, "memory.max", used);
        Some(Cgroup {
            used_bytes: max.map_or_else(|| used(own), |max| Some(max.used_bytes)),
            max,
            high: self.tightest(own, "memory.high", used),
            sockets: None,
            counts_sockets: true,
            oom: field(&events, "oom"),
            oom_kill: field(&events, "oom_kill"),
            tcp_failed: None,
            sock_throttled: field(&events, "sock_throttled"),
        })
    }

    fn legacy(&self, own: &Path) -> Option<Cgroup> {
        if !own.join("memory.usage_in_bytes").exists() {
            return None;
        }
        let control = fs::read_to_string(own.join("memory.oom_control")).unwrap_or_default();
        let used = |level: &Path| used(level, "memory.usage_in_bytes", "total_inactive_file");
        let max = self.tightest(own, "memory.limit_in_bytes", used);
        let sockets = |level: &Path| number(&level.join("memory.kmem.tcp.usage_in_bytes"));
        Some(Cgroup {
            used_bytes: max.map_or_else(|| used(own), |max| Some(max.used_bytes)),
            max,
            high: None,
            sockets: self.tightest(own, "memory.kmem.tcp.limit_in_bytes", sockets),
            counts_sockets: false,
            oom: None,
            oom_kill: field(&control, "oom_kill"),
            tcp_failed: number(&own.join("memory.kmem.tcp.failcnt")),
            sock_throttled: None,
        })
    }

    /// From a folder up to the mount.
    fn levels<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        folder.ancestors().take_while(|level| level.starts_with(&self.folder))
    }

    /// The level with the least room below the limit of this name. `None`: no level has one.
    fn tightest(
        &self,
        own: &Path,
        limit: &str,
        used: impl Fn(&Path) -> Option<u64>,
    ) -> Option<Level> {
        self.levels(own)
            .filter_map(|level| {
                let max_bytes = number(&level.join(limit)).filter(|limit| *limit < UNLIMITED)?;
                Some(Level { used_bytes: used(level)?, max_bytes })
            })
            .min_by_key(Level::headroom)
    }
}

/// What a level uses, without page cache that it would give up.
fn used(level: &Path, current: &str, cache: &str) -> Option<u64> {
    let statistics = fs::read_to_string(level.join("memory.stat")).unwrap_or_default();
    let cache = field(&statistics, cache).unwrap_or(0);
    Some(number(&level.join(current))?.saturating_sub(cache))
}

/// A path of mountinfo: the kernel writes space, tab, newline and backslash as \040 and so on.
pub(super) fn unescaped(text: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (bytes, rest) = match code.filter(|_| *first == b'\\') {
            Some(byte) => ([bytes.as_slice(), &[byte]].concat(), &after[3..]),
            None => ([bytes.as_slice(), &[*first]].concat(), after),
        };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// A file with one number; `max` is none.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `name` in a file of lines with a name and a number each.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
