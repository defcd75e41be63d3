//! Where trace, limits, host and output meet: what the kernel reports becomes records.

use std::{collections::BTreeMap, io, time::SystemTime};

use c1m_ebpf::{
    CALL_ACCEPT, CALL_BIND, CALL_CONNECT, CALL_DESCRIPTOR, CALL_EPOLL, CALL_RECEIVE, CALL_SEND,
    CALL_SOCKET, HOOK_SET_STATE,
};
use c1m_host::{netstat, sockstat, sysctl};
use c1m_limits::{
    crossing::{Crossings, Usage},
    evidence::{Call, Evidence, OomVictim},
};
use c1m_probe::{
    Options, TraceError, Tracer,
    decode::{Observation, UsageSeen, What},
    lost::Lost,
    refused::Counted,
    sample::Sample,
};
use c1m_record::{Crossing, Direction, Hooks, Level, Record, Refused, Resolution, Socket};
use c1m_sys::process::monotonic_ns;

/// Counters of TcpExt that memory, orphans and full queues move; see docs/events.md.
const KERNEL_COUNTERS: [&str; 22] = [
    "TCPMemoryPressures",
    "TCPMemoryPressuresChrono",
    "TCPAbortOnMemory",
    "TCPAbortFailed",
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
    "TCPWqueueTooBig",
    "PFMemallocDrop",
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "TCPTimeWaitOverflow",
];
/// How often the counters are read, until two readings agree. One takes about a millisecond.
const READINGS: usize = 4;
/// Kills that are kept for the verdict; further ones are records alone.
const MAX_VICTIMS: usize = 64;

/// A record, and when what it tells happened.
pub(crate) type Timed = (SystemTime, Record);

/// The attached hooks, and what they have told so far.
pub(crate) struct Tracing {
    tracer: Tracer,
    crossings: Crossings,
    /// As of the last reported crossing.
    suppressed: u64,
    /// TcpExt at the start; `None` where it can't be read.
    kernel_at_start: Option<netstat::TcpExt>,
    last_refused: Refused,
    oom_kills: Vec<OomVictim>,
    is_recount_refused: bool,
}

impl Tracing {
    /// Attaches. Needs a tokio runtime, and fails before anything else is touched.
    pub(crate) fn start(options: &Options) -> Result<(Self, Hooks), TraceError> {
        let kernel_at_start = netstat::tcp_ext().ok();
        let (tracer, hooks) = Tracer::attach(options)?;
        // Usage that is past a limit before the start has not crossed it now.
        let crossings = usage_now().map_or_else(Crossings::default, Crossings::starting_at);
        let mut tracing = Self {
            tracer,
            crossings,
            suppressed: 0,
            kernel_at_start,
            last_refused: Refused::default(),
            oom_kills: Vec::new(),
            is_recount_refused: false,
        };
        tracing.last_refused = tracing.refused();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok((tracing, Hooks { kernel, hooks }))
    }

