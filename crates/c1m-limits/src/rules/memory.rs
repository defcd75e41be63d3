//! Memory: of the host, and of a memory cgroup.

use c1m_record::{Confidence, LimitName};

use super::queues::unexplained_drops;
use crate::{
    case::Case,
    evidence::{Call, OomVictim, errno},
    verdict::Finding,
};

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

const HOOK: &str = "tp_btf/sock_exceed_buf_limit";

pub(crate) fn memory(case: &Case<'_>) -> Vec<Finding> {
    [killed(case), refused(case), charge_refused(case), cgroup_counters(case), dropped(case)]
        .into_iter()
        .flatten()
        // One cause a limit: the first one says it best.
        .fold(Vec::new(), |mut all: Vec<Finding>, found| {
            match all.iter_mut().find(|known| known.limit == found.limit) {
                Some(known) => known.evidence.extend(found.evidence),
                None => all.push(found),
            }
            all
        })
}

/// Whether the host had memory to spare all the time; `None` when that was not read.
fn plentiful(case: &Case<'_>) -> Option<bool> {
    Some(case.history.available_bytes_min()? >= case.now.memory_total_bytes? / 16)
}

/// Another sign than a failed call's ENFILE that memory could not be had: then that errno tells of an inode, not of files.
pub(super) fn was_short(case: &Case<'_>) -> bool {
    kills(case) > 0 || no_memory(case) > 0 || cgroup_is_full(case)
}

fn kills(case: &Case<'_>) -> u64 {
    let (seen, counted) = (case.seen, &case.seen.host);
    match seen.oom_kills.len() as u64 {
        0 => counted.oom_kill.max(counted.cgroup_oom_kill).unwrap_or(0),
        kills => kills,
    }
}

fn cgroup_is_full(case: &Case<'_>) -> bool {
    case.peak(LimitName::MemoryCgroup).is_some_and(|peak| peak.is_at(97))
}

/// An OOM kill. For whom it was, the kernel says; or no memory of the host was sought before it; or the readings tell.
fn killed(case: &Case<'_>) -> Option<Finding> {
    let (seen, counted) = (case.seen, &case.seen.host);
    let kills = kills(case);
    if kills == 0 {
        return None;
    }
    let said = seen.oom_kills.iter().filter_map(|victim| victim.in_cgroup).reduce(|a, b| a || b);
    let by_host =
        Some("the kernel's log: CONSTRAINT_MEMCG is a cgroup's, CONSTRAINT_NONE the host's");
    let own_cgroup = counted.cgroup_oom.unwrap_or(0) > 0;
    let (limit, confidence, settle) = match (said, counted.allocstall, plentiful(case)) {
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
        names(&seen.oom_kills)
    );
    let mut found = Finding::new(limit, confidence, text.trim_end_matches(": "))
        .saw("tp_btf/mark_victim", "OOM kills", seen.oom_kills.len() as u64)
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
        found = found.beside("memory.current", "bytes of the own cgroup", case.peak(limit));
    }
    found.settle = settle;
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
fn refused(case: &Case<'_>) -> Option<Finding> {
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
            .beside("memory.current", "bytes of the own cgroup", case.peak(LimitName::MemoryCgroup))
            .settled_by("MemAvailable and memory.events of the process's cgroup at that instant"),
    )
}

fn no_memory(case: &Case<'_>) -> u64 {
    let own: u64 = OWN.iter().map(|name| case.seen.own(name)).sum();
    (case.failed(&ASKING, errno::ENOMEM) + case.failed(&ASKING, errno::ENOBUFS)).max(own)
}

/// The hook on the refused allocation saw neither tcp_mem past high nor a fair share that was exceeded.
fn charge_refused(case: &Case<'_>) -> Option<Finding> {
    let seen = case.seen;
    let refused = seen.refused_memcg();
    if refused == 0 {
        return None;
    }
    // Pressure that ends between the kernel's decision and the hook's look makes a refusal of tcp_mem look like this one.
    let stray = refused < (seen.refused_high() + seen.refused_fair_share()).div_ceil(10);
    let found = Finding::new(
        LimitName::MemoryCgroup,
        if stray { Confidence::Possible } else { Confidence::Certain },
        format!(
            "{refused} allocations of sockets were refused by their memory cgroup: tcp_mem allowed them"
        ),
    );
    let found = found
        .saw(HOOK, "refused to senders, by a memory cgroup", seen.refused_memcg_send)
        .saw(HOOK, "refused to receivers, by a memory cgroup", seen.refused_memcg_receive)
        .saw(
            "memory.kmem.tcp.failcnt",
            "failed charges of the own cgroup",
            seen.host.cgroup_tcp_failed.unwrap_or(0),
        );
    Some(if stray {
        found.settled_by("fexit of mem_cgroup_sk_charge: so few beside those of tcp_mem can be a race with the end of pressure")
    } else {
        found
    })
}

