//! What goes by the clock and by the workers' counters: progress, silence, losses, and that nothing
//! is left to hold.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::{Acquire, Relaxed},
    time::{Duration, Instant},
};

use c1m_host::listeners::{self, Listener};

use super::{Phase, Run};
use crate::{
    prepare::{Failure, warn},
    record::{AcceptQueue, ClientRecord, EndedBy, Lost, Progress, Waiting},
    summary::Errors,
    target::Target,
};

/// Time between two `progress` records, and between two `lost` ones, at least.
const PERIOD: Duration = Duration::from_secs(1);

/// Losses that workers have reported.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Not told yet, by name.
    untold: Errors,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) fn add(&mut self, lost: Errors) {
        self.untold.add(lost);
    }

    /// How long to wait before the next `lost` record. `None`: there is nothing to tell.
    pub(super) fn wait(&self) -> Option<Duration> {
        let since = self.told_at.map_or(PERIOD, |at| at.elapsed());
        (!self.untold.is_empty()).then(|| PERIOD.saturating_sub(since))
    }

    fn take(&mut self) -> Option<BTreeMap<String, u64>> {
        self.told_at = Some(Instant::now());
        Some(std::mem::take(&mut self.untold).into_inner()).filter(|lost| !lost.is_empty())
    }
}

impl Run<'_> {
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        if self.phase != Phase::End && self.losses.wait() == Some(Duration::ZERO) {
            self.show_losses()?;
        }
        match self.phase {
            Phase::Wait if Instant::now() >= self.shared.start => self.start()?,
            Phase::Ramp => {
                self.show_progress()?;
                self.look_for_answers()?;
            }
            Phase::Sample => self.look_for_answers()?,
            Phase::Hold => {
                let over = match self.hold_until {
                    Some(end) => Instant::now() >= end,
                    // A hold without an end only prints, and nobody reads any more.
                    None => self.show.is_closed(),
                };
                match self.nothing_left() {
                    Some(ended_by) => self.begin_end(ended_by)?,
                    // What is still unanswered is neither answered nor missed yet.
                    None if over && self.hold_until.is_some() => self.look_for_last_answers()?,
                    None if over => self.begin_end(EndedBy::Hold)?,
                    None => {}
                }
            }
            Phase::LastAnswers => match self.nothing_left() {
                Some(ended_by) => self.begin_end(ended_by)?,
                None => self.look_for_last_answers()?,
            },
            Phase::Wait | Phase::End => {}
        }
        Ok(())
    }

    /// After the time of the hold: waits until each heartbeat is answered or its `--timeout` is over, and says so when that takes long.
    fn look_for_last_answers(&mut self) -> Result<(), Failure> {
        let shared = &self.shared;
        if shared.heartbeat.is_none() || self.beats_over == self.members.len() {
            return self.begin_end(EndedBy::Hold);
        }
        self.phase = Phase::LastAnswers;
        let waiting = shared.sum(|counters| &counters.beats_waiting);
        let since = self.hold_until.map_or(Duration::ZERO, |until| until.elapsed());
        if !self.waiting_told && since >= PERIOD && waiting > 0 {
            self.waiting_told = true;
            warn(&format!(
                "the time of --hold is over, and heartbeats of {waiting} connections are unanswered: waiting for each until its --timeout ({}) is over; a signal ends the wait",
                humantime::format_duration(shared.timeout)
            ));
        }
        Ok(())
    }

    /// Why there is nothing to hold. `None`: there is something.
    fn nothing_left(&self) -> Option<EndedBy> {
        let sum = |counter: fn(&_) -> &_| self.shared.sum(counter);
        match (sum(|counters| &counters.held), sum(|counters| &counters.established)) {
            (0, 0) => Some(EndedBy::NoneConnected),
            (0, _) => Some(EndedBy::AllLost),
            _ => None,
        }
    }

    /// Tells of connections that were lost since the last time.
    pub(super) fn show_losses(&mut self) -> Result<(), Failure> {
        if let Some(reasons) = self.losses.take() {
            let held = self.shared.sum(|counters| &counters.held);
            let connections = reasons.values().sum();
            self.show.record(&ClientRecord::Lost(Lost { connections, held, reasons }))?;
        }
        Ok(())
    }

    /// Connections that are held, and those that were lost, of which none is counted twice: a
    /// worker adds to the lost ones last.
    pub(super) fn held_and_lost(&self) -> (u64, u64) {
        let lost = self.shared.counters.iter().map(|it| it.lost.load(Acquire)).sum();
        (self.shared.sum(|counters| &counters.held), lost)
    }

    fn show_progress(&mut self) -> Result<(), Failure> {
        let shared = &self.shared;
        let established = shared.sum(|counters| &counters.established);
        let failed = shared.sum(|counters| &counters.failed);
        self.show.live(established + failed);
        let (since, before) = self.progress;
        let elapsed = since.elapsed();
        if elapsed >= PERIOD {
            self.progress = (Instant::now(), established);
            #[expect(
                clippy::cast_precision_loss,
                reason = "counts of connections are far below 2^52"
            )]
            let rate_per_s = (established - before) as f64 / elapsed.as_secs_f64();
            let answered = shared.sum(|counters| &counters.answered);
            let progress = Progress { established, answered, failed, rate_per_s };
            self.show.progress(&progress)?;
        }
        Ok(())
    }

    /// When nothing answers: tells it, has the rest asked for side by side, and in the end gives
    /// up.
    fn look_for_answers(&mut self) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let in_flight = shared.sum(|counters| &counters.in_flight);
        let asks = self.phase == Phase::Sample || in_flight > 0;
        let answers = shared.sum(|counters| &counters.answers);
        let silent = self.silence.look(answers, asks, Instant::now());
        let stalled = silent >= shared.timeout;
        shared.stalled.store(stalled, Relaxed);
        while stalled && self.phase == Phase::Ramp && self.members.len() < shared.crew.workers {
            self.start_next()?;
        }
        let gives_up = silent >= shared.give_up;
        if self.silence.is_due(silent, shared.timeout) || gives_up {
            let opening = self.phase == Phase::Ramp;
            let tried = shared.sum(|counters| &counters.established)
                + shared.sum(|counters| &counters.failed);
            let target = shared.plan.target();
            self.show.record(&ClientRecord::Waiting(Waiting {
                unanswered_s: silent.as_secs_f64(),
                in_flight: opening.then_some(in_flight),
                left: opening.then(|| shared.crew.connections().saturating_sub(tried)),
                accept_queue: target
                    .first
                    .ip()
                    .is_loopback()
                    .then(|| accept_queue(target))
                    .flatten(),
                give_up_s: shared.give_up.as_secs_f64(),
            }))?;
        }
        if gives_up {
            self.begin_end(EndedBy::NoAnswer)?;
        }
        Ok(())
    }
}

