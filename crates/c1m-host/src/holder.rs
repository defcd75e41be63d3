//! Names for what holds a socket: of processes, and of cgroups.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where the v2 hierarchy can be mounted: alone, or beside version 1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// What a process is called, and its cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub comm: Option<String>,
    /// Of the memory controller, version 1, or of version 2.
    pub cgroup: Option<String>,
}

/// Reads /proc/PID; what has ended has no name any more.
#[must_use]
pub fn process(pid: u32) -> Process {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Process {
        comm: read("comm").map(|name| text(name).trim_end_matches('\n').to_owned()),
        cgroup: read("cgroup").and_then(|membership| memory_cgroup(&text(membership))),
    }
}

/// The path in a text of /proc/PID/cgroup: of the memory controller where version 1 has it, else of version 2.
fn memory_cgroup(membership: &str) -> Option<String> {
    let line = |text: &str| -> Option<(String, String)> {
        let (controllers, path) = text.split_once(':')?.1.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    let lines: Vec<_> = membership.lines().filter_map(line).collect();
    let legacy = lines.iter().find(|(it, _)| it.split(',').any(|name| name == "memory"));
    legacy.or_else(|| lines.iter().find(|(it, _)| it.is_empty())).map(|(_, path)| path.clone())
}

/// Paths of the cgroups of the v2 hierarchy by their ids, which are the inodes of their folders.
#[must_use]
pub fn cgroups() -> HashMap<u64, String> {
    let root = UNIFIED.iter().map(Path::new).find(|it| it.join("cgroup.procs").exists());
    let mut paths = HashMap::new();
    if let Some(root) = root {
        below(root, root, &mut paths);
    }
    paths
}

fn below(root: &Path, folder: &Path, paths: &mut HashMap<u64, String>) {
    let Ok(metadata) = fs::metadata(folder) else { return };
    let path = folder.strip_prefix(root).unwrap_or(folder);
    paths.insert(metadata.ino(), format!("/{}", path.display()));
    let Ok(entries) = fs::read_dir(folder) else { return };
    let folders =
        entries.filter_map(Result::ok).filter(|it| it.file_type().is_ok_and(|t| t.is_dir()));
    let folders: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    folders.iter().for_each(|folder| below(root, folder, paths));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_line() {
        let of = |text: &str| memory_cgroup(text);
        assert_eq!(of("0::/a/b:c\n").as_deref(), Some("/a/b:c"));
        assert_eq!(of("5:devices:/d\n4:cpu,memory:/m\n0::/u\n").as_deref(), Some("/m"));
        assert_eq!(of("1:name=systemd:/s\n0::/u\n").as_deref(), Some("/u"));
        assert_eq!(of("1:name=systemd:/s\n"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn this_process_has_a_name_and_an_ended_one_has_none() {
        let own = process(std::process::id());
        assert!(own.comm.is_some_and(|name| !name.is_empty()));
        assert_eq!(process(u32::MAX), Process::default());
    }

    #[test]
    fn folders_are_found_by_their_inodes() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let mut paths = HashMap::new();
        below(root.path(), root.path(), &mut paths);
        assert_eq!(paths[&fs::metadata(inner).unwrap().ino()], "/a/b");
        assert_eq!(paths[&fs::metadata(root.path()).unwrap().ino()], "/");
    }
}
