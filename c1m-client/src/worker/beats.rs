//! Heartbeats: planned instants, one connection after the other, and round again.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use c1m_sys::errno;

use super::{
    Worker,
    exchange::{Answer, Ask, What},
    micros,
    open::send_whole,
};
use crate::{summary::Beats, table::Stage};

/// Heartbeats that are sent before events get their turn.
const BEATS_AT_A_TIME: usize = 64;

/// The heartbeats of a worker's connections: slot after slot, and round again.
#[derive(Debug)]
pub(super) struct Beating {
    start_us: u64,
    every_us: u64,
    slots: u64,
    /// How many instants have come.
    count: u64,
    beats: Beats,
}

impl Beating {
    /// When instant number `count` is.
    fn due_us(&self, count: u64) -> u64 {
        let offset = u128::from(count) * u128::from(self.every_us) / u128::from(self.slots.max(1));
        self.start_us.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    fn slot(&self, count: u64) -> usize {
        usize::try_from(count % self.slots.max(1)).unwrap_or(usize::MAX)
    }

    /// How many instants there are up to `until_us`, those that have come included.
    fn instants(&self, until_us: u64) -> u64 {
        let Some(span_us) = until_us.checked_sub(self.start_us) else { return 0 };
        // The first one after it is number n, the least with n * every / slots > span.
        let first_after = ((u128::from(span_us) + 1) * u128::from(self.slots))
            .div_ceil(u128::from(self.every_us.max(1)));
        u64::try_from(first_after).unwrap_or(u64::MAX)
    }

    /// The heartbeats of lost connections that would have come up to `until_us`.
    fn never_sent(&self, until_us: u64, is_lost: impl Fn(usize) -> bool) -> u64 {
        let left = self.instants(until_us).saturating_sub(self.count);
        let (rounds, rest) = (left / self.slots.max(1), left % self.slots.max(1));
        let lost = |from: u64, instants: u64| {
            let is_due = |count: &u64| is_lost(self.slot(*count));
            (from..from.saturating_add(instants)).filter(is_due).count() as u64
        };
        let of_rounds = if rounds > 0 { rounds.saturating_mul(lost(0, self.slots)) } else { 0 };
        of_rounds.saturating_add(lost(self.count, rest))
    }
}

impl Worker {
    pub(super) fn begin_beats(&mut self) {
        let Some(every) = self.shared.heartbeat else { return };
        self.table.begin_hold();
        let slots = self.table.len() as u64;
        let every_us = micros(every);
        // The workers take turns within the distance of two beats.
        let turn = every_us * self.id as u64 / (slots.max(1) * self.shared.crew.workers as u64);
        let start_us = self.now_us() + turn;
        self.beating =
            Some(Beating { start_us, every_us, slots, count: 0, beats: Beats::default() });
    }

    /// Sends the heartbeats that are due. Returns the time to the next one.
    pub(super) fn beat(&mut self) -> Option<Duration> {
        let now_us = self.now_us();
        for _ in 0..BEATS_AT_A_TIME {
            let beating = self.beating.as_mut()?;
            let planned_us = beating.due_us(beating.count);
            if planned_us > now_us {
                return Some(Duration::from_micros(planned_us - now_us));
            }
            let slot = beating.slot(beating.count);
            beating.count += 1;
            match self.table.stage(slot) {
                // Due all the same: a server must not gain by ending connections.
                Stage::Lost => self.due(),
                stage if stage.is_held() => {
                    self.due();
                    self.beat_on(slot, planned_us);
                }
                _ => {}
            }
        }
        Some(Duration::ZERO)
    }

    fn due(&mut self) {
        if let Some(beating) = &mut self.beating {
            beating.beats.due += 1;
            self.counters().beats_due.fetch_add(1, Relaxed);
        }
    }

    fn beat_on(&mut self, slot: usize, planned_us: u64) {
        let ask = self.exchanges.get_mut(&slot).and_then(|exchange| exchange.ask.as_mut());
        if let Some(Ask { what: What::Beat { behind }, .. }) = ask {
            *behind = behind.saturating_add(1);
        } else if let Err(why) = self.ask(slot, What::Beat { behind: 0 }, planned_us) {
            self.tally.errors.count(&format!("heartbeat {why}"));
        }
    }

