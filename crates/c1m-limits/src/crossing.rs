//! When did tcp_mem usage go past one of its limits? Turns readings of the kernel's counter into crossings.
//!
//! The readings come from many places: from kernel programs, each CPU through a queue of its own, and from a poll once an
//! interval. So they come late, and out of order; each says when it was taken.

use std::{array, iter::Flatten};

use c1m_record::{Direction, Level};

/// From the lowest limit up, as in the sysctl.
pub const LEVELS: [Level; 3] = [Level::Low, Level::Pressure, Level::High];

/// One reading of `proto->memory_allocated` and `sysctl_tcp_mem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// When it was taken, in nanoseconds of CLOCK_MONOTONIC: the clock of bpf_ktime_get_ns(). A reader in user space takes
    /// the time before it reads, so that what happens meanwhile counts as newer.
    pub at_ns: u64,
    pub pages: u64,
    /// low, pressure, high, in pages. Nothing makes the kernel's administrator choose them in ascending order.
    pub limits: [u64; 3],
}

impl Usage {
    /// Of each level: whether usage is past it. As the kernel has it: equal is not past, and both are signed (net/core/sock.c,
    /// __sk_mem_raise_allocated, 6.18), so that a limit written as 2^63 or more is below everything.
    fn past(&self) -> [bool; 3] {
        self.limits.map(|limit| is_past(self.pages, limit))
    }
}

fn is_past(pages: u64, limit: u64) -> bool {
    pages.cast_signed() > limit.cast_signed()
}

/// Usage came to be on the other side of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    pub level: Level,
    pub direction: Direction,
    /// The limit that is crossed, as the newer reading has it.
    pub limit_pages: u64,
    /// Under the limit of the reading before, these pages would not have crossed: the sysctl was written.
    pub limit_moved: bool,
}

/// The crossings between one reading and the next: down from the highest level, then up from the lowest. Both directions
/// come together only when limits were moved.
pub type Steps = Flatten<array::IntoIter<Option<Crossing>, 6>>;

/// What was observed so far.
#[derive(Debug, Clone, Default)]
pub struct Crossings {
    last: Option<Usage>,
    past: [bool; 3],
    ups: [u64; 3],
    downs: [u64; 3],
    stale: u64,
}

impl Crossings {
    /// Begins where usage is now. What it is past already was crossed before anybody looked, so it is not a crossing.
    /// `Crossings::default()` begins below all limits, and its first reading can cross them.
    pub fn starting_at(usage: Usage) -> Self {
        Self { last: Some(usage), past: usage.past(), ..Self::default() }
    }

    /// Takes a reading, and answers what it crossed since the newest one so far. One that is older than that is counted as
    /// stale and changes nothing: what it would say has already been said, or was passed over. Of two that were taken at the
    /// same time, the one that comes later counts.
    ///
    /// Before a poll is observed, the kernel programs' queues are to be drained: else the poll gets the crossing, and the
    /// more exact reading that lies in a queue comes too late.
    pub fn observe(&mut self, usage: Usage) -> Steps {
        let mut steps = [None; 6];
        if self.last.is_some_and(|last| usage.at_ns < last.at_ns) {
            self.stale += 1;
            return steps.into_iter().flatten();
        }
        let past = usage.past();
        for (index, level) in LEVELS.into_iter().enumerate() {
            if past[index] == self.past[index] {
                continue;
            }
            // The way down is listed from the highest level on, the way up behind it.
            let (direction, count, place) = if past[index] {
                (Direction::Up, &mut self.ups[index], 3 + index)
            } else {
                (Direction::Down, &mut self.downs[index], 2 - index)
            };
            *count += 1;
            let limit_moved = self
                .last
                .is_some_and(|last| is_past(usage.pages, last.limits[index]) == self.past[index]);
            let limit_pages = usage.limits[index];
            steps[place] = Some(Crossing { level, direction, limit_pages, limit_moved });
        }
        self.past = past;
        self.last = Some(usage);
        steps.into_iter().flatten()
    }

    /// How many of the limits usage is past, by the newest reading: 0 to 3. With limits in ascending order 1 is past low, 2
    /// past pressure and 3 past high.
    pub fn zone(&self) -> usize {
        self.past.iter().filter(|past| **past).count()
    }

    /// Whether usage is past that level, by the newest reading.
    pub fn is_past(&self, level: Level) -> bool {
        self.past[level as usize]
    }

