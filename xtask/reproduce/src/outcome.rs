//! What a run found, in the form in which it is printed as JSON; and whether that is what had to be found.

use std::collections::BTreeMap;

use c1m_server::output::record::{FileNr, Level, Precision, Refused, Sockstat};
use serde::{Deserialize, Serialize};

use super::{expect, progress::grouped};

/// The records of `reproduce --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReproduceRecord {
    /// After each act.
    Act(Box<Act>),
    /// The last line.
    Reproduction(Reproduction),
}

/// What an act is played for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActName {
    /// The `tcp_mem` that the article's server had, with pinned bytes.
    Default,
    /// The `tcp_mem` with which it went on, with pinned bytes.
    Cure,
    /// Nothing pinned.
    Idle,
}

/// One act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Act {
    pub(crate) name: ActName,
    /// low, pressure, high, in pages
    pub(crate) tcp_mem: [u64; 3],
    /// `default`: at which connection high was crossed, counted in the kernel. Else: connections held.
    pub(crate) connections: Option<u64>,
    /// `default`: at which one it had to be, from the plan. Else: connections wanted.
    pub(crate) expected: Option<u64>,
    pub(crate) error_percent: Option<f64>,
    /// By how many connections it may be off.
    pub(crate) tolerance: u64,
    /// `default`: what the kernel's counter held at the crossing. Else: what it held with all connections open.
    pub(crate) pages: Option<u64>,
    pub(crate) limit_pages: u64,
    /// Connections open in the server at the end of the ramp.
    pub(crate) held: u64,
    /// Of `sampled` connections that were asked for a response then.
    pub(crate) answered: u64,
    pub(crate) sampled: u64,
    pub(crate) ramp_s: f64,

    /// The first crossing of each level, upwards.
    pub(crate) crossings: Vec<ActCrossing>,
    /// Pages of TCP before the act, without what can be a residue of the kernel's per-CPU reserve.
    pub(crate) baseline_pages: u64,
    /// Pages that the client's plan charges; `null` when nothing is pinned.
    pub(crate) planned_pages: Option<u64>,
    /// truesize of one skb beyond its payload, measured by the client's probe
    pub(crate) overhead_bytes: Option<u64>,
    /// tcp_mem pages with all connections open.
    pub(crate) held_pages: u64,
    pub(crate) refused: Option<Refused>,
    /// The kernel's own counters (TcpExt) that moved during the act.
    pub(crate) kernel: BTreeMap<String, u64>,
    /// Caches that hold at least half an object for each connection, both ends together.
    pub(crate) slab: Option<Vec<SlabShare>>,
    /// Sum of `slab`.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// By how much used memory grew since before the first act, by connection: everything, both ends and both programs.
    pub(crate) memory_bytes_per_connection: f64,
    /// PSS of the server by connection, its own baseline and tracing included.
    pub(crate) server_user_bytes_per_connection: Option<f64>,
    pub(crate) server_cpu_user_s: f64,
    pub(crate) server_cpu_system_s: f64,
    pub(crate) sockstat: Sockstat,
    pub(crate) file_nr: FileNr,
    pub(crate) dropped: Option<u64>,
    pub(crate) suppressed: Option<u64>,
}

/// The first crossing of one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActCrossing {
    pub(crate) level: Level,
    pub(crate) connections: Option<u64>,
    pub(crate) expected: Option<u64>,
    pub(crate) error_percent: Option<f64>,
    pub(crate) pages: Option<u64>,
    pub(crate) limit_pages: u64,
    pub(crate) hook: Option<String>,
    pub(crate) precision: Option<Precision>,
}

/// What one slab cache holds for a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlabShare {
    pub(crate) cache: String,
    pub(crate) objects_per_connection: f64,
    pub(crate) bytes_per_connection: f64,
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reproduction {
    /// `uname -r`
    pub(crate) kernel: String,
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) connections: u64,
    pub(crate) acts: Vec<Act>,
    /// Of the last act.
    pub(crate) ramp_s: f64,
    /// Of the last act: idle connections.
    pub(crate) server_user_bytes_per_connection: Option<f64>,
    /// Of the last act, both ends of a connection.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// Events lost, of all acts.
    pub(crate) dropped: Option<u64>,
    /// Are all settings as they were before?
    pub(crate) restored: bool,
    pub(crate) elapsed_s: f64,
    /// Every target that was missed, in words.
    pub(crate) missed: Vec<String>,
}

