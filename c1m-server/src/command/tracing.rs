//! Where trace, limits, host and output meet: what the kernel reports becomes records.

use std::{collections::BTreeMap, io, time::SystemTime};

use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, Counters, HOOK_DROP, HOOK_RESET, REFUSED_FAIR_SHARE,
    REFUSED_HIGH, REFUSED_MEMCG, SIDE_RECEIVE, SIDE_SEND,
};

use crate::{
    host::{netstat, sockstat, sysctl},
    limits::{
        crossing::{Crossings, Usage},
        evidence::{Evidence, OomVictim},
    },
    output::record::{
        Crossing, Direction, Hooks, Level, OomKill, Precision, Record, Refused, Socket, Tier,
    },
    sys::process::monotonic_ns,
    trace::{
        Options, TraceError, Tracer,
        decode::{Observation, UsageSeen, What},
    },
};

/// Counters of TcpExt that memory, orphans and full queues move; see docs/events.md.
const KERNEL_COUNTERS: [&str; 16] = [
    "TCPMemoryPressures",
    "TCPMemoryPressuresChrono",
    "TCPAbortOnMemory",
    "TCPRcvQDrop",
    "TCPOFODrop",
    "PruneCalled",
    "RcvPruned",
    "OfoPruned",
    "TCPRcvCollapsed",
    "TCPZeroWindowDrop",
    "TCPToZeroWindowAdv",
    "TCPWantZeroWindowAdv",
    "TCPFromZeroWindowAdv",
    "TCPBacklogDrop",
    "ListenOverflows",
    "ListenDrops",
];

/// A record, and when what it tells happened.
pub(super) type Timed = (SystemTime, Record);

/// The attached hooks, and what they have told so far.
pub(super) struct Tracing {
    tracer: Tracer,
    crossings: Crossings,
    /// As of the last reported crossing.
    suppressed: u64,
    /// TcpExt at the start; `None` where it can't be read.
    kernel_at_start: Option<netstat::TcpExt>,
    last_refused: Refused,
    /// The first ones.
    oom_kills: Vec<OomVictim>,
}

/// More OOM kills than this name no other limit.
const OOM_KILLS_MAX: usize = 64;

impl Tracing {
    /// Attaches. Needs a tokio runtime, and fails before anything else is touched.
    pub(super) fn start(options: &Options) -> Result<(Self, Hooks), TraceError> {
        let kernel_at_start = netstat::tcp_ext().ok();
        let (tracer, hooks) = Tracer::attach(options)?;
        // Usage that is past a limit before we look has not crossed it now.
        let crossings = usage_now().map_or_else(Crossings::default, Crossings::starting_at);
        let mut tracing = Self {
            tracer,
            crossings,
            suppressed: 0,
            kernel_at_start,
            last_refused: Refused::default(),
            oom_kills: Vec::new(),
        };
        tracing.last_refused = tracing.refused();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok((tracing, Hooks { kernel, hooks }))
    }