    /// Crossings of that level in that direction.
    pub fn count(&self, level: Level, direction: Direction) -> u64 {
        match direction {
            Direction::Up => self.ups[level as usize],
            Direction::Down => self.downs[level as usize],
        }
    }

    /// Readings that came after a newer one.
    pub fn stale(&self) -> u64 {
        self.stale
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: [u64; 3] = [100, 200, 300];

    fn usage(at_ns: u64, pages: u64, limits: [u64; 3]) -> Usage {
        Usage { at_ns, pages, limits }
    }

    /// Levels with their directions, `!` behind those for which the limit moved.
    fn observe(crossings: &mut Crossings, at_ns: u64, pages: u64, limits: [u64; 3]) -> String {
        let steps = crossings.observe(usage(at_ns, pages, limits)).map(|step| {
            assert_eq!(step.limit_pages, limits[step.level as usize]);
            let moved = if step.limit_moved { "!" } else { "" };
            format!("{:?} {:?}{moved}", step.level, step.direction)
        });
        steps.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn equal_is_not_past() {
        let mut crossings = Crossings::default();
        assert_eq!(observe(&mut crossings, 1, 100, LIMITS), "");
        assert_eq!(crossings.zone(), 0);
        assert_eq!(observe(&mut crossings, 2, 101, LIMITS), "Low Up");
        assert_eq!(crossings.zone(), 1);
        assert_eq!(observe(&mut crossings, 3, 150, LIMITS), "");
        assert_eq!(observe(&mut crossings, 4, 100, LIMITS), "Low Down");
        assert_eq!(crossings.zone(), 0);
    }

    #[test]
    fn a_jump_crosses_each_level_in_order() {
        let mut crossings = Crossings::default();
        assert_eq!(observe(&mut crossings, 1, 301, LIMITS), "Low Up, Pressure Up, High Up");
        assert_eq!(observe(&mut crossings, 2, 150, LIMITS), "High Down, Pressure Down");
        assert_eq!(observe(&mut crossings, 3, 250, LIMITS), "Pressure Up");
        assert_eq!(observe(&mut crossings, 4, 0, LIMITS), "Pressure Down, Low Down");
        assert_eq!(crossings.count(Level::Pressure, Direction::Up), 2);
        assert_eq!(crossings.count(Level::Pressure, Direction::Down), 2);
        assert_eq!(crossings.count(Level::High, Direction::Up), 1);
        assert_eq!(crossings.count(Level::Low, Direction::Down), 1);
    }

    #[test]
    fn late_readings_change_nothing() {
        let mut crossings = Crossings::default();
        assert_eq!(observe(&mut crossings, 10, 150, LIMITS), "Low Up");
        assert_eq!(observe(&mut crossings, 9, 350, LIMITS), "");
        assert_eq!((crossings.zone(), crossings.stale()), (1, 1));
        assert_eq!(observe(&mut crossings, 10, 250, LIMITS), "Pressure Up");
        assert_eq!((crossings.zone(), crossings.stale()), (2, 1));
    }

    #[test]
    fn what_is_past_at_the_start_was_not_crossed() {
        let mut crossings = Crossings::starting_at(usage(5, 250, LIMITS));
        assert_eq!(crossings.zone(), 2);
        assert!(crossings.is_past(Level::Pressure) && !crossings.is_past(Level::High));
        assert_eq!(observe(&mut crossings, 4, 0, LIMITS), "");
        assert_eq!(observe(&mut crossings, 6, 301, LIMITS), "High Up");
        assert_eq!(observe(&mut crossings, 7, 0, LIMITS), "High Down, Pressure Down, Low Down");
        assert_eq!(crossings.count(Level::Low, Direction::Up), 0);
    }

    #[test]
    fn a_moved_limit_is_told_from_moved_usage() {
        let mut crossings = Crossings::default();
        assert_eq!(observe(&mut crossings, 1, 250, LIMITS), "Low Up, Pressure Up");
        assert_eq!(observe(&mut crossings, 2, 250, [100, 260, 300]), "Pressure Down!");
        // Usage rises past low's old limit and past pressure's new one only.
        let mut crossings = Crossings::default();
        assert_eq!(observe(&mut crossings, 1, 50, LIMITS), "");
        assert_eq!(observe(&mut crossings, 2, 150, [90, 120, 300]), "Low Up, Pressure Up!");
        // A limit that moves away while usage crosses where it was: nothing is crossed.
        assert_eq!(observe(&mut crossings, 3, 350, [90, 120, 400]), "");
    }

    #[test]
    fn hostile_limits() {
        let mut crossings = Crossings::default();
        let equal = [200, 200, 200];
        assert_eq!(observe(&mut crossings, 1, 200, equal), "");
        assert_eq!(observe(&mut crossings, 2, 201, equal), "Low Up, Pressure Up, High Up");
        assert_eq!(observe(&mut crossings, 3, 200, equal), "High Down, Pressure Down, Low Down");

        let decreasing = [300, 200, 100];
        assert_eq!(observe(&mut crossings, 4, 150, decreasing), "High Up!");
        assert!(crossings.is_past(Level::High) && !crossings.is_past(Level::Low));
        assert_eq!(crossings.zone(), 1);
        assert_eq!(observe(&mut crossings, 5, 350, decreasing), "Low Up, Pressure Up");
        assert_eq!(observe(&mut crossings, 6, 150, LIMITS), "High Down!, Pressure Down");
        assert_eq!(observe(&mut crossings, 7, 150, decreasing), "Low Down!, High Up!");

        // The kernel's limits are signed: this one is negative there.
        let mut crossings = Crossings::default();
        assert_eq!(
            observe(&mut crossings, 1, 0, [u64::MAX, 0, i64::MAX.cast_unsigned()]),
            "Low Up"
        );
    }

    fn readings() -> impl Strategy<Value = Vec<Usage>> {
        let limit = prop_oneof![0u64..20, Just(u64::MAX)];
        let one = (
            0u64..50,
            0u64..25,
            prop_oneof![Just([5, 10, 15]).boxed(), [limit.clone(), limit.clone(), limit].boxed()],
        );
        prop::collection::vec(one.prop_map(|(at, pages, limits)| usage(at, pages, limits)), 0..60)
    }

    proptest! {
        #[test]
        fn the_newest_reading_decides(readings in readings(), first: Option<prop::sample::Index>) {
            let first = first.filter(|_| !readings.is_empty()).map(|index| *index.get(&readings));
            let mut crossings = first.map_or_else(Crossings::default, Crossings::starting_at);
            let at_start = LEVELS.map(|level| crossings.is_past(level));
            let mut newest = first;
            let mut stale = 0;
            for reading in &readings {
                let before = LEVELS.map(|level| crossings.is_past(level));
                let steps: Vec<_> = crossings.observe(*reading).collect();
                if newest.is_some_and(|newest| newest.at_ns > reading.at_ns) {
                    stale += 1;
                    prop_assert!(steps.is_empty());
                } else {
                    newest = Some(*reading);
                }
                for level in LEVELS {
                    let of_level: Vec<_> = steps.iter().filter(|step| step.level == level).collect();
                    let changed = before[level as usize] != crossings.is_past(level);
                    prop_assert_eq!(of_level.len(), usize::from(changed));
                    for step in of_level {
                        prop_assert_eq!(step.direction == Direction::Up, crossings.is_past(level));
                    }
                }
            }
            let expected = newest.map_or([false; 3], |newest| {
                newest.limits.map(|limit| i128::from(newest.pages) > i128::from(limit.cast_signed()))
            });
            prop_assert_eq!(LEVELS.map(|level| crossings.is_past(level)), expected);
            prop_assert_eq!(crossings.zone(), expected.iter().filter(|past| **past).count());
            prop_assert_eq!(crossings.stale(), stale);
            for level in LEVELS {
                let start = u64::from(at_start[level as usize]);
                let ups = start + crossings.count(level, Direction::Up);
                let past = ups - crossings.count(level, Direction::Down);
                prop_assert_eq!(past, u64::from(crossings.is_past(level)));
            }
        }

        /// With fixed limits, a change of the limits is never the reason.
        #[test]
        fn fixed_limits_have_not_moved(pages in prop::collection::vec(0u64..400, 0..60)) {
            let mut crossings = Crossings::default();
            for (at, pages) in (0..).zip(pages) {
                for step in crossings.observe(usage(at, pages, LIMITS)) {
                    prop_assert!(!step.limit_moved);
                }
            }
        }

        /// With fixed usage, it is always the reason.
        #[test]
        fn fixed_usage_has_not_moved(limits in prop::collection::vec([0u64..20, 0u64..20, 0u64..20], 1..60)) {
            let mut crossings = Crossings::starting_at(usage(0, 10, limits[0]));
            for (at, limits) in (1..).zip(limits) {
                for step in crossings.observe(usage(at, 10, limits)) {
                    prop_assert!(step.limit_moved);
                }
            }
        }
    }
}
