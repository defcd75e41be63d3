//! What the doctor says, as records have it.

use serde::{Deserialize, Serialize};

use super::limit::{LimitName, Scope};

/// Which ends of the connections are on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Server,
    Client,
    Both,
}

impl Role {
    /// Sockets of this host that a connection is made of.
    #[must_use]
    pub fn ends(self) -> u64 {
        if self == Self::Both { 2 } else { 1 }
    }

    #[must_use]
    pub fn has_server(self) -> bool {
        self != Self::Client
    }

    #[must_use]
    pub fn has_client(self) -> bool {
        self != Self::Server
    }
}

/// What happens to the connection at which a limit is met, and to those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is refused, or a process is killed.
    Stops,
    /// It comes, but its handshake or its data waits or is dropped.
    Stalls,
    /// Nobody is refused, but sockets get less than they ask for.
    Slows,
    /// When it is cut while it has not delivered everything, it is reset.
    Resets,
    /// When it is closed, its TIME_WAIT is left out.
    Forgets,
    /// It bounds one socket, whatever the number of connections.
    Bounds,
}

/// A kernel setting, and the value that would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Setting {
    pub name: String,
    pub value: String,
}

/// One limit beside what a run needs of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedLimit {
    pub limit: LimitName,
    pub scope: Scope,
    /// The limit. `null`: not known from here.
    pub now: Option<u64>,
    /// What others use of it. `null`: not known from here.
    pub used: Option<u64>,
    /// What all connections need together with what is used; of `nofile`, `nr_open` and `ports` what one table or one pair of
    /// addresses needs. `null`: nothing can be said, such as for want of a rate.
    pub needed: Option<u64>,
    pub unit: String,
    /// The number of the connection at which it is met, also beyond the connections that were asked for. `null`: at none, or not known.
    pub stops_at: Option<u64>,
    pub effect: Effect,
    /// It is met before the last connection, and that counts against this run.
    pub hit: bool,
    /// What to do; `null` when nothing has to be done.
    pub fix: Option<String>,
    /// What can go wrong when the limit is moved.
    #[serde(alias = "danger")]
    pub risk: String,
    /// The settings that do it, where settings of the kernel can. Empty when nothing has to be done.
    pub settings: Vec<Setting>,
    /// What else has to be known to read this line.
    pub note: Option<String>,
}

/// What can't be known from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unknown {
    pub limit: LimitName,
    pub why: String,
    /// This run needs something of it, so whether it fits hangs on it.
    pub decides: bool,
}

/// The hash table of established connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ehash {
    pub buckets: u64,
    /// Sockets in one bucket, on average, with all connections there.
    pub chain: f64,
}

/// Where the sizes of kernel objects come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SizesFrom {
    /// /sys/kernel/slab, which only root may read.
    Slab,
    /// The running kernel's types.
    Btf,
    /// Measured on Linux 6.18, for want of both.
    Measured,
}

/// Memory that a run takes of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemoryNeed {
    /// All of it.
    pub bytes: u64,
    /// Of one idle connection: slab objects of its ends here, slots of the descriptor tables.
    pub kernel_bytes_per_connection: u64,
    /// Of one idle connection, in c1m-server and c1m-client as far as they are here.
    pub user_bytes_per_connection: u64,
    /// Of one connection: what is queued, with its skbs.
    pub queued_bytes_per_connection: u64,
    /// Whatever the number of connections.
    pub fixed_bytes: u64,
    pub sizes_from: SizesFrom,
}

/// What a configured setting does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Assessment {
    /// It makes things worse, or is a mistake.
    Harms,
    /// The kernel, or whoever reads the file, does not accept the value, so it sets nothing.
    Refused,
    /// This kernel has no setting of this name.
    Absent,
    /// The line is no setting for the program that reads the file.
    Ignored,
    /// It changes nothing for this run.
    Nothing,
    /// It moves a limit that this run would meet without it.
    Helps,
}

impl Assessment {
    /// For people.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Harms => "harms",
            Self::Refused => "is refused",
            Self::Absent => "is not in this kernel",
            Self::Ignored => "is not read",
            Self::Nothing => "does nothing here",
            Self::Helps => "helps",
        }
    }
}

/// A setting of one line of a file, or of the running kernel, and its assessment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfiguredSetting {
    /// `now` for the running kernel, `-` for standard input, or a file.
    pub file: String,
    /// From 1 on; `null` for the running kernel.
    pub line: Option<u64>,
    /// With dots; for a limit of open files domain, type and item. A line that is no setting stands here as a whole.
    pub name: String,
    /// As it is written.
    pub value: String,
    /// The numbers that the kernel takes from it. `null`: none, or it is no kernel setting.
    pub taken: Option<String>,
    /// What this host has at present. `null`: not known from here.
    pub present: Option<String>,
    pub assessment: Assessment,
    /// The line that counts instead, as `file:line`. `null`: this one counts.
    pub overridden_by: Option<String>,
    pub text: String,
}

/// What a run of so many connections needs of each limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Doctor {
    pub connections: u64,
    pub role: Role,
    /// Bytes that wait in each connection's queue.
    pub queued_bytes: u64,
    /// Source addresses; `null` where no client is here.
    pub sources: Option<u64>,
    /// New connections per second; `null` when not given.
    pub rate: Option<u64>,
    /// `null`: something that decides is not known.
    pub fits: Option<bool>,
    /// The limit that is met first.
    pub first: Option<LimitName>,
    /// Every limit, the one that is met first in front.
    #[serde(alias = "walls")]
    pub limits: Vec<PlannedLimit>,
    pub unknown: Vec<Unknown>,
    pub memory: MemoryNeed,
    /// Bytes of a page of the kernel that was examined: the unit of tcp_mem. `null`: not known, as in records of before it was told.
    #[serde(default)]
    pub page_bytes: Option<u64>,
    /// `null`: the kernel does not show it (before Linux 6.1).
    pub ehash: Option<Ehash>,
    /// Configured settings: each of the files that were named, and those of this host that harm.
    pub configured: Vec<ConfiguredSetting>,
    /// Names of settings in the files that were named of which nothing can be said.
    pub unassessed: Vec<String>,
}

/// A kernel setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    pub name: String,
    pub from: String,
    pub to: String,
}

/// Kernel settings were changed, and wait to be put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Applied {
    pub changes: Vec<Change>,
    /// They stay after the end of the program, until `--restore`.
    pub keep: bool,
    /// Limits that no setting of the kernel moves.
    pub left: Vec<LimitName>,
}

/// Kernel settings were put back, or were not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restored {
    /// All of them are as they were before.
    pub back: bool,
    /// One sentence a setting.
    pub settings: Vec<String>,
}
