//! How long the kernel has been under memory pressure since the start, while it lasts and afterwards. All times in milliseconds.
//!
//! Two things tell: the kernel's time stamp of entry, seen at each look while pressure lasts, and its own sum of the periods that have ended
//! (TCPMemoryPressuresChrono), which a network namespace has for the sockets in it alone. Each misses what the other has: the stamp a
//! period between two looks, the sum what has not ended.

use c1m_record::UnderPressure;

/// A tick of the kernel's clock lies between two readings of the same stamp.
const TICK_MS: f64 = 10.0;

/// What a look saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// The hook that tells is not there.
    Unknown,
    No,
    /// For how long; `None`: the kernel's tick is not known, as for some seconds around five minutes after the boot.
    Yes(Option<f64>),
}

/// The sum so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct PressureClock {
    /// Of the watch, at the last look.
    last_ms: f64,
    /// Time at which looks saw pressure, without any of it twice.
    covered_ms: f64,
    /// Until when that was counted.
    covered_until_ms: f64,
    /// How much of the first period lay before the start; its end brings all of it into the kernel's sum.
    before_start_ms: f64,
    /// The first period, which began before the start, has not ended yet.
    is_first: bool,
    has_looked: bool,
    known: bool,
    now: Option<bool>,
    lasting_ms: Option<f64>,
    /// A period of unknown length was seen.
    unmeasured: bool,
    /// When the present period was first seen, if its length is not known yet.
    unmeasured_at_ms: Option<f64>,
    /// By how much the kernel's sum has grown.
    ended_ms: Option<f64>,
}

impl PressureClock {
    /// Takes a look: `at_ms` after the start, and what the kernel's sum of ended periods has grown by since then.
    pub fn look(&mut self, at_ms: f64, seen: Seen, ended_ms: Option<f64>) {
        let is_start = !std::mem::replace(&mut self.has_looked, true);
        self.last_ms = at_ms;
        self.ended_ms = ended_ms;
        self.known |= seen != Seen::Unknown;
        self.lasting_ms = None;
        self.now = match seen {
            Seen::Unknown => None,
            Seen::No => {
                self.is_first = false;
                self.unmeasured |= self.unmeasured_at_ms.take().is_some();
                Some(false)
            }
            Seen::Yes(lasting) => {
                self.lasting_ms = lasting;
                if lasting.is_none() {
                    self.unmeasured_at_ms.get_or_insert(at_ms);
                }
                if let Some(lasting) = lasting {
                    // The tick can become known while a period lasts. The length of another period says nothing of it.
                    let is_of_another = |seen_ms: f64| seen_ms + TICK_MS < at_ms - lasting;
                    self.unmeasured |= self.unmeasured_at_ms.take().is_some_and(is_of_another);
                    self.cover(at_ms - lasting, at_ms, is_start);
                }
                Some(true)
            }
        };
    }

    fn cover(&mut self, began_ms: f64, at_ms: f64, is_start: bool) {
        if is_start && began_ms < 0.0 {
            (self.before_start_ms, self.is_first) = (-began_ms, true);
        }
        self.is_first &= began_ms <= TICK_MS;
        let from = began_ms.max(self.covered_until_ms).max(0.0);
        self.covered_ms += (at_ms - from).max(0.0);
        self.covered_until_ms = at_ms;
    }

    /// Now, and in all.
    #[must_use]
    pub fn now(&self) -> UnderPressure {
        UnderPressure { now: self.now, lasting_ms: self.lasting_ms, total_ms: self.total_ms() }
    }

