//! Orphans: closed connections that the kernel still serves, and resets when there are too many or tcp_mem is used up.

use crate::{case::Case, verdict::Finding};
use c1m_record::{Confidence, LimitName};

const CHECK: &str = "tcp_check_oom";
const RESET: &str = "tp_btf/tcp_send_reset ABORT_ON_MEMORY";

pub(crate) fn orphans(case: &Case<'_>) -> Vec<Finding> {
    let seen = case.seen;
    let split = (seen.orphans_too_many.unwrap_or(0), seen.orphans_out_of_memory.unwrap_or(0));
    match (split, seen.counter("TCPAbortOnMemory")) {
        ((0, 0), 0) => Vec::new(),
        // Reset where no hook saw it.
        ((0, 0), aborted) => vec![unsplit(case, aborted)],
        ((many, memory), _) => {
            let mut found: Vec<Finding> =
                [too_many(case, many), out_of_memory(case, memory)].into_iter().flatten().collect();
            // Both can be true at once, and each does harm of its own: the larger number first.
            if memory > many {
                found.reverse();
            }
            found
        }
    }
}

fn too_many(case: &Case<'_>, count: u64) -> Option<Finding> {
    (count > 0).then(|| {
        let peak = case.peak(LimitName::Orphans);
        let found = Finding::new(
            LimitName::Orphans,
            Confidence::Certain,
            format!("{count} closed connections were reset because there were too many orphans"),
        )
        .saw(case.hook(CHECK, RESET), "orphans reset because there were too many", count)
        .saw(
            "tcp_out_of_resources",
            "orphans reset by a timer, for whatever cause",
            case.seen.orphans_in_timers.unwrap_or(0),
        );
        let found = match (case.seen.orphans_max, case.now.max_orphans) {
            (Some(most), Some(limit)) => found.beside(
                CHECK,
                "orphans, the most that were compared",
                Some(crate::reading::Peak { used: most, ceiling: limit }),
            ),
            _ => found.beside("/proc/net/sockstat orphan", "orphans", peak),
        };
        found.saw(
            "TcpExt TCPAbortOnMemory",
            "orphans reset, for either cause",
            case.seen.counter("TCPAbortOnMemory"),
        )
    })
}

fn out_of_memory(case: &Case<'_>, count: u64) -> Option<Finding> {
    (count > 0).then(|| {
        Finding::new(
            LimitName::OrphanMemory,
            Confidence::Certain,
            format!("{count} connections that were closed with unsent data were reset because tcp_mem was above its third value"),
        )
        .saw(case.hook(CHECK, RESET), "orphans reset for memory", count)
        .saw("TcpExt TCPAbortOnMemory", "orphans reset, for either cause", case.seen.counter("TCPAbortOnMemory"))
        .beside("/proc/net/sockstat mem", "pages", case.peak(LimitName::OrphanMemory))
    })
}

/// By the counter alone, which both causes move.
fn unsplit(case: &Case<'_>, aborted: u64) -> Finding {
    let seen = case.seen;
    let was_high = seen.refused_high() > 0
        || seen.crossed_high.unwrap_or(0) > 0
        || seen.past_high == Some(true)
        || case.was_past(LimitName::TcpMemHigh);
    // One may count four times.
    let many = case.peak(LimitName::Orphans).is_some_and(|peak| peak.is_at(25));
    let (limit, confidence) = match (was_high, many) {
        (true, false) => (LimitName::OrphanMemory, Confidence::Likely),
        (false, true) => (LimitName::Orphans, Confidence::Likely),
        _ => (LimitName::Orphans, Confidence::Possible),
    };
    let (source, what) = match limit {
        LimitName::OrphanMemory => ("/proc/net/sockstat mem", "pages"),
        _ => ("/proc/net/sockstat orphan", "orphans"),
    };
    Finding::new(
        limit,
        confidence,
        format!("{aborted} closed connections were reset by the kernel: too many orphans, or no memory of tcp_mem for their data"),
    )
    .saw("TcpExt TCPAbortOnMemory", "orphans reset, for either cause", aborted)
    .beside(source, what, case.peak(limit))
    .settled_by("--trace: it sees which of the two it was; the kernel's log says `too many orphaned sockets` or `out of memory`")
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat};

    use crate::{evidence::Evidence, forecast::History, reading::Readings, verdict::judge};

    fn history(orphan: u64, pages: u64) -> History {
        let mut history = History::default();
        history.add(&Readings {
            tcp_mem: Some([100, 200, 300]),
            max_orphans: Some(50),
            sockstat: Some(Sockstat { orphan, tcp_mem_pages: pages, ..Sockstat::default() }),
            ..Readings::default()
        });
        history
    }

    fn first(seen: &Evidence, history: &History) -> (LimitName, Confidence) {
        let verdict = judge(seen, history);
        (verdict.causes[0].limit, verdict.causes[0].confidence)
    }

    #[test]
    fn the_counter_alone_is_read_beside_the_limits() {
        let seen =
            Evidence { tcp_ext: [("TCPAbortOnMemory".into(), 5)].into(), ..Evidence::default() };
        assert_eq!(first(&seen, &history(13, 0)), (LimitName::Orphans, Confidence::Likely));
        assert_eq!(first(&seen, &history(0, 301)), (LimitName::OrphanMemory, Confidence::Likely));
        assert_eq!(first(&seen, &history(0, 0)), (LimitName::Orphans, Confidence::Possible));
        let verdict = judge(&seen, &history(13, 0));
        assert!(verdict.causes[0].settle.as_ref().is_some_and(|text| text.contains("--trace")));
    }

    #[test]
    fn the_split_is_what_the_hook_saw() {
        let seen = |many, memory| Evidence {
            orphans_too_many: Some(many),
            orphans_out_of_memory: Some(memory),
            orphans_max: Some(75),
            ..Evidence::default()
        };
        let verdict = judge(&seen(125, 0), &history(0, 0));
        assert_eq!(verdict.causes.len(), 1);
        assert_eq!(verdict.causes[0].limit, LimitName::Orphans);
        let compared = &verdict.causes[0].evidence[1];
        assert_eq!((compared.value, compared.limit), (75, Some(50)));
        assert_eq!(
            first(&seen(0, 3), &history(0, 301)),
            (LimitName::OrphanMemory, Confidence::Certain)
        );
        assert_eq!(first(&seen(1, 3), &history(0, 0)).0, LimitName::OrphanMemory);
        assert!(judge(&seen(0, 0), &history(0, 0)).quiet);
    }
}
