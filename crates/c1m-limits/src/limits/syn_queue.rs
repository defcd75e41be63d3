//! The SYN queue of a listener: requests in SYN_RECV.

use c1m_record::{Confidence, Effect, LimitName, Scope};

use super::{About, Limit};
use crate::{
    case::Case,
    client::outcome::Unanswered,
    configured::setting::{Known, Numbers, Rule},
    evidence::Listeners,
    finding::Finding,
    preflight::need::{Need, PAUSE_MS, Planned, setting},
    raise::{at_least, with_slack},
    reading::{Readings, Usage},
};

const OWN_SYN_QUEUE: &str = "`ss -tan state syn-recv` by the target's own port while it happens";

pub(super) struct SynQueue;

impl Limit for SynQueue {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::SynQueue,
            scope: Scope::Listener,
            unit: "requests",
            setting: "listen's backlog, net.core.somaxconn, net.ipv4.tcp_max_syn_backlog; net.ipv4.tcp_syncookies",
            source: "the server's own backlog, net.ipv4.tcp_max_syn_backlog; the queue itself is not shown",
            symptom: "SYNs are dropped (TCPReqQFullDrop), or answered by cookies, which refuses nothing (TCPReqQFullDoCookies)",
            distinguished_by: "its counters, with an accept queue that did not overflow; with tcp_syncookies=2 cookies mean nothing",
            kernel: "net/ipv4/tcp_input.c, tcp_conn_request, tcp_syn_flood_action (6.18)",
            label: "SYN queue",
            summary: ["SYNs are dropped", "net.ipv4.tcp_max_syn_backlog"],
            metric: None,
        }
    }

    /// Requests pile up where the accept queue has no room for their end.
    fn roots(&self) -> &'static [LimitName] {
        &[LimitName::AcceptQueue]
    }

    /// Of one listener. The sysctl counts only while cookies are off (net/ipv4/tcp_input.c, tcp_conn_request, 6.18).
    fn usage(&self, now: &Readings) -> Usage {
        let ceiling = match (now.backlog, now.max_syn_backlog, now.syncookies) {
            (Some(backlog), Some(most), Some(0)) => Some(backlog.min(most)),
            (backlog, _, _) => backlog,
        };
        Usage::new(None, ceiling)
    }

    /// Requests wait as long as the way to the client and back takes. On the same host that is no time.
    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let has_server = planned.run.role.has_server();
        let is_remote = has_server && !planned.run.role.has_client();
        let burst = if is_remote { planned.burst() } else { Some(0) };
        let cookies = planned.now.syncookies;
        let cookies_on = at_least(1, cookies);
        // Without cookies the last quarter is for peers that are known (net/ipv4/tcp_input.c, tcp_conn_request, 6.18).
        let known = planned.now.max_syn_backlog.map(|most| most - most / 4);
        let now = match (planned.now.backlog, known, cookies) {
            (Some(backlog), Some(most), Some(0)) => Some(backlog.min(most)),
            (backlog, _, _) => backlog,
        };
        let wanted = at_least(with_slack(burst.unwrap_or(0)) / 3 * 4, planned.now.max_syn_backlog);
        Need {
            now,
            needed: burst,
            stops_at: now.and_then(|now| planned.filled(now, burst)).filter(|_| cookies == Some(0)),
            effect: Some(Effect::Stalls),
            counts: is_remote && cookies == Some(0),
            remedy: format!(
                "net.ipv4.tcp_syncookies={cookies_on}, which refuses nobody; or net.ipv4.tcp_max_syn_backlog={wanted} with net.core.somaxconn and --backlog of as much or more"
            ),
            risk: "cookies leave TCP options out; a long queue takes 320 bytes for each request"
                .into(),
            settings: setting("net.ipv4.tcp_syncookies", cookies_on),
            note: Some(match (is_remote, cookies) {
                (false, _) => {
                    "on one host no handshake waits, and without a server there is none".into()
                }
                (true, Some(0)) => {
                    format!("of one listener, for handshakes of {PAUSE_MS} ms; tcp_syncookies=0")
                }
                (true, _) => "with tcp_syncookies a full queue refuses nobody".into(),
            }),
            unknown: (is_remote && cookies.is_none())
                .then(|| "net.ipv4.tcp_syncookies can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[
                Known::new(
                    "net.ipv4.tcp_max_syn_backlog",
                    Numbers::Int(1, i32::MIN),
                    Rule::Larger(
                        Some(LimitName::SynQueue),
                        "a burst of handshakes fills the SYN queue earlier",
                    ),
                ),
                Known::new(
                    "net.ipv4.tcp_syncookies",
                    Numbers::Within(0, 255),
                    Rule::Switch {
                        harmful: 0,
                        harms: "without cookies a full SYN queue drops handshakes, so a flood of SYNs keeps everybody out",
                        else_: "with cookies a full SYN queue refuses nobody",
                    },
                ),
            ]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let observed = case.observed;
        let is_target = observed.listeners != Listeners::All;
        // The queue itself is not shown, so the network namespace's counters may be of anybody's listener.
        let sure = if is_target { Confidence::Possible } else { Confidence::Certain };
        let confirmed =
            |found: Finding| if is_target { found.confirmed_by(OWN_SYN_QUEUE) } else { found };
        let hooked = observed.syn_queue_full.unwrap_or(0);
        let dropped = match observed.listeners.dropped_nothing() {
            true => 0,
            false => observed.counter("TCPReqQFullDrop"),
        };
        // Always on, cookies say nothing of the queue.
        let cookies = match case.now.syncookies {
            Some(2) => 0,
            _ => observed.counter("TCPReqQFullDoCookies"),
        };
        let unnamed = unnamed_drops(case);
        let found = if dropped > 0 {
            confirmed(Finding::new(
                LimitName::SynQueue,
                // Dropped by the target as well, by which of its queues is not known.
                if is_target { Confidence::Likely } else { Confidence::Certain },
                format!("a listener's SYN queue was full, and {dropped} SYNs were dropped"),
            ))
        } else if unnamed > 0 {
            Finding::new(
                LimitName::SynQueue,
                Confidence::Possible,
                format!("{unnamed} SYNs were dropped with SYN cookies off: three quarters of tcp_max_syn_backlog may have been in use"),
            )
            .confirmed_by("fentry of tcp_conn_request; a missing route back drops SYNs as well")
        } else if cookies + hooked > 0 {
            let is_known = case.now.syncookies.is_some() || hooked > 0;
            confirmed(Finding::new(
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

    fn unanswered(&self) -> Option<Unanswered> {
        Some(Unanswered {
            source: "TcpExt TCPReqQFullDrop",
            grown: |outcome| outcome.server_host.unwrap_or_default().syn_queue_drops,
            text: "the server's SYN queue was full",
            elsewhere: Some("the server's SYN queue may have been full"),
            remedy: "net.ipv4.tcp_syncookies=1 on the server's host, or a longer backlog with net.ipv4.tcp_max_syn_backlog",
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let wanted = case.now.max_syn_backlog.unwrap_or(0).saturating_mul(4).max(4096);
        format!(
            "net.ipv4.tcp_syncookies={} refuses nobody; net.ipv4.tcp_max_syn_backlog={wanted}, and a backlog and net.core.somaxconn of as much \
         or more (requests), since the SYN queue is as long as the accept queue",
            at_least(1, case.now.syncookies)
        )
    }
}

/// Of those, the ones that the SYN queue may have dropped without a counter of its own: with cookies off, a listener keeps a quarter of
/// tcp_max_syn_backlog for peers that it knows (net/ipv4/tcp_input.c, tcp_conn_request, 6.18). A shorter queue is full before.
fn unnamed_drops(case: &Case<'_>) -> u64 {
    let now = &case.now;
    let is_long = matches!((now.longest_backlog, now.max_syn_backlog),
        (Some(longest), Some(most)) if longest >= most - most / 4);
    if now.syncookies == Some(0) && is_long { case.unexplained_drops() } else { 0 }
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::Evidence,
        forecast::History,
        limits::accept_queue::tests::{counters, of_target},
        reading::Readings,
        verdict::judge,
    };

    fn history(syncookies: u64) -> History {
        let mut history = History::default();
        history.add(&Readings { syncookies: Some(syncookies), ..Readings::default() });
        history
    }

    fn causes(seen: &Evidence, syncookies: u64) -> Vec<(LimitName, Confidence)> {
        let verdict = judge(seen, &history(syncookies));
        verdict.causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    #[test]
    fn full_drops_are_the_syn_queue() {
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
}
