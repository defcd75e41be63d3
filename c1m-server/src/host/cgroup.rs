//! The memory cgroup that a process is in, version 2 or 1.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where both versions are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// A limit from here on is none: version 1 says the largest multiple of a page (mm/page_counter.c, PAGE_COUNTER_MAX, 6.18).
const UNLIMITED: u64 = 1 << 62;

/// What a cgroup says. `None`: this version, or this kernel, has no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cgroup {
    /// Of the level above this process that has the least room left, page cache that it would give up not counted; of the own level
    /// where none has a limit.
    pub used_bytes: Option<u64>,
    /// `None` also when no level has a limit.
    pub max_bytes: Option<u64>,
    /// Allocations that failed at the limit, of the own level and below (v2).
    pub oom: Option<u64>,
    /// Processes of the own level and below that were killed by any OOM killer.
    pub oom_kill: Option<u64>,
    /// Charges of socket memory that failed (v1).
    pub tcp_failed: Option<u64>,
    /// Times that sockets were held back (v2, where the kernel counts them).
    pub sock_throttled: Option<u64>,
}

/// Reads the files of the own cgroup; a few, whatever it holds. `None`: there is no memory controller to be seen.
#[must_use]
pub fn own() -> Option<Cgroup> {
    below(Path::new(MOUNT), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The same of another process.
#[must_use]
pub fn of(pid: u32) -> Option<Cgroup> {
    below(Path::new(MOUNT), &fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The same of a cgroup that [`find`] found.
#[must_use]
pub fn at(folder: &Path) -> Option<Cgroup> {
    let below_mount = |mount: &Path| Some(folder.strip_prefix(mount).ok()?.to_str()?.to_owned());
    let (mount, legacy) = (Path::new(MOUNT), Path::new(MOUNT).join("memory"));
    match below_mount(&legacy) {
        Some(path) => below(mount, &format!("0:memory:/{path}")),
        None => below(mount, &format!("0::/{}", below_mount(mount)?)),
    }
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

/// The folder of a cgroup that is named by its folder, or by its path as in /proc/PID/cgroup. `None`: there is none.
#[must_use]
pub fn find(name: &Path) -> Option<PathBuf> {
    let mount = Path::new(MOUNT);
    let below = name.strip_prefix("/").unwrap_or(name);
    let places = [name.to_owned(), mount.join(below), mount.join("memory").join(below)];
    let is_cgroup =
        |folder: &PathBuf| folder.starts_with(mount) && folder.join("cgroup.procs").is_file();
    places.into_iter().find(is_cgroup)
}

/// The same for any mount, and the text of /proc/self/cgroup.
fn below(mount: &Path, membership: &str) -> Option<Cgroup> {
    unified(mount, membership).or_else(|| legacy(&mount.join("memory"), membership))
}

/// The folder of `path` below `root`, or `root` itself where a namespace hides what is above it.
fn folder(root: &Path, path: &str, file: &str) -> Option<PathBuf> {
    let own = root.join(path.trim_start_matches('/'));
    [own, root.to_owned()].into_iter().find(|folder| folder.join(file).exists())
}

fn unified(root: &Path, membership: &str) -> Option<Cgroup> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = folder(root, path, "memory.current")?;
    let events = fs::read_to_string(own.join("memory.events")).unwrap_or_default();
    let files = ["memory.current", "memory.max"];
    let (used_bytes, max_bytes) = tightest(root, &own, files, "inactive_file");
    Some(Cgroup {
        used_bytes,
        max_bytes,
        oom: field(&events, "oom"),
        oom_kill: field(&events, "oom_kill"),
        tcp_failed: None,
        sock_throttled: field(&events, "sock_throttled"),
    })
}

fn legacy(root: &Path, membership: &str) -> Option<Cgroup> {
    let path = membership.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)
    })?;
    let own = folder(root, path, "memory.usage_in_bytes")?;
    let control = fs::read_to_string(own.join("memory.oom_control")).unwrap_or_default();
    let files = ["memory.usage_in_bytes", "memory.limit_in_bytes"];
    let (used_bytes, max_bytes) = tightest(root, &own, files, "total_inactive_file");
    Some(Cgroup {
        used_bytes,
        max_bytes,
        oom: None,
        oom_kill: field(&control, "oom_kill"),
        tcp_failed: number(&own.join("memory.kmem.tcp.failcnt")),
        sock_throttled: None,
    })
}

/// Usage and limit of the level with the least room, from `own` up to `root`.
fn tightest(
    root: &Path,
    own: &Path,
    [current, max]: [&str; 2],
    cache: &str,
) -> (Option<u64>, Option<u64>) {
    let used = |folder: &Path| {
        let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = field(&statistics, cache).unwrap_or(0);
        Some(number(&folder.join(current))?.saturating_sub(cache))
    };
    own.ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| {
            let limit = number(&folder.join(max)).filter(|limit| *limit < UNLIMITED)?;
            Some((used(folder)?, limit))
        })
        .min_by_key(|(used, limit)| limit.saturating_sub(*used))
        .map_or_else(|| (used(own), None), |(used, limit)| (Some(used), Some(limit)))
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
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn version_2_takes_the_tightest_level_and_its_own_events() {
        let mount = tempfile::tempdir().unwrap();
        let outer = mount.path().join("outer");
        write(
            &outer,
            &[
                ("memory.current", "900\n"),
                ("memory.max", "1000\n"),
                ("memory.stat", "inactive_file 50\n"),
            ],
        );
        write(
            &outer.join("inner"),
            &[
                ("memory.current", "10\n"),
                ("memory.max", "max\n"),
                ("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n"),
            ],
        );
        let cgroup = below(mount.path(), "0::/outer/inner\n").unwrap();
        assert_eq!((cgroup.used_bytes, cgroup.max_bytes), (Some(850), Some(1000)));
        assert_eq!((cgroup.oom, cgroup.oom_kill), (Some(2), Some(1)));
        assert_eq!((cgroup.tcp_failed, cgroup.sock_throttled), (None, None));
    }

    #[test]
    fn version_1_has_a_limit_for_sockets() {
        let mount = tempfile::tempdir().unwrap();
        let own = mount.path().join("memory/a/b");
        write(
            &own,
            &[
                ("memory.usage_in_bytes", "500\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("memory.kmem.tcp.failcnt", "4\n"),
            ],
        );
        let membership = "5:devices:/\n4:cpu,memory:/a/b\n0::/\n";
        let cgroup = below(mount.path(), membership).unwrap();
        assert_eq!((cgroup.used_bytes, cgroup.max_bytes), (Some(400), None));
        assert_eq!((cgroup.oom, cgroup.oom_kill, cgroup.tcp_failed), (None, Some(3), Some(4)));
    }

    #[test]
    fn a_service_is_told_from_a_log_in() {
        let unit = |text| unit_in(text).unwrap_or_default();
        assert_eq!(unit("0::/system.slice/nginx.service\n"), "nginx.service");
        assert_eq!(unit("9:name=systemd:/system.slice/a.service/sub\n0::/\n"), "a.service");
        for none in [
            "",
            "x",
            "0::/",
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/t.service",
            "0::/init.scope",
        ] {
            assert_eq!(unit(none), "", "{none}");
        }
    }

    #[test]
    fn without_a_controller_there_is_nothing() {
        let mount = tempfile::tempdir().unwrap();
        assert_eq!(below(mount.path(), "0::/\n4:memory:/x\n"), None);
        assert_eq!(below(mount.path(), ""), None);
    }
}
