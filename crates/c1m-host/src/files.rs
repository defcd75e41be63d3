//! The host's table of open files, and the settings that bound a server.

use std::{fs, io, str::FromStr};

use c1m_record::FileNr;

/// /proc/sys/fs/file-nr: open files of the whole host.
pub fn file_nr() -> io::Result<FileNr> {
    parse_file_nr(&fs::read_to_string("/proc/sys/fs/file-nr")?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// net.core.somaxconn: the longest accept queue, of this network namespace. `None`: not to be read.
#[must_use]
pub fn somaxconn() -> Option<u32> {
    number("/proc/sys/net/core/somaxconn")
}

/// net.ipv4.tcp_max_orphans, of the host. `None`: not to be read, as in any other network namespace
/// than the first.
#[must_use]
pub fn tcp_max_orphans() -> Option<u64> {
    number("/proc/sys/net/ipv4/tcp_max_orphans")
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Understands the text of /proc/sys/fs/file-nr.
#[must_use]
pub fn parse_file_nr(text: &str) -> Option<FileNr> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    // The second number, free files, has been 0 since Linux 2.6.
    let (allocated, _free, max) =
        (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(FileNr { allocated, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_nr_has_three_numbers() {
        let expected = FileNr { allocated: 1_025_216, max: 1_048_576 };
        assert_eq!(parse_file_nr("1025216\t0\t1048576\n"), Some(expected));
        // The kernel's own default on 64 bits.
        assert_eq!(parse_file_nr("1 0 9223372036854775807").map(|f| f.max), Some(i64::MAX as u64));
        for wrong in ["", "1 0", "1 0 x", "-1 0 2"] {
            assert_eq!(parse_file_nr(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn this_host_has_open_files() {
        let files = file_nr().unwrap();
        assert!(files.allocated > 0 && files.max >= files.allocated, "{files:?}");
    }
}
