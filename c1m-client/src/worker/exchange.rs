//! Asking connections that are held: samples and heartbeats, and reading whatever comes.

use std::{collections::VecDeque, io, sync::atomic::Ordering::Relaxed, time::Duration};

use c1m_server::sys::errno;

use super::{Report, Worker, micros, open::send_whole};
use crate::{
    http::{Reader, Response, Rest},
    summary::{Beats, Times},
    table::Stage,
    workload::{CHECK_BYTES, sample},
};

/// Samples that one worker has under way at the same time.
const SAMPLES_AT_A_TIME: usize = 64;
/// Heartbeats that are sent before events get their turn.
const BEATS_AT_A_TIME: usize = 64;

/// A connection in the middle of something.
#[derive(Debug)]
pub(super) struct Exchange {
    reader: Reader,
    /// `None`: nothing was asked, a response comes in pieces.
    ask: Option<Ask>,
}

/// A request whose answer is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ask {
    what: What,
    /// An older response has to end first.
    older_first: bool,
    sent_us: u64,
    /// Took longer than the timeout, and was counted so.
    overdue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Sample,
    Beat {
        /// Latency counts from here, so that what an answer makes later ones wait is seen.
        planned_us: u64,
        /// Beats that have come due since, one an interval after the other.
        behind: u32,
    },
}

/// A sample that is under way.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    queue: VecDeque<usize>,
    waiting: usize,
    asked: u64,
    answered: u64,
    times: Times,
}

/// The heartbeats of a worker's connections: slot after slot, and round again.
#[derive(Debug)]
pub(super) struct Beating {
    start_us: u64,
    every_us: u64,
    slots: u64,
    /// How many instants have come due.
    count: u64,
    beats: Beats,
}

impl Beating {
    /// When beat number `count` is due.
    fn due_us(&self, count: u64) -> u64 {
        let offset = u128::from(count) * u128::from(self.every_us) / u128::from(self.slots.max(1));
        self.start_us.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }
}

impl Worker {
    /// Takes what was read on a connection.
    pub(super) fn consume(&mut self, slot: usize, mut bytes: &[u8]) {
        let (mut reader, mut ask) = match self.exchanges.remove(&slot) {
            Some(exchange) => (exchange.reader, exchange.ask),
            None => match self.table.stage(slot).reader() {
                Some(reader) => (reader, None),
                // Not HTTP, and known to be so.
                None => return,
            },
        };
        while !bytes.is_empty() {
            let response = match reader.feed(bytes) {
                Ok((rest, response)) => {
                    bytes = rest;
                    response
                }
                Err(_) => {
                    self.tally.errors.count("response malformed");
                    self.table.set_stage(slot, Stage::Opaque);
                    if let Some(ask) = ask {
                        self.unanswered(&ask);
                    }
                    return;
                }
            };
            let Some(response) = response else { break };
            ask = match ask {
                Some(ask) if ask.older_first => Some(Ask { older_first: false, ..ask }),
                Some(ask) => self.answered(slot, &ask, response),
                None => {
                    self.check_status(response.status);
                    None
                }
            };
        }
        if ask.is_none() && reader.rest() == Some(Rest::OpenBody) {
            // A head whose body may never end. It is over, as far as there is anything to wait for.
            self.check_status(reader.status());
        }
        self.settle(slot, reader, ask);
    }

    /// Keeps what the connection waits for: in a byte, if that can say it.
    fn settle(&mut self, slot: usize, reader: Reader, ask: Option<Ask>) {
        match (reader.rest(), ask) {
            (Some(rest), None) => self.table.set_stage(slot, rest.into()),
            (_, ask) => {
                self.table.set_stage(slot, Stage::Busy);
                self.exchanges.insert(slot, Exchange { reader, ask });
            }
        }
    }

    fn check_status(&mut self, status: u16) {
        if status >= 300 {
            self.tally.errors.count(&format!("status {status}"));
        }
    }

