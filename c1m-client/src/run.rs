//! Starts the workers, takes their reports, and says when each part of the run begins: ramp,
//! sample, hold, end.

mod finish;
mod look;
mod silence;

use std::{
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use c1m_program::exporter::Bound;
use c1m_sys::{
    epoll::{self, Epoll, Events},
    signal::Shutdown,
};

use self::{look::Losses, silence::Silence};
use crate::{
    cli::Load,
    metrics::Metrics,
    pin::{host_pages, tolerance_pages},
    prepare::{Failure, plan_record, prepare, slower_than_planned, warn},
    ramp::reached_per_s,
    record::{Accounted, ClientRecord, EndedBy, Plan, Ramped, Sample},
    show::Show,
    summary::Sampled,
    verdict,
    worker::{self, Broken, Command, Outcome, Report, Shared},
};

/// Time between two samples for the live line, and at what has answered.
const LIVE: Duration = Duration::from_millis(200);

/// Runs the whole of it. `Ok(true)`: it reached what was asked for, see
/// [`crate::require::reached`].
///
/// A signal ends it early and in order, see [`Shutdown`].
pub fn run(cli: &Load, shutdown: &Shutdown, show: &mut Show) -> Result<bool, Failure> {
    let bound = Metrics::bind(cli.metrics_addr)?;
    let shared = Arc::new(prepare(cli)?);
    let main = shared.clone();
    show.on_failure(move || main.to_main.wake());
    let plan = plan_record(cli, &shared, bound.as_ref().map(Bound::url));
    let metrics = Metrics::start(bound)?;
    metrics.planned(&shared);
    show.record(&ClientRecord::Plan(Box::new(plan.clone())))?;
    let mut run = Run::new(cli, shared, plan, metrics, show);
    run.watch(shutdown)?;
    run.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until the start of the run.
    Wait,
    Ramp,
    Sample,
    Hold,
    /// The time of the hold is over, and heartbeats may still be answered in time.
    LastAnswers,
    End,
}

/// A worker, as the main thread sees it.
struct Member {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
    /// Has sent its last report.
    done: bool,
}

struct Run<'a> {
    cli: &'a Load,
    shared: Arc<Shared>,
    metrics: Metrics,
    plan: Plan,
    show: &'a mut Show,
    phase: Phase,
    members: Vec<Member>,
    reports: Receiver<(usize, Report)>,
    reporter: Sender<(usize, Report)>,
    /// Workers that have reported the end of the present phase.
    through: usize,
    /// Workers that were told to end.
    ending: usize,
    sample: Sampled,
    /// Once the sample is through.
    sampled: Option<Sample>,
    ramp_s: Option<f64>,
    /// By the wall clock.
    started: SystemTime,
    /// tcp_mem of the host before the first connection; `None` without `--pin`.
    pages_before: Option<u64>,
    hold_until: Option<Instant>,
    /// Workers whose heartbeats are over.
    beats_over: usize,
    /// It was said that heartbeats are waited for.
    waiting_told: bool,
    held_at_end: u64,
    lost_at_end: u64,
    ended_by: EndedBy,
    losses: Losses,
    silence: Silence,
    outcome: Outcome,
    broken: Option<Broken>,
    /// Counters of this host before the first connection.
    before: verdict::Before,
    /// The last `progress` record: when, and how many were established.
    progress: (Instant, u64),
}

impl<'a> Run<'a> {
    fn new(
        cli: &'a Load,
        shared: Arc<Shared>,
        plan: Plan,
        metrics: Metrics,
        show: &'a mut Show,
    ) -> Self {
        let (reporter, reports) = channel();
        Self {
            cli,
            shared,
            metrics,
            plan,
            show,
            phase: Phase::Wait,
            members: Vec::new(),
            reports,
            reporter,
            through: 0,
            ending: 0,
            sample: Sampled::default(),
            sampled: None,
            ramp_s: None,
            started: SystemTime::now(),
            pages_before: None,
            hold_until: None,
            beats_over: 0,
            waiting_told: false,
            held_at_end: 0,
            lost_at_end: 0,
            ended_by: EndedBy::Signal,
            losses: Losses::default(),
            silence: Silence::default(),
            outcome: Outcome::default(),
            broken: None,
            before: verdict::Before::now(),
            progress: (Instant::now(), 0),
        }
    }

