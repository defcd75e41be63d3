//! How many CPUs there are, and what each may hold of tcp_mem.

use std::fs;

/// Pages that a CPU may hold by itself where no setting says so: include/net/sock.h, `SK_MEMORY_PCPU_RESERVE`, 6.0 to 6.5, and the default of
/// net.core.mem_pcpu_rsv since. Past it they go to the common counter, so that one less stays.
const RESERVE_PAGES: u64 = 256;

/// CPUs that are online, whichever of them this process may run on: each has its own part of the kernel's counters.
#[must_use]
pub fn online() -> Option<u64> {
    count(&fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// So many pages all CPUs that are online may hold outside of the kernel's counter, in either direction.
#[must_use]
pub fn reserve_pages() -> Option<u64> {
    let each = fs::read_to_string("/proc/sys/net/core/mem_pcpu_rsv")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(RESERVE_PAGES);
    Some(online()? * each.saturating_sub(1))
}

/// `0-3,8`: five.
fn count(list: &str) -> Option<u64> {
    list.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + (last + 1).checked_sub(first)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_counted() {
        assert_eq!(count("0-3,8\n"), Some(5));
        assert_eq!(count("0"), Some(1));
        assert_eq!((count(""), count("3-1"), count("a")), (None, None, None));
    }

    #[test]
    fn this_host_has_cpus() {
        assert!(reserve_pages().unwrap() > 0);
    }
}