    fn total_ms(&self) -> Option<f64> {
        // What has ended by the kernel's own sum, and what lasts.
        let lasts = self.lasting_ms.unwrap_or(0.0).min(self.last_ms);
        let before = if self.is_first { 0.0 } else { self.before_start_ms };
        let by_kernel = self.ended_ms.map(|ended| (ended - before).max(0.0) + lasts);
        let by_looks = (self.known && !self.unmeasured && self.unmeasured_at_ms.is_none())
            .then_some(self.covered_ms);
        match (by_kernel, by_looks) {
            (Some(kernel), Some(looks)) => Some(kernel.max(looks)),
            // Of a period that lasts and can't be measured the kernel's sum says nothing yet.
            (Some(kernel), None) if self.now == Some(false) => Some(kernel),
            (Some(_), None) => None,
            (None, looks) => looks,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_that_is_known_a_moment_later_is_known() {
        // The second began with the look, as far as a tick can tell.
        for lasting in [110.0, 96.0] {
            let late = [(100.0, Seen::Yes(None), None), (200.0, Seen::Yes(Some(lasting)), None)];
            assert_eq!(after(&late[..1]).total_ms, None);
            assert_eq!(after(&late).total_ms, Some(lasting));
        }
        // That of the next period says nothing of one that was over before.
        let another = [(100.0, Seen::Yes(None), None), (200.0, Seen::Yes(Some(50.0)), None)];
        assert_eq!(after(&another).total_ms, None);
        let over = [(100.0, Seen::Yes(None), None), (200.0, Seen::No, None)];
        assert_eq!(after(&over).total_ms, None);
    }

    fn after(looks: &[(f64, Seen, Option<f64>)]) -> UnderPressure {
        let mut clock = PressureClock::default();
        looks.iter().for_each(|(at, seen, ended)| clock.look(*at, *seen, *ended));
        clock.now()
    }

    #[test]
    fn it_is_measured_while_it_lasts() {
        let lasting = after(&[
            (0.0, Seen::No, Some(0.0)),
            (1000.0, Seen::Yes(Some(400.0)), Some(0.0)),
            (2000.0, Seen::Yes(Some(1400.0)), Some(0.0)),
        ]);
        assert_eq!(lasting.now, Some(true));
        assert_eq!((lasting.lasting_ms, lasting.total_ms), (Some(1400.0), Some(1400.0)));
    }

    #[test]
    fn what_ended_is_the_kernels_own_sum() {
        let over = after(&[
            (0.0, Seen::No, Some(0.0)),
            (1000.0, Seen::Yes(Some(400.0)), Some(0.0)),
            // It lasted 900 ms, half of which no look saw; another one of 50 ms came and went.
            (2000.0, Seen::No, Some(950.0)),
        ]);
        assert_eq!((over.now, over.lasting_ms, over.total_ms), (Some(false), None, Some(950.0)));
        let again = after(&[
            (0.0, Seen::No, Some(0.0)),
            (1000.0, Seen::Yes(Some(400.0)), Some(0.0)),
            (2000.0, Seen::Yes(Some(100.0)), Some(900.0)),
        ]);
        assert_eq!(again.total_ms, Some(1000.0));
    }

    #[test]
    fn what_lay_before_the_start_is_not_ours() {
        let began_before = [(0.0, Seen::Yes(Some(5000.0)), Some(0.0))];
        assert_eq!(after(&began_before).total_ms, Some(0.0));
        let lasts = [began_before[0], (1000.0, Seen::Yes(Some(6000.0)), Some(0.0))];
        let lasts_now = after(&lasts);
        assert_eq!((lasts_now.lasting_ms, lasts_now.total_ms), (Some(6000.0), Some(1000.0)));
        // Its end brings all of it into the kernel's sum.
        let over = [lasts[0], lasts[1], (2000.0, Seen::No, Some(6200.0))];
        assert_eq!(after(&over).total_ms, Some(1200.0));
    }

    #[test]
    fn in_another_network_namespace_the_looks_are_what_there_is() {
        let other = after(&[
            (0.0, Seen::No, Some(0.0)),
            (1000.0, Seen::Yes(Some(400.0)), Some(0.0)),
            (2000.0, Seen::No, Some(0.0)),
        ]);
        assert_eq!(other.total_ms, Some(400.0));
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        assert_eq!(after(&[(0.0, Seen::Unknown, None)]), UnderPressure::default());
        let unmeasured = after(&[(0.0, Seen::No, Some(0.0)), (9.0, Seen::Yes(None), Some(0.0))]);
        assert_eq!((unmeasured.now, unmeasured.total_ms), (Some(true), None));
    }

    proptest! {
        /// Never less than nothing, never more than the time of the watch.
        #[test]
        fn the_sum_lies_within_the_watch(looks in prop::collection::vec((1u32..5000, prop::option::of(0u32..20_000)), 1..40)) {
            let (mut clock, mut at) = (PressureClock::default(), 0.0);
            for (step, lasting) in looks {
                clock.look(at, lasting.map_or(Seen::No, |ms| Seen::Yes(Some(f64::from(ms)))), None);
                let total = clock.now().total_ms.unwrap();
                prop_assert!((0.0..=at).contains(&total), "{total} of {at}");
                at += f64::from(step);
            }
        }
    }
}
