//! Limits and verdicts, as records have them.

use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

/// A limit that can stop a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LimitName {
    /// `net.ipv4.tcp_mem`, second value: above it each socket has to stay within its fair share.
    TcpMemPressure,
    /// `net.ipv4.tcp_mem`, third value.
    TcpMemHigh,
    /// The limit of a memory cgroup: its sockets, or its processes by the OOM killer.
    MemoryCgroup,
    /// `SO_RCVBUF`, `net.ipv4.tcp_rmem`
    ReceiveBuffer,
    /// `SO_SNDBUF`, `net.ipv4.tcp_wmem`
    SendBuffer,
    /// `net.ipv4.tcp_max_orphans`, where an orphan may count twice or four times.
    Orphans,
    /// Orphans with unsent data above `net.ipv4.tcp_mem` high.
    OrphanMemory,
    /// `RLIMIT_NOFILE` (EMFILE)
    Nofile,
    /// `fs.nr_open`, the ceiling of `RLIMIT_NOFILE`.
    NrOpen,
    /// `fs.file-max` (ENFILE)
    FileMax,
    /// The smaller of listen's backlog and `net.core.somaxconn`.
    AcceptQueue,
    /// Requests in `SYN_RECV` of a listener, `net.ipv4.tcp_max_syn_backlog`.
    SynQueue,
    /// `net.ipv4.ip_local_port_range`, for one source and destination (EADDRNOTAVAIL).
    Ports,
    /// `net.netfilter.nf_conntrack_max`
    Conntrack,
    /// `fs.epoll.max_user_watches` (ENOSPC)
    EpollWatches,
    /// `net.ipv4.tcp_max_tw_buckets`
    TimeWait,
    /// The host's memory: ENOMEM, ENOBUFS, the OOM killer.
    Memory,
}

impl LimitName {
    /// Every limit, in the order in which they are shown.
    pub const ALL: [Self; Self::VARIANTS.len()] =
        *Self::VARIANTS.first_chunk().expect("it is as long");
}

/// What a limit is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Scope {
    Host,
    Netns,
    Cgroup,
    User,
    Process,
    Listener,
    Socket,
    /// One source address, destination address and destination port.
    Tuple,
}

/// What the kernel lets be hooked, which is how exact an answer can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// No eBPF: errors of the own calls, and the kernel's counters.
    Counters,
    /// Tracepoints.
    Tracepoints,
    /// Kernel functions as well.
    Functions,
}

/// One limit: how much of it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LimitReading {
    pub limit: LimitName,
    pub scope: Scope,
    /// `connections`, `pages`, `bytes`, `files`, ...
    pub unit: String,
    /// `null`: not known from here.
    pub used: Option<u64>,
    /// `null`: not known from here.
    pub ceiling: Option<u64>,
    /// `ceiling` less `used`, 0 when it is past.
    pub headroom: Option<u64>,
    /// The files or calls that it was read from.
    pub source: String,
    /// The number of the connection at which it is hit, as usage grows now, or at which it was first seen to be past;
    /// `null`: it does not grow with connections, as far as is known.
    pub at_connection: Option<u64>,
    /// Seconds until then at the present rate of new connections, 0 when it is past; `null` without a rate.
    pub in_s: Option<f64>,
}

/// Every limit, and which comes next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    pub limits: Vec<LimitReading>,
    /// Of those that are not past, the one that is hit first as connections come; `null` when none is in sight.
    pub next: Option<LimitName>,
}

/// How sure a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Confidence {
    /// Fits what was seen; so may others.
    Possible,
    /// What was seen has no other cause that is known, but the kernel did not say it itself.
    Likely,
    /// The kernel said so: a hook on the very decision, an errno that has no other cause, a counter of this limit alone.
    Certain,
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evidence {
    /// A hook, a counter, a call with its errno, or a file.
    pub source: String,
    /// What it counts or reads.
    pub what: String,
    pub value: u64,
    /// What `value` stands beside, where it is a usage.
    pub limit: Option<u64>,
}

/// A limit that stopped something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    pub limit: LimitName,
    pub scope: Scope,
    pub confidence: Confidence,
    /// One sentence for people.
    pub text: String,
    pub evidence: Vec<Evidence>,
    /// What would make it certain; `null` when it is.
    #[serde(alias = "settle")]
    pub to_confirm: Option<String>,
    /// The setting, and what it has to be; `null` when no setting helps.
    #[serde(alias = "advice")]
    pub remedy: Option<String>,
}

/// Which limit it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Nothing limited anything since the start.
    pub quiet: bool,
    pub tier: Tier,
    /// The root cause first, what follows from it after it. Empty when quiet.
    pub causes: Vec<Cause>,
}
