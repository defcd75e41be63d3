//! A memory cgroup, of version 1 or 2.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Skip, eventually};

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// A memory cgroup of one's own. It goes with this value, or, after a crash, with the next one of that name.
#[derive(Debug)]
pub struct Cgroup {
    pub folder: PathBuf,
    pub is_v1: bool,
}

impl Cgroup {
    /// A new one without a limit, whose folder is `c1m-NAME-` and the number of this process.
    pub fn new(name: &str) -> Result<Self, Skip> {
        let is_v1 = Path::new(V1).join("memory.usage_in_bytes").exists();
        let is_v2 = fs::read_to_string(Path::new(V2).join("cgroup.controllers"))
            .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"));
        if !is_v1 && !is_v2 {
            return Err(Skip("no memory cgroups are mounted below /sys/fs/cgroup".into()));
        }
        if !is_v1 {
            fs::write(Path::new(V2).join("cgroup.subtree_control"), "+memory")
                .map_err(|error| Skip(format!("no memory cgroups for children: {error}")))?;
        }
        let root = Path::new(if is_v1 { V1 } else { V2 });
        let prefix = format!("c1m-{name}-");
        for left in fs::read_dir(root).into_iter().flatten().flatten() {
            let file = left.file_name();
            let of = file.to_str().and_then(|file| file.strip_prefix(&prefix));
            if of.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // One that somebody is in stays.
                let _ = fs::remove_dir(left.path());
            }
        }
        let folder = root.join(format!("{prefix}{}", std::process::id()));
        fs::create_dir(&folder)
            .map_err(|error| Skip(format!("cannot make {}: {error}", folder.display())))?;
        Ok(Self { folder, is_v1 })
    }

    /// Where all memory cgroups are.
    pub fn root(&self) -> &'static str {
        if self.is_v1 { V1 } else { V2 }
    }

    /// As in /proc/PID/cgroup.
    pub fn path(&self) -> String {
        format!("/{}", self.folder.file_name().unwrap_or_default().display())
    }

    pub fn write(&self, file: &str, value: impl ToString) -> Result<(), Skip> {
        fs::write(self.folder.join(file), value.to_string())
            .map_err(|error| Skip(format!("cannot write {file}: {error}")))
    }

    pub fn add(&self, pid: u32) -> Result<(), Skip> {
        self.write("cgroup.procs", pid)
    }

    /// Lets it have so many bytes of memory.
    pub fn limit(&self, bytes: u64) -> Result<(), Skip> {
        self.write(if self.is_v1 { "memory.limit_in_bytes" } else { "memory.max" }, bytes)
    }

    /// What it has.
    ///
    /// # Panics
    /// The kernel does not say.
    pub fn usage_bytes(&self) -> u64 {
        let text = self.read(if self.is_v1 { "memory.usage_in_bytes" } else { "memory.current" });
        text.trim().parse().unwrap_or_else(|_| panic!("memory usage is {text:?}"))
    }

    /// Processes of it that the OOM killer has ended.
    ///
    /// # Panics
    /// The kernel does not say.
    pub fn oom_kills(&self) -> u64 {
        let text = self.read(if self.is_v1 { "memory.oom_control" } else { "memory.events" });
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    fn read(&self, file: &str) -> String {
        let path = self.folder.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Who was in it may still be on the way out.
        eventually(|| fs::remove_dir(&self.folder).is_ok());
    }
}
