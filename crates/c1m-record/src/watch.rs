//! What `c1m-server watch` reports besides events: what it looks at, what a look saw, and the end. Numbers stand under what they are numbers of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    event::Refused,
    limit::{Confidence, LimitName, Scope},
};

/// What is looked at: once, first behind `hooks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Watching {
    /// Local ports whose connections are counted; empty: every port.
    pub ports: Vec<u16>,
    /// Inode of the network namespace in which they are counted, and whose counters are read; `null`: counted in every one, and the
    /// counters are those of the own one.
    pub netns: Option<u32>,
    /// The process whose limits are read, with those that it started; `null`: none, and the limits of processes are not known.
    pub pid: Option<u32>,
    pub comm: Option<String>,
    /// The cgroup whose processes' limits are read.
    pub cgroup: Option<String>,
    /// What `--cmd` runs.
    pub command: Option<Vec<String>>,
    pub interval_s: f64,
    /// Bytes of a page of the kernel that ran: the unit of tcp_mem. `null`: not known, as in records of before it was told.
    #[serde(default)]
    pub page_bytes: Option<u64>,
    /// Connections to the watched ports that were there already; `null`: not known, and only new ones are counted.
    pub connections: Option<u64>,
    /// Where metrics are handed out; `null` without `--metrics-addr`.
    pub metrics: Option<String>,
}

/// What one look saw: once an interval, when a number has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    pub watched: Watched,
    pub host: HostUsage,
    pub netns: NetnsUsage,
    /// `null`: none is in sight.
    pub next: Option<NextLimit>,
    /// What this program itself takes of one core, in percent, since the last look.
    pub own_cpu_percent: Option<f64>,
    /// Events lost so far.
    pub dropped: u64,
}

/// Connections that somebody accepted on the watched ports, from the end of the handshake to CLOSE, counted in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Watched {
    /// Established and not yet closed; `null`: how many there were at the start is not known.
    pub connections: Option<u64>,
    /// Since the start; `null` without the hook that counts them.
    pub opened: Option<u64>,
    pub closed: Option<u64>,
    /// Since the last look, of the summary since the start.
    pub opened_per_s: Option<f64>,
    pub closed_per_s: Option<f64>,
}

/// What is the host's, whatever network namespace is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostUsage {
    /// Usage of tcp_mem as the kernel's own counter held it, in pages.
    pub tcp_mem_pages: Option<u64>,
    /// low, pressure, high, in pages
    pub tcp_mem: Option<[u64; 3]>,
    pub pressure: UnderPressure,
    pub orphans: Option<u64>,
    /// TCP sockets of every kind (sockstat `alloc`).
    pub sockets: Option<u64>,
}

/// The kernel's memory pressure, which lasts until usage is below the first limit again.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnderPressure {
    /// `null`: not known from here.
    pub now: Option<bool>,
    /// How long the present one has lasted, from the kernel's own time stamp; `null` without one, or where its tick is not known.
    pub lasting_ms: Option<f64>,
    /// Time under pressure since the start of the watch, the present one included.
    pub total_ms: Option<f64>,
}

/// What is the network namespace's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetnsUsage {
    pub inode: Option<u32>,
    /// TCP sockets, listeners and both ends of local connections included.
    pub inuse: Option<u64>,
    pub time_wait: Option<u64>,
}

/// The limit that comes next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NextLimit {
    pub limit: LimitName,
    pub scope: Scope,
    pub headroom: Option<u64>,
    pub unit: String,
    /// See `limits`.
    pub at_connection: Option<u64>,
    pub in_s: Option<f64>,
}

/// How the command of `--cmd` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommandEnd {
    pub pid: u32,
    /// `null`: a signal ended it.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

/// The last line of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ended {
    pub elapsed_s: f64,
    pub watched: Watched,
    pub host: HostUsage,
    pub netns: NetnsUsage,
    /// The most pages of tcp_mem that a look saw.
    pub tcp_mem_pages_max: Option<u64>,
    pub refused: Box<Refused>,
    pub dropped: u64,
    /// Where: `ring buffer`, `ring buffer: crossing`, or the hook whose programs the kernel skipped because both were running on that CPU already.
    pub dropped_by: BTreeMap<String, u64>,
    /// Crossings that were counted but not reported.
    pub suppressed: u64,
    /// Refusals, overflows and failed calls that were counted without a line of their own.
    pub not_shown: Option<u64>,
    /// What this program itself took, attaching included.
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    /// Of one core, since it was attached.
    pub own_cpu_percent: Option<f64>,
    /// The root of the verdict, unless it is only possible; `null`: no limit was hit.
    pub limit: Option<LimitName>,
    pub confidence: Option<Confidence>,
    /// `null` without `--cmd`.
    pub command: Option<CommandEnd>,
    /// Lines that were dropped because nobody read them in time, or that `--output` could not take.
    #[serde(default)]
    pub lines_dropped: u64,
}
