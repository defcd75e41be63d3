//! How much memory the host has left, and how much of it this process may take.

use std::{fs, io, path::Path};

use thiserror::Error;

/// Why /proc/meminfo was not understood.
#[derive(Debug, Error)]
pub enum MeminfoError {
    #[error("cannot read /proc/meminfo: {0}")]
    Read(#[from] io::Error),
    #[error("/proc/meminfo has no readable line `{0}`")]
    Field(&'static str),
}

/// Some lines of /proc/meminfo, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meminfo {
    pub total_bytes: u64,
    /// What can be had without swapping, by the kernel's own estimate.
    pub available_bytes: u64,
    /// Neither free nor page cache: what programs and the kernel hold. Not the rest of `available_bytes`, which takes half of the
    /// sockets' inodes and dentries for reclaimable though nobody can reclaim one that is open.
    pub used_bytes: u64,
    /// Of all slab caches together.
    pub slab_bytes: u64,
}

/// Reads /proc/meminfo.
pub fn read() -> Result<Meminfo, MeminfoError> {
    parse(&fs::read_to_string("/proc/meminfo")?)
}

/// Understands the text of /proc/meminfo.
pub fn parse(text: &str) -> Result<Meminfo, MeminfoError> {
    let bytes = |name: &'static str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .and_then(|kib| kib.checked_mul(1024))
            .ok_or(MeminfoError::Field(name))
    };
    let total_bytes = bytes("MemTotal")?;
    let unused = [bytes("MemFree")?, bytes("Buffers")?, bytes("Cached")?];
    Ok(Meminfo {
        total_bytes,
        available_bytes: bytes("MemAvailable")?,
        used_bytes: unused.iter().fold(total_bytes, |used, bytes| used.saturating_sub(*bytes)),
        slab_bytes: bytes("Slab")?,
    })
}

/// What the memory cgroups above this process leave it, in bytes; `None` without a limit, or without cgroup v2.
///
/// Sockets, their files and what is queued in them are all charged to the cgroup, so it can be the nearer wall.
#[must_use]
pub fn cgroup_headroom() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    headroom_below(Path::new("/sys/fs/cgroup"), &membership)
}

/// The same for the text of /proc/self/cgroup, and any folder as the root of the hierarchy.
fn headroom_below(root: &Path, membership: &str) -> Option<u64> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = root.join(own);
    folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(headroom).min()
}

fn headroom(folder: &Path) -> Option<u64> {
    let number = |file| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    // `max` is no number: then this level sets no limit.
    let limit = number("memory.max")?;
    let current = number("memory.current")?;
    let statistics = fs::read_to_string(folder.join("memory.stat")).ok()?;
    // Page cache that the kernel gives up before it refuses anything.
    let cache = statistics
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Some(limit.saturating_sub(current.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        let memory = read().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
        assert!(memory.slab_bytes > 0 && memory.slab_bytes < memory.total_bytes);
    }

    #[test]
    fn kib_become_bytes() {
        let memory = parse(
            "MemTotal: 8 kB\nMemFree: 2 kB\nMemAvailable:   4 kB\nBuffers: 1 kB\nCached: 1 kB\nSlab:\t1 kB\n",
        )
        .unwrap();
        assert_eq!(
            (memory.total_bytes, memory.available_bytes, memory.used_bytes, memory.slab_bytes),
            (8192, 4096, 4096, 1024)
        );
    }

    #[test]
    fn broken_text_is_refused() {
        let rest = "MemFree: 1 kB\nBuffers: 0 kB\nCached: 0 kB\nSlab: 1 kB\n";
        let whole = |total: &str| format!("{total}\nMemAvailable: 4 kB\n{rest}");
        assert!(parse(&whole("MemTotal: 8 kB")).is_ok());
        for text in [
            String::new(),
            format!("MemTotal: 8 kB\n{rest}"),
            whole("MemTotal: 8"),
            whole("MemTotal: -8 kB"),
            whole("MemTotal: 18446744073709551615 kB"),
        ] {
            assert!(parse(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_nearest_cgroup_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, max: &str, current: &str, cache: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("memory.max"), max).unwrap();
            fs::write(folder.join("memory.current"), current).unwrap();
            fs::write(folder.join("memory.stat"), format!("anon 1\ninactive_file {cache}\n"))
                .unwrap();
        };
        write("outer", "1000\n", "900\n", "50");
        write("outer/inner", "max\n", "800\n", "0");
        assert_eq!(headroom_below(root.path(), "0::/outer/inner\n"), Some(150));
        write("outer/inner", "810\n", "800\n", "0");
        assert_eq!(headroom_below(root.path(), "0::/outer/inner\n"), Some(10));
        assert_eq!(headroom_below(root.path(), "0::/\n"), None);
        assert_eq!(headroom_below(root.path(), "1:memory:/outer\n"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(MemTotal|MemAvailable|Slab|:| |kB|[0-9]{0,22}|\n|\\PC)*") {
            let _ = parse(&text);
        }
    }
}
