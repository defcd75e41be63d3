//! Asking connections that are held, and reading whatever comes.

use std::{collections::VecDeque, io, sync::atomic::Ordering::Relaxed};

use c1m_program::http::response::{Malformed, Reader, Response, Rest};
use c1m_sys::errno;

use super::{Report, Worker, micros, open::send_whole};
use crate::{summary::SamplePart, table::Stage, workload::sample};

/// Samples that one worker has under way at the same time.
const SAMPLES_AT_A_TIME: usize = 64;

/// A connection in the middle of something.
#[derive(Debug)]
pub(super) struct Exchange {
    reader: Reader,
    /// `None`: nothing was asked, a response comes in pieces.
    pub(super) ask: Option<Ask>,
}

/// A request whose answer is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) what: What,
    /// An older response has to end first.
    older_first: bool,
    /// Its time runs from here: a sample's when it is sent, a heartbeat's from its planned instant.
    pub(super) since_us: u64,
    /// Took longer than the timeout, and was counted so.
    pub(super) overdue: bool,
}

impl Ask {
    /// One that is sent when the older responses have ended.
    pub(super) fn after(what: What, since_us: u64) -> Self {
        Self { what, older_first: false, since_us, overdue: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Sample,
    Beat {
        /// Beats that have come due since, one an interval after the other.
        behind: u32,
    },
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Beat { .. } => "heartbeat",
        }
    }
}

/// What came of a request whose answer is checked: one of these, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Right { took_us: u64 },
    Wrong,
    Missing,
}

/// A sample that is under way.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    queue: VecDeque<usize>,
    waiting: usize,
    part: SamplePart,
}

impl Worker {
    /// Takes what was read on a connection. `opening`: from the first byte of the answer to its
    /// first request on.
    pub(super) fn consume(&mut self, slot: usize, mut bytes: &[u8], opening: bool) {
        let (mut reader, mut ask, mut expected) = match self.exchanges.remove(&slot) {
            Some(exchange) => (exchange.reader, exchange.ask, true),
            None => match (self.table.stage(slot), self.table.stage(slot).reader()) {
                (stage, Some(reader)) => (reader, None, opening || stage != Stage::Between),
                // Not HTTP, and known to be so.
                (_, None) => return,
            },
        };
        while !bytes.is_empty() {
            let fed = match expected {
                true => reader.feed(bytes),
                false => Err(Malformed::Unasked),
            };
            let response = match fed {
                Ok((rest, response)) => {
                    bytes = rest;
                    response
                }
                Err(why) => {
                    self.table.set_stage(slot, Stage::Opaque);
                    self.malformed(ask.as_ref(), why);
                    return;
                }
            };
            let Some(response) = response else { break };
            ask = self.ended(slot, ask, response);
            expected = ask.is_some();
        }
        if ask.is_none() && reader.rest() == Some(Rest::OpenBody) {
            // A head whose body may never end. It is over, as far as there is anything to wait for.
            self.check_status(reader.status());
        }
        self.apply(slot, reader, ask);
    }

    /// A response has ended. Returns what the connection waits for now.
    fn ended(&mut self, slot: usize, ask: Option<Ask>, response: Response) -> Option<Ask> {
        match ask {
            Some(ask) if ask.older_first => Some(Ask { older_first: false, ..ask }),
            Some(ask) => self.answered(slot, &ask, response),
            None => {
                self.check_status(response.status);
                None
            }
        }
    }

    /// What came is not a response, and nothing after it can be read.
    fn malformed(&mut self, ask: Option<&Ask>, why: Malformed) {
        match ask {
            Some(ask) if !ask.older_first => self.wrong(ask, &why.to_string()),
            _ => {
                self.tally.errors.count(&format!("response {why}"));
                if let Some(ask) = ask {
                    self.count(ask, Answer::Missing);
                }
            }
        }
    }

    /// The peer has ended the connection in order: that may be the end of a body.
    pub(super) fn finish_response(&mut self, slot: usize) {
        let Some(Exchange { reader, ask }) = self.exchanges.remove(&slot) else { return };
        let begun = reader.rest() != Some(Rest::Between);
        match (reader.finish(), ask) {
            // The older response, or none of the ask's own.
            (_, Some(ask)) if ask.older_first || !begun => self.count(&ask, Answer::Missing),
            (Err(why), ask) => self.malformed(ask.as_ref(), why),
            // Nothing more can be sent here.
            (Ok(Some(response)), Some(ask)) => self.judge(&ask, response),
            (Ok(Some(response)), None) => self.check_status(response.status),
            (Ok(None), _) => {}
        }
    }

