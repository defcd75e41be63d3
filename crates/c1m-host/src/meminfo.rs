//! How much memory the host has left.

use std::{fs, io};

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
    /// Neither free nor page cache: what programs and the kernel hold. Not the rest of
    /// `available_bytes`, which takes half of the sockets' inodes and dentries for reclaimable
    /// though nobody can reclaim one that is open.
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

    proptest! {
        #[test]
        fn text_without_the_total_is_refused(text in "(MemTotal|MemAvailable|Slab|:| |kB|[0-9]{0,22}|\n|\\PC)*") {
            prop_assert!(parse(&text).is_err() || text.contains("MemTotal:"), "{text:?}");
        }
    }
}
