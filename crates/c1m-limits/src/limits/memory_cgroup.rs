//! The limit of a memory cgroup: for its sockets, or for its processes by the OOM killer.

use c1m_record::{Confidence, LimitName, Scope};

use super::{
    About, Limit, UsageMetric,
    memory::{self, killed, refused},
};
use crate::{
    case::Case,
    finding::Finding,
    footprint::{charged_each, held_by, sum},
    preflight::need::{NO_PAGE, Need, Planned, Run},
    raise::{at_least, mib, with_slack},
    reading::{CgroupLimit, Readings, Usage},
};

const HOOK: &str = "tp_btf/sock_exceed_buf_limit";

pub(super) struct MemoryCgroup;

impl Limit for MemoryCgroup {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::MemoryCgroup,
            scope: Scope::Cgroup,
            unit: "bytes",
            setting: "memory.max, and memory.high, above which processes are slowed down (cgroup v2); memory.limit_in_bytes and memory.kmem.tcp.limit_in_bytes (v1)",
            source: "memory.current and memory.max of the tightest cgroup above this process (v1: memory.usage_in_bytes, memory.limit_in_bytes); \
                 memory.high, or memory.kmem.tcp.limit_in_bytes (v1), where that leaves less",
            symptom: "a process is gone, killed for its cgroup; on v1 with a limit for sockets, sends and receives are refused",
            distinguished_by: "an allocation refused with tcp_mem below high and no pressure; an OOM kill with memory of the host to spare, or with the \
                cgroup's own oom counter",
            kernel: "mm/memcontrol.c, try_charge_memcg, mem_cgroup_sk_charge (6.18; mem_cgroup_charge_skmem up to 6.17)",
            label: "memory cgroup",
            summary: ["a process is gone, killed for its cgroup", "memory.max"],
            metric: Some(UsageMetric {
                name: "c1m_memory_cgroup",
                help: "Memory of the tightest memory cgroup above the server",
                scope: Scope::Cgroup,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.cgroup_used_bytes, now.cgroup_max_bytes)
    }

    fn softer(&self, now: &Readings) -> Option<CgroupLimit> {
        now.softer_cgroup_limit()
    }

    fn noise(&self, now: &Readings) -> u64 {
        memory::noise(now)
    }