    /// Keeps what the connection waits for: in a byte, if that can say it.
    fn apply(&mut self, slot: usize, reader: Reader, ask: Option<Ask>) {
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

    /// Sends the request to be checked. `Err`: the connection is not in a state to be asked, or the
    /// kernel did not take it.
    pub(super) fn ask(
        &mut self,
        slot: usize,
        what: What,
        since_us: u64,
    ) -> Result<(), &'static str> {
        if self.table.stage(slot) == Stage::Unread {
            self.read(slot, 0);
        }
        if self.exchanges.get(&slot).is_some_and(|exchange| exchange.ask.is_some()) {
            return Err("not sent: an earlier one is unanswered");
        }
        let fd = self.table.fd(slot).ok_or("not sent: the connection is gone")?;
        let reader = match self.exchanges.remove(&slot) {
            Some(exchange) => exchange.reader,
            None => self.table.stage(slot).reader().ok_or(match self.table.stage(slot) {
                Stage::Opaque => "not sent: after a wrong answer",
                _ => "not sent: the first request is unanswered",
            })?,
        };
        let older_first = reader.rest() != Some(Rest::Between);
        let sent = send_whole(fd, self.shared.workload.check().request());
        let ask = Ask { what, older_first, since_us, overdue: false };
        self.apply(slot, reader, sent.is_ok().then_some(ask));
        sent.map_err(|error: io::Error| errno::of(&error))
    }

    /// The answer is complete. Returns the next request of this connection, which is sent already.
    fn answered(&mut self, slot: usize, ask: &Ask, response: Response) -> Option<Ask> {
        self.judge(ask, response);
        match ask.what {
            What::Sample => None,
            What::Beat { behind } => self.next_beat(slot, ask.since_us, behind),
        }
    }

    /// Checks a complete answer. One that comes after its timeout has been, or is, counted as that.
    fn judge(&mut self, ask: &Ask, response: Response) {
        let took_us = self.now_us().saturating_sub(ask.since_us);
        if took_us > micros(self.shared.timeout) {
            if !ask.overdue {
                self.time_out(ask);
            }
            return;
        }
        match self.shared.workload.check().fault(response) {
            Some(fault) => self.wrong(ask, &fault),
            None => self.count(ask, Answer::Right { took_us }),
        }
    }

    fn wrong(&mut self, ask: &Ask, fault: &str) {
        self.tally.errors.count(&format!("{} {fault}", ask.what.name()));
        self.count(ask, Answer::Wrong);
    }

    fn time_out(&mut self, ask: &Ask) {
        self.tally.errors.count(&format!("{} timeout", ask.what.name()));
        self.count(ask, Answer::Missing);
    }

    /// Counts what came of a request, unless it timed out and was counted then.
    fn count(&mut self, ask: &Ask, answer: Answer) {
        if ask.overdue {
            return;
        }
        if answer == Answer::Wrong {
            self.counters().answers_wrong.fetch_add(1, Relaxed);
        }
        match ask.what {
            What::Sample => self.sampled(answer),
            What::Beat { .. } => self.beaten(answer),
        }
    }

    /// Forgets what a connection that has ended was waiting for.
    pub(super) fn abandon(&mut self, slot: usize) {
        if let Some(ask) = self.exchanges.remove(&slot).and_then(|exchange| exchange.ask) {
            self.count(&ask, Answer::Missing);
        }
    }

    /// Counts the asks that take too long.
    pub(super) fn expire_asks(&mut self, now_us: u64) {
        let timeout_us = micros(self.shared.timeout);
        let mut over = Vec::new();
        for ask in self.exchanges.values_mut().filter_map(|exchange| exchange.ask.as_mut()) {
            if !ask.overdue && now_us.saturating_sub(ask.since_us) > timeout_us {
                over.push(*ask);
                ask.overdue = true;
            }
        }
        for ask in over {
            self.time_out(&ask);
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
            sampling.part.asked += 1;
            sampling.waiting += 1;
            if let Err(why) = self.ask(slot, What::Sample, self.now_us()) {
                self.tally.errors.count(&format!("sample {why}"));
                self.sampled(Answer::Missing);
            }
        }
        if let Some(Sampling { mut part, .. }) =
            self.sampling.take_if(|sampling| sampling.waiting == 0)
        {
            part.times.miss(part.asked - part.answered);
            self.report(Report::Sampled(Box::new(part)));
        }
    }

    /// One of the sample is through.
    fn sampled(&mut self, answer: Answer) {
        let Some(sampling) = self.sampling.as_mut() else { return };
        sampling.waiting -= 1;
        match answer {
            Answer::Right { took_us } => {
                sampling.part.answered += 1;
                sampling.part.times.record(took_us);
            }
            Answer::Wrong => sampling.part.wrong += 1,
            Answer::Missing => {}
        }
    }
}
