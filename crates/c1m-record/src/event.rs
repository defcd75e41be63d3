//! What tracing tells: the hooks, and what they saw.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Direction, Level, Socket};

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
    /// The probe's id, such as `orphans_given_up`.
    #[serde(alias = "signal")]
    pub probe: String,
    pub proves: String,
    /// The attach method in use, such as `fexit/tcp_check_oom` or `TcpExt TCPAbortOnMemory`; `null`: there is none on this host.
    pub hook: Option<String>,
    /// Is a program attached for it?
    pub attached: bool,
    /// `null` without an attach method.
    #[serde(alias = "precision")]
    pub resolution: Option<Resolution>,
    /// The resolution in words; `null` without an attach method.
    pub says: Option<String>,
    /// Why no better attach method: all that were refused, in words; `null` for the best one.
    pub reason: Option<String>,
    /// The better attach methods, each with why it was refused.
    pub refused: Vec<RefusedHook>,
}

/// An attach method that this host does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedHook {
    pub hook: String,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Resolution {
    /// To the one allocation that crossed.
    Exact,
    /// To the one connection.
    Connection,
    /// To the interval at which user space takes samples.
    Interval,
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
    #[serde(alias = "precision")]
    pub resolution: Resolution,
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
    /// segments that arrived and could not be charged, by what had no room; `null` where no hook tells it
    pub dropped_tcp_mem: Option<u64>,
    pub dropped_receive_buffer: Option<u64>,
    /// orphans given up, split by what the kernel looked at; `null` where no hook tells it
    pub orphans_aborted_too_many: Option<u64>,
    pub orphans_aborted_out_of_memory: Option<u64>,
    /// of both, those that a timer gave up; from here on `null` where no hook tells it
    pub orphans_in_timers: Option<u64>,
    /// the most orphans that the kernel summed up
    pub orphans_max: Option<u64>,
    /// granted, or taken without asking, above tcp_mem high
    pub allowed_above_high: Option<u64>,
    pub forced_above_high: Option<u64>,
    /// times that memory pressure began: usage above the second limit of tcp_mem, or an allocation of pages that failed below it
    pub pressure_entries: Option<u64>,
    pub pressure_entries_allocator: Option<u64>,
    pub pressure_exits: Option<u64>,
    /// time under pressure, of periods that have ended
    pub pressure_ms: Option<u64>,
    /// times that segments out of order were thrown away for want of memory
    pub ofo_pruned: Option<u64>,
    /// skbs of receive queues that were merged into others for want of room
    pub collapsed: Option<u64>,
    /// SYNs, and ends of handshakes, that found the accept queue full
    pub accept_queue_syn: Option<u64>,
    pub accept_queue_ack: Option<u64>,
    /// SYNs that found the SYN queue full
    pub syn_queue_full: Option<u64>,
    /// searches for a local port that found none
    pub ports_exhausted: Option<u64>,
    /// system calls of any process that failed, by call and errno (`accept EMFILE`); `null` where no hook tells it
    pub call_errors: Option<BTreeMap<String, u64>>,
    /// The kernel's own counters of this network namespace (TcpExt), as differences since the start.
    pub kernel: BTreeMap<String, u64>,
}

impl Refused {
    /// Allocations refused, by whatever limit.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        let high = self.high_send + self.high_receive;
        let fair_share = self.fair_share_send + self.fair_share_receive;
        high + fair_share + self.memcg_send + self.memcg_receive
    }
}

/// One refused allocation with its socket: an example of its limit, side, network namespace and cgroup.
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

/// An orphan that the kernel reset for memory: an example of its cause, network namespace and cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Aborted {
    /// `too_many_orphans` or `out_of_memory`
    pub limit: String,
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    /// How many times over a timer let the number of orphans count: 1, 2 or 4; `null` where the hook does not tell.
    pub penalty: Option<u32>,
    #[serde(flatten)]
    pub socket: Socket,
    pub hook: String,
}

/// The kernel's memory pressure began or ended: the first ones of each second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pressure {
    /// `up`: it began
    pub direction: Direction,
    /// `tcp_mem`: usage above its second limit; `allocator`: pages or skbs that could not be had, with usage below it. `null` at the end.
    pub cause: Option<String>,
    /// How long it lasted; `null` at the beginning, and at the end of a period that began before the start.
    pub duration_ms: Option<f64>,
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    #[serde(flatten)]
    pub socket: Socket,
    pub hook: String,
}

/// A queue of a listener was full: an example of the queue and the listener's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Overflow {
    /// `accept` or `syn`
    pub queue: String,
    /// `syn`: a SYN found it full; `ack`: the end of a handshake did
    pub at: String,
    /// The listener's address.
    pub listener: Option<String>,
    /// Entries of the queue.
    pub len: u64,
    /// The listener's backlog, as the kernel cut it.
    pub max: u64,
    pub cgroup: Option<u64>,
    pub netns: Option<u32>,
    pub hook: String,
}

/// No local port was free: an example of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ports {
    /// The source address; every port of it is in use towards `destination`.
    pub source: Option<String>,
    pub destination: Option<String>,
    pub pid: u32,
    pub comm: String,
    pub netns: Option<u32>,
    pub hook: String,
}

/// A system call failed because of a limit, in any process of the host: an example of call, errno and process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CallError {
    /// `socket`, `accept`, `bind`, `connect`, `send`, `receive`, `epoll_ctl`, `descriptor` (another call that makes one), `other`
    pub call: String,
    /// Its name, such as `EMFILE`.
    pub errno: String,
    pub pid: u32,
    pub comm: String,
    pub hook: String,
}

/// The OOM killer chose a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OomKill {
    pub pid: u32,
    pub comm: String,
    /// For a memory cgroup, not for the whole host; `null` where no hook tells it.
    pub in_cgroup: Option<bool>,
    pub hook: String,
}
