//! What `--json` prints: one record a line, each with `v`, `ts` and `kind`. The schema in docs/ says the same.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

pub use super::limit::{
    Cause, Confidence, Evidence, LimitName, LimitReading, Limits, Scope, Tier, Verdict,
};

/// The version of the schema: raised when a field changes its meaning or goes, not when one comes.
pub const SCHEMA_VERSION: u32 = 1;

/// One line of JSON output, of whatever records a program has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Line<R> {
    pub v: u32,
    /// RFC 3339, UTC, microseconds.
    pub ts: String,
    #[serde(flatten)]
    pub record: R,
}

impl<R> Line<R> {
    pub fn at(time: SystemTime, record: R) -> Self {
        Self { v: SCHEMA_VERSION, ts: humantime::format_rfc3339_micros(time).to_string(), record }
    }
}

/// What c1m-server reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Hooks(Hooks),
    Listening(Listening),
    Online(Online),
    Crossing(Crossing),
    Refused(Refused),
    Refusal(Refusal),
    Aborted(Aborted),
    OomKill(OomKill),
    Warning(Warning),
    Limits(Limits),
    Verdict(Verdict),
    Summary(Summary),
}

/// What was attached, by which kind of hook, and why others were not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hooks {
    /// The running kernel, as `uname -r` says it. For readers: nothing is decided by it.
    pub kernel: String,
    pub hooks: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hook {
    /// What it proves, such as `crossing of tcp_mem high`.
    pub signal: String,
    /// Kind and kernel name, such as `tp_btf/inet_sock_set_state`.
    pub hook: String,
    pub attached: bool,
    /// Why not; `null` when attached.
    pub reason: Option<String>,
}

/// The port is bound and the workers run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listening {
    pub address: String,
    pub workers: usize,
    /// Connections that fit into the workers' descriptor tables together.
    pub capacity: u64,
    pub max_connections: Option<u64>,
    pub backlog: u32,
    pub pid: u32,
}

/// Once an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Online {
    /// Connections that the server holds now.
    pub online: u64,
    pub accepted: u64,
    pub closed: u64,
    /// Since the last such line.
    pub accepted_per_s: f64,
    pub pss_bytes: Option<u64>,
    /// tcp_mem pages of the host, from /proc/net/sockstat.
    pub tcp_mem_pages: Option<u64>,
    /// Established and not yet closed on the watched port, counted in the kernel; `null` without `--trace`.
    pub connections: Option<u64>,
    /// Events lost so far; `null` without `--trace`.
    pub dropped: Option<u64>,
}

/// A level of tcp_mem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Low,
    Pressure,
    High,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// To the one allocation that crossed.
    Exact,
    /// To the one connection.
    Connection,
    /// To the interval at which user space looks.
    Interval,
}

/// A socket, as far as the context of a hook knows it. `null`: not known there, never a guess.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Socket {
    pub local: Option<String>,
    pub remote: Option<String>,
    /// The process that made the call; `null` in a softirq, where the current process is an accident.
    pub pid: Option<u32>,
    pub comm: Option<String>,
    /// Id of the socket's cgroup (the inode of its folder in the v2 hierarchy).
    pub cgroup: Option<u64>,
    /// Inode of the socket's network namespace.
    pub netns: Option<u32>,
}

/// tcp_mem usage went past one of its three limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Crossing {
    /// `tcp_mem`
    pub limit: String,
    pub level: Level,
    pub direction: Direction,
    /// The same usage would not have crossed the limit as it was before: the limit was written.
    pub limit_moved: bool,
    /// What the kernel's own counter held at that instant, in pages.
    pub pages: u64,
    pub limit_pages: u64,
    /// low, pressure, high at that instant, in pages
    pub tcp_mem: [u64; 3],
    /// Established and not yet closed on the watched port, at that instant, counted in the kernel.
    pub connections: u64,
    #[serde(flatten)]
    pub socket: Socket,
    pub hook: String,
    pub precision: Precision,
    /// How long the kernel had been under memory pressure, from its own time stamp; `null` when it was not.
    pub pressure_age_ms: Option<f64>,
    /// Crossings since the last reported one that were counted but not reported, see docs/events.md.
    pub suppressed: u64,
}

/// Allocations refused and what followed, since the start. Zeroes are said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// tcp_mem above high, by side
    pub high_send: u64,
    pub high_receive: u64,
    /// under pressure, and the socket over its fair share
    pub fair_share_send: u64,
    pub fair_share_receive: u64,
    /// neither: the socket's memory cgroup
    pub memcg_send: u64,
    pub memcg_receive: u64,
    /// of the receive refusals, those with an empty receive queue: since Linux 6.6 the kernel takes that skb all the same, and
    /// advertises a zero window
    pub forced_first_skb: u64,
    /// skbs dropped with reason PROTO_MEM; `null` where the kernel has no drop reasons
    pub dropped_skb: Option<u64>,
    /// orphans reset with reason ABORT_ON_MEMORY, split by what the kernel looked at; `null` where it has no reset reasons
    pub orphans_aborted_too_many: Option<u64>,
    pub orphans_aborted_out_of_memory: Option<u64>,
    /// The kernel's own counters of this network namespace (TcpExt), as differences since the start.
    pub kernel: BTreeMap<String, u64>,
}

/// One refused allocation with its socket: the first ones of each limit and side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// `tcp_mem_high`, `fair_share` or `memcg`
    pub limit: String,
    /// `send` or `receive`
    pub side: String,
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    pub connections: u64,
    pub receive_queue_bytes: u64,
    pub send_queue_bytes: u64,
    #[serde(flatten)]
    pub socket: Socket,
    pub hook: String,
}

/// An orphan that the kernel reset for memory: the first ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Aborted {
    /// `too_many_orphans` or `out_of_memory`
    pub limit: String,
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    #[serde(flatten)]
    pub socket: Socket,
    pub hook: String,
}

/// The OOM killer chose a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OomKill {
    pub pid: u32,
    pub comm: String,
    pub hook: String,
}

/// Something that the user should know while it runs, such as a full descriptor table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Warning {
    /// The error's name, such as `EMFILE`.
    pub name: String,
    pub text: String,
}

/// The TCP lines of /proc/net/sockstat and sockstat6. `tcp_mem_pages`, `orphan` and `alloc` are the host's, `inuse` and `tw` the netns's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sockstat {
    pub sockets_used: u64,
    pub inuse: u64,
    pub inuse6: u64,
    pub orphan: u64,
    pub tw: u64,
    pub alloc: u64,
    pub tcp_mem_pages: u64,
}

/// /proc/sys/fs/file-nr
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileNr {
    pub allocated: u64,
    pub max: u64,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// When the end began, before the server closed anything itself.
    pub held: u64,
    pub peak: u64,
    pub accepted: u64,
    pub closed: u64,
    /// By name: of accept (`accept EMFILE`), of connections (`connection ECONNRESET`), of requests (`400`, `431`).
    pub errors: BTreeMap<String, u64>,
    pub rss_bytes: Option<u64>,
    /// At the time of the highest number held.
    pub pss_bytes: Option<u64>,
    /// PSS at the peak, the process itself included, by the connections held then.
    pub user_bytes_per_connection: Option<f64>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub elapsed_s: f64,
    pub sockstat: Option<Sockstat>,
    pub file_nr: Option<FileNr>,
    /// `null` without `--trace`
    pub refused: Option<Refused>,
    /// Events lost; `null` without `--trace`.
    pub dropped: Option<u64>,
    /// Crossings that were counted but not reported; `null` without `--trace`.
    pub suppressed: Option<u64>,
}