/// What the own cgroup counts itself, when nobody was killed.
fn cgroup_counters(case: &Case<'_>) -> Option<Finding> {
    let counted = &case.seen.host;
    let count = |counter: Option<u64>| counter.unwrap_or(0);
    let (oom, tcp) = (count(counted.cgroup_oom), count(counted.cgroup_tcp_failed));
    let throttled = count(counted.cgroup_sock_throttled);
    let found = if oom + tcp > 0 {
        Finding::new(
            LimitName::MemoryCgroup,
            Confidence::Certain,
            "allocations failed at the limit of this process's memory cgroup",
        )
    } else if throttled > 0 {
        Finding::new(
            LimitName::MemoryCgroup,
            Confidence::Certain,
            "sockets of this process's memory cgroup were held back for its memory: windows do not grow, nothing was refused",
        )
        .harmless()
    } else {
        return None;
    };
    Some(
        found
            .saw("memory.events oom", "allocations that failed", oom)
            .saw("memory.kmem.tcp.failcnt", "charges of sockets that failed", tcp)
            .saw("memory.events sock_throttled", "times that sockets were held back", throttled)
            .beside("memory.current", "bytes", case.peak(LimitName::MemoryCgroup)),
    )
}

/// SYNs that were dropped with both queues free, beside another sign of want: alone they can be many things (no route back, a
/// broadcast address, a security module).
fn dropped(case: &Case<'_>) -> Option<Finding> {
    let drops = unexplained_drops(case);
    let allocator = case.seen.pressure_entries_allocator.unwrap_or(0);
    let scarce = case
        .history
        .available_bytes_min()
        .zip(case.now.memory_total_bytes)
        .is_some_and(|(least, total)| least < total / 32);
    if drops == 0 || no_memory(case) == 0 && allocator == 0 && !scarce && !cgroup_is_full(case) {
        return None;
    }
    Some(
        Finding::new(
            LimitName::Memory,
            Confidence::Likely,
            format!("{drops} SYNs were dropped though both queues of the listener had room: no memory for them"),
        )
        .saw("TcpExt ListenDrops", "drops that no queue explains", drops)
        .saw("tcp_enter_memory_pressure", "failed allocations of skbs or pages", allocator)
        .beside("/proc/meminfo", "bytes in use", case.peak(LimitName::Memory))
        .settled_by("fexit of inet_reqsk_alloc and sk_prot_alloc; a missing route back drops SYNs as well"),
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
    fn one_refusal_of_a_cgroup_among_many_of_tcp_mem_may_be_a_race() {
        let seen = Evidence {
            refused_memcg_receive: 1,
            refused_high_receive: 1000,
            ..Evidence::default()
        };
        let verdict = judge(&seen, &History::default());
        assert_eq!(verdict.causes[0].limit, LimitName::TcpMemHigh);
        let last = verdict.causes.last().unwrap();
        assert_eq!((last.limit, last.confidence), (LimitName::MemoryCgroup, Confidence::Possible));
    }

    #[test]
    fn dropped_syns_need_a_second_sign() {
        let seen = Evidence { tcp_ext: [("ListenDrops".into(), 9)].into(), ..Evidence::default() };
        assert!(judge(&seen, &history(900, None)).quiet);
        assert_eq!(first(&seen, &history(10, None)), (LimitName::Memory, Confidence::Likely));
    }

    #[test]
    fn a_cgroup_that_holds_sockets_back_refused_nothing() {
        let host = Growth { cgroup_sock_throttled: Some(4), ..Growth::default() };
        let verdict = judge(&Evidence { host, ..Evidence::default() }, &History::default());
        assert_eq!(verdict.causes[0].limit, LimitName::MemoryCgroup);
        assert!(verdict.causes[0].text.contains("nothing was refused"));
    }
}
