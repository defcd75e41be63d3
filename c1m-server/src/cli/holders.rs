//! Flags of `holders`, and how a network namespace is named.

use std::str::FromStr;

use c1m_text::units::{parse_count_as, parse_number};
use clap::{Args, ValueEnum};

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
    pub netns: NetnsChoice,

    /// One JSON line on standard output
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub color: Color,
}

/// What makes a row of `holders`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    Process,
    Cgroup,
    /// Local port, in its network namespace
    Port,
    /// Remote address
    Remote,
}

/// Which network namespaces to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetnsChoice {
    /// That of this process
    Own,
    /// That of another one
    Process(u32),
    /// The one with this inode, as /proc/PID/ns/net and lsns show it
    Inode(u32),
    /// Every one that can be found
    All,
}

impl FromStr for NetnsChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = match text {
            "self" => Ok(Self::Own),
            "all" => Ok(Self::All),
            _ => match text.strip_prefix("inode:") {
                Some(inode) => parse_number(inode).map(Self::Inode),
                None => parse_number(text).map(Self::Process),
            },
        };
        named.map_err(|_| "use self, all, a PID, or inode:N with the number that lsns shows".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_four_ways_to_be_named() {
        assert_eq!("self".parse(), Ok(NetnsChoice::Own));
        assert_eq!("all".parse(), Ok(NetnsChoice::All));
        assert_eq!("17".parse(), Ok(NetnsChoice::Process(17)));
        assert_eq!("inode:4026531840".parse(), Ok(NetnsChoice::Inode(4_026_531_840)));
        for wrong in [
            "",
            "0",
            "-1",
            "inode:",
            "inode:0",
            "inode:x",
            "Self",
            "4294967296",
            "+17",
            "inode:+17",
            " 17",
        ] {
            assert!(wrong.parse::<NetnsChoice>().unwrap_err().contains("inode:N"), "{wrong}");
        }
    }
}