/// The queues of a server in this network namespace. `None`: nobody listens there, or the kernel
/// does not say.
fn accept_queue(target: &Target) -> Option<AcceptQueue> {
    let listeners = listeners::all().ok()?;
    let own = listening(&listeners, target);
    let queue = AcceptQueue {
        listeners: own.len() as u64,
        full: own.iter().filter(|listener| listener.queued > listener.most).count() as u64,
        queued: own.iter().map(|listener| listener.queued).sum(),
        most: own.iter().map(|listener| listener.most).sum(),
    };
    (queue.listeners > 0).then_some(queue)
}

/// Those that get the target's connections: of one port, those with its address before those that
/// listen on every one (net/ipv4/inet_hashtables.c, `__inet_lookup_listener`, 6.18).
fn listening<'a>(listeners: &'a [Listener], target: &Target) -> Vec<&'a Listener> {
    let ports = target.first.port()..=target.last_port;
    let has_address =
        |listener: &Listener| listener.address.ip().to_canonical() == target.ip().to_canonical();
    let port_is_taken = |port: u16| {
        listeners.iter().any(|listener| listener.address.port() == port && has_address(listener))
    };
    listeners
        .iter()
        .filter(|listener| ports.contains(&listener.address.port()) && listener.takes(target.ip()))
        .filter(|listener| has_address(listener) || !port_is_taken(listener.address.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_of_a_target_are_those_of_its_address() {
        let of = |address: &str| Listener {
            address: address.parse().unwrap(),
            is_v6_only: false,
            inode: 1,
            queued: 0,
            most: 1,
            drops: None,
        };
        let all =
            ["127.0.0.2:80", "127.0.0.1:80", "0.0.0.0:80", "0.0.0.0:81", "[::]:82", "127.0.0.1:90"];
        let all = all.map(of);
        let found = |target: &str| -> Vec<String> {
            let target = target.parse().unwrap();
            listening(&all, &target).iter().map(|listener| listener.address.to_string()).collect()
        };
        assert_eq!(found("127.0.0.1:80-82"), ["127.0.0.1:80", "0.0.0.0:81", "[::]:82"]);
        assert_eq!(found("127.0.0.2:80"), ["127.0.0.2:80"]);
        assert_eq!(found("127.0.0.3:80"), ["0.0.0.0:80"]);
        assert!(found("127.0.0.3:90").is_empty());
    }
}
