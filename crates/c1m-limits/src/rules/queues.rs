//! What stops a connection before `accept`: the accept queue, the SYN queue, connection tracking.

use c1m_record::{Confidence, LimitName};

use crate::{
    case::Case,
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
    let count = overflows(case);
    if count == 0 {
        return None;
    }
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
    Some(
        Finding::new(
            LimitName::AcceptQueue,
            Confidence::Certain,
            format!("a listener's accept queue was full {count} times, and SYNs or ends of handshakes were dropped{behind}"),
        )
        .saw("TcpExt ListenOverflows", "drops in this network namespace", seen.counter("ListenOverflows"))
        .saw("tcp_conn_request", "SYNs that found it full", seen.accept_queue_syn.unwrap_or(0))
        .saw(case.hook("tcp_v4_syn_recv_sock", "tp_btf/kfree_skb TCP_LISTEN_OVERFLOW"), "ends of handshakes that found it full", seen.accept_queue_ack.unwrap_or(0))
        .beside("sock_diag", "connections in the fullest queue", length),
    )
}

fn syn_queue(case: &Case<'_>) -> Option<Finding> {
    let seen = case.seen;
    let hooked = seen.syn_queue_full.unwrap_or(0);
    let dropped = seen.counter("TCPReqQFullDrop");
    // Always on, cookies say nothing of the queue.
    let cookies = match case.now.syncookies {
        Some(2) => 0,
        _ => seen.counter("TCPReqQFullDoCookies"),
    };
    let unnamed = unnamed_drops(case);
    let found = if dropped > 0 {
        Finding::new(
            LimitName::SynQueue,
            Confidence::Certain,
            format!("a listener's SYN queue was full, and {dropped} SYNs were dropped"),
        )
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
        let sure = case.now.syncookies.is_some() || hooked > 0;
        let confidence = if sure { Confidence::Certain } else { Confidence::Likely };
        Finding::new(
            LimitName::SynQueue,
            confidence,
            "a listener's SYN queue was full; SYNs were answered by cookies, and none was dropped for it",
        )
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
        evidence::{Evidence, Growth},
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
