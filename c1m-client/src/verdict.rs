//! Which limit kept connections from being opened: errors by name, and what the own host's counters
//! say beside them.

use std::collections::BTreeMap;

use c1m_host::{conntrack, netstat, settings};
use c1m_record::{Cause, Confidence, Evidence, LimitName, Scope, Tier, Verdict};
use c1m_sys::process;

use crate::worker::Shared;

/// Ports from 1024 on.
const WIDEST_RANGE: u64 = 65_536 - 1024;

/// What the client knows of its own run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub errors: BTreeMap<String, u64>,
    pub connections: u64,
    /// 4-tuples of the plan.
    pub capacity: u64,
    /// Source ports of one source address to one destination.
    pub ports_per_source: u64,
    pub workers: u64,
    /// Hard limit of open files.
    pub nofile: Option<u64>,
    pub nr_open: Option<u64>,
    /// `None`: the server is on another host, whose counters nobody here can read.
    pub server_host: Option<Counters>,
    /// Packets that this host's connection tracking dropped for a full table.
    pub untracked: u64,
}

/// Growth of TcpExt of the network namespace that the server is in, as the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub listen_overflows: u64,
    pub syn_queue_drops: u64,
    pub memory_pressures: u64,
}

/// The counters before the first connection.
#[derive(Debug, Clone, Default)]
pub struct Before {
    tcp_ext: Option<netstat::TcpExt>,
    conntrack: Option<conntrack::Conntrack>,
}

impl Before {
    #[must_use]
    pub fn now() -> Self {
        Self { tcp_ext: netstat::tcp_ext().ok(), conntrack: conntrack::counters() }
    }

    /// Adds what has grown since then, and this host's limits.
    pub fn complete(&self, outcome: &mut Outcome, server_is_here: bool) {
        let now = Self::now();
        if let (true, Some(before), Some(after)) = (server_is_here, &self.tcp_ext, &now.tcp_ext) {
            let grown = netstat::growth(before, after);
            let counter = |name| grown.get(name).copied().unwrap_or(0);
            outcome.server_host = Some(Counters {
                listen_overflows: counter("ListenOverflows"),
                syn_queue_drops: counter("TCPReqQFullDrop"),
                memory_pressures: counter("TCPMemoryPressures"),
            });
        }
        if let (Some(before), Some(after)) = (self.conntrack, now.conntrack) {
            // Clashes of two new entries count in both.
            outcome.untracked = after
                .drop
                .saturating_sub(before.drop)
                .saturating_sub(after.insert_failed.saturating_sub(before.insert_failed));
        }
        outcome.nofile = process::nofile().ok().map(|(_, hard)| hard);
        outcome.nr_open = settings::read().nr_open;
    }
}

impl Outcome {
    /// What the plan says, beside these errors.
    #[must_use]
    pub fn of(shared: &Shared, errors: &BTreeMap<String, u64>) -> Self {
        let Shared { plan, crew, .. } = shared;
        Self {
            errors: errors.clone(),
            connections: crew.connections(),
            capacity: plan.capacity(),
            ports_per_source: plan.ports_per_source(),
            workers: crew.workers as u64,
            ..Self::default()
        }
    }

    fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.errors.get(*name).copied().unwrap_or(0)).sum()
    }

    /// The errors of these names that came, as evidence.
    fn seen(&self, names: &[&str]) -> Vec<Evidence> {
        let seen = |name: &&str| {
            let value = *self.errors.get(*name)?;
            Some(evidence(name, "own calls", value, None))
        };
        names.iter().filter_map(seen).collect()
    }
}

fn evidence(source: &str, what: &str, value: u64, limit: Option<u64>) -> Evidence {
    Evidence { source: source.into(), what: what.into(), value, limit }
}

/// A rule: what it looks at, and what it makes of it.
type Rule = fn(&Outcome) -> Vec<Cause>;

/// Roots first. ECONNREFUSED is no limit: nobody listens. Nor is a connection that the peer resets
/// or ends: its process ended, or wanted it so, and what stopped *that* only its own host knows.
const RULES: [Rule; 6] = [nofile, file_max, memory, ports, epoll, unanswered];