    /// The tightest of memory.max and memory.high, and the limit that version 1 has for what is queued in sockets.
    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let hard = planned.now.cgroup_used_bytes.zip(planned.now.cgroup_max_bytes);
        let room = |(used, ceiling): (u64, u64)| ceiling.saturating_sub(used);
        let high =
            planned.now.cgroup_high.filter(|high| hard.is_none_or(|hard| room(*high) < room(hard)));
        let Run { role, ipv6, .. } = *planned.run;
        let counts_sockets = planned.host.cgroup_counts_sockets;
        let tightest = high.or(hard);
        let used = tightest.map(|(used, _)| used).or(planned.now.cgroup_used_bytes);
        let queued = if counts_sockets { planned.queued() } else { Some((0, 0)) };
        let Some((_, queued_bytes)) = queued else {
            let (now, unknown) = (tightest.map(|(_, ceiling)| ceiling), NO_PAGE.into());
            return Need { now, used, counts: true, unknown: Some(unknown), ..Need::default() };
        };
        let each = charged_each(&planned.host.sizes, role, ipv6, queued_bytes, counts_sockets);
        let needed = sum(each, planned.connections()).saturating_add(used.unwrap_or(0));
        let now = tightest.map(|(_, ceiling)| ceiling);
        let wanted = at_least(with_slack(needed), now);
        let stops_at = tightest.map(|tightest| held_by(each, room(tightest)).saturating_add(1));
        let need = Need {
            now,
            used,
            needed: Some(needed),
            stops_at,
            counts: true,
            remedy: format!(
                "{}={wanted} (bytes; {} MiB) of the cgroup, {}= of a systemd unit; or fewer connections",
                if high.is_some() { "memory.high" } else { "memory.max" },
                mib(wanted),
                if high.is_some() { "MemoryHigh" } else { "MemoryMax" },
            ),
            risk: "what it is kept from taking is the rest of the host's".into(),
            note: Some(match tightest {
                Some(_) => format!(
                    "{each} bytes are charged for each connection, when the programs are in the doctor's cgroup{}",
                    if high.is_some() {
                        "; above memory.high they are slowed down, and nothing is refused"
                    } else {
                        ""
                    }
                ),
                None => "no level above this process has a limit".into(),
            }),
            ..Need::default()
        };
        queued_in_sockets(planned, need)
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (killed, refused) = (killed(case), refused(case));
        // What is surest of which memory it was comes first: an OOM kill, then a call that got no memory.
        let surest = killed.as_ref().or(refused.as_ref()).map(|found| found.limit);
        let found = Finding::merged(
            LimitName::MemoryCgroup,
            [killed, refused, charge_refused(case), cgroup_counters(case)],
        )?;
        Some(if surest == Some(LimitName::Memory) {
            found.behind(LimitName::Memory)
        } else {
            found
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        match case.peak(LimitName::MemoryCgroup) {
            Some(peak) => format!(
                "memory.max (bytes) of the cgroup: {} would leave a quarter more than the {} MiB seen; sockets, their files and what is queued \
             in them all count. Or smaller buffers, or fewer connections",
                at_least(with_slack(peak.used.max(peak.ceiling)), case.now.cgroup_max_bytes),
                mib(peak.used)
            ),
            None => "memory.max (bytes) of the cgroup of the process that was hit (memory.kmem.tcp.limit_in_bytes on cgroup v1); sockets, \
                 their files and what is queued in them all count"
                .into(),
        }
    }
}

/// The limit for sockets instead, where it is met before `need`.
fn queued_in_sockets(planned: &Planned<'_>, need: Need) -> Need {
    let Some((used, ceiling)) = planned.now.cgroup_sockets else { return need };
    // Of both ends that may be here, one has it in its queue: as tcp_mem counts it.
    let Some((_, each)) = planned.queued() else {
        return Need { unknown: Some(NO_PAGE.into()), ..need };
    };
    if each == 0 {
        return need;
    }
    let stops_at = (ceiling.saturating_sub(used) / each).saturating_add(1);
    if need.stops_at.is_some_and(|other| other <= stops_at) {
        return need;
    }
    let needed = each.saturating_mul(planned.connections()).saturating_add(used);
    let wanted = at_least(with_slack(needed), Some(ceiling));
    Need {
        now: Some(ceiling),
        used: Some(used),
        needed: Some(needed),
        stops_at: Some(stops_at),
        remedy: format!(
            "memory.kmem.tcp.limit_in_bytes={wanted} (bytes; {} MiB) of the cgroup; or fewer queued bytes",
            mib(wanted)
        ),
        note: Some(format!(
            "{each} bytes are queued in sockets for each connection, which version 1 counts by itself"
        )),
        ..need
    }
}

/// The hook on the refused allocation saw neither tcp_mem past high nor a fair share that was exceeded.
fn charge_refused(case: &Case<'_>) -> Option<Finding> {
    let observed = case.observed;
    let refused = observed.refused_memcg();
    if refused == 0 {
        return None;
    }
    // Pressure that ends between the kernel's decision and the hook's reading makes a refusal of tcp_mem look like this one.
    let stray = refused < (observed.refused_high() + observed.refused_fair_share()).div_ceil(10);
    let found = Finding::new(
        LimitName::MemoryCgroup,
        if stray { Confidence::Possible } else { Confidence::Certain },
        format!(
            "{refused} allocations of sockets were refused by their memory cgroup: tcp_mem allowed them"
        ),
    );
    let found = found
        .saw(HOOK, "refused to senders, by a memory cgroup", observed.refused_memcg_send)
        .saw(HOOK, "refused to receivers, by a memory cgroup", observed.refused_memcg_receive)
        .saw(
            "memory.kmem.tcp.failcnt",
            "failed charges of this process's cgroup",
            observed.host.cgroup_tcp_failed.unwrap_or(0),
        );
    Some(if stray {
        found.confirmed_by("fexit of mem_cgroup_sk_charge: so few beside those of tcp_mem can be a race with the end of pressure")
    } else {
        found
    })
}

/// What this process's cgroup counts itself, when nobody was killed.
fn cgroup_counters(case: &Case<'_>) -> Option<Finding> {
    let counted = &case.observed.host;
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

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::{Evidence, Growth},
        forecast::History,
        verdict::judge,
    };

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
    fn a_cgroup_that_holds_sockets_back_refused_nothing() {
        let host = Growth { cgroup_sock_throttled: Some(4), ..Growth::default() };
        let verdict = judge(&Evidence { host, ..Evidence::default() }, &History::default());
        assert_eq!(verdict.causes[0].limit, LimitName::MemoryCgroup);
        assert!(verdict.causes[0].text.contains("nothing was refused"));
    }
}