    /// Waits until the kernel has reported something.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.tracer.readable().await
    }

    /// What the kernel has reported since the last call.
    pub(crate) fn take(&mut self) -> io::Result<Vec<Timed>> {
        let observations = self.tracer.drain()?;
        Ok(observations.into_iter().flat_map(|o| self.records(o)).collect())
    }

    /// Once an interval: what was reported, what usage is now if no hook saw it, and the refusals
    /// if there are new ones.
    pub(crate) fn poll(&mut self) -> io::Result<Vec<Timed>> {
        // First the ring buffer: a hook's reading is the more exact one, and older.
        let lines = self.take()?;
        Ok(self.polled(lines, usage_now(), "/proc/net/sockstat"))
    }

    /// The same with the kernel's own variables instead of /proc, which does not show them
    /// everywhere.
    pub(crate) fn poll_with(&mut self, sample: Option<Sample>) -> io::Result<Vec<Timed>> {
        let Some(sample) = sample else { return self.poll() };
        let lines = self.take()?;
        let usage = Usage { at_ns: sample.at_ns, pages: sample.pages, limits: sample.tcp_mem };
        Ok(self.polled(lines, Some(usage), "tp_btf/tcp_destroy_sock"))
    }

    fn polled(&mut self, mut lines: Vec<Timed>, usage: Option<Usage>, source: &str) -> Vec<Timed> {
        let now = SystemTime::now();
        if let Some(usage) = usage {
            let seen = UsageSeen {
                pages: usage.pages,
                tcp_mem: usage.limits,
                connections: self.tracer.connections(),
                socket: Socket::default(),
                hook: source.into(),
                resolution: Resolution::Interval,
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
        lines
    }

    /// Usage and memory pressure of this instant; `None` where no hook tells them.
    pub(crate) fn sample(&self) -> Option<Sample> {
        self.tracer.sample()
    }

    /// Connections on the watched ports since the start, opened and closed; `None` where no hook
    /// counts them.
    pub(super) fn opened_and_closed(&self) -> Option<(u64, u64)> {
        let counters = self.tracer.counters();
        let is_counted = self.tracer.attached().has(HOOK_SET_STATE);
        is_counted.then_some((counters.opened, counters.closed))
    }

    /// Connections on the watched ports, with those that were there before; why that is not known,
    /// in words.
    pub(crate) fn all_connections(&self) -> Result<u64, String> {
        self.tracer.counted_present()?;
        Ok(self.tracer.connections())
    }

    /// What the kernel's own sum of the time under memory pressure has grown by.
    pub(super) fn pressure_ended_ms(&self) -> Option<u64> {
        const NAME: &str = "TCPMemoryPressuresChrono";
        let before = self.kernel_at_start.as_ref()?.get(NAME)?;
        Some(netstat::tcp_ext().ok()?.get(NAME)?.saturating_sub(*before))
    }

    /// Connections on the watched port, counted in the kernel.
    pub(crate) fn connections(&self) -> u64 {
        self.tracer.connections()
    }

    /// Events lost so far.
    pub(crate) fn lost(&self) -> Lost {
        self.tracer.lost()
    }

    /// Crossings that were counted without being reported.
    pub(crate) fn suppressed(&self) -> u64 {
        self.tracer.suppressed()
    }

    /// Examples that were counted without being reported.
    pub(crate) fn not_shown(&self) -> u64 {
        self.tracer.not_shown()
    }

    /// Counts the connections again when one that came or went may have been missed; what is to be
    /// said of it.
    pub(crate) fn recount_if_needed(&mut self) -> Option<String> {
        match self.tracer.recount_if_needed() {
            Ok(None | Some(0)) => None,
            Ok(Some(difference)) => Some(format!(
                "a connection came or went unseen: all were counted again, and their number changed by {difference}"
            )),
            // Once; it is tried again.
            Err(_) if self.is_recount_refused => None,
            Err(reason) => {
                self.is_recount_refused = true;
                Some(format!(
                    "a connection came or went unseen, and counting all again was refused: {reason}"
                ))
            }
        }
    }

    /// Refusals since the start.
    pub(crate) fn refused(&self) -> Refused {
        self.counted().refused()
    }

    /// The same as of the last poll.
    pub(crate) fn last_refused(&self) -> &Refused {
        &self.last_refused
    }

    /// What a verdict stands on, but for the own errors, which the caller has.
    pub(super) fn evidence(&self) -> Evidence {
        let counted = self.counted();
        let calls = counted.call_errors().unwrap_or_default().into_iter();
        let calls = calls.map(|((kind, errno), count)| ((call(kind), errno), count)).collect();
        Evidence {
            oom_kills: self.oom_kills.clone(),
            ..Evidence::of_probes(counted.tier(), counted.refused(), calls, counted.accept_queue())
        }
    }

    /// How often usage was seen to come above pressure and high, and where it is now.
    pub(super) fn add_crossings(&self, seen: &mut Evidence) {
        let ups = |level| Some(self.crossings.count(level, Direction::Up));
        (seen.crossed_pressure, seen.crossed_high) = (ups(Level::Pressure), ups(Level::High));
        seen.past_pressure = Some(self.crossings.is_past(Level::Pressure));
        seen.past_high = Some(self.crossings.is_past(Level::High));
    }

    /// The kernel's counters and ours, of one moment if there is one: read again while ours move in
    /// between. On a host where they never stand still, the kernel's miss what happened between the
    /// two readings, and ours do not.
    fn counted(&self) -> Counted<'_> {
        let mut counters = self.tracer.counters();
        let mut kernel = BTreeMap::new();
        for _ in 0..READINGS {
            kernel = match (&self.kernel_at_start, netstat::tcp_ext()) {
                (Some(before), Ok(now)) => difference(before, &now),
                _ => BTreeMap::new(),
            };
            let before = std::mem::replace(&mut counters, self.tracer.counters());
            if before == counters {
                break;
            }
        }
        Counted { counters, shared: self.tracer.shared(), attached: self.tracer.attached(), kernel }
    }

    fn records(&mut self, observation: Observation) -> Vec<Timed> {
        let Observation { time, ktime_ns, what } = observation;
        let record = match what {
            What::Usage(seen) => return self.crossed(time, ktime_ns, &seen),
            What::Refusal(refusal) => Record::Refusal(refusal),
            What::Aborted(aborted) => Record::Aborted(aborted),
            What::OomKill(kill) => {
                if self.oom_kills.len() < MAX_VICTIMS {
                    self.oom_kills.push(OomVictim {
                        pid: kill.pid,
                        comm: kill.comm.clone(),
                        in_cgroup: kill.in_cgroup,
                    });
                }
                Record::OomKill(kill)
            }
            What::Pressure(pressure) => Record::Pressure(pressure),
            What::Overflow(overflow) => Record::Overflow(overflow),
            What::Ports(ports) => Record::Ports(ports),
            What::CallError(error) => Record::CallError(error),
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
                    resolution: seen.resolution,
                    pressure_age_ms: seen.pressure_age_ms,
                    suppressed,
                }),
            ));
        }
        lines
    }
}

fn call(kind: u32) -> Call {
    match kind {
        CALL_SOCKET => Call::Socket,
        CALL_ACCEPT => Call::Accept,
        CALL_BIND => Call::Bind,
        CALL_CONNECT => Call::Connect,
        CALL_SEND => Call::Send,
        CALL_RECEIVE => Call::Receive,
        CALL_EPOLL => Call::EpollAdd,
        CALL_DESCRIPTOR => Call::Descriptor,
        _ => Call::Other,
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

#[cfg(test)]
mod tests {
    use c1m_probe::calls;
    use c1m_sys::errno;

    use super::*;
    use crate::output::metrics::CALL_ERRORS;

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

    #[test]
    fn every_call_error_of_a_limit_has_a_counter() {
        let mut of_limits = BTreeMap::<&str, Vec<&str>>::new();
        for call in (0u32..).take(c1m_ebpf::CALLS) {
            for error in (0u32..).take(c1m_ebpf::ERRNOS.len()) {
                if c1m_ebpf::is_of_a_limit(call, error) {
                    let errno = errno::name(calls::errno(error).unwrap());
                    of_limits.entry(calls::name(call)).or_default().push(errno);
                }
            }
        }
        of_limits.values_mut().for_each(|errnos| errnos.sort_unstable());
        let exported = CALL_ERRORS.map(|(call, errnos)| (call, errnos.to_vec()));
        assert_eq!(of_limits, exported.into());
    }
}
