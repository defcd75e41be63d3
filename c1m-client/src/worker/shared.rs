//! What the main thread and the workers share, and what they tell each other.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use c1m_sys::epoll::Waker;

use crate::{
    buckets::Buckets,
    ramp::{Crew, Pace},
    summary::{Beats, Errors, SamplePart, Tally},
    tuple::Plan,
    workload::Workload,
};

/// What all workers of a run share.
#[derive(Debug)]
pub struct Shared {
    pub plan: Plan,
    pub crew: Crew,
    pub workload: Workload,
    pub pace: Pace,
    pub timeout: Duration,
    /// How long nothing may answer before the run ends.
    pub give_up: Duration,
    /// Nothing has answered for [`Self::timeout`]: what is left is asked side by side, not
    /// `in_flight` at a time.
    pub stalled: AtomicBool,
    pub heartbeat: Option<Duration>,
    /// Connections that one worker opens at the same time.
    pub in_flight: usize,
    pub end_by_reset: bool,
    /// The next spare tuple of the plan.
    pub spare: AtomicU64,
    /// One a worker.
    pub counters: Vec<Counters>,
    pub to_main: Waker,
    pub to_workers: Waker,
    /// The zero of every clock of the run.
    pub start: Instant,
    pub closing: Closing,
}

/// The end of the run, which has an instant of its own: workers close one after the other, and the
/// connections that one closes free the server's slots for those of another. What comes after this
/// instant does not count.
#[derive(Debug, Default)]
pub struct Closing {
    /// When it began, and up to when heartbeats of lost connections are due: microseconds since the
    /// start of the run.
    instants_us: OnceLock<(u64, u64)>,
}

impl Closing {
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.instants_us.get().is_some()
    }

    /// The two instants. `now_us` stands for both before it has begun.
    #[must_use]
    pub fn at_us(&self, now_us: u64) -> (u64, u64) {
        self.instants_us.get().copied().unwrap_or((now_us, now_us))
    }
}

impl Shared {
    /// When the last connection was established, since the start. `None`: none was.
    pub fn last_established(&self) -> Option<Duration> {
        let last_us = self.counters.iter().map(|counters| counters.last_us.load(Relaxed)).max();
        last_us.filter(|us| *us > 0).map(Duration::from_micros)
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| counter(counters).load(Relaxed)).sum()
    }

    /// Begins the end of the run: workers count nothing from now on. `hold_until`: the planned end
    /// of the hold. When no connection is left, heartbeats are due up to it: the plan had them, and
    /// no server answers them. Again: does nothing.
    pub fn begin_close(&self, hold_until: Option<Instant>) {
        let now = Instant::now();
        let is_lost = self.sum(|counters| &counters.held) == 0;
        let plan_until = hold_until.filter(|until| is_lost && *until > now).unwrap_or(now);
        self.closing
            .instants_us
            .get_or_init(|| (self.since_start_us(now), self.since_start_us(plan_until)));
    }

    /// Microseconds from the start of the run to `instant`.
    pub fn since_start_us(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

/// What the main thread may look at while a worker runs. Of cache lines that only its worker
/// writes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    pub established: AtomicU64,
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    /// Established and not ended.
    pub held: AtomicU64,
    /// Established, and ended by the peer or the network. Added to after `held` has shrunk, with
    /// release.
    pub lost: AtomicU64,
    /// Events that show that the server, or its kernel, is there: bytes, ends and refusals, and
    /// with `--idle` handshakes.
    pub answers: AtomicU64,
    /// When the last one was established, microseconds since the start of the run; 0: none was.
    pub last_us: AtomicU64,
    /// Connections that are being opened.
    pub in_flight: AtomicU64,
    /// Planned pages of the held connections whose answer has come.
    pub pages: AtomicU64,
    pub beats_due: AtomicU64,
    pub beats_answered: AtomicU64,
    /// Connections that may still answer a heartbeat in time, after the last one of the plan.
    pub beats_waiting: AtomicU64,
    /// Of samples and heartbeats.
    pub answers_wrong: AtomicU64,
    /// The times of the tally, while they are measured.
    pub connect: Buckets,
    pub first_byte: Buckets,
}

impl Counters {
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let (connect, first_byte) = (Buckets::new(timeout), Buckets::new(timeout));
        Self { connect, first_byte, ..Self::default() }
    }
}

/// What the main thread tells a worker, after its ramp but for `End`.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// Ask its part of a sample of `wanted` of `all` connections; `before` of them are held by
    /// workers before it.
    Sample { wanted: u64, before: u64, held: u64, all: u64 },
    /// Begin with heartbeats, if there are any: from one instant until just before the other, microseconds since the start of the run.
    Hold { began_us: u64, until_us: u64 },
    /// Close all connections and stop.
    End,
}

/// What a worker tells the main thread.
#[derive(Debug)]
pub enum Report {
    /// Every connection of its share was tried. What it saw so far is handed over, and counted
    /// anew.
    Ramped(Box<Tally>),
    Sampled(Box<SamplePart>),
    /// Each heartbeat up to the planned end of the hold was answered, or can't be in time any more.
    BeatsOver,
    /// Connections that were established have ended by the peer or the network: how many, by name. In the tally as well.
    Lost(Errors),
    /// Its connections are closed: the last report.
    Done(Box<Outcome>),
    /// It could not go on: the last report as well.
    Broken(Broken),
}

/// Why a worker could not go on.
#[derive(Debug)]
pub enum Broken {
    /// The kernel refused it something that it needs.
    Refused(io::Error),
    Panicked,
}

/// All that a worker saw, and has not handed over yet.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub tally: Tally,
    /// `None` without heartbeats.
    pub beats: Option<Beats>,
}
