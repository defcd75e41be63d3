//! The accept queue of a listener: the smaller of listen's backlog and net.core.somaxconn.

use c1m_record::{Confidence, Effect, LimitName, Scope};

use super::{About, Limit, UsageMetric};
use crate::{
    case::{Case, EMFILE, ENFILE},
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Need, PAUSE_MS, Planned, setting},
    raise::{at_least, with_slack},
    reading::{Peak, Readings, Usage},
};

pub(super) struct AcceptQueue;

impl Limit for AcceptQueue {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::AcceptQueue,
            scope: Scope::Listener,
            unit: "connections",
            setting: "listen's backlog (--backlog) and net.core.somaxconn: the smaller of the two",
            source: "sock_diag of the listeners: the fullest one; the server's own backlog where none is seen",
            symptom: "SYNs and ends of handshakes are dropped, connects are slow by whole seconds or time out",
            distinguished_by: "ListenOverflows, a counter of this limit alone. When accept fails with EMFILE or ENFILE at the same time, that is the cause",
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
                    "of one listener; give --rate, and it is held against {PAUSE_MS} ms without accept"
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
        let count = overflows(case);
        if count == 0 {
            return None;
        }
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
        Some(
            Finding::new(
                LimitName::AcceptQueue,
                Confidence::Certain,
                format!("a listener's accept queue was full {count} times, and SYNs or ends of handshakes were dropped{behind}"),
            )
            .saw("TcpExt ListenOverflows", "drops in this network namespace", observed.counter("ListenOverflows"))
            .saw("tcp_conn_request", "SYNs that found it full", observed.accept_queue_syn.unwrap_or(0))
            .saw(
                case.hook("tcp_v4_syn_recv_sock", "tp_btf/kfree_skb TCP_LISTEN_OVERFLOW"),
                "ends of handshakes that found it full",
                observed.accept_queue_ack.unwrap_or(0),
            )
            .beside("sock_diag", "connections in the fullest queue", length),
        )
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

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{evidence::Evidence, forecast::History, verdict::judge};

    #[test]
    fn overflows_are_the_accept_queue() {
        let counters = ["ListenOverflows", "ListenDrops"].map(|name| (name.to_owned(), 42));
        let overflow = Evidence { tcp_ext: counters.into(), ..Evidence::default() };
        let verdict = judge(&overflow, &History::default());
        let causes: Vec<_> = verdict.causes.iter().map(|it| (it.limit, it.confidence)).collect();
        assert_eq!(causes, [(LimitName::AcceptQueue, Confidence::Certain)]);
    }
}
