//! /proc/vmstat: what the host did for want of memory.

use std::fs;

/// Since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vmstat {
    /// Processes ended by the OOM killer, for the host or for a cgroup. `None`: before Linux 4.13.
    pub oom_kill: Option<u64>,
    /// Allocations that had to free memory of the host first, all zones together. A cgroup's do not
    /// count.
    pub allocstall: u64,
}

/// `None`: /proc/vmstat is not to be read.
#[must_use]
pub fn read() -> Option<Vmstat> {
    Some(parse(&fs::read_to_string("/proc/vmstat").ok()?))
}

fn parse(text: &str) -> Vmstat {
    let mut found = Vmstat::default();
    for line in text.lines() {
        let Some((name, Ok(count))) = line.split_once(' ').map(|(n, c)| (n, c.parse::<u64>()))
        else {
            continue;
        };
        if name == "oom_kill" {
            found.oom_kill = Some(count);
        } else if name.starts_with("allocstall") {
            found.allocstall = found.allocstall.saturating_add(count);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_summed() {
        let text = "nr_free_pages 9\nallocstall_dma 1\nallocstall_normal 2\noom_kill 4\n";
        assert_eq!(parse(text), Vmstat { oom_kill: Some(4), allocstall: 3 });
        assert_eq!(parse("allocstall 5\n"), Vmstat { oom_kill: None, allocstall: 5 });
    }

    #[test]
    fn the_running_kernel_has_it() {
        assert!(read().is_some_and(|vmstat| vmstat.oom_kill.is_some()));
    }
}