    /// Waits until the kernel has reported something.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.tracer.readable().await
    }

    /// What the kernel has reported since the last call.
    pub(super) fn take(&mut self) -> io::Result<Vec<Timed>> {
        let observations = self.tracer.drain()?;
        Ok(observations.into_iter().flat_map(|o| self.records(o)).collect())
    }

    /// Once an interval: what was reported, what usage is now if no hook saw it, and the refusals if there are new ones.
    pub(super) fn poll(&mut self) -> io::Result<Vec<Timed>> {
        // First the ring buffer: a hook's reading is the more exact one, and older.
        let mut lines = self.take()?;
        let now = SystemTime::now();
        if let Some(usage) = usage_now() {
            let seen = UsageSeen {
                pages: usage.pages,
                tcp_mem: usage.limits,
                connections: self.tracer.connections(),
                socket: Socket::default(),
                hook: "/proc/net/sockstat".into(),
                precision: Precision::Interval,
                pressure_age_ms: None,
                suppressed: self.tracer.suppressed(),
            };
            lines.extend(self.crossed(now, usage.at_ns, &seen));
        }
        let refused = self.refused();
        if refused != self.last_refused {
            self.last_refused = refused.clone();
            lines.push((now, Record::Refused(refused)));
        }
        Ok(lines)
    }

    /// Connections on the watched port, counted in the kernel.
    pub(super) fn connections(&self) -> u64 {
        self.tracer.connections()
    }

    /// Events lost so far.
    pub(super) fn dropped(&self) -> u64 {
        self.tracer.lost().total()
    }

    /// Crossings that were counted without being reported.
    pub(super) fn suppressed(&self) -> u64 {
        self.tracer.suppressed()
    }

    /// Refusals since the start.
    pub(super) fn refused(&self) -> Refused {
        let kernel = match (&self.kernel_at_start, netstat::tcp_ext()) {
            (Some(before), Ok(now)) => difference(before, &now),
            _ => BTreeMap::new(),
        };
        let is_attached = |hook| self.tracer.has(hook);
        refused(&self.tracer.counters(), is_attached(HOOK_DROP), is_attached(HOOK_RESET), kernel)
    }

    /// What the hooks have counted, for the verdict.
    pub(super) fn evidence(&self) -> Evidence {
        let refused = self.refused();
        Evidence {
            tier: Some(Tier::Tracepoints),
            refused_high_send: refused.high_send,
            refused_high_receive: refused.high_receive,
            refused_fair_share_send: refused.fair_share_send,
            refused_fair_share_receive: refused.fair_share_receive,
            refused_memcg_send: refused.memcg_send,
            refused_memcg_receive: refused.memcg_receive,
            orphans_too_many: refused.orphans_aborted_too_many,
            orphans_out_of_memory: refused.orphans_aborted_out_of_memory,
            oom_kills: self.oom_kills.clone(),
            ..Evidence::default()
        }
    }

    /// How often usage was seen to come above pressure and high, and where it is now.
    pub(super) fn add_crossings(&self, seen: &mut Evidence) {
        let ups = |level| Some(self.crossings.count(level, Direction::Up));
        (seen.crossed_pressure, seen.crossed_high) = (ups(Level::Pressure), ups(Level::High));
        seen.past_pressure = Some(self.crossings.is_past(Level::Pressure));
        seen.past_high = Some(self.crossings.is_past(Level::High));
    }

    fn note_oom_kill(&mut self, kill: &OomKill) {
        if self.oom_kills.len() < OOM_KILLS_MAX {
            let (pid, comm) = (kill.pid, kill.comm.clone());
            self.oom_kills.push(OomVictim { pid, comm, in_cgroup: None });
        }
    }

    fn records(&mut self, observation: Observation) -> Vec<Timed> {
        let Observation { time, ktime_ns, what } = observation;
        let record = match what {
            What::Usage(seen) => return self.crossed(time, ktime_ns, &seen),
            What::Refusal(refusal) => Record::Refusal(refusal),
            What::Aborted(aborted) => Record::Aborted(aborted),
            What::OomKill(kill) => {
                self.note_oom_kill(&kill);
                Record::OomKill(kill)
            }
        };
        vec![(time, record)]
    }

    /// One record for each limit that lies between this reading and the last one.
    fn crossed(&mut self, time: SystemTime, at_ns: u64, seen: &UsageSeen) -> Vec<Timed> {
        let steps =
            self.crossings.observe(Usage { at_ns, pages: seen.pages, limits: seen.tcp_mem });
        let mut lines = Vec::new();
        for step in steps {
            // Said once, by the first record that comes after them.
            let suppressed = seen.suppressed.saturating_sub(self.suppressed);
            self.suppressed = self.suppressed.max(seen.suppressed);
            lines.push((
                time,
                Record::Crossing(Crossing {
                    limit: "tcp_mem".into(),
                    level: step.level,
                    direction: step.direction,
                    limit_moved: step.limit_moved,
                    pages: seen.pages,
                    limit_pages: step.limit_pages,
                    tcp_mem: seen.tcp_mem,
                    connections: seen.connections,
                    socket: seen.socket.clone(),
                    hook: seen.hook.clone(),
                    precision: seen.precision,
                    pressure_age_ms: seen.pressure_age_ms,
                    suppressed,
                }),
            ));
        }
        lines
    }
}