/// Judges a run that is over.
#[must_use]
pub fn judge(outcome: &Outcome) -> Verdict {
    let mut causes: Vec<Cause> = RULES.iter().flat_map(|rule| rule(outcome)).collect();
    causes.sort_by_key(|cause| cause.confidence == Confidence::Possible);
    Verdict { quiet: causes.is_empty(), tier: Tier::Counters, causes }
}

fn nofile(outcome: &Outcome) -> Vec<Cause> {
    let names = ["socket EMFILE"];
    let count = outcome.sum(&names);
    if count == 0 {
        return Vec::new();
    }
    // Some of each table's own besides its connections.
    let wanted = outcome.connections.div_ceil(outcome.workers.max(1)) + 64;
    let first = match outcome.nr_open {
        Some(most) if most < wanted => format!(" (fs.nr_open={most} has to be raised first)"),
        _ => String::new(),
    };
    let mut seen = outcome.seen(&names);
    if let Some(most) = outcome.nofile {
        let each = outcome.connections.div_ceil(outcome.workers.max(1));
        seen.push(evidence(
            "getrlimit(RLIMIT_NOFILE)",
            "connections of one table",
            each,
            Some(most),
        ));
    }
    vec![Cause {
        limit: LimitName::Nofile,
        scope: Scope::Process,
        confidence: Confidence::Certain,
        text: format!("{count} connections had no descriptor: a worker's table was full"),
        evidence: seen,
        settle: None,
        advice: Some(format!(
            "--workers auto, or more than {}; or a hard limit of {wanted} descriptors (ulimit -Hn, LimitNOFILE=){first}",
            outcome.workers
        )),
    }]
}

fn file_max(outcome: &Outcome) -> Vec<Cause> {
    let names = ["socket ENFILE"];
    let count = outcome.sum(&names);
    if count == 0 {
        return Vec::new();
    }
    vec![Cause {
        limit: LimitName::FileMax,
        scope: Scope::Host,
        confidence: Confidence::Likely,
        text: format!("{count} connections had no file: the host's table of open files was full"),
        evidence: outcome.seen(&names),
        settle: Some("/proc/sys/fs/file-nr at that instant: ENFILE also stands for an inode that could not be had".into()),
        advice: Some(format!(
            "fs.file-max: what is open now and {} more (files of the whole host), for both ends when the server is here",
            outcome.connections.saturating_mul(2).saturating_add(10_000)
        )),
    }]
}

fn memory(outcome: &Outcome) -> Vec<Cause> {
    let names =
        ["socket ENOMEM", "socket ENOBUFS", "connect ENOMEM", "connect ENOBUFS", "epoll ENOMEM"];
    let count = outcome.sum(&names);
    if count == 0 {
        return Vec::new();
    }
    vec![Cause {
        limit: LimitName::Memory,
        scope: Scope::Host,
        confidence: Confidence::Likely,
        text: format!("{count} connections got no memory from the kernel"),
        evidence: outcome.seen(&names),
        settle: Some("MemAvailable, and memory.events of the own cgroup, at that instant".into()),
        advice: Some(format!(
            "fewer than {} connections, or more memory: about 4 KiB of kernel memory for each end of an idle one, and memory.max of the \
             cgroup counts it too",
            outcome.connections
        )),
    }]
}

fn ports(outcome: &Outcome) -> Vec<Cause> {
    // A tuple that somebody else has is stepped over, and costs a connection only when none is
    // left.
    let count = outcome.sum(&["no spare 4-tuple left"]);
    if count == 0 {
        return Vec::new();
    }
    let mut seen =
        outcome.seen(&["no spare 4-tuple left", "bind EADDRINUSE", "connect EADDRNOTAVAIL"]);
    seen.push(evidence("plan", "4-tuples", outcome.connections, Some(outcome.capacity)));
    let each = outcome.ports_per_source.max(1);
    let range = if each < WIDEST_RANGE {
        format!(
            "; net.ipv4.ip_local_port_range=\"1024 65535\" and --per-source {WIDEST_RANGE} give each source {WIDEST_RANGE} ports instead of {each}"
        )
    } else {
        String::new()
    };
    vec![Cause {
        limit: LimitName::Ports,
        scope: Scope::Tuple,
        confidence: Confidence::Certain,
        text: format!(
            "{count} connections had no free port: all {} 4-tuples of the plan were used or taken",
            outcome.capacity
        ),
        evidence: seen,
        settle: None,
        advice: Some(format!(
            "{} more source addresses (--source), or as many more destination ports (--connect){range}",
            count.div_ceil(each)
        )),
    }]
}

