//! Flags of `doctor`.

use std::{path::PathBuf, str::FromStr};

use c1m_preflight::plan::Workers;
use c1m_text::{
    sources::{SourceRange, overlap},
    units::{parse_bytes, parse_count, parse_count_as},
};
use clap::{Args, ValueEnum};

use super::Color;

/// More connections than this no host has, and more bytes than this no socket queues.
const MOST: u64 = 1_000_000_000;

/// Say before a run what will stop it: each limit, what N connections need of it, and the connection number at which it is met
///
/// Needs no root, and changes nothing without --apply. What can't be read from here is unknown.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit: 0 all connections fit, 1 a limit is met before the last one, or a line of --judge harms, 2 usage, 3 not known from here, or the environment refused, 4 internal.",
    after_long_help = super::manual::DOCTOR
)]
pub struct Doctor {
    /// How many connections there shall be
    #[arg(long, value_name = "N", value_parser = count, required_unless_present_any = ["hooks", "restore"])]
    pub connections: Option<u64>,

    /// Bytes that wait in each connection's queue, unread
    #[arg(long, value_name = "BYTES", value_parser = queued, default_value = "0")]
    pub queued_bytes: u64,

    /// Which ends of the connections are on this host
    #[arg(long, value_enum, default_value = "both")]
    pub role: Role,

    /// Source addresses of the client: how many, or which (ADDR|CIDR|FIRST-LAST, separated by commas) [default: this host's own; on one host as many as are needed]
    #[arg(long, value_name = "S")]
    pub sources: Option<Sources>,

    /// Destination addresses times ports
    #[arg(long, value_name = "N", value_parser = count, default_value = "1")]
    pub destinations: u64,

    /// New connections per second
    #[arg(long, value_name = "R", value_parser = count)]
    pub rate: Option<u64>,

    /// Worker threads of the program that is here, each with a descriptor table of its own; 1 for a program with one table
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    pub workers: Workers,

    /// Length that the server asks for each accept queue
    #[arg(long, value_name = "N", value_parser = parse_count_as::<u32>, default_value_t = 4096)]
    pub backlog: u32,

    /// How connections end, all at once: by FIN each may be an orphan
    #[arg(long, value_enum, default_value = "reset")]
    pub end: End,

    /// Assess every line of these files: of sysctl.d, limits.conf, units of systemd or calls of sysctl; - for standard input, or folders such as /etc/sysctl.d
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "connections")]
    pub judge: Vec<PathBuf>,

    /// Write what is needed below DIR, as /etc has it: sysctl.d, a systemd drop-in, limits.d; files that exist are left alone
    #[arg(long, value_name = "DIR", requires = "connections")]
    pub emit: Option<PathBuf>,

    /// Replace files of --emit that exist
    #[arg(long, requires = "emit")]
    pub force: bool,

    /// Change the kernel settings that are needed, until SIGINT or SIGTERM: shows the difference, and asks
    #[arg(long, requires = "connections")]
    pub apply: bool,

    /// Leave what --apply changed, until --restore
    #[arg(long, requires = "apply")]
    pub keep: bool,

    /// Do not ask
    #[arg(long, requires = "apply")]
    pub yes: bool,

    /// Put back what a run that was killed has left, and what --keep has
    #[arg(long, conflicts_with_all = ["apply", "hooks", "emit"])]
    pub restore: bool,

    /// Which attach method each probe uses on this kernel, and why a better one is not available: will --trace work here
    #[arg(long, conflicts_with_all = ["connections", "judge"])]
    pub hooks: bool,

    /// JSON lines on standard output
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub color: Color,

    /// Where changed settings are remembered
    #[arg(long, hide = true)]
    pub state_dir: Option<PathBuf>,
}

/// Which ends are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Server,
    Client,
    Both,
}

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum End {
    /// Neither orphans nor TIME_WAIT
    Reset,
    /// The usual close
    Fin,
}

