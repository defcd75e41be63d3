//! Memory of the host, and what names it or a memory cgroup when memory could not be had.

use c1m_record::{Cause, Confidence, LimitName, Role, Scope};

use super::{About, Limit, UsageMetric};
use crate::{
    case::Case,
    client::outcome::Outcome,
    evidence::{Call, OomVictim, errno},
    finding::Finding,
    footprint::{Sizes, each, held_by, need},
    preflight::need::{Need, Planned},
    raise::mib,
    reading::{Readings, Usage},
};

pub(super) struct Memory;

impl Limit for Memory {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::Memory,
            scope: Scope::Host,
            unit: "bytes",
            setting: "memory of the host; fewer connections, smaller buffers",
            source: "/proc/meminfo MemTotal less MemAvailable",
            symptom: "a process is gone, killed by the OOM killer; accept, socket, connect, epoll_ctl: ENOMEM or ENOBUFS; SYNs dropped with \
                  both queues empty",
            distinguished_by: "an OOM kill outside of any cgroup's limit, the errno; ListenDrops that no queue explains only beside another sign of want. \
                A process that crashed leaves none of these",
            kernel: "mm/oom_kill.c, out_of_memory; net/core/sock.c, sk_prot_alloc; net/ipv4/tcp_input.c, tcp_conn_request (6.18)",
            label: "memory of the host",
            summary: ["a process is gone, killed by the OOM killer", "memory of the host"],
            metric: Some(UsageMetric {
                name: "c1m_memory",
                help: "Memory of the host that is not available",
                scope: Scope::Host,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        let both = now.memory_total_bytes.zip(now.memory_available_bytes);
        let used = both.map(|(total, available)| total.saturating_sub(available));
        Usage::new(used, now.memory_total_bytes)
    }

    fn noise(&self, now: &Readings) -> u64 {
        noise(now)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let available = planned.now.memory_available_bytes;
        let total = planned.now.memory_total_bytes;
        let used = total.zip(available).map(|(total, available)| total.saturating_sub(available));
        Need {
            now: total,
            used,
            needed: Some(planned.memory.bytes.saturating_add(used.unwrap_or(0))),
            stops_at: available.map(|available| held_by(each(planned.memory), available).saturating_add(1)),
            counts: true,
            remedy: match available {
                Some(available) => format!(
                    "{} connections fit into the {} MiB that are available; or fewer queued bytes, or more memory",
                    held_by(each(planned.memory), available),
                    mib(available)
                ),
                None => "fewer connections, or more memory".into(),
            },
            risk: "beyond it the OOM killer ends a process, and not always the one that takes the memory".into(),
            unknown: available.is_none().then(|| "/proc/meminfo can't be read".into()),
            ..Need::default()
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        Finding::merged(LimitName::Memory, [killed(case), refused(case), dropped(case)])
    }

    fn judge_client(&self, outcome: &Outcome) -> Option<Cause> {
        let names = [
            "socket ENOMEM",
            "socket ENOBUFS",
            "connect ENOMEM",
            "connect ENOBUFS",
            "epoll ENOMEM",
        ];
        let count = outcome.sum(&names);
        if count == 0 {
            return None;
        }
        Some(Cause {
            limit: LimitName::Memory,
            scope: self.about().scope,
            confidence: Confidence::Likely,
            text: format!("{count} connections got no memory from the kernel"),
            evidence: outcome.evidence(&names),
            to_confirm: Some(
                "MemAvailable, and memory.events of this process's cgroup, at that instant".into(),
            ),
            remedy: Some(format!(
                "fewer than {} connections, or more memory: about 4 KiB of kernel memory for each end of an idle one, and memory.max of the \
             cgroup counts it too",
                outcome.connections
            )),
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let connections = case.now.connections;
        let memory = need(&Sizes::default(), Role::Server, false, connections, 0);
        let each = memory.kernel_bytes_per_connection;
        let text = format!(
            "fewer connections or smaller buffers: an idle connection takes about {each} bytes of kernel memory at each end"
        );
        match case.now.memory_total_bytes {
            Some(total) if connections > 0 => {
                let all = mib(connections.saturating_mul(each));
                format!("{text}, so {connections} of them {all} MiB of {} MiB", mib(total))
            }
            _ => text,
        }
    }
}

/// What programs take and give back anyway: a hundredth of memory.
pub(super) fn noise(now: &Readings) -> u64 {
    now.memory_total_bytes.unwrap_or(0) / 100
}

/// Calls that ask for a slab object of a socket, a file or a watch. A failed `send` is none of them: ENOBUFS there is a full queue of
/// the interface.
const ASKING: [Call; 4] = [Call::Accept, Call::Socket, Call::Connect, Call::EpollAdd];
const OWN: [&str; 6] = [
    "accept ENOMEM",
    "accept ENOBUFS",
    "socket ENOMEM",
    "socket ENOBUFS",
    "epoll ENOMEM",
    "connect ENOBUFS",
];

/// Whether the host had memory to spare all the time; `None` when that was not read.
fn plentiful(case: &Case<'_>) -> Option<bool> {
    Some(case.history.available_bytes_min()? >= case.now.memory_total_bytes? / 16)
}

/// Another sign than a failed call's ENFILE that memory could not be had: then that errno tells of an inode, not of files.
pub(super) fn was_short(case: &Case<'_>) -> bool {
    kills(case) > 0 || no_memory(case) > 0 || cgroup_is_full(case)
}

fn kills(case: &Case<'_>) -> u64 {
    let (observed, counted) = (case.observed, &case.observed.host);
    match observed.oom_kills.len() as u64 {
        0 => counted.oom_kill.max(counted.cgroup_oom_kill).unwrap_or(0),
        kills => kills,
    }
}

fn cgroup_is_full(case: &Case<'_>) -> bool {
    case.peak(LimitName::MemoryCgroup).is_some_and(|peak| peak.is_at(97))
}

/// An OOM kill. For whom it was, the kernel says; or no memory of the host was sought before it; or the readings tell.
pub(super) fn killed(case: &Case<'_>) -> Option<Finding> {
    let (observed, counted) = (case.observed, &case.observed.host);
    let kills = kills(case);
    if kills == 0 {
        return None;
    }
    let said =
        observed.oom_kills.iter().filter_map(|victim| victim.in_cgroup).reduce(|a, b| a || b);
    let by_host =
        Some("the kernel's log: CONSTRAINT_MEMCG is a cgroup's, CONSTRAINT_NONE the host's");
    let own_cgroup = counted.cgroup_oom.unwrap_or(0) > 0;
    let (limit, confidence, to_confirm) = match (said, counted.allocstall, plentiful(case)) {
        (Some(true), _, _) => (LimitName::MemoryCgroup, Confidence::Certain, None),
        (Some(false), _, _) => (LimitName::Memory, Confidence::Certain, None),
        _ if own_cgroup => (LimitName::MemoryCgroup, Confidence::Certain, None),
        (None, Some(0), _) => (LimitName::MemoryCgroup, Confidence::Certain, None),
        (None, _, Some(true)) => (LimitName::MemoryCgroup, Confidence::Likely, by_host),
        (None, _, Some(false)) => (LimitName::Memory, Confidence::Likely, by_host),
        (None, _, None) => (LimitName::Memory, Confidence::Possible, by_host),
    };
    let whose = if limit == LimitName::Memory { "the host's memory" } else { "its memory cgroup" };
    let text = format!(
        "the OOM killer ended {}, for {whose}: {}",
        processes(kills),
        names(&observed.oom_kills)
    );
    let mut found = Finding::new(limit, confidence, text.trim_end_matches(": "))
        .saw("tp_btf/mark_victim", "OOM kills", observed.oom_kills.len() as u64)
        .saw(
            "/proc/vmstat oom_kill",
            "OOM kills, of the host and of cgroups",
            counted.oom_kill.unwrap_or(0),
        )
        .saw(
            "/proc/vmstat allocstall",
            "stalls for memory of the host",
            counted.allocstall.unwrap_or(0),
        )
        .saw(
            "memory.events oom",
            "allocations that failed at the limit of this cgroup",
            counted.cgroup_oom.unwrap_or(0),
        );
    if counted.allocstall == Some(0) && said.is_none() {
        found = found.saw_none("/proc/vmstat allocstall", "stalls for memory of the host");
    }
    if limit == LimitName::MemoryCgroup {
        found = found.beside("memory.current", "bytes of this process's cgroup", case.peak(limit));
    }
    found.to_confirm = to_confirm;
    Some(found)
}

fn processes(count: u64) -> String {
    if count == 1 { "one process".into() } else { format!("{count} processes") }
}

fn names(victims: &[OomVictim]) -> String {
    let names: Vec<_> =
        victims.iter().take(3).map(|victim| format!("{} ({})", victim.comm, victim.pid)).collect();
    names.join(", ")
}

/// A call that got no memory.
pub(super) fn refused(case: &Case<'_>) -> Option<Finding> {
    let failed = no_memory(case);
    if failed == 0 {
        return None;
    }
    // A cgroup at its limit refuses slab objects too (mm/slub.c, memcg_slab_post_alloc_hook, 6.18).
    let limit = match (cgroup_is_full(case), plentiful(case)) {
        (true, Some(true)) => LimitName::MemoryCgroup,
        _ => LimitName::Memory,
    };
    let found = Finding::new(
        limit,
        Confidence::Likely,
        format!("{failed} calls got no memory for a socket, a file or a watch"),
    );
    Some(
        found
            .saw("ENOMEM, ENOBUFS", "accept, socket, connect and epoll_ctl of any process", failed)
            .beside("/proc/meminfo", "bytes in use", case.peak(LimitName::Memory))
            .beside(
                "memory.current",
                "bytes of this process's cgroup",
                case.peak(LimitName::MemoryCgroup),
            )
            .confirmed_by("MemAvailable and memory.events of the process's cgroup at that instant"),
    )
}

fn no_memory(case: &Case<'_>) -> u64 {
    let own: u64 = OWN.iter().map(|name| case.observed.own(name)).sum();
    (case.failed(&ASKING, errno::ENOMEM) + case.failed(&ASKING, errno::ENOBUFS)).max(own)
}

/// SYNs that were dropped with both queues free, beside another sign of want: alone they can be many things (no route back, a
/// broadcast address, a security module).
fn dropped(case: &Case<'_>) -> Option<Finding> {
    let drops = case.unexplained_drops();
    let allocator = case.observed.pressure_entries_allocator.unwrap_or(0);
    let scarce = case
        .history
        .available_bytes_min()
        .zip(case.now.memory_total_bytes)
        .is_some_and(|(least, total)| least < total / 32);
    if drops == 0 || no_memory(case) == 0 && allocator == 0 && !scarce && !cgroup_is_full(case) {
        return None;
    }
    Some(
        Finding::new(LimitName::Memory, Confidence::Likely, format!("{drops} SYNs were dropped though both queues of the listener had room: no memory for them"))
            .saw("TcpExt ListenDrops", "drops that no queue explains", drops)
            .saw("tcp_enter_memory_pressure", "failed allocations of skbs or pages", allocator)
            .beside("/proc/meminfo", "bytes in use", case.peak(LimitName::Memory))
            .confirmed_by("fexit of inet_reqsk_alloc and sk_prot_alloc; a missing route back drops SYNs as well"),
    )
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::{Call, Evidence, Growth, OomVictim, errno},
        forecast::History,
        reading::Readings,
        verdict::judge,
    };

    fn history(available: u64, cgroup: Option<(u64, u64)>) -> History {
        let mut history = History::default();
        history.add(&Readings {
            memory_total_bytes: Some(1000),
            memory_available_bytes: Some(available),
            cgroup_used_bytes: cgroup.map(|both| both.0),
            cgroup_max_bytes: cgroup.map(|both| both.1),
            ..Readings::default()
        });
        history
    }

    fn first(seen: &Evidence, history: &History) -> (LimitName, Confidence) {
        let verdict = judge(seen, history);
        (verdict.causes[0].limit, verdict.causes[0].confidence)
    }

    fn killed(in_cgroup: Option<bool>, host: Growth) -> Evidence {
        let victim = OomVictim { pid: 7, comm: "victim".into(), in_cgroup };
        Evidence { oom_kills: vec![victim], host, ..Evidence::default() }
    }

    #[test]
    fn whose_oom_kill_it_was() {
        use Confidence::{Certain, Likely, Possible};
        use LimitName::{Memory, MemoryCgroup};
        let stalled = |count| Growth { allocstall: Some(count), ..Growth::default() };
        for (in_cgroup, host, available, expected) in [
            (Some(true), stalled(5), 0, (MemoryCgroup, Certain)),
            (Some(false), stalled(0), 900, (Memory, Certain)),
            (None, stalled(0), 10, (MemoryCgroup, Certain)),
            (None, stalled(5), 900, (MemoryCgroup, Likely)),
            (None, stalled(5), 10, (Memory, Likely)),
            (None, Growth { cgroup_oom: Some(1), ..stalled(5) }, 10, (MemoryCgroup, Certain)),
        ] {
            let seen = killed(in_cgroup, host);
            assert_eq!(first(&seen, &history(available, None)), expected, "{seen:?}");
        }
        let seen = killed(None, Growth::default());
        assert_eq!(first(&seen, &History::default()), (Memory, Possible));
        assert!(judge(&seen, &History::default()).causes[0].text.contains("victim (7)"));
    }

    #[test]
    fn without_ebpf_the_host_counts_the_kills() {
        let host = Growth { oom_kill: Some(1), allocstall: Some(40), ..Growth::default() };
        let seen = Evidence { host, ..Evidence::default() };
        assert_eq!(first(&seen, &history(5, None)), (LimitName::Memory, Confidence::Likely));
    }

    #[test]
    fn no_memory_for_a_socket_is_the_cgroups_when_that_is_full_and_the_host_is_not() {
        let seen = Evidence {
            call_errors: [((Call::Socket, errno::ENOBUFS), 2)].into(),
            ..Evidence::default()
        };
        assert_eq!(first(&seen, &history(900, None)).0, LimitName::Memory);
        assert_eq!(first(&seen, &history(900, Some((99, 100)))).0, LimitName::MemoryCgroup);
        assert_eq!(first(&seen, &history(9, Some((99, 100)))).0, LimitName::Memory);
    }

    #[test]
    fn dropped_syns_need_a_second_sign() {
        let seen = Evidence { tcp_ext: [("ListenDrops".into(), 9)].into(), ..Evidence::default() };
        assert!(judge(&seen, &history(900, None)).quiet);
        assert_eq!(first(&seen, &history(10, None)), (LimitName::Memory, Confidence::Likely));
    }
}
