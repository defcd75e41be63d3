//! Flags of `holders`.

use c1m_host::namespaces::NetnsArgument;
use c1m_probe::holders::GroupBy;
use c1m_text::units::parse_count_as;
use clap::Args;

use super::Color;

/// Say who holds TCP memory now: receive and send side, closed sockets that are still open, orphans
///
/// By eBPF iterators, which need CAP_BPF, CAP_PERFMON, and CAP_SYS_ADMIN to enter other network namespaces. Without them by sock_diag and
/// /proc, and it says what these can't see.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit: 0 done, 2 usage, 3 the environment refused, 4 internal.", after_long_help = super::manual::HOLDERS)]
pub struct Holders {
    /// What makes a row
    #[arg(long, value_name = "WHAT", value_enum, default_value = "process")]
    pub by: GroupBy,

    /// Rows to show, those with the most pages first
    #[arg(long, value_name = "N", value_parser = parse_count_as::<usize>, default_value_t = 20)]
    pub top: usize,

    /// Whose sockets: self, PID, inode:N, or all network namespaces
    #[arg(long, value_name = "NETNS", default_value = "all")]
    pub netns: NetnsArgument,

    /// One JSON line on standard output
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub color: Color,
}
