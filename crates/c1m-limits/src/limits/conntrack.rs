//! net.netfilter.nf_conntrack_max: tracked connections.

use c1m_record::{Confidence, LimitName, Scope};

use super::{A_FEW, About, Limit, UsageMetric};
use crate::{
    case::Case,
    client::outcome::Unanswered,
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Need, Planned, first_without, setting, unseen},
    raise::{at_least, mib, with_slack},
    reading::{Readings, Usage},
};

pub(super) struct Conntrack;

impl Limit for Conntrack {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::Conntrack,
            scope: Scope::Netns,
            unit: "entries",
            setting: "net.netfilter.nf_conntrack_max, with nf_conntrack_buckets",
            source: "net.netfilter.nf_conntrack_count, net.netfilter.nf_conntrack_max",
            symptom: "packets of new connections vanish, connects time out while both queues are empty; the kernel logs `table full, dropping packet`",
            distinguished_by: "drop of /proc/net/stat/nf_conntrack less insert_failed, which clashes of two entries move together with it",
            kernel: "net/netfilter/nf_conntrack_core.c, __nf_conntrack_alloc, nf_ct_resolve_clash (6.18)",
            label: "conntrack",
            summary: ["packets of new connections vanish", "net.netfilter.nf_conntrack_max"],
            metric: Some(UsageMetric {
                name: "c1m_conntrack_entries",
                help: "Tracked connections (net.netfilter.nf_conntrack_max)",
                scope: Scope::Netns,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.conntrack, now.conntrack_max)
    }

    fn noise(&self, _: &Readings) -> u64 {
        A_FEW
    }

    /// Both ends on one host are one entry: the loopback interface does not change addresses.
    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let (used, now) = (planned.now.conntrack, planned.now.conntrack_max);
        let is_there = used.is_some() || now.is_some();
        let tracked = if is_there { planned.host.tracked } else { Some(false) };
        let needed = match tracked {
            Some(false) => Some(0),
            _ => Some(planned.connections().saturating_add(used.unwrap_or(0))),
        };
        let wanted = at_least(with_slack(needed.unwrap_or(0)), now);
        // Then it does not matter.
        let fits =
            now.is_some_and(|now| planned.connections() <= now.saturating_sub(used.unwrap_or(0)));
        Need {
            now,
            used,
            needed,
            stops_at: now.zip(used).filter(|_| tracked == Some(true)).and_then(|(now, used)| first_without(now, used, 1)),
            counts: tracked != Some(false),
            remedy: format!(
                "net.netfilter.nf_conntrack_max={wanted} with nf_conntrack_buckets={}; or no tracking of these ports (NOTRACK)",
                at_least(wanted / 4, planned.now.conntrack_buckets)
            ),
            risk: format!("about 320 bytes an entry, {} MiB for all; with too few buckets each look-up is slow", mib(wanted.saturating_mul(320))),
            settings: setting("net.netfilter.nf_conntrack_max", wanted),
            note: Some(match tracked {
                Some(true) => "a connection of our own was tracked".into(),
                Some(false) if is_there => "a connection of our own was not tracked: no rule of this network namespace asks for it".into(),
                Some(false) => "this kernel tracks nothing".into(),
                None if fits => "there is room for all of them, tracked or not".into(),
                None => "whether connections are tracked here could not be found out".into(),
            }),
            unknown: match (tracked, now.is_some()) {
                (None, _) if fits => None,
                (None, _) => Some("whether connections are tracked here could not be found out".into()),
                (Some(true), false) => Some(unseen("net.netfilter.nf_conntrack_max")),
                _ => None,
            },
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[
                Known::new(
                    "net.netfilter.nf_conntrack_max",
                    Numbers::Int(1, i32::MIN),
                    Rule::Larger(
                        Some(LimitName::Conntrack),
                        "a full table drops packets of new connections",
                    ),
                ),
                Known::new(
                    "net.netfilter.nf_conntrack_buckets",
                    Numbers::Int(1, i32::MIN),
                    Rule::Larger(None, "each look-up of a tracked connection walks a longer chain"),
                ),
                Known::new(
                    "net.netfilter.nf_conntrack_tcp_timeout_established",
                    Numbers::Int(1, i32::MIN),
                    Rule::Larger(
                        None,
                        "a connection that is idle for so many seconds is forgotten, and its next packet may be dropped",
                    ),
                ),
                Known::new(
                    "net.ipv4.netfilter.ip_conntrack_max",
                    Numbers::Int(1, i32::MIN),
                    Rule::Removed(
                        "Linux 4.9 removed this name: the setting is net.netfilter.nf_conntrack_max",
                    ),
                ),
                Known::new(
                    "net.ipv4.ip_conntrack_max",
                    Numbers::Int(1, i32::MIN),
                    Rule::Removed(
                        "Linux 2.6.20 removed this name: the setting is net.netfilter.nf_conntrack_max",
                    ),
                ),
            ]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let counted = &case.observed.host;
        // Two new entries that clash count in both (net/netfilter/nf_conntrack_core.c, nf_ct_resolve_clash, 6.18).
        let clashes = counted.conntrack_insert_failed.unwrap_or(0);
        let dropped = counted.conntrack_drop.unwrap_or(0).saturating_sub(clashes);
        let evicted = counted.conntrack_early_drop.unwrap_or(0);
        let peak = case.peak(LimitName::Conntrack);
        let full = peak.is_some_and(|peak| peak.is_at(95));
        let found = match (dropped, evicted) {
            (1.., _) => Finding::new(
                LimitName::Conntrack,
                if full || evicted > 0 { Confidence::Certain } else { Confidence::Likely },
                format!("the table of tracked connections was full, and {dropped} packets were dropped before any queue saw them"),
            ),
            (0, 1..) => Finding::new(
                LimitName::Conntrack,
                Confidence::Certain,
                format!("the table of tracked connections was full: {evicted} entries were evicted for new ones, no packet was dropped for it"),
            )
            .harmless(),
            (0, 0) => return None,
        };
        let sure = found.confidence == Confidence::Certain;
        let found = found
            .saw("/proc/net/stat/nf_conntrack drop", "packets, clashes left out", dropped)
            .saw("/proc/net/stat/nf_conntrack early_drop", "entries evicted", evicted)
            .beside("nf_conntrack_count", "entries", peak);
        Some(if sure {
            found
        } else {
            found.confirmed_by("the kernel's log: `nf_conntrack: table full, dropping packet`")
        })
    }

