//! Heartbeats: planned instants, one connection after the other, and round again.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use c1m_sys::errno;

use super::{
    Report, Worker,
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
    /// The planned end of the hold, which has no instant any more. `u64::MAX`: it has no end.
    until_us: u64,
    every_us: u64,
    slots: u64,
    /// How many instants have come.
    count: u64,
    beats: Beats,
    /// It was reported that none waits for an answer any more.
    is_over: bool,
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

    /// How many instants the plan has up to `until_us`, those that have come included.
    fn instants(&self, until_us: u64) -> u64 {
        let last_us = until_us.min(self.until_us.saturating_sub(1));
        let Some(span_us) = last_us.checked_sub(self.start_us) else { return 0 };
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
    /// Plans heartbeats from `began_us` until just before `until_us`, for all workers the same.
    pub(super) fn begin_beats(&mut self, began_us: u64, until_us: u64) {
        let Some(every) = self.shared.heartbeat else { return };
        self.table.begin_hold();
        let slots = self.table.len() as u64;
        let every_us = micros(every);
        // The workers take turns within the distance of two beats.
        let turn = every_us * self.id as u64 / (slots.max(1) * self.shared.crew.workers as u64);
        self.beating = Some(Beating {
            start_us: began_us + turn,
            until_us,
            every_us,
            slots,
            count: 0,
            beats: Beats::default(),
            is_over: false,
        });
    }

    /// Sends the heartbeats that are due. Returns the time to the next one; `None`: there is none.
    pub(super) fn beat(&mut self) -> Option<Duration> {
        let now_us = self.now_us();
        for _ in 0..BEATS_AT_A_TIME {
            let beating = self.beating.as_mut()?;
            let planned_us = beating.due_us(beating.count);
            if planned_us >= beating.until_us {
                return None;
            }
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

    /// After the last heartbeat of the plan: counts those that may still be answered in time, and reports when none is left.
    pub(super) fn look_for_last_answers(&mut self) {
        let (now_us, timeout_us) = (self.now_us(), micros(self.shared.timeout));
        let Some(beating) = &mut self.beating else { return };
        if beating.is_over || beating.due_us(beating.count) < beating.until_us {
            return;
        }
        let waits = |ask: &Ask| match ask.what {
            What::Beat { behind } => {
                let last_us = ask.since_us + beating.every_us * u64::from(behind);
                now_us.saturating_sub(last_us) <= timeout_us
            }
            What::Sample => false,
        };
        let asks = self.exchanges.values().filter_map(|exchange| exchange.ask.as_ref());
        let waiting = asks.filter(|ask| waits(ask)).count() as u64;
        beating.is_over = waiting == 0;
        self.counters().beats_waiting.store(waiting, Relaxed);
        if waiting == 0 {
            self.report(Report::BeatsOver);
        }
    }

    /// Ends the heartbeats, at `end_us`. Those that could still be answered in time are not counted as due: there are none unless the
    /// run ends early. Those of lost connections are due up to `plan_until_us`.
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
        while beating.count < beating.instants(end_us) {
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

    fn beating(every_us: u64, slots: u64, count: u64, until_us: u64) -> Beating {
        let beats = Beats::default();
        Beating { start_us: 50, until_us, every_us, slots, count, beats, is_over: false }
    }

    #[test]
    fn a_plan_has_hold_by_interval_instants_a_connection() {
        for (every_us, slots, hold_us, expected) in
            [(500, 50, 6000, 600), (700, 3, 1000, 5), (10_000, 10, 1000, 1), (10, 4, 0, 0)]
        {
            let beating = beating(every_us, slots, 0, 50 + hold_us);
            for until_us in [50 + hold_us, 50 + 2 * hold_us, u64::MAX] {
                assert_eq!(beating.instants(until_us), expected, "{beating:?}");
            }
            assert_eq!(beating.instants(49), 0);
            assert!(beating.due_us(expected) >= beating.until_us, "{beating:?}");
        }
    }

    #[test]
    fn instants_of_lost_connections_are_counted_as_they_would_have_come() {
        for (every_us, slots, count, until_us) in [
            (1000, 3, 0, 5000),
            (1000, 3, 7, 4999),
            (10, 64, 100, 1234),
            (7, 5, 3, 400),
            (9, 1, 0, 90),
        ] {
            let beating = beating(every_us, slots, count, u64::MAX);
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
