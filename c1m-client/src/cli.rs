//! Every flag of c1m-client, in one place.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use c1m_preflight::plan::Workers;
use c1m_text::{
    address,
    sources::SourceRange,
    units::{parse_bytes, parse_count, parse_duration, parse_small_count},
};
use clap::{Args, Parser, Subcommand};

use crate::{record::End, require::Requirement, shard::Shard, start::StartAt, target::Target};

/// Opens TCP connections by the million, from many source addresses, and holds them.
///
/// Each connection sends one request and waits for the answer. Then it is idle, or leaves the
/// answer unread, or keeps asking. With --idle it does not even ask.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit: 0 done, 1 fewer connections than asked for (or than --require has of `connected`), every connection lost, no answer for --give-up, or \
                  a --require that does not hold, \
                  2 usage or a plan that can't be, 3 the environment refused, 4 internal.",
    after_long_help = crate::manual::CLIENT
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub load: Option<Load>,
}

/// What c1m-client does instead of opening connections.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    Merge(Merge),
}

/// Merge the results of all parts of a run (--shard) into one
///
/// Takes what --json printed, of which the last line of each run is enough; one file may have
/// several. Connections and errors add up, and so do the histograms, without loss. Results that are
/// not the parts of one run, each once, are refused.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit: 0 done, 1 fewer connections than asked for or a --require that does not hold, 2 usage or results that don't belong \
                  together, 3 a file can't be read, 4 internal.",
    after_long_help = crate::manual::MERGE
)]
pub struct Merge {
    /// JSON lines of c1m-client; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// What the parts together have to reach; as of a run
    #[arg(long, value_name = "REQUIREMENT")]
    pub require: Vec<Requirement>,

    /// A JSON line on standard output
    #[arg(long)]
    pub json: bool,
}

/// Flags of opening connections.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// The server: an address and a port, or a range of ports, which multiplies the connections
    /// that one source can have
    ///
    /// IPv6 stands in brackets, a link-local address with the interface of this host that leads to
    /// it, by name or number: [fe80::1%eth0]:8000. localhost is 127.0.0.1, never ::1, which is
    /// written as [::1]; other names are not looked up.
    #[arg(long, value_name = "ADDR:PORT[-PORT]")]
    pub connect: Target,

    /// How many connections to open
    #[arg(long, value_name = "N", value_parser = positive_count)]
    pub connections: u64,

    /// Be part I of N, counted from 0: of --connections, --rate and --sample, which are those of
    /// all parts together
    ///
    /// Each part has source addresses of its own, in ascending order: --source lists those of all
    /// hosts, and a host needs those of its part alone. Without --source each host takes its own
    /// addresses. `c1m-client merge` makes one result of all parts.
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE, hide_default_value = true)]
    pub shard: Shard,

    /// Begin at this time: RFC 3339, or seconds since 1970. One that is over is a warning, with
    /// --strict a refusal
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<StartAt>,

    /// Where connections come from; may be given several times [default: 127.0.1.0 and on for a
    /// loopback target, else this host's addresses]
    ///
    /// A link-local source needs no interface: it has that of --connect.
    #[arg(long, value_name = "ADDR|CIDR|FIRST-LAST")]
    pub source: Vec<SourceRange>,

    /// Connections from one source address to one destination, at most
    #[arg(long, value_name = "N", value_parser = positive_count, default_value = "64000")]
    pub per_source: u64,

    /// New connections per second, over all workers [default: unlimited]
    ///
    /// Connection k is planned at k / R after the start, and latencies count from there. Late ones
    /// are made up for at twice the rate at most. A rate that is not reached is a warning;
    /// `--require 'rate>=95%'` makes it a failure.
    #[arg(long, value_name = "R", value_parser = positive_count)]
    pub rate: Option<u64>,

    /// Worker threads, each with a descriptor table of its own
    ///
    /// auto: one a core, or as many as the connections need under the hard limit of open files
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    pub workers: Workers,

    /// Connections that one worker opens at the same time: sent for and not answered yet, or not
    /// established with --idle
    #[arg(long, value_name = "N", default_value = "64", value_parser = parse_small_count)]
    pub in_flight: u32,

    /// How long to hold the connections after the ramp [default: until SIGINT or SIGTERM]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub hold: Option<Duration>,

    /// What each connection asks for first, and --sample and --heartbeat after that [default: /
    /// first, then /bytes/64]
    ///
    /// The default is for c1m-server, whose / has a body without end. For another server name a
    /// path that it answers with a status of 2xx and a complete body.
    #[arg(long, value_name = "PATH", value_parser = request_path)]
    pub request: Option<String>,

    /// Ask for nothing: a connection is its handshake, and then idle. --request is then of --sample
    /// and --heartbeat alone
    #[arg(long, conflicts_with_all = ["unread", "pin"])]
    pub idle: bool,

    /// Leave the answer unread, in the kernel's receive queue
    #[arg(long)]
    pub unread: bool,

    /// Leave answers unread that charge so many bytes of tcp_mem a connection, on average (7.53K);
    /// implies --unread
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "request")]
    pub pin: Option<u64>,

    /// From the end of the ramp on, each connection asks once in this time, spread evenly. One that
    /// is lost is asked in vain
    #[arg(long, value_name = "D", value_parser = positive_duration, conflicts_with_all = ["unread", "pin"])]
    pub heartbeat: Option<Duration>,

    /// After the ramp, ask so many of the connections for a response, and check it
    #[arg(long, value_name = "N", value_parser = positive_count)]
    pub sample: Option<u64>,

    /// How long a connect, a first byte or an answer may take; what comes later is not an answer
    #[arg(long, value_name = "D", value_parser = positive_duration, default_value = "10s")]
    pub timeout: Duration,

    /// End the run when nothing has answered for this long while connections are opened or a sample
    /// is asked [default: three times --timeout]
    ///
    /// An answer is anything that comes from the server: a byte, an end, a refusal, and with --idle
    /// a handshake. After one --timeout without an answer the remaining connections are opened side
    /// by side, without regard to --in-flight. The exit code is 1.
    #[arg(long, value_name = "D", value_parser = give_up)]
    pub give_up: Option<Duration>,

    /// How connections end: by reset they leave neither orphans nor TIME_WAIT
    #[arg(long, value_enum, default_value = "reset")]
    pub end: End,

    /// What the run has to reach, such as connected==1024000 or connect_p99<50ms; may be given
    /// several times
    ///
    /// METRIC OPERATOR VALUE, with == != < <= > >=. Metrics are figures of the result: a wrong name
    /// lists them. Counts are numbers (64k) or shares (99.9%), times have ns, us, ms or s. What is
    /// unknown does not hold.
    #[arg(long, value_name = "REQUIREMENT")]
    pub require: Vec<Requirement>,

    /// Do not start when a limit stops the run before the last connection; without this it is a
    /// warning
    #[arg(long)]
    pub strict: bool,

    /// JSON lines on standard output
    #[arg(long)]
    pub json: bool,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics; see docs/metrics.md
    #[arg(long, value_name = "ADDR:PORT", value_parser = address::parse)]
    pub metrics_addr: Option<SocketAddr>,

    /// No progress
    #[arg(long)]
    pub quiet: bool,
}

