//! net.ipv4.tcp_max_orphans: closed connections that the kernel still serves. One may count twice or four times.

use c1m_record::{Confidence, Effect, LimitName, Scope};

use super::{A_FEW, About, Limit, UsageMetric};
use crate::{
    case::Case,
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Host, Need, Planned, first_without, setting, unseen},
    raise::{at_least, mib},
    reading::{Peak, Readings, Usage},
};

pub(super) const CHECK: &str = "tcp_check_oom";
pub(super) const RESET: &str = "tp_btf/tcp_send_reset ABORT_ON_MEMORY";
/// What an orphan may hold at worst, by the kernel's own documentation of tcp_max_orphans.
const ORPHAN_BYTES: u64 = 64 * 1024;

pub(super) struct Orphans;

impl Limit for Orphans {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::Orphans,
            scope: Scope::Host,
            unit: "orphans",
            setting: "net.ipv4.tcp_max_orphans",
            source: "/proc/net/sockstat orphan, net.ipv4.tcp_max_orphans",
            symptom: "closed connections are reset before their last data is delivered (TCPAbortOnMemory); the kernel logs `too many orphaned sockets`",
            distinguished_by: "the verdict's own split in the reset orphan: not out of memory, so too many. An orphan that has not sent for long, or met an \
                ICMP error, counts twice or four times, so a quarter of the value can be the limit",
            kernel: "net/ipv4/tcp.c, tcp_check_oom; net/ipv4/tcp_timer.c, tcp_out_of_resources (5.4 to 6.18)",
            label: "orphans (tcp_max_orphans)",
            summary: ["closed connections are reset", "net.ipv4.tcp_max_orphans"],
            metric: Some(UsageMetric {
                name: "c1m_orphans",
                help: "TCP sockets without a process (net.ipv4.tcp_max_orphans, where one may count twice or four times)",
                scope: Scope::Host,
            }),
        }
    }

    /// A process that was killed leaves its connections.
    fn roots(&self) -> &'static [LimitName] {
        &[LimitName::MemoryCgroup, LimitName::Memory]
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.sockstat.map(|sockets| sockets.orphan), now.max_orphans)
    }

    fn noise(&self, _: &Readings) -> u64 {
        A_FEW
    }

    /// Where both ends are here, either may be the orphan, and one of them is.
    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let used = planned.now.sockstat.map(|sockets| sockets.orphan);
        let now = planned.now.max_orphans;
        let needed = planned.connections().saturating_add(used.unwrap_or(0));
        let wanted = at_least(needed.saturating_mul(4), now);
        Need {
            now,
            used,
            needed: Some(needed),
            stops_at: now.zip(used).and_then(|(now, used)| first_without(now, used, 1)),
            effect: Some(Effect::Resets),
            counts: planned.run.ends_by_fin,
            remedy: format!(
                "net.ipv4.tcp_max_orphans={wanted}; or close by reset, or fewer at once"
            ),
            risk: format!(
                "an orphan holds up to {} KiB: {} MiB for all. One that has not sent for long counts twice or four times, so a quarter of \
                 the value can be the limit",
                ORPHAN_BYTES / 1024,
                mib(wanted.saturating_mul(ORPHAN_BYTES))
            ),
            // The kernel has an int.
            settings: match i32::try_from(wanted) {
                Ok(wanted) => setting("net.ipv4.tcp_max_orphans", wanted),
                Err(_) => Vec::new(),
            },
            note: Some("when all connections are cut at once; by reset there are none".into()),
            unknown: (now.is_none() || used.is_none()).then(|| unseen("net.ipv4.tcp_max_orphans")),
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[
                Known::new(
                    "net.ipv4.tcp_max_orphans",
                    Numbers::Int(1, i32::MIN),
                    Rule::LargerThan(
                        half_of_ehash,
                        LimitName::Orphans,
                        "it resets connections that still had something to deliver",
                    ),
                ),
                Known::new(
                    "net.ipv4.tcp_fin_timeout",
                    Numbers::Seconds,
                    Rule::Inert(
                        "it is how long an orphan waits in FIN_WAIT_2 (seconds); TIME_WAIT stays 60 s, and open connections do not depend on it",
                    ),
                ),
            ]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let observed = case.observed;
        let count = observed.orphans_too_many.unwrap_or(0);
        if count == 0 {
            return unsplit(case).filter(|found| found.limit == LimitName::Orphans);
        }
        let found = Finding::new(
            LimitName::Orphans,
            Confidence::Certain,
            format!("{count} closed connections were reset because there were too many orphans"),
        )
        .saw(case.hook(CHECK, RESET), "orphans reset because there were too many", count)
        .saw(
            "tcp_out_of_resources",
            "orphans reset by a timer, for whatever cause",
            observed.orphans_in_timers.unwrap_or(0),
        );
        let found = match (observed.orphans_max, case.now.max_orphans) {
            (Some(used), Some(ceiling)) => found.beside(
                CHECK,
                "orphans, the most that were compared",
                Some(Peak { used, ceiling }),
            ),
            _ => {
                found.beside("/proc/net/sockstat orphan", "orphans", case.peak(LimitName::Orphans))
            }
        };
        let found = found.saw(
            "TcpExt TCPAbortOnMemory",
            "orphans reset, for either cause",
            observed.counter("TCPAbortOnMemory"),
        );
        // Both can be true at once, and each does harm of its own: the larger number first.
        let is_less = observed.orphans_out_of_memory.unwrap_or(0) > count;
        Some(if is_less { found.behind(LimitName::OrphanMemory) } else { found })
    }

    /// One may count four times.
    fn remedy(&self, case: &Case<'_>) -> String {
        let most_counted =
            case.observed.orphans_max.or(case.peak(LimitName::Orphans).map(|peak| peak.used));
        let aborted = case
            .observed
            .orphans_too_many
            .unwrap_or(0)
            .max(case.observed.counter("TCPAbortOnMemory"));
        let Some(most) = case.now.max_orphans else {
            return "net.ipv4.tcp_max_orphans is a setting of the host, and not to be seen from here".into();
        };
        let wanted = most_counted.unwrap_or(0).max(most).saturating_add(aborted).saturating_mul(4);
        format!(
            "net.ipv4.tcp_max_orphans={wanted} (orphans: four times what there were, since one may count four times). At {} KiB an orphan at \
         worst that is {} MiB. Or close fewer connections at once, or by reset",
            ORPHAN_BYTES / 1024,
            mib(wanted.saturating_mul(ORPHAN_BYTES))
        )
    }
}

