//! A sample as a record: what was counted and read, rates since the last sample, and what the program itself costs.

use std::time::Instant;

use c1m_host::{namespaces, sockstat, sysctl};
use c1m_limits::pressure::{PressureClock, Seen};
use c1m_probe::sample::Sample;
use c1m_record::{HostUsage, Limits, NetnsUsage, NextLimit, Usage, Watched};
use c1m_sys::process::cpu_seconds;

use crate::diagnose::tracing::Tracing;

/// A shorter time has no meaningful share of a core.
const SHARE_MIN_S: f64 = 0.005;

/// What is kept from sample to sample.
pub(crate) struct Measure {
    start: Instant,
    start_cpu_s: f64,
    last: Moment,
    pressure: PressureClock,
    /// Inode of the network namespace whose counters are read.
    netns: Option<u32>,
    pages_max: Option<u64>,
    /// As it was last told.
    told: Option<Usage>,
    now: Option<Usage>,
}

#[derive(Clone, Copy)]
struct Moment {
    time: Instant,
    opened_and_closed: Option<(u64, u64)>,
    cpu_s: f64,
}

impl Measure {
    pub(crate) fn begin() -> Self {
        let time = Instant::now();
        Self {
            start: time,
            start_cpu_s: cpu(),
            last: Moment { time, opened_and_closed: Some((0, 0)), cpu_s: cpu() },
            pressure: PressureClock::default(),
            netns: namespaces::own_inode(),
            pages_max: None,
            told: None,
            now: None,
        }
    }

    /// Makes a record of a sample, and says whether a number has changed since the last one that was told.
    pub(crate) fn take(
        &mut self,
        tracing: &Tracing,
        sample: Option<Sample>,
        limits: &Limits,
    ) -> (Usage, bool) {
        let now = Moment {
            time: Instant::now(),
            opened_and_closed: tracing.opened_and_closed(),
            cpu_s: cpu(),
        };
        let seconds = (now.time - self.last.time).as_secs_f64().max(f64::MIN_POSITIVE);
        self.see_pressure(tracing, sample);
        let sockets = sockstat::sockstat().ok();
        let usage = Usage {
            watched: watched(tracing, self.last.opened_and_closed, now.opened_and_closed, seconds),
            host: HostUsage {
                tcp_mem_pages: sample
                    .map(|sample| sample.pages)
                    .or(sockets.map(|sockets| sockets.tcp_mem_pages)),
                tcp_mem: sample.map(|sample| sample.tcp_mem).or_else(tcp_mem),
                pressure: self.pressure.now(),
                orphans: sockets.map(|sockets| sockets.orphan),
                sockets: sockets.map(|sockets| sockets.alloc),
            },
            netns: NetnsUsage {
                inode: self.netns,
                inuse: sockets.map(|sockets| sockets.inuse + sockets.inuse6),
                time_wait: sockets.map(|sockets| sockets.tw),
            },
            next: next(limits),
            // A share of next to no time says nothing.
            own_cpu_percent: (seconds > SHARE_MIN_S)
                .then(|| (now.cpu_s - self.last.cpu_s) / seconds * 100.0),
            dropped: tracing.lost().total(),
        };
        self.pages_max = self.pages_max.max(usage.host.tcp_mem_pages);
        self.last = now;
        self.now = Some(usage.clone());
        let has_changed = self.told.as_ref().is_none_or(|told| differ(told, &usage));
        if has_changed {
            self.told = Some(usage.clone());
        }
        (usage, has_changed)
    }

    fn see_pressure(&mut self, tracing: &Tracing, sample: Option<Sample>) {
        let seen = match sample {
            None => Seen::Unknown,
            Some(Sample { pressure: None, .. }) => Seen::No,
            Some(Sample { pressure: Some(age), .. }) => Seen::Yes(age.ms),
        };
        #[expect(clippy::cast_precision_loss, reason = "milliseconds, far below 2^52")]
        let ended = tracing.pressure_ended_ms().map(|ms| ms as f64);
        self.pressure.look(self.start.elapsed().as_secs_f64() * 1000.0, seen, ended);
    }

    /// The last sample, with rates since the start.
    pub(crate) fn total(&self, tracing: &Tracing) -> (Usage, f64) {
        let seconds = self.start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut usage = self.now.clone().unwrap_or_else(|| Usage {
            watched: Watched::default(),
            host: HostUsage::default(),
            netns: NetnsUsage::default(),
            next: None,
            own_cpu_percent: None,
            dropped: 0,
        });
        // Attaching is over by then, and comes once.
        usage.own_cpu_percent = Some((cpu() - self.start_cpu_s) / seconds * 100.0);
        usage.watched = watched(tracing, Some((0, 0)), tracing.opened_and_closed(), seconds);
        (usage, seconds)
    }

    pub(crate) fn pages_max(&self) -> Option<u64> {
        self.pages_max
    }
}

/// tcp_mem as the host shows it; `None` inside another network namespace than the first.
fn tcp_mem() -> Option<[u64; 3]> {
    let name = sysctl::Name::new("net.ipv4.tcp_mem").ok()?;
    sysctl::Tree::at(sysctl::Tree::KERNEL).numbers(&name).ok()
}

fn cpu() -> f64 {
    cpu_seconds().map_or(0.0, |(user, system)| user + system)
}

fn watched(
    tracing: &Tracing,
    before: Option<(u64, u64)>,
    now: Option<(u64, u64)>,
    seconds: f64,
) -> Watched {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people, of numbers below 2^52")]
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let rates = before.zip(now).map(|(before, now)| (rate(before.0, now.0), rate(before.1, now.1)));
    Watched {
        connections: tracing.all_connections().ok(),
        opened: now.map(|(opened, _)| opened),
        closed: now.map(|(_, closed)| closed),
        opened_per_s: rates.map(|(opened, _)| opened),
        closed_per_s: rates.map(|(_, closed)| closed),
    }
}

fn next(limits: &Limits) -> Option<NextLimit> {
    let next = limits.next?;
    let reading = limits.limits.iter().find(|reading| reading.limit == next)?;
    Some(NextLimit {
        limit: next,
        scope: reading.scope,
        headroom: reading.headroom,
        unit: reading.unit.clone(),
        at_connection: reading.at_connection,
        in_s: reading.in_s,
    })
}

/// In what is the host's or the server's; rates, the program's own cost and a time that goes on are none of
/// it.
fn differ(a: &Usage, b: &Usage) -> bool {
    let counted = |usage: &Usage| {
        let Usage { watched, host, netns, dropped, .. } = usage;
        (
            (watched.connections, watched.opened, watched.closed, *dropped),
            (host.tcp_mem_pages, host.tcp_mem, host.pressure.now, host.orphans, host.sockets),
            *netns,
        )
    };
    counted(a) != counted(b) || b.host.pressure.now == Some(true)
}