    /// The time has come.
    fn start(&mut self) -> Result<(), Failure> {
        self.phase = Phase::Ramp;
        self.started = SystemTime::now();
        self.progress.0 = Instant::now();
        self.before = verdict::Before::now();
        self.pages_before = self.shared.workload.pin().map(|_| host_pages()).transpose()?;
        for _ in 0..self.shared.crew.at_a_time {
            self.start_next()?;
        }
        Ok(())
    }

    /// Starts the next worker, if there is one: it begins with its ramp at once.
    fn start_next(&mut self) -> Result<(), Failure> {
        let id = self.members.len();
        if id < self.shared.crew.workers {
            let (commands, inbox) = channel();
            let thread = worker::spawn(self.shared.clone(), id, inbox, self.reporter.clone())?;
            self.members.push(Member { commands, thread, done: false });
        }
        Ok(())
    }

    /// Follows the run until every worker has ended.
    fn watch(&mut self, shutdown: &Shutdown) -> Result<(), Failure> {
        let epoll = Epoll::new()?;
        let mut events = Events::with_capacity(8);
        epoll.add(shutdown.as_raw_fd(), epoll::IN, 0)?;
        epoll.add(self.shared.to_main.as_raw_fd(), epoll::IN | epoll::EDGE, 1)?;
        while !(self.phase == Phase::End && self.members.iter().all(|member| member.done)) {
            epoll.wait(&mut events, self.wait())?;
            self.show.check()?;
            if shutdown.take()?.is_some() {
                self.begin_end(EndedBy::Signal)?;
            }
            while let Ok((id, report)) = self.reports.try_recv() {
                self.on_report(id, report)?;
            }
            self.look()?;
            if self.phase == Phase::End {
                shutdown.end_at_once()?;
            }
        }
        // A worker counts what it lost before it says so.
        self.show_losses()
    }

    /// How long nothing has to be done unless something happens.
    fn wait(&self) -> Option<Duration> {
        let until = |instant: Instant| instant.saturating_duration_since(Instant::now());
        let wait = match self.phase {
            Phase::Wait => Some(until(self.shared.start)),
            Phase::Hold => self.hold_until.map(until),
            Phase::Ramp | Phase::Sample => Some(LIVE),
            Phase::LastAnswers => (!self.waiting_told).then_some(LIVE),
            Phase::End => return None,
        };
        wait.into_iter().chain(self.losses.wait()).min()
    }

    fn on_report(&mut self, id: usize, report: Report) -> Result<(), Failure> {
        match report {
            Report::Ramped(tally) => {
                self.outcome.tally.add(*tally);
                if self.phase == Phase::Ramp {
                    self.start_next()?;
                    self.through += 1;
                    if self.through == self.shared.crew.workers {
                        self.ramped()?;
                    }
                }
            }
            Report::Sampled(part) => {
                self.sample.add(&part);
                self.through += 1;
                if self.phase == Phase::Sample && self.through == self.members.len() {
                    let sample = self.sample.record();
                    self.sampled = Some(sample);
                    self.show.record(&ClientRecord::Sample(sample))?;
                    self.hold();
                }
            }
            Report::BeatsOver => self.beats_over += 1,
            Report::Lost(lost) => self.losses.add(lost),
            Report::Done(outcome) => {
                self.outcome.tally.add(outcome.tally);
                if let Some(beats) = outcome.beats {
                    self.outcome.beats.get_or_insert_default().add(&beats);
                }
                self.member_done(id);
            }
            Report::Broken(broken) => {
                self.broken.get_or_insert(broken);
                self.member_done(id);
                self.begin_end(EndedBy::Failure)?;
            }
        }
        Ok(())
    }