impl Load {
    /// How long nothing may answer.
    #[must_use]
    pub fn give_up(&self) -> Duration {
        self.give_up.unwrap_or(self.timeout * 3)
    }
}

fn positive_count(text: &str) -> Result<u64, String> {
    match parse_count(text) {
        Ok(0) => Err("use a number of at least 1".into()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// A duration of at least a millisecond, at most an hour: the clocks of the connections are sized
/// for it.
fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        short if short < Duration::from_millis(1) => Err("use at least 1ms".into()),
        long if long > Duration::from_hours(1) => Err("use at most 1h".into()),
        duration => Ok(duration),
    }
}

/// As [`positive_duration`], of any length.
fn give_up(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        short if short < Duration::from_millis(1) => Err("use at least 1ms".into()),
        duration => Ok(duration),
    }
}

fn request_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.into())
    } else {
        Err("a path begins with / and has no spaces, such as /bytes/64".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(flags: &str) -> Result<Load, clap::Error> {
        let fixed = "c1m-client --connect 127.0.0.1:80 --connections 1m";
        let cli = Cli::try_parse_from(fixed.split(' ').chain(flags.split_whitespace()))?;
        assert!(cli.command.is_none());
        Ok(cli.load.unwrap())
    }

    #[test]
    fn opening_and_merging_are_two_things() {
        let parse = |flags: &str| Cli::try_parse_from(flags.split(' '));
        let cli = parse("c1m-client merge a b --require connected==5 --json").unwrap();
        let (Some(Command::Merge(merge)), None) = (cli.command, cli.load) else { panic!() };
        assert_eq!((merge.files.len(), merge.require.len(), merge.json), (2, 1, true));
        assert!(parse("c1m-client merge").is_err());
        assert!(parse("c1m-client --connections 5 merge a").is_err());
        assert!(parse("c1m-client").is_err() && parse("c1m-client --connections 5").is_err());
    }

    #[test]
    fn a_part_and_a_requirement_are_read_before_anything_starts() {
        let load = parse("--shard 3/8 --start-at 1769860800 --require failed==0 --require ramp<1s")
            .unwrap();
        assert_eq!((load.shard.to_string(), load.require.len()), ("3/8".into(), 2));
        assert!(load.start_at.is_some());
        let error = parse("--require conected==5").unwrap_err().to_string();
        assert!(error.contains("no metric") && error.contains("held_at_end"), "{error}");
        for flags in ["--shard 8/8", "--start-at yesterday", "--require connect_p99<50"] {
            assert!(parse(flags).is_err(), "{flags} was taken");
        }
    }

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let cli = parse("--pin 7.53K --in-flight 1,000 --rate 20k --hold 60s --workers 3").unwrap();
        assert_eq!((cli.connections, cli.pin, cli.rate), (1_000_000, Some(7711), Some(20_000)));
        assert_eq!(cli.hold, Some(Duration::from_secs(60)));
        assert_eq!(cli.workers, Workers::Count(3));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            "--connections 0",
            "--rate 0",
            "--rate 1_",
            "--hold 1M",
            "--timeout 10",
            "--in-flight +5",
            "--workers +5",
            "--request bytes",
            "--request /a\u{7f}",
            "--timeout 0s",
            "--heartbeat 2h",
            "--heartbeat 1s --unread",
            "--heartbeat 1s --pin 1K",
            "--pin 1K --request /x",
            "--in-flight 0",
            "--idle --unread",
            "--idle --pin 1K",
        ] {
            assert!(parse(flags).is_err(), "{flags} was taken");
        }
    }
}
