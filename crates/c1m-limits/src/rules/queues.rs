//! What stops a connection before `accept`: the accept queue, the SYN queue, connection tracking.

use c1m_record::{Confidence, LimitName};

use crate::{
    case::Case,
    evidence::Listeners,
    reading::Peak,
    rules::calls::{emfile, enfile},
    verdict::Finding,
};

pub(crate) fn queues(case: &Case<'_>) -> Vec<Finding> {
    [accept_queue(case), syn_queue(case), conntrack(case)].into_iter().flatten().collect()
}

/// Connections that found the accept queue full: the hooks' count, else the kernel's own, which is of this limit alone.
fn overflows(case: &Case<'_>) -> u64 {
    let seen = case.seen;
    let hooked = seen.accept_queue_syn.unwrap_or(0) + seen.accept_queue_ack.unwrap_or(0);
    hooked.max(seen.counter("ListenOverflows"))
}

/// SYNs that a listener dropped for another reason than a full accept or SYN queue (include/net/tcp.h, tcp_listendrop, 6.18), as
/// far as the counters tell.
pub(super) fn unexplained_drops(case: &Case<'_>) -> u64 {
    let counter = |name| case.seen.counter(name);
    if case.seen.listeners.dropped_nothing() {
        return 0;
    }
    counter("ListenDrops")
        .saturating_sub(counter("ListenOverflows"))
        .saturating_sub(counter("TCPReqQFullDrop"))
}

/// Of those, the ones that the SYN queue may have dropped without a counter of its own: with cookies off, a listener keeps a quarter of
/// tcp_max_syn_backlog for peers that it knows (net/ipv4/tcp_input.c, tcp_conn_request, 6.18). A shorter queue is full before.
fn unnamed_drops(case: &Case<'_>) -> u64 {
    let now = &case.now;
    let is_long = matches!((now.longest_backlog, now.max_syn_backlog),
        (Some(longest), Some(most)) if longest >= most - most / 4);
    if now.syncookies == Some(0) && is_long { unexplained_drops(case) } else { 0 }
}

fn accept_queue(case: &Case<'_>) -> Option<Finding> {
    let seen = case.seen;
    let (count, confidence) = attributed(case)?;
    let behind = if emfile(case) > 0 {
        ": it filled while accept failed with EMFILE"
    } else if enfile(case) > 0 {
        ": it filled while accept failed with ENFILE"
    } else {
        ": connections come faster than they are accepted"
    };
    let length = match (seen.accept_queue_len, seen.accept_queue_max) {
        (Some(used), Some(ceiling)) => Some(Peak { used, ceiling }),
        _ => case.peak(LimitName::AcceptQueue),
    };
    let sure = confidence == Confidence::Certain;
    let found = Finding::new(
            LimitName::AcceptQueue,
            confidence,
            format!("a listener's accept queue was full {count} times, and SYNs or ends of handshakes were dropped{behind}"),
        )
        .saw("TcpExt ListenOverflows", "drops in this network namespace", seen.counter("ListenOverflows"))
        .saw("tcp_conn_request", "SYNs that found it full", seen.accept_queue_syn.unwrap_or(0))
        .saw(case.hook("tcp_v4_syn_recv_sock", "tp_btf/kfree_skb TCP_LISTEN_OVERFLOW"), "ends of handshakes that found it full", seen.accept_queue_ack.unwrap_or(0))
        .saw("sock_diag SK_MEMINFO_DROPS", "drops of the target's listeners", own_drops(case))
        .beside("sock_diag", "connections in the fullest queue", length);
    Some(if sure { found } else { found.settled_by(OWN_QUEUE) })
}

/// What raises the confidence where only the network namespace's counters, or drops without a reason, speak.
const OWN_QUEUE: &str = "`ss -ltnm` while it happens: Recv-Q above Send-Q of the target's own listener, and its drops (d) growing";

fn own_drops(case: &Case<'_>) -> u64 {
    match case.seen.listeners {
        Listeners::Target { drops } => drops.unwrap_or(0),
        Listeners::All => 0,
    }
}

