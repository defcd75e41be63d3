//! Records of what holds TCP memory, and of connections by state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A state as the kernel names it, and what it calls CLOSE told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// It was connected, is so no more, and its descriptor is open all the same.
    ClosedButOpen,
    /// It has a descriptor and no connection yet.
    Unconnected,
    /// A number that this version does not know.
    Unknown,
}

impl TcpState {
    /// `number`: include/net/tcp_states.h. `had_peer`: the socket knows a remote port.
    #[must_use]
    pub fn from_kernel(number: u16, had_peer: bool) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            // 12: a request, whose handshake goes on.
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 if had_peer => Self::ClosedButOpen,
            7 => Self::Unconnected,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Unknown,
        }
    }
}

/// Who holds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Holder {
    /// A process has a descriptor of it.
    Process,
    /// Nobody: it was closed, and the kernel ends the connection by itself.
    Orphan,
    /// A connection that its listener has not accepted yet.
    AcceptQueue,
    /// The kernel itself, such as an NFS mount. Those that hold nothing are not told.
    Kernel,
    /// A descriptor that no visible process has: sent and not yet received, of io_uring alone, of another PID namespace, or of a process that the kernel
    /// hides.
    Elsewhere,
    /// Another user's process, whose descriptors are not to be seen from here.
    Unknown,
}

/// How the sockets were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// eBPF iterators over all sockets and all descriptors.
    Iterators,
    /// Netlink and /proc: no closed socket's memory, and no other network namespace.
    SockDiag,
}

impl Source {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Iterators => "eBPF iterators",
            Self::SockDiag => "sock_diag",
        }
    }
}

/// What the sockets of one row hold. Bytes are the kernel's truesize, pages are charged to tcp_mem.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Memory {
    pub sockets: u64,
    /// Closed sockets whose descriptor is still open; `null`: not to be seen from here.
    pub closed_but_open: Option<u64>,
    /// Sockets that further processes hold as well. They are counted in this row alone.
    pub shared: u64,
    /// Of every socket receive, send and forward bytes together, rounded up.
    pub pages: u64,
    /// In receive queues.
    pub receive_bytes: u64,
    /// Waiting for whoever has the socket's lock; not yet charged.
    pub backlog_bytes: u64,
    /// Written and not yet acknowledged.
    pub send_bytes: u64,
    /// Charged and not in use.
    pub forward_bytes: i64,
    /// Sockets by state.
    pub states: BTreeMap<TcpState, u64>,
}

/// One row: what it is of, and what that holds. What a row is not about is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HolderRow {
    /// `null` where rows are ports or remote addresses.
    pub holder: Option<Holder>,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    /// Path of the memory cgroup: that of the process, or the socket's own where it has no process.
    pub cgroup: Option<String>,
    /// Local port.
    pub port: Option<u16>,
    pub netns: Option<u32>,
    pub remote: Option<String>,
    #[serde(flatten)]
    pub memory: Memory,
}

/// Who holds TCP memory now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Holders {
    pub source: Source,
    /// `host`: all of it; `part`: see `unseen`, or `--netns`.
    pub scope: HoldersScope,
    /// The most pages first.
    pub rows: Vec<HolderRow>,
    /// Rows that were left off, and their pages.
    pub rows_omitted: u64,
    pub pages_omitted: u64,
    /// Over all rows.
    pub total: Memory,
    /// What the kernel counts for the whole host: `mem` of /proc/net/sockstat.
    pub accounted_pages: Option<u64>,
    /// What the sockets that were found hold.
    pub found_pages: u64,
    /// So many pages the CPUs together may hold outside of `accounted_pages`, in either direction.
    pub reserve_pages: Option<u64>,
    /// `accounted_pages` less `found_pages`, as far as it is more than the reserve; `null`: unknown from here.
    pub unexplained_pages: Option<i64>,
    /// TCP sockets that the kernel counts for the whole host: `alloc` of /proc/net/sockstat. Minisocks and requests are not among them.
    pub accounted_sockets: Option<u64>,
    /// `accounted_sockets` less those that were found. They hold nothing, and no process that can be seen has a descriptor of them. Less than 0:
    /// opened or closed meanwhile. `null`: unknown from here, and in a watch, which does not look at idle sockets.
    pub unlisted_sockets: Option<i64>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
    pub took_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HoldersScope {
    Host,
    Part,
}

/// So many connections are in this state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StateRow {
    pub state: TcpState,
    /// Local port; 0: the socket has none yet.
    pub port: u16,
    /// Inode of the network namespace.
    pub netns: u32,
    pub count: u64,
}

/// Connections by state, local port and network namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct States {
    pub source: Source,
    /// The most connections first.
    pub rows: Vec<StateRow>,
    pub unseen: Vec<String>,
    pub took_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_close_is_two_states() {
        assert_eq!(TcpState::from_kernel(7, true), TcpState::ClosedButOpen);
        assert_eq!(TcpState::from_kernel(7, false), TcpState::Unconnected);
        assert_eq!(TcpState::from_kernel(12, true), TcpState::SynRecv);
        assert_eq!(TcpState::from_kernel(13, true), TcpState::Unknown);
    }
}