/// Orphans that no hook saw reset: the counter alone, which both causes move.
pub(super) fn unsplit(case: &Case<'_>) -> Option<Finding> {
    let observed = case.observed;
    let split =
        observed.orphans_too_many.unwrap_or(0) + observed.orphans_out_of_memory.unwrap_or(0);
    let aborted = observed.counter("TCPAbortOnMemory");
    if split > 0 || aborted == 0 {
        return None;
    }
    let was_high = observed.refused_high() > 0
        || observed.crossed_high.unwrap_or(0) > 0
        || observed.past_high == Some(true)
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
    Some(
        Finding::new(limit, confidence, format!("{aborted} closed connections were reset by the kernel: too many orphans, or no memory of tcp_mem for their data"))
            .saw("TcpExt TCPAbortOnMemory", "orphans reset, for either cause", aborted)
            .beside(source, what, case.peak(limit))
            .confirmed_by("--trace: it sees which of the two it was; the kernel's log says `too many orphaned sockets` or `out of memory`"),
    )
}

/// The kernel's own default, as `tcp_init` makes it: half of the buckets of the hash table of established connections (net/ipv4/tcp.c, 6.18).
pub(super) fn half_of_ehash(host: &Host) -> Option<u64> {
    host.ehash_buckets.map(|buckets| buckets / 2)
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat};

    use crate::{
        evidence::Evidence, forecast::History, limits::tests::remedy, reading::Readings,
        verdict::judge,
    };

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
        assert!(verdict.causes[0].to_confirm.as_ref().is_some_and(|text| text.contains("--trace")));
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

    #[test]
    fn orphans_count_four_times() {
        let seen =
            Evidence { orphans_too_many: Some(25), orphans_max: Some(75), ..Evidence::default() };
        let now = Readings { max_orphans: Some(50), ..Readings::default() };
        let text = remedy(LimitName::Orphans, &seen, now);
        assert!(text.contains("tcp_max_orphans=400 "), "{text}");
        assert!(text.contains("25 MiB"), "{text}");
    }
}
