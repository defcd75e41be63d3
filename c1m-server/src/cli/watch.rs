//! Flags of `c1m-server watch`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use c1m_ebpf::WATCHED_PORTS;
use c1m_host::namespaces::NetnsArgument;
use c1m_text::{
    address,
    units::{parse_duration, parse_number},
};
use clap::Args;

/// Watch servers that are not ours: which limit stops them, when, and what comes next
///
/// Attaches the probes to the running host, serves nothing and changes nothing. On a terminal it is a live view: q ends it, s sorts, / filters.
/// Otherwise, and with --no-tui or NO_COLOR, it prints lines.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit: 0 done, 2 usage, 3 the environment refused, 4 internal.\n\
    With --cmd: 0 no limit was hit and the command succeeded, 1 a limit was hit, 5 no limit was hit and the command itself failed; the last \
    line names the limit and how the command ended.", after_long_help = super::manual::WATCH)]
pub struct Watch {
    /// Count connections to this local port; may be given several times [default: those of --pid or --cgroup, else every port]
    #[arg(long, value_name = "P", value_delimiter = ',', value_parser = parse_number::<u16>)]
    pub port: Vec<u16>,

    /// The server: this process and those that it started. Its ports are counted, its limits read
    #[arg(long, value_name = "PID", conflicts_with = "cgroup", value_parser = parse_number::<u32>)]
    pub pid: Option<u32>,

    /// The server: every process of this cgroup, a folder below the mount or its path as in /proc/PID/cgroup
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Count connections, and read counters, in this network namespace alone: self, PID, inode:N, or all, which counts in each
    /// [default: that of --pid, else all]
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<NetnsArgument>,

    /// Time between two samples
    #[arg(long, value_name = "D", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,

    /// End by itself after this time
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// JSON lines instead of text
    #[arg(long)]
    pub json: bool,

    /// Write JSON lines to this file, whatever is shown
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// At the end, write a page about what was seen to this HTML file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics; see docs/metrics.md
    #[arg(long, value_name = "ADDR:PORT", value_parser = address::parse)]
    pub metrics_addr: Option<SocketAddr>,

    /// Lines, on a terminal as well
    #[arg(long)]
    pub no_tui: bool,

    /// Leave out this hook, such as sys_exit, which looks at every system call of the host
    #[arg(long, value_name = "HOOK", value_parser = super::hook)]
    pub without_hook: Vec<String>,

    /// Use this eBPF object instead of the one built in
    #[arg(long, value_name = "FILE")]
    pub ebpf_object: Option<PathBuf>,

    /// Say more when something is refused; -vv for the whole verifier log
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Run COMMAND with all remaining arguments, and watch for as long as it lives
    ///
    /// It has the standard streams for itself: what is seen goes to --output, else to standard error. It has the limits, and the blocked and
    /// ignored signals, that c1m-server was started with. It gets the signals that come here, and never outlives the watch.
    #[arg(
        long,
        value_name = "COMMAND",
        num_args = 1..,
        allow_hyphen_values = true,
        conflicts_with_all = ["pid", "cgroup", "netns"]
    )]
    pub cmd: Vec<String>,
}

impl Watch {
    /// What clap can't check by itself: one cause, with the remedy.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.port.len() > WATCHED_PORTS {
            return Err(format!(
                "{} ports are more than the {WATCHED_PORTS} that can be told apart: give fewer, or none, which counts every port",
                self.port.len()
            ));
        }
        if self.command().is_some_and(<[String]>::is_empty) {
            return Err("--cmd needs a command behind it".into());
        }
        Ok(())
    }

    /// The command with its arguments; a `--` in front of it may stand there, and means nothing.
    #[must_use]
    pub fn command(&self) -> Option<&[String]> {
        match self.cmd.split_first() {
            Some((first, rest)) if first == "--" => Some(rest),
            Some(_) => Some(&self.cmd),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn watch(arguments: &[&str]) -> Result<Watch, clap::Error> {
        let all = ["c1m-server", "watch"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.command {
            Some(Command::Watch(watch)) => Ok(watch),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn everything_behind_cmd_is_the_commands() {
        let args = watch(&["--json", "--cmd", "sh", "-c", "exit 3", "--port", "--json"]).unwrap();
        assert_eq!(args.command().unwrap(), ["sh", "-c", "exit 3", "--port", "--json"]);
        assert!(args.json && args.port.is_empty());
        assert_eq!(watch(&["--cmd", "--", "true"]).unwrap().command().unwrap(), ["true"]);
        assert!(watch(&["--cmd", "--"]).unwrap().check().is_err());
        assert!(watch(&["--cmd"]).is_err());
        assert!(watch(&["--pid", "1", "--cmd", "true"]).is_err());
    }

    #[test]
    fn ports_are_a_few() {
        let args = watch(&["--port", "80,443", "--port", "8080"]).unwrap();
        assert_eq!((args.port.as_slice(), args.check()), ([80, 443, 8080].as_slice(), Ok(())));
        assert!(watch(&["--port", "1,2,3,4,5,6,7,8,9"]).unwrap().check().is_err());
        assert!(watch(&["--port", "0"]).is_err() && watch(&["--port", "65536"]).is_err());
    }

    #[test]
    fn a_network_namespace_is_named_as_for_holders() {
        for (word, netns) in [
            ("self", NetnsArgument::Own),
            ("all", NetnsArgument::All),
            ("12", NetnsArgument::Process(12)),
            ("inode:4026531840", NetnsArgument::Inode(4_026_531_840)),
        ] {
            assert_eq!(watch(&["--netns", word]).unwrap().netns, Some(netns));
        }
        for wrong in ["", "0", "inode:", "inode:0", "-1", "init"] {
            assert!(watch(&[&format!("--netns={wrong}")]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn serving_and_watching_are_two_things() {
        assert!(Cli::try_parse_from(["c1m-server", "--trace", "watch"]).is_err());
        assert!(Cli::try_parse_from(["c1m-server", "--trace"]).unwrap().command.is_none());
    }
}
