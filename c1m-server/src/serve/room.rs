//! How much room a descriptor table has, in the coarse steps in which the group of workers is told about it. Pure.

/// Steps of room: 0 is more than the margin, each further step is half of what the one before had at least.
pub(super) type Step = u8;

/// No descriptor is left.
pub(super) const FULL: Step = Step::MAX;

/// Tells when a worker's room has changed enough to be worth telling the others.
#[derive(Debug)]
pub(super) struct Room {
    table: u64,
    margin: u64,
    step: Step,
}

fn step_of(free: u64, margin: u64) -> Step {
    if free == 0 {
        return FULL;
    }
    let mut step = 0;
    while free <= margin.checked_shr(u32::from(step)).unwrap_or(0) {
        step += 1;
    }
    step
}

impl Room {
    pub(super) fn new(table: u64, margin: u64) -> Self {
        Self { table, margin, step: 0 }
    }

    /// The table turned out to hold no more than this.
    pub(super) fn shrink_to(&mut self, held: u64) {
        self.table = self.table.min(held);
    }

    /// The limit of open files was changed: the table holds so many from now on.
    pub(super) fn resize(&mut self, table: u64) {
        self.table = table;
    }

    /// The table now holds `held` connections. `Some`: tell the group this step.
    ///
    /// Less room is told at once; more room only when there is twice what the better step asks for, so that a worker at
    /// a border does not flutter.
    pub(super) fn update(&mut self, held: u64) -> Option<Step> {
        let free = self.table.saturating_sub(held);
        let worse = step_of(free, self.margin);
        let better = step_of(free / 2, self.margin);
        let step = if worse > self.step {
            worse
        } else if better < self.step {
            better
        } else {
            return None;
        };
        self.step = step;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_halve() {
        let steps: Vec<Step> = [101, 100, 51, 50, 26, 25, 2, 1, 0].map(|f| step_of(f, 100)).into();
        assert_eq!(steps, [0, 1, 1, 2, 2, 3, 6, 7, FULL]);
    }

    #[test]
    fn a_worker_leaves_at_the_margin_and_comes_back_with_twice_as_much() {
        let mut room = Room::new(1000, 100);
        assert_eq!(room.update(899), None);
        assert_eq!(room.update(900), Some(1));
        assert_eq!(room.update(899), None);
        assert_eq!(room.update(799), None);
        assert_eq!(room.update(798), Some(0));
        assert_eq!(room.update(1000), Some(FULL));
        assert_eq!(room.update(999), None);
        room.shrink_to(999);
        assert_eq!(room.update(998), None);
        assert_eq!(room.update(997), Some(7));
        assert_eq!(room.update(0), Some(0));
        assert_eq!(room.update(999), Some(FULL));
        room.resize(2000);
        assert_eq!(room.update(999), Some(0));
    }

    proptest! {
        #[test]
        fn a_worker_told_to_have_room_has_it(held in proptest::collection::vec(0u64..=500, 1..200)) {
            let mut room = Room::new(500, 60);
            for held in held {
                room.update(held);
                let free = 500 - held;
                prop_assert!(room.step != FULL || free < 2);
                prop_assert!(room.step > 0 || free > 60);
            }
        }
    }
}
