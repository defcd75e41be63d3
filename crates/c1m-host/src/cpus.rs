//! How many CPUs there are, and how many pages of tcp_mem they may hold.

use std::fs;

/// Pages of tcp_mem that a CPU collects before it hands them to the common counter, where no
/// setting says how many: include/net/sock.h, `SK_MEMORY_PCPU_RESERVE`, 6.0 to 6.5, and the default
/// of net.core.mem_pcpu_rsv since.
const BATCH_PAGES: u64 = 256;

/// CPUs that are online, whether this process may run on them or not: each has its own part of the
/// kernel's counters.
#[must_use]
pub fn online() -> Option<u64> {
    count(&fs::read_to_string("/proc/stat").ok()?)
}

/// The CPUs in a text of /proc/stat: lines `cpu0 …` and so on.
#[must_use]
pub fn count(stat: &str) -> Option<u64> {
    let number = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    Some(stat.lines().filter(number).count() as u64).filter(|count| *count > 0)
}

/// Pages that all CPUs together may hold outside of the kernel's counter, in either direction.
#[must_use]
pub fn reserve_pages() -> Option<u64> {
    let batch = fs::read_to_string("/proc/sys/net/core/mem_pcpu_rsv").ok();
    Some(reserve(batch.and_then(|text| text.trim().parse().ok()), online()?))
}

/// The same from net.core.mem_pcpu_rsv, where the kernel has it: each CPU holds less than a batch.
#[must_use]
pub fn reserve(batch_pages: Option<u64>, cpus: u64) -> u64 {
    batch_pages.unwrap_or(BATCH_PAGES).saturating_sub(1).saturating_mul(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cpus_are_counted_and_the_sum_of_all_is_not() {
        assert_eq!(count("cpu  1 2\ncpu0 1 2\ncpu10 1 2\nintr 5\n"), Some(2));
        assert_eq!((count(""), count("cpu  1 2\n")), (None, None));
    }

    #[test]
    fn a_cpu_holds_less_than_a_batch() {
        assert_eq!((reserve(Some(64), 2), reserve(None, 2), reserve(Some(0), 2)), (126, 510, 0));
        assert!(reserve_pages().unwrap() > 0);
    }
}
