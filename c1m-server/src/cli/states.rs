//! Flags of `states`.

use c1m_host::namespaces::NetnsArgument;
use c1m_text::units::parse_count_as;
use clap::Args;

use super::Color;

/// Count connections by state, local port and network namespace: what ss -tan shows, and closed sockets that are still open
///
/// Counted in the kernel by an eBPF iterator; without the privilege by sock_diag, of this network namespace alone.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit: 0 done, 2 usage, 3 the environment refused, 4 internal.", after_long_help = super::manual::STATES)]
pub struct States {
    /// Ports to show to people, those with the most sockets first; --json has every row
    #[arg(long, value_name = "N", value_parser = parse_count_as::<usize>, default_value_t = 40)]
    pub top: usize,

    /// Whose connections: self, PID, inode:N, or all network namespaces
    #[arg(long, value_name = "NETNS", default_value = "all")]
    pub netns: NetnsArgument,

    /// One JSON line on standard output
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub color: Color,
}
