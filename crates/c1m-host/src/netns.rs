//! Network namespaces: named by their inode, which is how the kernel's own records name them.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// Inode of the network namespace of this process; `None` without /proc.
#[must_use]
pub fn own() -> Option<u32> {
    at(Path::new("/proc/self/ns/net")).ok()
}

/// Inode of that of another process.
///
/// # Errors
/// There is no such process, or it may not be looked at.
pub fn of(pid: u32) -> io::Result<u32> {
    at(&Path::new("/proc").join(pid.to_string()).join("ns/net"))
}

fn at(path: &Path) -> io::Result<u32> {
    u32::try_from(fs::metadata(path)?.ino()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_its_own() {
        let own = own().unwrap();
        assert_eq!(of(std::process::id()).unwrap(), own);
    }
}