    /// Every connection was tried: says what came of it, and goes on.
    fn ramped(&mut self) -> Result<(), Failure> {
        let shared = &self.shared;
        let pin = match self.pages_before {
            None => None,
            Some(before) => Some(Accounted {
                planned_pages: shared.sum(|counters| &counters.pages),
                accounted_pages: host_pages()?.cast_signed() - before.cast_signed(),
                tolerance_pages: tolerance_pages()?,
            }),
        };
        let ramp_s = shared.start.elapsed().as_secs_f64();
        self.ramp_s = Some(ramp_s);
        let last_established_s = shared.last_established().map(|last| last.as_secs_f64());
        let established = shared.sum(|counters| &counters.established);
        let record = Ramped {
            established,
            answered: shared.sum(|counters| &counters.answered),
            failed: shared.sum(|counters| &counters.failed),
            ramp_s,
            rate_per_s: reached_per_s(established, last_established_s),
            connect_us: self.outcome.tally.connect.latency(),
            first_byte_us: self.outcome.tally.first_byte.latency(),
            pin,
        };
        self.show.ramp_over();
        self.metrics.ramped(&record);
        let slower = slower_than_planned(self.cli, self.plan.in_flight, record.rate_per_s);
        self.show.record(&ClientRecord::Ramped(record))?;
        if let Some(slower) = slower {
            warn(&slower);
        }
        match self.cli.sample {
            Some(wanted) => self.begin_sample(self.cli.shard.count(wanted)),
            None => self.hold(),
        }
        Ok(())
    }

    fn begin_sample(&mut self, wanted: u64) {
        (self.phase, self.through) = (Phase::Sample, 0);
        self.sample.begin();
        let held: Vec<u64> =
            self.shared.counters.iter().map(|counters| counters.held.load(Relaxed)).collect();
        let all: u64 = held.iter().sum();
        let mut before = 0;
        for (member, held) in self.members.iter().zip(held) {
            let wanted = wanted.min(all);
            // A worker that is gone has said so, or will.
            let _ = member.commands.send(Command::Sample { wanted, before, held, all });
            before += held;
        }
        self.shared.to_workers.wake();
    }

    fn hold(&mut self) {
        self.phase = Phase::Hold;
        let began = Instant::now();
        self.hold_until = self.cli.hold.and_then(|time| began.checked_add(time));
        let began_us = self.shared.since_start_us(began);
        let until_us = self.hold_until.map_or(u64::MAX, |until| self.shared.since_start_us(until));
        for member in &self.members {
            // A worker that is gone has said so, or will.
            let _ = member.commands.send(Command::Hold { began_us, until_us });
        }
        self.shared.to_workers.wake();
    }

    /// Ends what is held, as many workers at a time as there are cores. Again: does nothing.
    fn begin_end(&mut self, ended_by: EndedBy) -> Result<(), Failure> {
        if self.phase == Phase::End {
            return Ok(());
        }
        self.phase = Phase::End;
        self.ended_by = ended_by;
        self.show.ramp_over();
        // Before anything is counted: what comes from now on belongs to no figure.
        self.shared.begin_close(self.hold_until);
        (self.held_at_end, self.lost_at_end) = self.held_and_lost();
        for _ in 0..self.shared.crew.at_a_time {
            self.end_next();
        }
        self.show_losses()
    }

    /// Tells the next worker that is still there to end.
    fn end_next(&mut self) {
        while let Some(member) = self.members.get(self.ending) {
            self.ending += 1;
            if !member.done && member.commands.send(Command::End).is_ok() {
                self.shared.to_workers.wake();
                return;
            }
        }
    }

    fn member_done(&mut self, id: usize) {
        self.members[id].done = true;
        if self.phase == Phase::End {
            self.end_next();
        }
    }
}