/// How many overflows are the target's, and how sure that is. The kernel counts them for the network namespace; a listener's own counter
/// counts every drop. So only a target that dropped and was seen full is certain.
fn attributed(case: &Case<'_>) -> Option<(u64, Confidence)> {
    let all = overflows(case);
    let (count, confidence) = match case.seen.listeners {
        Listeners::All => (all, Confidence::Certain),
        Listeners::Target { drops } => {
            let confidence = match (case.was_past(LimitName::AcceptQueue), drops) {
                (true, Some(_)) => Confidence::Certain,
                (true, None) | (false, Some(_)) => Confidence::Likely,
                (false, None) => Confidence::Possible,
            };
            (all.min(drops.unwrap_or(all)), confidence)
        }
    };
    (count > 0).then_some((count, confidence))
}

fn syn_queue(case: &Case<'_>) -> Option<Finding> {
    let (seen, is_target) = (case.seen, case.seen.listeners != Listeners::All);
    // The queue itself is not shown, so the network namespace's counters may be of anybody's listener.
    let sure = if is_target { Confidence::Possible } else { Confidence::Certain };
    let settled = |found: Finding| if is_target { found.settled_by(OWN_SYN_QUEUE) } else { found };
    let hooked = seen.syn_queue_full.unwrap_or(0);
    let dropped =
        if seen.listeners.dropped_nothing() { 0 } else { seen.counter("TCPReqQFullDrop") };
    // Always on, cookies say nothing of the queue.
    let cookies = match case.now.syncookies {
        Some(2) => 0,
        _ => seen.counter("TCPReqQFullDoCookies"),
    };
    let unnamed = unnamed_drops(case);
    let found = if dropped > 0 {
        settled(Finding::new(
            LimitName::SynQueue,
            // Dropped by the target as well, by which of its queues is not known.
            if is_target { Confidence::Likely } else { Confidence::Certain },
            format!("a listener's SYN queue was full, and {dropped} SYNs were dropped"),
        ))
    } else if unnamed > 0 {
        Finding::new(
            LimitName::SynQueue,
            Confidence::Possible,
            format!(
                "{unnamed} SYNs were dropped with SYN cookies off: three quarters of tcp_max_syn_backlog may have been in use"
            ),
        )
        .settled_by("fentry of tcp_conn_request; a missing route back drops SYNs as well")
    } else if cookies + hooked > 0 {
        let is_known = case.now.syncookies.is_some() || hooked > 0;
        settled(Finding::new(
            LimitName::SynQueue,
            if is_known { sure } else { sure.min(Confidence::Likely) },
            "a listener's SYN queue was full; SYNs were answered by cookies, and none was dropped for it",
        ))
        .harmless()
    } else {
        return None;
    };
    Some(
        found
            .saw("TcpExt TCPReqQFullDrop", "SYNs dropped in this network namespace", dropped)
            .saw("TcpExt TCPReqQFullDoCookies", "SYNs answered by a cookie", cookies)
            .saw("tcp_syn_flood_action", "SYNs that found it full", hooked)
            .saw("TcpExt ListenDrops", "drops that no other counter explains", unnamed),
    )
}

const OWN_SYN_QUEUE: &str = "`ss -tan state syn-recv` by the target's own port while it happens";