    /// Sends the request to be checked. `Err`: the connection is not in a state to be asked, or the kernel did not take it.
    fn ask(&mut self, slot: usize, what: What, now_us: u64) -> Result<(), &'static str> {
        if self.table.stage(slot) == Stage::Unread {
            self.table.set_stage(slot, Stage::Between);
            self.read(slot, 0);
        }
        let busy = self.exchanges.get(&slot).is_some_and(|exchange| exchange.ask.is_some());
        let fd = self.table.fd(slot).filter(|_| !busy).ok_or("not there")?;
        let reader = match self.exchanges.remove(&slot) {
            Some(exchange) => exchange.reader,
            None => self.table.stage(slot).reader().ok_or("never answered")?,
        };
        let older_first = reader.rest() != Some(Rest::Between);
        let sent = send_whole(fd, self.shared.workload.check());
        let ask = Ask { what, older_first, sent_us: now_us, overdue: false };
        self.settle(slot, reader, sent.is_ok().then_some(ask));
        sent.map_err(|error: io::Error| errno::of(&error))
    }

    /// The answer is complete. Returns the next request of this connection, which is sent already.
    fn answered(&mut self, slot: usize, ask: &Ask, response: Response) -> Option<Ask> {
        let right = response == Response { status: 200, body_bytes: CHECK_BYTES };
        let now_us = self.now_us();
        if !right {
            self.tally.errors.count(match ask.what {
                What::Sample => "sample wrong response",
                What::Beat { .. } => "heartbeat wrong response",
            });
        }
        let (planned_us, behind) = match ask.what {
            What::Sample => {
                if let Some(sampling) = self.sampling.as_mut().filter(|_| right && !ask.overdue) {
                    sampling.times.record(now_us.saturating_sub(ask.sent_us));
                }
                self.sampled(ask, right);
                return None;
            }
            What::Beat { planned_us, behind } => (planned_us, behind),
        };
        let beating = self.beating.as_mut()?;
        if right {
            let took_us = now_us.saturating_sub(planned_us);
            beating.beats.answered += 1;
            beating.beats.late += u64::from(took_us > beating.every_us);
            beating.beats.times.record(took_us);
        }
        let next_us = planned_us + beating.every_us;
        let fd = self.table.fd(slot).filter(|_| behind > 0)?;
        match send_whole(fd, self.shared.workload.check()) {
            Ok(()) => Some(Ask {
                what: What::Beat { planned_us: next_us, behind: behind - 1 },
                older_first: false,
                sent_us: now_us,
                overdue: false,
            }),
            Err(error) => {
                self.tally.errors.count(&format!("heartbeat {}", errno::of(&error)));
                None
            }
        }
    }

    /// The answer will never come.
    fn unanswered(&mut self, ask: &Ask) {
        if ask.what == What::Sample {
            self.sampled(ask, false);
        }
    }

    /// Forgets what a connection that has ended was waiting for.
    pub(super) fn abandon(&mut self, slot: usize) {
        if let Some(ask) = self.exchanges.remove(&slot).and_then(|exchange| exchange.ask) {
            self.unanswered(&ask);
        }
    }

    /// Counts the asks that take too long.
    pub(super) fn expire_asks(&mut self, now_us: u64) {
        let timeout_us = micros(self.shared.timeout);
        let mut over = Vec::new();
        for ask in self.exchanges.values_mut().filter_map(|exchange| exchange.ask.as_mut()) {
            if !ask.overdue && now_us.saturating_sub(ask.sent_us) > timeout_us {
                over.push(*ask);
                ask.overdue = true;
            }
        }
        for ask in over {
            self.tally.errors.count(match ask.what {
                What::Sample => "sample timeout",
                What::Beat { .. } => "heartbeat timeout",
            });
            self.unanswered(&ask);
        }
    }

    pub(super) fn begin_sample(&mut self, wanted: u64, before: u64, held: u64, all: u64) {
        let slots: Vec<usize> = self.table.held().collect();
        let chosen = sample(wanted, before, held, all)
            .filter_map(|position| slots.get(usize::try_from(position).ok()?).copied());
        self.sampling = Some(Sampling { queue: chosen.collect(), ..Sampling::default() });
    }

    /// Asks as many of the sample as may be under way, and reports when all are through.
    pub(super) fn ask_samples(&mut self) {
        while let Some(sampling) = &mut self.sampling {
            if sampling.waiting >= SAMPLES_AT_A_TIME && !self.shared.stalled.load(Relaxed) {
                return;
            }
            let Some(slot) = sampling.queue.pop_front() else { break };
            sampling.asked += 1;
            sampling.waiting += 1;
            if let Err(why) = self.ask(slot, What::Sample, self.now_us()) {
                self.tally.errors.count(&format!("sample {why}"));
                self.sampled(
                    &Ask { what: What::Sample, older_first: false, sent_us: 0, overdue: false },
                    false,
                );
            }
        }
        if let Some(Sampling { asked, answered, times, .. }) =
            self.sampling.take_if(|sampling| sampling.waiting == 0)
        {
            self.report(Report::Sampled { asked, answered, times: Box::new(times) });
        }
    }

    /// One of the sample is through. One that was overdue was counted then.
    fn sampled(&mut self, ask: &Ask, right: bool) {
        if let Some(sampling) = self.sampling.as_mut().filter(|_| !ask.overdue) {
            sampling.waiting -= 1;
            sampling.answered += u64::from(right);
        }
    }

    pub(super) fn begin_beats(&mut self) {
        let Some(every) = self.shared.heartbeat else { return };
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
            let slot = usize::try_from(beating.count % beating.slots.max(1)).ok()?;
            beating.count += 1;
            // A connection that is gone has no heart.
            if self.table.stage(slot).is_held() {
                beating.beats.due += 1;
                self.beat_on(slot, planned_us, now_us);
            }
        }
        Some(Duration::ZERO)
    }

    fn beat_on(&mut self, slot: usize, planned_us: u64, now_us: u64) {
        let ask = self.exchanges.get_mut(&slot).and_then(|exchange| exchange.ask.as_mut());
        if let Some(Ask { what: What::Beat { behind, .. }, .. }) = ask {
            *behind = behind.saturating_add(1);
        } else if let Err(why) = self.ask(slot, What::Beat { planned_us, behind: 0 }, now_us) {
            self.tally.errors.count(&format!("heartbeat {why}"));
        }
    }

    /// Ends the heartbeats. Those that still wait in time for their answer are not counted as due.
    pub(super) fn end_beats(&mut self, now_us: u64) -> Option<Beats> {
        let mut beats = self.beating.take()?.beats;
        let timeout_us = micros(self.shared.timeout);
        let waiting = self.exchanges.values().filter_map(|exchange| exchange.ask).filter(|ask| {
            matches!(ask.what, What::Beat { behind: 0, .. })
                && now_us.saturating_sub(ask.sent_us) <= timeout_us
        });
        beats.due -= waiting.count() as u64;
        Some(beats)
    }
}
