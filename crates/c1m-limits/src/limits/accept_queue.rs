//! The accept queue of a listener: the smaller of listen's backlog and net.core.somaxconn.

use c1m_record::{Confidence, Effect, LimitName, Scope};

use super::{About, Limit, UsageMetric};
use crate::{
    case::{Case, EMFILE, ENFILE},
    client::outcome::Unanswered,
    configured::setting::{Known, Numbers, Rule},
    evidence::Listeners,
    finding::Finding,
    preflight::need::{Need, PAUSE_MS, Planned, setting},
    raise::{at_least, with_slack},
    reading::{Peak, Readings, Usage},
};

/// What raises the confidence where only the network namespace's counters, or drops without a reason, speak.
const OWN_QUEUE: &str = "`ss -ltnm` while it happens: Recv-Q above Send-Q of the target's own listener, and its drops (d) growing";

pub(super) struct AcceptQueue;

impl Limit for AcceptQueue {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::AcceptQueue,
            scope: Scope::Listener,
            unit: "connections",
            setting: "listen's backlog (--backlog) and net.core.somaxconn: the smaller of the two",
            source: "sock_diag of the target's listeners, or of all in this network namespace where a watch has no target: the fullest one; the server's own backlog where none is seen",
            symptom: "SYNs and ends of handshakes are dropped, connects are slow by whole seconds or time out",
            distinguished_by: "ListenOverflows, a counter of this limit alone, but of the whole network namespace: a target's own listeners must have been full, or have dropped. When accept fails with EMFILE or ENFILE at the same time, that is the cause",
            kernel: "net/ipv4/tcp_input.c, tcp_conn_request; net/ipv4/tcp_ipv4.c, tcp_v4_syn_recv_sock (5.4 to 6.18)",
            label: "accept queue",
            summary: ["connects are slow by whole seconds or time out", "listen's backlog"],
            metric: Some(UsageMetric {
                name: "c1m_accept_queue_connections",
                help: "Connections in the accept queue that is nearest to its backlog",
                scope: Scope::Listener,
            }),
        }
    }

    /// accept has no descriptor to give.
    fn roots(&self) -> &'static [LimitName] {
        &[LimitName::Nofile, LimitName::NrOpen, LimitName::FileMax]
    }

    fn usage(&self, now: &Readings) -> Usage {
        match now.accept_queue {
            Some((queued, most)) => Usage::new(Some(queued), Some(most)),
            None => Usage::new(None, now.backlog),
        }
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let has_server = planned.run.role.has_server();
        let burst = if has_server { planned.burst() } else { Some(0) };
        let wanted = with_slack(burst.unwrap_or(0));
        let enough = planned.now.somaxconn.filter(|most| *most >= wanted);
        Need {
            now: planned.now.backlog,
            needed: burst,
            stops_at: planned.now.backlog.and_then(|backlog| planned.filled(backlog, burst)),
            effect: Some(Effect::Stalls),
            counts: has_server,
            remedy: match enough {
                Some(most) => format!(
                    "--backlog {wanted}: net.core.somaxconn={most} is enough, and the smaller of the two counts; or a lower --rate"
                ),
                None => {
                    format!(
                        "net.core.somaxconn={wanted} and --backlog {wanted}: the smaller of the two counts, so raising one alone does nothing; or a lower --rate"
                    )
                }
            },
            risk:
                "a long queue hides an accept loop that is too slow, and its connections wait in it"
                    .into(),
            settings: match enough {
                Some(_) => Vec::new(),
                None => setting("net.core.somaxconn", wanted),
            },
            note: Some(match (has_server, planned.run.rate) {
                (false, _) => "the server's, which is not here".into(),
                (true, None) => format!(
                    "of one listener; with --rate it is compared with {PAUSE_MS} ms without accept"
                ),
                (true, Some(_)) => {
                    format!(
                        "of each of {} listeners, in {PAUSE_MS} ms without accept",
                        planned.host.listeners
                    )
                }
            }),
            unknown: (has_server && planned.now.backlog.is_none())
                .then(|| "net.core.somaxconn can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[
                Known::new(
                    "net.core.somaxconn",
                    Numbers::Int(1, 0),
                    Rule::Larger(
                        Some(LimitName::AcceptQueue),
                        "a burst of connections fills the accept queue earlier",
                    ),
                ),
                Known::new(
                    "net.ipv4.tcp_abort_on_overflow",
                    Numbers::Within(0, 255),
                    Rule::Switch {
                        harmful: 1,
                        harms: "a full accept queue resets the connection, where the client would have tried again by itself",
                        else_: "a full accept queue lets the client try again",
                    },
                ),
            ]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let observed = case.observed;
        let (count, confidence) = attributed(case)?;
        let behind = if case.opening_failed(EMFILE) > 0 {
            ": it filled while accept failed with EMFILE"
        } else if case.opening_failed(ENFILE) > 0 {
            ": it filled while accept failed with ENFILE"
        } else {
            ": connections come faster than they are accepted"
        };
        let length = match (observed.accept_queue_len, observed.accept_queue_max) {
            (Some(used), Some(ceiling)) => Some(Peak { used, ceiling }),
            _ => case.peak(LimitName::AcceptQueue),
        };
        let found = Finding::new(
            LimitName::AcceptQueue,
            confidence,
            format!("a listener's accept queue was full {count} times, and SYNs or ends of handshakes were dropped{behind}"),
        )
        .saw("TcpExt ListenOverflows", "drops in this network namespace", observed.counter("ListenOverflows"))
        .saw("tcp_conn_request", "SYNs that found it full", observed.accept_queue_syn.unwrap_or(0))
        .saw(
            case.hook("tcp_v4_syn_recv_sock", "tp_btf/kfree_skb TCP_LISTEN_OVERFLOW"),
            "ends of handshakes that found it full",
            observed.accept_queue_ack.unwrap_or(0),
        )
        .saw("sock_diag SK_MEMINFO_DROPS", "drops of the target's listeners", own_drops(case))
        .beside("sock_diag", "connections in the fullest queue", length);
        Some(match confidence {
            Confidence::Certain => found,
            _ => found.confirmed_by(OWN_QUEUE),
        })
    }

    fn unanswered(&self) -> Option<Unanswered> {
        Some(Unanswered {
            source: "TcpExt ListenOverflows",
            grown: |outcome| outcome.server_host.unwrap_or_default().listen_overflows,
            text: "the server's accept queue overflowed",
            elsewhere: Some("the server's accept queue may have been full"),
            remedy: "a longer backlog of the server and a net.core.somaxconn of as much (the smaller counts), or a lower --rate",
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let longest = case
            .observed
            .accept_queue_max
            .or(case.peak(LimitName::AcceptQueue).map(|peak| peak.ceiling));
        let wanted = at_least(longest.unwrap_or(0).saturating_mul(4).max(4096), case.now.backlog);
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
}

/// Connections that found the accept queue full: the hooks' count, else the kernel's own, which is of this limit alone.
fn overflows(case: &Case<'_>) -> u64 {
    let observed = case.observed;
    let hooked = observed.accept_queue_syn.unwrap_or(0) + observed.accept_queue_ack.unwrap_or(0);
    hooked.max(observed.counter("ListenOverflows"))
}

fn own_drops(case: &Case<'_>) -> u64 {
    match case.observed.listeners {
        Listeners::Target { drops } => drops.unwrap_or(0),
        Listeners::All => 0,
    }
}

/// How many overflows are the target's, and how sure that is. The kernel counts them for the network namespace; a listener's own counter
/// counts every drop. So only a target that dropped and was full in a sample is certain.
fn attributed(case: &Case<'_>) -> Option<(u64, Confidence)> {
    let all = overflows(case);
    let (count, confidence) = match case.observed.listeners {
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

#[cfg(test)]
pub(super) mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::{Evidence, Listeners},
        forecast::History,
        reading::Readings,
        verdict::judge,
    };

    pub(in crate::limits) fn counters(pairs: &[(&str, u64)]) -> Evidence {
        let tcp_ext = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Evidence { tcp_ext, ..Evidence::default() }
    }

    /// Of a target whose listeners dropped so many, and were full or not.
    pub(in crate::limits) fn of_target(
        drops: Option<u64>,
        full: bool,
        seen: Evidence,
    ) -> Vec<(LimitName, Confidence)> {
        let mut history = History::default();
        let accept_queue = Some(if full { (5, 4) } else { (0, 4) });
        history.add(&Readings { accept_queue, ..Readings::default() });
        let seen = Evidence { listeners: Listeners::Target { drops }, ..seen };
        let verdict = judge(&seen, &history);
        for cause in &verdict.causes {
            assert_eq!(cause.confidence == Confidence::Certain, cause.to_confirm.is_none());
        }
        verdict.causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    #[test]
    fn overflows_are_the_accept_queue() {
        let overflow = counters(&[("ListenOverflows", 42), ("ListenDrops", 42)]);
        let verdict = judge(&overflow, &History::default());
        let causes: Vec<_> = verdict.causes.iter().map(|it| (it.limit, it.confidence)).collect();
        assert_eq!(causes, [(LimitName::AcceptQueue, Confidence::Certain)]);
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
}
