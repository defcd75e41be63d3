//! Events that did not reach the reader, and calls that no program saw.

use std::{collections::BTreeMap, fs};

use c1m_ebpf::Counters;

/// Events that did not reach the reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// The ring buffer was full, or a return of a function came whose beginning was missed: events
    /// that were no crossings.
    pub ring: u64,
    /// Crossings that found the ring buffer full.
    pub crossings: u64,
    /// By hook: calls that the kernel skipped each of its programs for, since they were running on
    /// that CPU; `None` where it does not tell (before 5.12).
    pub missed: Option<BTreeMap<String, u64>>,
    /// Entries that this version does not understand.
    pub undecoded: u64,
}

impl Lost {
    #[must_use]
    pub fn total(&self) -> u64 {
        let missed = self.missed.iter().flat_map(BTreeMap::values).sum::<u64>();
        self.ring + self.crossings + missed + self.undecoded
    }

    /// Where they were lost; nothing that is 0.
    #[must_use]
    pub fn by(&self) -> BTreeMap<String, u64> {
        let mut by = self.missed.clone().unwrap_or_default();
        by.extend([
            ("ring buffer".into(), self.ring),
            (c1m_record::LOST_CROSSINGS.into(), self.crossings),
            (c1m_record::NOT_UNDERSTOOD.into(), self.undecoded),
        ]);
        by.retain(|_, count| *count > 0);
        by
    }
}

/// The programs of one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    pub(super) program: i32,
    /// `None`: there is none, or the kernel refused it.
    pub(super) backup: Option<i32>,
}

/// How often the kernel skipped the programs of one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skipped {
    first: u64,
    /// `None`: there is no backup program.
    backup: Option<u64>,
}

impl Skipped {
    /// Calls that the first program was skipped for.
    pub(super) fn first(self) -> u64 {
        self.first
    }

    /// Calls that no program saw, when the backup program has taken over as many: exact, but for a
    /// task that was moved to another CPU between the two programs of a function, whose call counts
    /// as taken over too.
    pub(super) fn lost(self, taken_over: u64) -> u64 {
        match self.backup {
            None => self.first,
            // None was lost that one of them was not skipped for.
            Some(backup) => self.first.saturating_sub(taken_over).min(backup),
        }
    }
}

impl Descriptors {
    /// `None`: the kernel does not tell.
    pub(super) fn skipped(self) -> Option<Skipped> {
        let backup = match self.backup {
            Some(backup) => Some(recursion_misses(backup)?),
            None => None,
        };
        Some(Skipped { first: recursion_misses(self.program)?, backup })
    }
}

/// Calls that the backup program of this hook saw in the place of the first one.
pub(super) fn taken_over(counters: &Counters, hook: u32) -> u64 {
    counters.taken_over.get(hook as usize).copied().unwrap_or(0)
}

/// How often the kernel skipped this program because it was running on that CPU already (since
/// 5.12).
fn recursion_misses(program: i32) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{program}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_backup_program_took_over_is_not_lost() {
        let lost = |first, backup, taken_over| Skipped { first, backup }.lost(taken_over);
        assert_eq!(lost(3, Some(0), 3), 0);
        // Each of them was skipped, but never for the same call.
        assert_eq!(lost(5, Some(7), 5), 0);
        assert_eq!(lost(3, Some(2), 2), 1);
        assert_eq!(lost(3, Some(1), 0), 1);
        assert_eq!(lost(2, Some(1), 3), 0);
        // Where there is none.
        assert_eq!(lost(3, None, 0), 3);
    }

    #[test]
    fn lost_events_have_a_place() {
        let one = |name: &str, count| BTreeMap::from([(name.to_owned(), count)]);
        let ring = Lost { ring: 4, ..Lost::default() };
        assert_eq!((ring.total(), ring.by()), (4, one("ring buffer", 4)));
        let crossing = Lost { crossings: 1, ..Lost::default() };
        assert_eq!((crossing.total(), crossing.by()), (1, one(c1m_record::LOST_CROSSINGS, 1)));
        let hooks = BTreeMap::from([("tp_btf/a".to_owned(), 2), ("tp_btf/b".to_owned(), 0)]);
        let skipped = Lost { missed: Some(hooks), ..Lost::default() };
        assert_eq!((skipped.total(), skipped.by()), (2, one("tp_btf/a", 2)));
    }
}