/// tcp_mem usage as the host says it; `None` inside a network namespace that does not show it.
fn usage_now() -> Option<Usage> {
    let name = sysctl::Name::new("net.ipv4.tcp_mem").ok()?;
    let kernel = sysctl::Tree::at(sysctl::Tree::KERNEL);
    // The time first: what changes while we read counts as newer.
    let at_ns = monotonic_ns().ok()?;
    let limits = kernel.numbers(&name).ok()?;
    Some(Usage { at_ns, pages: sockstat::sockstat().ok()?.tcp_mem_pages, limits })
}

fn difference(before: &netstat::TcpExt, now: &netstat::TcpExt) -> BTreeMap<String, u64> {
    KERNEL_COUNTERS
        .iter()
        .filter_map(|name| {
            // A counter that this kernel does not have is left out; one that did not move is 0.
            let value = now.get(*name)?;
            Some((
                (*name).to_owned(),
                value.saturating_sub(before.get(*name).copied().unwrap_or(0)),
            ))
        })
        .collect()
}

fn refused(
    counters: &Counters,
    has_drops: bool,
    has_resets: bool,
    kernel: BTreeMap<String, u64>,
) -> Refused {
    let of = |limit: u32, side: u32| counters.refused[limit as usize][side as usize];
    Refused {
        high_send: of(REFUSED_HIGH, SIDE_SEND),
        high_receive: of(REFUSED_HIGH, SIDE_RECEIVE),
        fair_share_send: of(REFUSED_FAIR_SHARE, SIDE_SEND),
        fair_share_receive: of(REFUSED_FAIR_SHARE, SIDE_RECEIVE),
        memcg_send: of(REFUSED_MEMCG, SIDE_SEND),
        memcg_receive: of(REFUSED_MEMCG, SIDE_RECEIVE),
        forced_first_skb: counters.forced_first_skb,
        dropped_skb: has_drops.then_some(counters.dropped_skb),
        orphans_aborted_too_many: has_resets.then_some(counters.aborted[ABORTED_TOO_MANY as usize]),
        orphans_aborted_out_of_memory: has_resets
            .then_some(counters.aborted[ABORTED_OUT_OF_MEMORY as usize]),
        kernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_is_not_attached_gives_null_not_zero() {
        let counters = Counters {
            refused: [[1, 2], [3, 4], [5, 6]],
            dropped_skb: 7,
            aborted: [8, 9],
            ..Counters::default()
        };
        let all = refused(&counters, true, true, BTreeMap::new());
        assert_eq!(
            (all.high_send, all.high_receive, all.fair_share_send, all.fair_share_receive),
            (1, 2, 3, 4)
        );
        assert_eq!((all.memcg_send, all.memcg_receive, all.dropped_skb), (5, 6, Some(7)));
        assert_eq!(
            (all.orphans_aborted_too_many, all.orphans_aborted_out_of_memory),
            (Some(8), Some(9))
        );
        let none = refused(&counters, false, false, BTreeMap::new());
        assert_eq!(
            (none.dropped_skb, none.orphans_aborted_too_many, none.orphans_aborted_out_of_memory),
            (None, None, None)
        );
    }

    #[test]
    fn counters_are_differences_and_absent_ones_are_left_out() {
        let before = BTreeMap::from([("TCPRcvQDrop".to_owned(), 5), ("Other".to_owned(), 1)]);
        let now = BTreeMap::from([
            ("TCPRcvQDrop".to_owned(), 9),
            ("TCPOFODrop".to_owned(), 0),
            ("Other".to_owned(), 8),
        ]);
        let expected =
            BTreeMap::from([("TCPRcvQDrop".to_owned(), 4), ("TCPOFODrop".to_owned(), 0)]);
        assert_eq!(difference(&before, &now), expected);
    }
}