fn conntrack(case: &Case<'_>) -> Option<Finding> {
    let counted = &case.seen.host;
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
        found.settled_by("the kernel's log: `nf_conntrack: table full, dropping packet`")
    })
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::{Evidence, Growth, Listeners},
        forecast::History,
        reading::Readings,
        verdict::judge,
    };

    fn history(syncookies: u64) -> History {
        let mut history = History::default();
        history.add(&Readings { syncookies: Some(syncookies), ..Readings::default() });
        history
    }

    fn counters(pairs: &[(&str, u64)]) -> Evidence {
        let tcp_ext = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Evidence { tcp_ext, ..Evidence::default() }
    }

    fn causes(seen: &Evidence, syncookies: u64) -> Vec<(LimitName, Confidence)> {
        let verdict = judge(seen, &history(syncookies));
        verdict.causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    #[test]
    fn overflows_are_the_accept_queue_and_full_drops_the_syn_queue() {
        let overflow = counters(&[("ListenOverflows", 42), ("ListenDrops", 42)]);
        assert_eq!(causes(&overflow, 1), [(LimitName::AcceptQueue, Confidence::Certain)]);
        let full = counters(&[("TCPReqQFullDrop", 7), ("ListenDrops", 7)]);
        assert_eq!(causes(&full, 0), [(LimitName::SynQueue, Confidence::Certain)]);
    }

    #[test]
    fn requests_that_pile_up_behind_a_full_accept_queue_come_second() {
        let both =
            counters(&[("ListenOverflows", 2), ("TCPReqQFullDrop", 90), ("ListenDrops", 92)]);
        let names: Vec<_> = causes(&both, 0).into_iter().map(|cause| cause.0).collect();
        assert_eq!(names, [LimitName::AcceptQueue, LimitName::SynQueue]);
    }

    #[test]
    fn cookies_refuse_nothing_and_say_nothing_when_they_are_always_on() {
        let cookies = counters(&[("TCPReqQFullDoCookies", 9)]);
        let verdict = judge(&cookies, &history(1));
        assert_eq!(verdict.causes[0].limit, LimitName::SynQueue);
        assert!(verdict.causes[0].text.contains("none was dropped"));
        assert_eq!(causes(&cookies, 2), []);
    }

    #[test]
    fn with_cookies_off_a_long_syn_queue_may_drop_without_a_counter() {
        let drops = counters(&[("ListenDrops", 5), ("ListenOverflows", 1)]);
        for (longest, causes) in [(1536, 2), (1535, 1)] {
            let mut history = History::default();
            history.add(&Readings {
                syncookies: Some(0),
                max_syn_backlog: Some(2048),
                longest_backlog: Some(longest),
                ..Readings::default()
            });
            let verdict = judge(&drops, &history);
            assert_eq!(verdict.causes.len(), causes);
            if let Some(second) = verdict.causes.get(1) {
                assert_eq!(
                    (second.limit, second.confidence),
                    (LimitName::SynQueue, Confidence::Possible)
                );
                assert_eq!(second.evidence.last().unwrap().value, 4);
            }
        }
    }

    fn of_target(drops: Option<u64>, full: bool, seen: Evidence) -> Vec<(LimitName, Confidence)> {
        let mut history = history(1);
        let accept_queue = Some(if full { (5, 4) } else { (0, 4) });
        history.add(&Readings { accept_queue, ..Readings::default() });
        let seen = Evidence { listeners: Listeners::Target { drops }, ..seen };
        let verdict = judge(&seen, &history);
        for cause in &verdict.causes {
            assert_eq!(cause.confidence == Confidence::Certain, cause.settle.is_none());
        }
        verdict.causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    #[test]
    fn overflows_of_the_network_namespace_are_a_targets_only_by_its_own_listeners() {
        use Confidence::*;
        let of = |drops, full| {
            of_target(drops, full, counters(&[("ListenOverflows", 4), ("ListenDrops", 4)]))
        };
        assert_eq!(of(Some(0), false), [], "another program's queue");
        assert_eq!(of(Some(0), true), [], "full, and nobody came");
        for (drops, full, confidence) in [
            (Some(4), true, Certain),
            (Some(4), false, Likely),
            (None, true, Likely),
            (None, false, Possible),
        ] {
            assert_eq!(of(drops, full), [(LimitName::AcceptQueue, confidence)], "{drops:?} {full}");
        }
        // The hooks count the whole host.
        let hooked = Evidence { accept_queue_syn: Some(9), ..Evidence::default() };
        assert_eq!(of_target(Some(0), false, hooked), []);
    }

    #[test]
    fn a_targets_syn_queue_is_never_certain() {
        let dropped = || counters(&[("TCPReqQFullDrop", 7), ("ListenDrops", 7)]);
        assert_eq!(of_target(Some(0), false, dropped()), []);
        let likely = [(LimitName::SynQueue, Confidence::Likely)];
        assert_eq!(of_target(Some(7), false, dropped()), likely);
        let cookies = counters(&[("TCPReqQFullDoCookies", 9)]);
        let possible = [(LimitName::SynQueue, Confidence::Possible)];
        assert_eq!(of_target(Some(0), false, cookies), possible);
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
        assert_eq!(causes(&tracked(3, 3, 0), 1), []);
        assert_eq!(causes(&tracked(0, 3, 0), 1), []);
        assert_eq!(causes(&tracked(4, 3, 0), 1), [(LimitName::Conntrack, Confidence::Likely)]);
        assert_eq!(causes(&tracked(4, 0, 1), 1), [(LimitName::Conntrack, Confidence::Certain)]);
    }

    #[test]
    fn a_table_that_was_seen_full_is_certain() {
        let mut history = history(1);
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