    /// Counts what came of a heartbeat.
    pub(super) fn beaten(&mut self, answer: Answer) {
        let Some(beating) = &mut self.beating else { return };
        let beats = &mut beating.beats;
        match answer {
            Answer::Right { took_us } => {
                beats.answered += 1;
                beats.late += u64::from(took_us > beating.every_us);
                beats.times.record(took_us);
                self.counters().beats_answered.fetch_add(1, Relaxed);
            }
            Answer::Wrong => beats.wrong += 1,
            // All that is due and neither of the others.
            Answer::Missing => {}
        }
    }

    /// Sends the next of the heartbeats that have come due behind one that is through. Those whose
    /// time is over are missed.
    pub(super) fn next_beat(&mut self, slot: usize, planned_us: u64, behind: u32) -> Option<Ask> {
        let (now_us, timeout_us) = (self.now_us(), micros(self.shared.timeout));
        let every_us = self.beating.as_ref()?.every_us;
        let mut next = (1..=behind).map(|n| (planned_us + every_us * u64::from(n), behind - n));
        let (since_us, behind) =
            next.find(|(planned_us, _)| now_us.saturating_sub(*planned_us) <= timeout_us)?;
        let fd = self.table.fd(slot)?;
        match send_whole(fd, self.shared.workload.check().request()) {
            Ok(()) => Some(Ask::after(What::Beat { behind }, since_us)),
            Err(error) => {
                self.tally.errors.count(&format!("heartbeat {}", errno::of(&error)));
                None
            }
        }
    }

    /// Ends the heartbeats, at `end_us`. Those that could still be answered in time are not counted
    /// as due; those of lost connections are due up to `plan_until_us`.
    pub(super) fn end_beats(&mut self, end_us: u64, plan_until_us: u64) -> Option<Beats> {
        let mut beating = self.beating.take()?;
        let timeout_us = micros(self.shared.timeout);
        let in_time = |planned_us: u64| end_us.saturating_sub(planned_us) <= timeout_us;
        let waiting = self.exchanges.values().filter_map(|exchange| exchange.ask).map(|ask| {
            let What::Beat { behind } = ask.what else { return 0 };
            let planned = |n: &u32| ask.since_us + beating.every_us * u64::from(*n);
            (0..=behind).filter(|n| in_time(planned(n))).count() as u64
        });
        beating.beats.due -= waiting.sum::<u64>();
        // What the client itself was late to send.
        while beating.due_us(beating.count) <= end_us {
            let (slot, planned_us) = (beating.slot(beating.count), beating.due_us(beating.count));
            let stage = self.table.stage(slot);
            let is_missed = stage.is_held() && !in_time(planned_us);
            beating.beats.due += u64::from(is_missed || stage == Stage::Lost);
            beating.count += 1;
        }
        let is_lost = |slot| self.table.stage(slot) == Stage::Lost;
        beating.beats.due += beating.never_sent(plan_until_us, is_lost);
        let beats = &mut beating.beats;
        beats.times.miss(beats.due - beats.answered);
        Some(beating.beats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_lost_connections_are_counted_as_they_would_have_come() {
        for (every_us, slots, count, until_us) in [
            (1000, 3, 0, 5000),
            (1000, 3, 7, 4999),
            (10, 64, 100, 1234),
            (7, 5, 3, 400),
            (9, 1, 0, 90),
        ] {
            let beating = Beating { start_us: 50, every_us, slots, count, beats: Beats::default() };
            let is_lost = |slot: usize| slot % 3 != 1;
            let all = (0..).take_while(|count| beating.due_us(*count) <= until_us);
            let one_by_one: Vec<u64> = all.collect();
            assert_eq!(beating.instants(until_us), one_by_one.len() as u64, "{beating:?}");
            let lost = one_by_one.iter().filter(|n| **n >= count && is_lost(beating.slot(**n)));
            assert_eq!(beating.never_sent(until_us, is_lost), lost.count() as u64, "{beating:?}");
            assert_eq!(beating.never_sent(49, is_lost), 0);
        }
    }
}