/// Source addresses, as they are given: a number of at least 1, or ranges without overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources {
    pub count: u64,
    /// `None`: only the number was given.
    pub ipv6: Option<bool>,
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Commas are in counts, too (1,024), and points (1.024k).
        let is_number = text.starts_with(|first: char| first.is_ascii_digit());
        if parse_count(text).is_ok() || (is_number && !text.contains(['.', ':', '/', '-'])) {
            return count(text).map(|count| Self { count, ipv6: None });
        }
        let ranges = text.split(',').map(str::parse).collect::<Result<Vec<SourceRange>, _>>()?;
        if let Some((a, b)) = overlap(&ranges) {
            return Err(format!("{a} and {b} overlap: give each source address once"));
        }
        let merged = c1m_text::sources::Sources::merge(&ranges)
            .ok_or("give sources of one family, IPv4 or IPv6")?;
        Ok(Self { count: merged.count(), ipv6: Some(ranges[0].first.is_ipv6()) })
    }
}

fn count(text: &str) -> Result<u64, String> {
    match parse_count(text) {
        Ok(count @ 1..=MOST) => Ok(count),
        Ok(_) => Err("use a number from 1 to 1g".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn queued(text: &str) -> Result<u64, String> {
    match parse_bytes(text) {
        Ok(bytes @ 0..=MOST) => Ok(bytes),
        Ok(_) => Err(format!("use at most {MOST} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proptest::prelude::*;

    use crate::cli::{Cli, Command};

    fn parse(flags: &str) -> Result<super::Doctor, clap::Error> {
        let words = ["c1m-server", "doctor"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Some(Command::Doctor(doctor)) => Ok(doctor),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_and_addresses_are_read() {
        let doctor = parse("--connections 1m --queued-bytes 7.53K --sources 16").unwrap();
        assert_eq!((doctor.connections, doctor.queued_bytes), (Some(1_000_000), 7_711));
        assert_eq!(doctor.sources.map(|it| (it.count, it.ipv6)), Some((16, None)));
        for count in ["1024", "1,024", "1_024", "1.024k"] {
            let doctor = parse(&format!("--connections 1 --sources {count}")).unwrap();
            assert_eq!(doctor.sources.map(|it| it.count), Some(1024), "{count}");
        }
        let doctor = parse("--connections 1 --sources 10.0.0.0/24,10.0.1.1-10.0.1.9").unwrap();
        assert_eq!(doctor.sources.map(|it| (it.count, it.ipv6)), Some((254 + 9, Some(false))));
        assert!(parse("--hooks").is_ok() && parse("--restore").is_ok());
    }

    #[test]
    fn hostile_input_gets_one_clear_error() {
        for (flags, says) in [
            ("", "--connections"),
            ("--connections 0", "1 to 1g"),
            ("--connections 9223372036854775808", "1 to 1g"),
            ("--connections 18446744073709551616", "too large"),
            ("--connections 1 --queued-bytes 1000g", "at most"),
            ("--connections 1 --sources 0", "1 to 1g"),
            ("--connections 1 --sources 10.0.0.0/16,10.0.7.0/24", "overlap"),
            ("--connections 1 --sources 10.0.0.1,10.0.0.1", "overlap"),
            ("--connections 1 --sources 10.0.0.1,::1", "one family"),
            ("--connections 1 --sources 10.0.0.1/99", "not a source"),
            ("--connections 1 --sources ,", "not a source"),
            ("--connections 1 --sources 7x", "not a count"),
            ("--connections 1 --sources source-host", "names are not looked up"),
            ("--connections 1 --sources fe80::1%eth0", "leave %eth0 out"),
            ("--connections 1 --sources ::1,", "not a source"),
            ("--connections 1 --sources 1,24", "not a count"),
            ("--connections 1 --rate 0", "1 to 1g"),
            ("--connections 1 --destinations 0", "1 to 1g"),
            ("--connections 1 --keep", "--apply"),
            ("--connections 1 --hooks", "cannot be used"),
        ] {
            let error = parse(flags).unwrap_err().to_string();
            assert!(error.contains(says), "{flags}: {error}");
            assert_eq!(error.matches("error:").count(), 1, "{flags}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_sources_are_answered(text in "([0-9./,:-]|\\PC){0,40}") {
            if let Ok(sources) = text.parse::<super::Sources>() {
                prop_assert!(sources.count > 0);
            }
        }
    }
}
