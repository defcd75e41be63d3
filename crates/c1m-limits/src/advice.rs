//! What to do about a limit: the knob, a number that would do, its unit, and what can go wrong. Computed from readings; never applied.

use super::{
    footprint::{Sizes, need},
    raise::{at_least, widest_ports},
};
use crate::case::Case;
use c1m_record::{LimitName, Role};

/// What an orphan may hold at worst, by the kernel's own documentation of tcp_max_orphans.
pub(super) const ORPHAN_BYTES: u64 = 64 * 1024;
/// An epoll item and its entry in the wait queue on 64 bits (fs/eventpoll.c, EP_ITEM_COST).
pub(super) const WATCH_BYTES: u64 = 160;

/// `None`: no knob helps.
pub(super) fn advise(limit: LimitName, case: &Case<'_>) -> Option<String> {
    Some(match limit {
        LimitName::TcpMemPressure | LimitName::TcpMemHigh | LimitName::OrphanMemory => tcp_mem(case),
        LimitName::MemoryCgroup => memory_cgroup(case),
        LimitName::ReceiveBuffer => {
            "let the application read; net.ipv4.tcp_rmem (bytes, third value) or SO_RCVBUF only when bandwidth times delay needs more: \
             each connection can hold that much, and tcp_mem counts it"
                .into()
        }
        LimitName::SendBuffer => {
            "a larger SO_SNDBUF, or net.ipv4.tcp_wmem (bytes, third value): each connection can hold that much, and tcp_mem counts it".into()
        }
        LimitName::Orphans => orphans(case),
        LimitName::Nofile => nofile(case),
        LimitName::NrOpen => nr_open(case),
        LimitName::FileMax => file_max(case),
        LimitName::AcceptQueue => accept_queue(case),
        LimitName::SynQueue => syn_queue(case),
        LimitName::Ports => ports(case),
        LimitName::Conntrack => conntrack(case),
        LimitName::EpollWatches => epoll(case),
        LimitName::TimeWait => time_wait(case),
        LimitName::Memory => memory(case),
    })
}

/// A quarter more, so that the next run is not at the wall again.
pub(super) fn with_slack(number: u64) -> u64 {
    number.saturating_add(number / 4)
}

pub(super) fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The kernel's own default is 1/16 of memory for pressure, three quarters and one and a half of that for the others (net/ipv4/tcp.c,
/// tcp_init_mem, 6.18). Below it nobody is helped by any other number.
fn tcp_mem(case: &Case<'_>) -> String {
    let free_data = "let applications read, and send no faster than peers do";
    let page = case.now.page();
    let (Some([low, pressure, high]), Some(total)) =
        (case.now.tcp_mem, case.now.memory_total_bytes)
    else {
        return format!(
            "{free_data}; net.ipv4.tcp_mem (pages) is a setting of the host, and not to be seen from here"
        );
    };
    let pages = total / page;
    let peak = case.peak(LimitName::TcpMemHigh).map_or(0, |peak| peak.used);
    // What was refused is not in the peak.
    let wanted = with_slack(peak).max(high.saturating_mul(2)).max(pages / 32 * 3);
    let third = wanted.min(pages / 4).max(high);
    if third <= high {
        return format!(
            "{free_data}: net.ipv4.tcp_mem is at {high} pages already, a quarter of memory or more, and beyond that the OOM killer comes first"
        );
    }
    format!(
        "{free_data}; or net.ipv4.tcp_mem=\"{} {} {third}\" (pages, not bytes: {} MiB at most, {} % of memory). It is the whole host's, \
         also for containers, and too much of it ends in the OOM killer",
        low.max(third / 2),
        pressure.max(third / 3 * 2),
        mib(third.saturating_mul(page)),
        third * 100 / pages.max(1)
    )
}

