//! What the main thread and the workers share, and what they tell each other.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use c1m_server::sys::epoll::Waker;

use crate::{
    ramp::{Crew, Pace},
    summary::{Beats, Errors, Tally, Times},
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
    /// Nothing has answered for [`Self::timeout`]: what is left is asked side by side, not `in_flight` at a time.
    pub stalled: AtomicBool,
    /// The end has begun: nothing is opened any more.
    pub ends: AtomicBool,
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
}

/// What the main thread may look at while a worker runs. A cache line each: only its worker writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    pub established: AtomicU64,
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    /// Established and not ended.
    pub held: AtomicU64,
    /// Established, and ended by the peer or the network. Added to after `held` has shrunk, with release.
    pub lost: AtomicU64,
    /// Events that show that the server, or its kernel, is there: bytes, ends and refusals, and with `--idle` handshakes.
    pub answers: AtomicU64,
    /// When the last one was established, microseconds since the start of the run; 0: none was.
    pub last_us: AtomicU64,
    /// Connections that are being opened.
    pub in_flight: AtomicU64,
    /// Planned pages of the held connections whose answer has come.
    pub pages: AtomicU64,
}

/// What the main thread tells a worker, after its ramp but for `End`.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// Ask its part of a sample of `wanted` of `all` connections; `before` of them are held by workers before it.
    Sample { wanted: u64, before: u64, held: u64, all: u64 },
    /// Begin with heartbeats, if there are any.
    Hold,
    /// Close all connections and stop.
    End,
}

/// What a worker tells the main thread.
#[derive(Debug)]
pub enum Report {
    /// Every connection of its share was tried. What it saw so far is handed over, and counted anew.
    Ramped(Box<Tally>),
    Sampled {
        asked: u64,
        answered: u64,
        times: Box<Times>,
    },
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
