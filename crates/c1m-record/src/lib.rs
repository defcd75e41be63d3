//! What `--json` prints: one record a line, each with `v`, `ts` and `kind`. The schema in docs/ says the same.

mod doctor;
mod event;
mod held;
mod limit;
mod watch;

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

pub use self::{
    doctor::{
        Applied, Assessment, Change, ConfiguredSetting, Doctor, Effect, Ehash, MemoryNeed,
        PlannedLimit, Restored, Role, Setting, SizesFrom, Unknown,
    },
    event::*,
    held::{Holder, HolderRow, Holders, HoldersScope, Memory, Source, StateRow, States, TcpState},
    limit::{Cause, Confidence, Evidence, LimitName, LimitReading, Limits, Scope, Tier, Verdict},
    watch::{
        CommandEnd, Ended, HostUsage, NetnsUsage, NextLimit, UnderPressure, Usage, Watched,
        Watching,
    },
};

/// The version of the schema: raised when a field changes its meaning or goes, not when one comes. Version 1 had other names for some fields, which are
/// still read.
pub const SCHEMA_VERSION: u32 = 2;

/// In `dropped_by`: crossings that found the ring buffer full.
pub const LOST_CROSSINGS: &str = "ring buffer: crossing";
/// In `dropped_by`: entries of the ring buffer that this version does not understand.
pub const NOT_UNDERSTOOD: &str = "not understood";

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
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Record {
    Hooks(Hooks),
    Listening(Listening),
    Online(Online),
    Crossing(Crossing),
    Refused(Refused),
    Refusal(Refusal),
    Aborted(Aborted),
    OomKill(OomKill),
    Pressure(Pressure),
    Overflow(Overflow),
    Ports(Ports),
    CallError(CallError),
    Warning(Warning),
    Limits(Limits),
    Verdict(Verdict),
    Summary(Summary),
    Holders(Holders),
    States(States),
    Watching(Watching),
    Usage(Usage),
    Ended(Ended),
    Doctor(Doctor),
    Applied(Applied),
    Restored(Restored),
}

impl Record {
    /// Its `kind`, as in JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.into()
    }
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
    /// Bytes of a page of the kernel that ran: the unit of tcp_mem. `null`: not known, as in records of before it was told.
    #[serde(default)]
    pub page_bytes: Option<u64>,
    /// Where metrics are handed out; `null` without `--metrics-addr`.
    pub metrics: Option<String>,
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
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Level {
    Low,
    Pressure,
    High,
}

impl Level {
    /// From the lowest up.
    pub const ALL: [Self; 3] = [Self::Low, Self::Pressure, Self::High];

    /// The limit that this value of tcp_mem is. Low is none: below it pressure ends.
    #[must_use]
    pub fn limit(self) -> Option<LimitName> {
        match self {
            Self::Low => None,
            Self::Pressure => Some(LimitName::TcpMemPressure),
            Self::High => Some(LimitName::TcpMemHigh),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Up,
    Down,
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
    /// Requests read, the refused ones included; `null` in records of before it was counted.
    #[serde(default)]
    pub requests: Option<u64>,
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
    pub refused: Option<Box<Refused>>,
    /// Events lost; `null` without `--trace`.
    pub dropped: Option<u64>,
    /// Where: `ring buffer`, `ring buffer: crossing`, or the hook whose programs the kernel skipped because both were running on that CPU already.
    pub dropped_by: BTreeMap<String, u64>,
    /// Crossings that were counted but not reported; `null` without `--trace`.
    pub suppressed: Option<u64>,
    /// Refusals, overflows and failed calls that were counted without a line of their own; `null` without `--trace`.
    pub not_shown: Option<u64>,
    /// Lines of this output that were dropped because nobody read them in time.
    #[serde(default)]
    pub lines_dropped: u64,
}

/// Gives enums whose names strum derives a function that has them.
macro_rules! named {
    ($($name:ident),+) => {$(
        impl $name {
            /// The name, as in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                self.into()
            }
        }
    )+

        #[cfg(test)]
        mod tests {
            use strum::VariantArray as _;

            #[test]
            fn names_are_those_of_json() {
                $(for variant in super::$name::VARIANTS {
                    assert_eq!(serde_json::to_value(variant).unwrap(), variant.name());
                })+
            }
        }
    };
}

named!(Confidence, Holder, Level, LimitName, Resolution, Scope, TcpState);