fn memory_cgroup(case: &Case<'_>) -> String {
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

/// One may count four times.
fn orphans(case: &Case<'_>) -> String {
    let seen = case.seen.orphans_max.or(case.peak(LimitName::Orphans).map(|peak| peak.used));
    let aborted =
        case.seen.orphans_too_many.unwrap_or(0).max(case.seen.counter("TCPAbortOnMemory"));
    let Some(most) = case.now.max_orphans else {
        return "net.ipv4.tcp_max_orphans is a setting of the host, and not to be seen from here"
            .into();
    };
    let wanted = seen.unwrap_or(0).max(most).saturating_add(aborted).saturating_mul(4);
    format!(
        "net.ipv4.tcp_max_orphans={wanted} (orphans: four times what there were, since one may count four times). At {} KiB an orphan at \
         worst that is {} MiB. Or close fewer connections at once, or by reset",
        ORPHAN_BYTES / 1024,
        mib(wanted.saturating_mul(ORPHAN_BYTES))
    )
}

fn nofile(case: &Case<'_>) -> String {
    let (nofile, tables) = (case.now.nofile, case.now.descriptors_max);
    let own = case.seen.own("accept EMFILE") > 0;
    let wanted = match (own, nofile) {
        (true, Some(each)) => each.saturating_mul(2),
        _ => at_least(1 << 20, nofile),
    };
    let at_most = case.now.nr_open.filter(|most| *most < wanted).map_or(String::new(), |most| {
        format!("; fs.nr_open={most} is below that, and has to be raised first")
    });
    let workers = match (own, tables) {
        (true, Some(tables)) => {
            format!(
                "more --workers (each has a table of its own: {tables} descriptors together now), or "
            )
        }
        _ => String::new(),
    };
    format!(
        "{workers}a hard limit of {wanted} descriptors (LimitNOFILE={wanted} of a systemd unit, which does not read limits.conf; ulimit -n \
         in a shell){at_most}"
    )
}

fn nr_open(case: &Case<'_>) -> String {
    let wanted = at_least(case.now.nofile.unwrap_or(1 << 20), case.now.nr_open);
    format!(
        "fs.nr_open={wanted} (descriptors of one table) at least, which is what RLIMIT_NOFILE says already"
    )
}

fn file_max(case: &Case<'_>) -> String {
    let sockets = case.history.sockets_max();
    let used = case.peak(LimitName::FileMax).map_or(0, |peak| peak.used.max(peak.ceiling));
    let wanted =
        with_slack(used).max(sockets.saturating_add(10_000)).max(used.saturating_add(10_000));
    let wanted = at_least(wanted, case.now.file_nr.map(|files| files.max));
    format!(
        "fs.file-max={wanted} (files of the whole host). Every service of the host is hit at once when it is too low; root is not, and \
         uses up what others need"
    )
}

fn accept_queue(case: &Case<'_>) -> String {
    let seen =
        case.seen.accept_queue_max.or(case.peak(LimitName::AcceptQueue).map(|peak| peak.ceiling));
    let wanted = at_least(seen.unwrap_or(0).saturating_mul(4).max(4096), case.now.backlog);
    let somaxconn = match case.now.somaxconn.filter(|most| *most >= wanted) {
        Some(most) => {
            format!("net.core.somaxconn={most} is enough, and the smaller of the two counts")
        }
        None => format!(
            "net.core.somaxconn={wanted}: the smaller of the two counts, so raising one alone does nothing"
        ),
    };
    format!(
        "a backlog of {wanted} connections in listen (--backlog {wanted}) and {somaxconn}. An accept loop that pauses fills any queue"
    )
}

fn syn_queue(case: &Case<'_>) -> String {
    let wanted = case.now.max_syn_backlog.unwrap_or(0).saturating_mul(4).max(4096);
    format!(
        "net.ipv4.tcp_syncookies={} refuses nobody; net.ipv4.tcp_max_syn_backlog={wanted}, and a backlog and net.core.somaxconn of as much \
         or more (requests), since the SYN queue is as long as the accept queue",
        at_least(1, case.now.syncookies)
    )
}

fn ports(case: &Case<'_>) -> String {
    let range @ [first, last] = widest_ports(&case.now);
    let widest = last + 1 - first;
    match case.now.ports {
        Some(ports) if ports < widest && case.now.port_range != Some(range) => format!(
            "net.ipv4.ip_local_port_range=\"{first} {last}\" gives {widest} ports for each source, destination address and port instead \
             of {ports}, and may take those of services (net.ipv4.ip_local_reserved_ports); or more source or destination addresses"
        ),
        _ => "more source addresses, or more addresses or ports of the destination: the range is as wide as it can be".into(),
    }
}

fn conntrack(case: &Case<'_>) -> String {
    let wanted = case.peak(LimitName::Conntrack).map_or(1 << 18, |peak| {
        with_slack(peak.used.max(peak.ceiling)).max(peak.ceiling.saturating_mul(2))
    });
    let wanted = at_least(wanted, case.now.conntrack_max);
    format!(
        "net.netfilter.nf_conntrack_max={wanted} with nf_conntrack_buckets={} (entries, about 320 bytes each: {} MiB); or no tracking of \
         these ports (NOTRACK)",
        at_least(wanted / 4, case.now.conntrack_buckets),
        mib(wanted.saturating_mul(320))
    )
}

fn epoll(case: &Case<'_>) -> String {
    let peak = case.peak(LimitName::EpollWatches);
    let wanted =
        peak.map_or(1 << 20, |peak| with_slack(peak.used.max(peak.ceiling)).saturating_mul(2));
    let wanted = at_least(wanted, case.now.max_user_watches);
    format!(
        "fs.epoll.max_user_watches={wanted} (watches of one user, {WATCH_BYTES} bytes each of memory that can't be swapped: {} MiB)",
        mib(wanted.saturating_mul(WATCH_BYTES))
    )
}

fn time_wait(case: &Case<'_>) -> String {
    let wanted = case.now.max_tw_buckets.unwrap_or(1 << 16).saturating_mul(2);
    format!(
        "net.ipv4.tcp_max_tw_buckets={wanted} (sockets: closes a second times 60), where late segments of an old connection would do harm; \
         else leave it"
    )
}

fn memory(case: &Case<'_>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use c1m_record::{Sockstat, Tier};

    use crate::{evidence::Evidence, forecast::History, reading::Readings};

    fn advice(limit: LimitName, seen: &Evidence, now: Readings) -> String {
        let mut history = History::default();
        history.add(&now);
        advise(limit, &Case { seen, history: &history, now, tier: Tier::Counters }).unwrap()
    }

    #[test]
    fn every_limit_has_advice_also_when_nothing_is_known() {
        for limit in LimitName::ALL {
            let text = advice(limit, &Evidence::default(), Readings::default());
            assert!(text.len() > 20, "{limit:?}: {text}");
        }
    }

    #[test]
    fn tcp_mem_is_never_lowered_and_never_beyond_a_quarter_of_memory() {
        let now = |high| Readings {
            tcp_mem: Some([high / 2, high / 3 * 2, high]),
            memory_total_bytes: Some(4096 * 1_000_000),
            page_bytes: Some(4096),
            sockstat: Some(Sockstat { tcp_mem_pages: high + 1, ..Sockstat::default() }),
            ..Readings::default()
        };
        // Far too low: the kernel's own default would do.
        let text = advice(LimitName::TcpMemHigh, &Evidence::default(), now(512));
        assert!(text.contains("\"46875 62500 93750\" (pages, not bytes: 367 MiB"), "{text}");
        let text = advice(LimitName::TcpMemHigh, &Evidence::default(), now(200_000));
        assert!(text.contains(" 250000\" (pages"), "{text}");
        let text = advice(LimitName::TcpMemHigh, &Evidence::default(), now(250_000));
        assert!(text.contains("OOM killer comes first") && !text.contains('='), "{text}");
        let inside = advice(LimitName::TcpMemHigh, &Evidence::default(), Readings::default());
        assert!(inside.contains("not to be seen from here"), "{inside}");
    }

    #[test]
    fn orphans_count_four_times() {
        let seen =
            Evidence { orphans_too_many: Some(25), orphans_max: Some(75), ..Evidence::default() };
        let now = Readings { max_orphans: Some(50), ..Readings::default() };
        let text = advice(LimitName::Orphans, &seen, now);
        assert!(text.contains("tcp_max_orphans=400 "), "{text}");
        assert!(text.contains("25 MiB"), "{text}");
    }

    #[test]
    fn what_bounds_the_knob_is_named() {
        let seen =
            Evidence { own_errors: [("accept EMFILE".into(), 1)].into(), ..Evidence::default() };
        let now = Readings {
            nofile: Some(1000),
            nr_open: Some(1500),
            descriptors_max: Some(4000),
            ..Readings::default()
        };
        let text = advice(LimitName::Nofile, &seen, now);
        assert!(
            text.contains("LimitNOFILE=2000") && text.contains("fs.nr_open=1500 is below"),
            "{text}"
        );
        let ports = |ports| {
            advice(LimitName::Ports, &seen, Readings { ports: Some(ports), ..Readings::default() })
        };
        assert!(ports(28_232).contains("64512 ports"));
        assert!(ports(64_512).starts_with("more source addresses"));
    }
}
