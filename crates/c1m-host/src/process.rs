//! Memory of processes.

use std::{fs, io};

/// What this process occupies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident, shared pages in full.
    pub rss_bytes: u64,
    /// Resident, each shared page divided by the processes that share it. `None`: the kernel does
    /// not say.
    pub pss_bytes: Option<u64>,
}

/// Reads /proc/self/smaps_rollup, or /proc/self/statm where a kernel before 4.14 or a sandbox has
/// no such file.
pub fn memory() -> io::Result<Memory> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    match fs::read_to_string("/proc/self/smaps_rollup") {
        Ok(text) => parse_rollup(&text).ok_or_else(invalid),
        Err(_) => {
            let pages =
                parse_statm(&fs::read_to_string("/proc/self/statm")?).ok_or_else(invalid)?;
            let rss_bytes = pages.saturating_mul(c1m_sys::process::page_bytes()?);
            Ok(Memory { rss_bytes, pss_bytes: None })
        }
    }
}

/// PSS of a process, in bytes.
///
/// # Errors
/// It has ended, or belongs to somebody else.
pub fn pss_of(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let memory = parse_rollup(&text).and_then(|memory| memory.pss_bytes);
    memory.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_rollup(text: &str) -> Option<Memory> {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some(Memory {
        rss_bytes: kilobytes("Rss")?.checked_mul(1024)?,
        pss_bytes: kilobytes("Pss").and_then(|kilobytes| kilobytes.checked_mul(1024)),
    })
}

/// The second number is the resident pages.
fn parse_statm(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "\
5581e0f5a000-7ffd2e3f2000 ---p 00000000 00:00 0                          [rollup]
Rss:                2124 kB
Pss:                 691 kB
Pss_Dirty:           104 kB
Shared_Clean:       2020 kB
";

    #[test]
    fn rollup_is_read_by_its_names() {
        let expected = Memory { rss_bytes: 2124 << 10, pss_bytes: Some(691 << 10) };
        assert_eq!(parse_rollup(ROLLUP), Some(expected));
        assert_eq!(parse_rollup(&ROLLUP.replace("Pss:", "X:")).unwrap().pss_bytes, None);
        assert_eq!(parse_rollup(&ROLLUP.replace("kB", "MB")), None);
    }

    #[test]
    fn statm_has_pages() {
        assert_eq!(parse_statm("573 482 430 5 0 91 0\n"), Some(482));
        assert_eq!(parse_statm("573"), None);
    }

    #[test]
    fn this_process_occupies_memory() {
        assert!(memory().unwrap().rss_bytes > 4096);
    }
}