fn epoll(outcome: &Outcome) -> Vec<Cause> {
    let names = ["epoll ENOSPC"];
    let count = outcome.sum(&names);
    if count == 0 {
        return Vec::new();
    }
    let wanted = outcome.connections.saturating_mul(2).saturating_add(10_000);
    vec![Cause {
        limit: LimitName::EpollWatches,
        scope: Scope::User,
        confidence: Confidence::Certain,
        text: format!(
            "{count} connections could not be watched: this user's epoll watches are used up"
        ),
        evidence: outcome.seen(&names),
        settle: None,
        advice: Some(format!(
            "fs.epoll.max_user_watches={wanted} at least (watches of one user, 160 bytes each; a server of the same user counts too)"
        )),
    }]
}

/// Handshakes that nobody answered, or answered by a reset.
fn unanswered(outcome: &Outcome) -> Vec<Cause> {
    let names = ["connect timeout", "connect ETIMEDOUT", "connect ECONNRESET"];
    let (count, late) = (outcome.sum(&names), outcome.sum(&["first byte timeout"]));
    if count + late == 0 {
        return Vec::new();
    }
    let seen = || {
        outcome.seen(&[
            "connect timeout",
            "connect ETIMEDOUT",
            "connect ECONNRESET",
            "first byte timeout",
        ])
    };
    let counted = outcome.server_host.unwrap_or_default();
    let mut causes = Vec::new();
    for (limit, scope, source, value, text) in [
        (
            LimitName::AcceptQueue,
            Scope::Listener,
            "TcpExt ListenOverflows",
            counted.listen_overflows,
            "the server's accept queue overflowed",
        ),
        (
            LimitName::SynQueue,
            Scope::Listener,
            "TcpExt TCPReqQFullDrop",
            counted.syn_queue_drops,
            "the server's SYN queue was full",
        ),
        (
            LimitName::Conntrack,
            Scope::Netns,
            "/proc/net/stat/nf_conntrack drop",
            outcome.untracked,
            "this host's table of tracked connections was full",
        ),
        (
            LimitName::TcpMemPressure,
            Scope::Host,
            "TcpExt TCPMemoryPressures",
            counted.memory_pressures,
            "the kernel was under memory pressure of tcp_mem",
        ),
    ] {
        if value > 0 {
            let mut evidence_of = seen();
            evidence_of.push(evidence(source, "on this host during the run", value, None));
            causes.push(Cause {
                limit,
                scope,
                confidence: Confidence::Likely,
                text: format!(
                    "{} connections were not answered in time; {text} meanwhile",
                    count + late
                ),
                evidence: evidence_of,
                settle: Some("the server's own verdict (c1m-server --trace)".into()),
                advice: advice(limit),
            });
        }
    }
    // With the server's counters at hand and none of them moved, only what they do not show is
    // left.
    if causes.is_empty() && count > 0 && outcome.server_host.is_none() {
        for (limit, scope, text) in [
            (
                LimitName::AcceptQueue,
                Scope::Listener,
                "the server's accept queue may have been full",
            ),
            (LimitName::SynQueue, Scope::Listener, "the server's SYN queue may have been full"),
            (
                LimitName::Conntrack,
                Scope::Netns,
                "a firewall's table of tracked connections may have been full",
            ),
        ] {
            causes.push(Cause {
                limit,
                scope,
                confidence: Confidence::Possible,
                text: format!("{count} handshakes were not answered: {text}"),
                evidence: seen(),
                settle: Some("ListenOverflows, TCPReqQFullDrop and /proc/net/stat/nf_conntrack of the server's host".into()),
                advice: advice(limit),
            });
        }
    }
    causes
}