impl Act {
    /// Every target that this act missed.
    pub(super) fn missed(&self, connections: u64) -> Vec<String> {
        let mut missed = match self.name {
            ActName::Default => self.missed_crossing(),
            ActName::Cure | ActName::Idle => self.missed_hold(connections),
        };
        match self.dropped {
            Some(0) => {}
            Some(dropped) => missed.push(format!("{} events were lost", grouped(dropped))),
            None => missed.push("the server does not say how many events were lost".into()),
        }
        missed
    }

    fn missed_crossing(&self) -> Vec<String> {
        match (self.connections, self.expected) {
            (Some(at), Some(expected)) if at.abs_diff(expected) <= self.tolerance => Vec::new(),
            (Some(at), Some(expected)) => vec![format!(
                "high was crossed at connection {}, expected at {} ± {}",
                grouped(at),
                grouped(expected),
                grouped(self.tolerance),
            )],
            (None, Some(expected)) => vec![format!(
                "no crossing of high was reported, expected at connection {}",
                grouped(expected)
            )],
            (_, None) => vec!["the client's plan does not reach high".into()],
        }
    }

    fn missed_hold(&self, connections: u64) -> Vec<String> {
        let mut missed = Vec::new();
        if self.held != connections {
            missed.push(format!(
                "{} of {} connections were held",
                grouped(self.held),
                grouped(connections)
            ));
        }
        if self.answered != self.sampled || self.sampled == 0 {
            missed.push(format!(
                "{} of {} connections that were asked answered",
                grouped(self.answered),
                grouped(self.sampled)
            ));
        }
        missed
    }

    pub(super) fn crossing(&self, wanted: Level) -> Option<&ActCrossing> {
        self.crossings.iter().find(|crossing| crossing.level == wanted)
    }
}

impl ActCrossing {
    /// `connection 990,643, expected 990,613 (0.003 %)`
    pub(super) fn told(&self) -> String {
        let at = self
            .connections
            .map_or("not reported".into(), |at| format!("connection {}", grouped(at)));
        match (self.expected, self.error_percent) {
            (Some(expected), Some(error)) => {
                format!("{at}, expected {} ({error:.3} %)", grouped(expected))
            }
            (Some(expected), None) => format!("{at}, expected {}", grouped(expected)),
            (None, _) => format!("{at}, none expected"),
        }
    }
}

impl Reproduction {
    /// Puts a run together, and finds out what it missed.
    pub(super) fn new(
        host: (String, u64, u64),
        connections: u64,
        acts: Vec<Act>,
        restored: bool,
        elapsed_s: f64,
    ) -> Self {
        let mut missed: Vec<String> = acts
            .iter()
            .enumerate()
            .flat_map(|(index, act)| {
                act.missed(connections)
                    .into_iter()
                    .map(move |text| format!("act {}: {text}", index + 1))
            })
            .collect();
        if !restored {
            missed.push("a kernel setting is not as it was before".into());
        }
        let last = acts.last();
        Self {
            kernel: host.0,
            cpus: host.1,
            memory_bytes: host.2,
            connections,
            ramp_s: last.map_or(0.0, |act| act.ramp_s),
            server_user_bytes_per_connection: last
                .and_then(|act| act.server_user_bytes_per_connection),
            kernel_bytes_per_connection: last.and_then(|act| act.kernel_bytes_per_connection),
            dropped: acts.iter().map(|act| act.dropped).sum(),
            acts,
            restored,
            elapsed_s,
            missed,
        }
    }
}

/// Three decimals are as much as anybody reads.
#[must_use]
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A sum, by connection.
#[must_use]
pub(super) fn per_connection(total: u64, connections: u64) -> f64 {
    rounded(expect::as_f64(total) / expect::as_f64(connections.max(1)))
}
