//! Every flag of c1m-server: those of serving here, those of a subcommand in a file of its own.

pub mod doctor;
mod holders;
mod manual;
mod report;
mod states;
pub mod watch;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use c1m_ebpf::{PROGRAMS, Program};
use c1m_preflight::plan::Workers;
use c1m_text::{
    address,
    units::{parse_count, parse_count_as, parse_duration},
};
use clap::{Args, ColorChoice, Parser, Subcommand};

pub use self::{
    holders::Holders,
    report::{Plot, Report},
    states::States,
};

/// Holds a million TCP connections, and says which kernel limit was hit.
///
/// Answers HTTP/1.1: any path gets the headers of a chunked response and the connection stays open; GET /bytes/N gets N bytes, anything else under /bytes 404.
/// Without --trace it needs no root.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    after_help = "Exit: 0 done, 2 usage, 3 the environment refused, 4 internal.",
    after_long_help = manual::SERVE
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub serve: Serve,
}

/// What c1m-server does instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    Watch(watch::Watch),
    Holders(Holders),
    States(States),
    Report(Report),
    Doctor(doctor::Doctor),
}

/// Of a page on standard output.
#[derive(Debug, Clone, Copy, Args)]
pub struct Color {
    /// Colours: auto has them on a terminal, unless NO_COLOR is set or TERM is dumb
    ///
    /// On a terminal the page is as wide as the terminal. Elsewhere nothing is wrapped: each row is one line.
    #[arg(id = "color", long = "color", value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub choice: ColorChoice,
}

/// Flags of the server itself.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where to listen, IPv4 or IPv6
    ///
    /// IPv6 stands in brackets, a link-local address with its interface, by name or number: [fe80::1%eth0]:8000. localhost is 127.0.0.1, never ::1,
    /// which is written as [::1]; other names are not looked up.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8000", value_parser = address::parse)]
    pub listen: SocketAddr,

    /// Worker threads, each with a descriptor table of its own
    ///
    /// auto: one a core, or as many as the wanted connections need under the hard limit of open files
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    pub workers: Workers,

    /// Stop accepting at this many connections, and size the workers for it
    #[arg(long, value_name = "N", value_parser = max_connections)]
    pub max_connections: Option<u64>,

    /// Attach eBPF probes: report each crossing of tcp_mem, and what the kernel refused
    #[arg(long)]
    pub trace: bool,

    /// Attach, print which attach method each probe uses on this kernel and why a better one is not available, detach, and end
    #[arg(long, requires = "trace")]
    pub dry_run: bool,

    /// Leave out this hook, such as sys_exit, which looks at every system call of the host, or all of a kind, such as fexit; see --dry-run
    #[arg(long, value_name = "HOOK", requires = "trace", value_parser = hook)]
    pub without_hook: Vec<String>,

    /// JSON lines on standard output
    #[arg(long)]
    pub json: bool,

    /// At the end, write a page about the run to this HTML file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics; see docs/metrics.md
    #[arg(long, value_name = "ADDR:PORT", value_parser = address::parse)]
    pub metrics_addr: Option<SocketAddr>,

    /// Time between two `online user` lines
    #[arg(long, value_name = "D", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,

    /// End by itself after this time
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Probe connections that have been idle for this long (SO_KEEPALIVE)
    #[arg(long, value_name = "IDLE", value_parser = parse_duration)]
    pub keepalive: Option<Duration>,

    /// Close a connection whose request head is not complete after this time, with 408 (Request Timeout)
    ///
    /// Counted from the head's first byte. A connection that sends nothing is held for as long as it likes.
    #[arg(long, value_name = "D", default_value = "60s", value_parser = header_timeout)]
    pub header_timeout: Duration,

    /// Length of the accept queue of each worker; net.core.somaxconn caps it
    #[arg(long, value_name = "N", value_parser = parse_count_as::<u32>, default_value_t = 4096)]
    pub backlog: u32,

    /// Only events and the summary: no `online user` lines
    #[arg(long)]
    pub quiet: bool,

    /// Do not start when a limit stops the server before --max-connections; without this it is a warning
    #[arg(long, requires = "max_connections")]
    pub strict: bool,

    /// Use this eBPF object instead of the one built in
    #[arg(long, value_name = "FILE", requires = "trace")]
    pub ebpf_object: Option<PathBuf>,

    /// Say more when something is refused; -vv for the whole verifier log
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// A server that may hold nothing answers nobody.
fn max_connections(text: &str) -> Result<u64, String> {
    match parse_count(text) {
        Ok(0) => Err("a server that holds no connection serves nobody: use at least 1, or leave --max-connections out".into()),
        other => other.map_err(|error| error.to_string()),
    }
}

fn header_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        short if short < Duration::from_millis(1) => Err("use at least 1ms".into()),
        duration => Ok(duration),
    }
}

/// A tracepoint or kernel function that a program is for, or a kind of them.
fn hook(text: &str) -> Result<String, String> {
    let names = |program: &Program| [program.target, program.attachment.name()];
    match PROGRAMS.iter().any(|program| names(program).contains(&text)) {
        true => Ok(text.into()),
        false => {
            Err("there is no such hook, nor kind of them: docs/hooks.md has their names".into())
        }
    }
}