fn advice(limit: LimitName) -> Option<String> {
    let text = match limit {
        LimitName::AcceptQueue => {
            "a longer backlog of the server and a net.core.somaxconn of as much (the smaller counts), or a lower --rate"
        }
        LimitName::SynQueue => {
            "net.ipv4.tcp_syncookies=1 on the server's host, or a longer backlog with net.ipv4.tcp_max_syn_backlog"
        }
        LimitName::Conntrack => {
            "a higher net.netfilter.nf_conntrack_max (entries, about 320 bytes each), or no tracking of the server's port"
        }
        LimitName::TcpMemPressure => {
            "let applications read; net.ipv4.tcp_mem (pages, of the whole host) only when queued bytes times connections needs more"
        }
        _ => return None,
    };
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(errors: &[(&str, u64)]) -> Outcome {
        Outcome {
            errors: errors.iter().map(|(name, count)| ((*name).into(), *count)).collect(),
            connections: 1000,
            capacity: 1000,
            ports_per_source: 500,
            workers: 2,
            nofile: Some(400),
            nr_open: Some(450),
            server_host: None,
            untracked: 0,
        }
    }

    fn limits(outcome: &Outcome) -> Vec<(LimitName, Confidence)> {
        judge(outcome).causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    #[test]
    fn ports_and_descriptors_are_told_apart() {
        let ports = outcome(&[
            ("connect EADDRNOTAVAIL", 9),
            ("bind EADDRINUSE", 1),
            ("no spare 4-tuple left", 3),
        ]);
        assert_eq!(limits(&ports), [(LimitName::Ports, Confidence::Certain)]);
        let advice = judge(&ports).causes[0].advice.clone().unwrap();
        assert!(
            advice.starts_with("1 more source addresses") && advice.contains("64512"),
            "{advice}"
        );
        let files = outcome(&[("socket EMFILE", 3)]);
        assert_eq!(limits(&files), [(LimitName::Nofile, Confidence::Certain)]);
        let advice = judge(&files).causes[0].advice.clone().unwrap();
        assert!(
            advice.contains("564 descriptors") && advice.contains("fs.nr_open=450"),
            "{advice}"
        );
    }

    #[test]
    fn what_is_no_limit_is_quiet() {
        for errors in [
            &[][..],
            &[("connect ECONNREFUSED", 20)],
            &[("bind EADDRINUSE", 3), ("connect EADDRNOTAVAIL", 5)],
            &[("bind EADDRNOTAVAIL", 3)],
            &[("reset by peer", 9), ("closed by peer", 40), ("heartbeat timeout", 3)],
            &[("first byte timeout", 50)],
            &[("status 404", 1), ("sample wrong response", 2)],
        ] {
            let verdict = judge(&outcome(errors));
            assert!(verdict.quiet && verdict.causes.is_empty(), "{errors:?}: {verdict:?}");
        }
    }

    #[test]
    fn an_unanswered_handshake_is_possibly_three_things_on_another_host() {
        let names: Vec<_> = limits(&outcome(&[("connect timeout", 6)]));
        let possible = |limit| (limit, Confidence::Possible);
        let expected = [LimitName::AcceptQueue, LimitName::SynQueue, LimitName::Conntrack];
        assert_eq!(names, expected.map(possible));
    }

    #[test]
    fn on_this_host_the_counters_tell_which() {
        let on_host = |counters, untracked| Outcome {
            server_host: Some(counters),
            untracked,
            ..outcome(&[("connect timeout", 6)])
        };
        let likely = |limit| vec![(limit, Confidence::Likely)];
        let overflows = Counters { listen_overflows: 9, ..Counters::default() };
        assert_eq!(limits(&on_host(overflows, 0)), likely(LimitName::AcceptQueue));
        let drops = Counters { syn_queue_drops: 9, ..Counters::default() };
        assert_eq!(limits(&on_host(drops, 0)), likely(LimitName::SynQueue));
        assert_eq!(limits(&on_host(Counters::default(), 4)), likely(LimitName::Conntrack));
        assert_eq!(limits(&on_host(Counters::default(), 0)), []);
    }

    #[test]
    fn each_errno_of_want_has_its_limit() {
        for (name, limit) in [
            ("socket ENFILE", LimitName::FileMax),
            ("socket ENOBUFS", LimitName::Memory),
            ("connect ENOMEM", LimitName::Memory),
            ("epoll ENOMEM", LimitName::Memory),
            ("epoll ENOSPC", LimitName::EpollWatches),
        ] {
            let verdict = judge(&outcome(&[(name, 2)]));
            let first = &verdict.causes[0];
            assert_eq!((first.limit, first.evidence[0].value), (limit, 2), "{name}");
            assert!(first.advice.is_some());
        }
    }
}