    fn unanswered(&self) -> Option<Unanswered> {
        Some(Unanswered {
            source: "/proc/net/stat/nf_conntrack drop",
            grown: |outcome| outcome.untracked,
            text: "this host's table of tracked connections was full",
            elsewhere: Some("a firewall's table of tracked connections may have been full"),
            remedy: "a higher net.netfilter.nf_conntrack_max (entries, about 320 bytes each), or no tracking of the server's port",
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
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
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::{Evidence, Growth},
        forecast::History,
        reading::Readings,
        verdict::judge,
    };

    fn causes(seen: &Evidence) -> Vec<(LimitName, Confidence)> {
        let verdict = judge(seen, &History::default());
        verdict.causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    fn tracked(drop: u64, insert_failed: u64, early_drop: u64) -> Evidence {
        let host = Growth {
            conntrack_drop: Some(drop),
            conntrack_insert_failed: Some(insert_failed),
            conntrack_early_drop: Some(early_drop),
            ..Growth::default()
        };
        Evidence { host, ..Evidence::default() }
    }

    #[test]
    fn clashes_of_entries_are_no_full_table() {
        assert_eq!(causes(&tracked(3, 3, 0)), []);
        assert_eq!(causes(&tracked(0, 3, 0)), []);
        assert_eq!(causes(&tracked(4, 3, 0)), [(LimitName::Conntrack, Confidence::Likely)]);
        assert_eq!(causes(&tracked(4, 0, 1)), [(LimitName::Conntrack, Confidence::Certain)]);
    }

    #[test]
    fn a_table_that_was_seen_full_is_certain() {
        let mut history = History::default();
        history.add(&Readings {
            conntrack: Some(96),
            conntrack_max: Some(100),
            ..Readings::default()
        });
        let verdict = judge(&tracked(1, 0, 0), &history);
        assert_eq!(verdict.causes[0].confidence, Confidence::Certain);
        // Full, and nothing dropped: nothing happened yet.
        assert!(judge(&Evidence::default(), &history).quiet);
    }
}
