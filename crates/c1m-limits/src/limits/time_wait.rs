//! net.ipv4.tcp_max_tw_buckets: sockets in TIME_WAIT.

use c1m_record::{Confidence, Effect, LimitName, Scope};

use super::{A_FEW, About, Limit, UsageMetric, orphans::half_of_ehash};
use crate::{
    case::Case,
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Need, Planned, first_without},
    reading::{Readings, Usage},
};

pub(super) struct TimeWait;

impl Limit for TimeWait {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::TimeWait,
            scope: Scope::Netns,
            unit: "sockets",
            setting: "net.ipv4.tcp_max_tw_buckets",
            source: "/proc/net/sockstat tw, net.ipv4.tcp_max_tw_buckets",
            symptom: "connections end without TIME_WAIT; nothing is refused",
            distinguished_by: "TCPTimeWaitOverflow, with tw near its maximum; far below it, memory for the bucket could not be had",
            kernel: "net/ipv4/tcp_minisocks.c, tcp_time_wait; net/ipv4/inet_timewait_sock.c, inet_twsk_alloc (6.18)",
            label: "TIME_WAIT",
            summary: ["connections end without TIME_WAIT", "net.ipv4.tcp_max_tw_buckets"],
            metric: Some(UsageMetric {
                name: "c1m_time_wait_sockets",
                help: "Sockets in TIME_WAIT (net.ipv4.tcp_max_tw_buckets)",
                scope: Scope::Netns,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.sockstat.map(|sockets| sockets.tw), now.max_tw_buckets)
    }

    fn noise(&self, _: &Readings) -> u64 {
        A_FEW
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let used = planned.now.sockstat.map(|sockets| sockets.tw);
        let now = planned.now.max_tw_buckets;
        Need {
            now,
            used,
            needed: Some(planned.connections().saturating_add(used.unwrap_or(0))),
            stops_at: now.zip(used).and_then(|(now, used)| first_without(now, used, 1)),
            effect: Some(Effect::Forgets),
            risk: "lowered, late segments of an old connection can reach a new one; raised, each takes 256 bytes".into(),
            note: Some("when all connections are closed within 60 s by the end that is here; nothing is refused, so leave it".into()),
            unknown: now.is_none().then(|| "net.ipv4.tcp_max_tw_buckets can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[Known::new(
                "net.ipv4.tcp_max_tw_buckets",
                Numbers::Int(1, i32::MIN),
                Rule::LargerThan(
                    half_of_ehash,
                    LimitName::TimeWait,
                    "it lets late segments of an old connection reach a new one",
                ),
            )]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let count = case.observed.counter("TCPTimeWaitOverflow");
        if count == 0 {
            return None;
        }
        // The same counter moves when memory for the bucket could not be had (net/ipv4/inet_timewait_sock.c, inet_twsk_alloc, 6.18).
        let peak = case.peak(LimitName::TimeWait);
        let full = peak.is_some_and(|peak| peak.is_at(90));
        let found = Finding::new(
            LimitName::TimeWait,
            if full { Confidence::Certain } else { Confidence::Likely },
            format!("{count} connections ended without TIME_WAIT, for which there was no room; nothing was refused"),
        )
        .harmless()
        .saw("TcpExt TCPTimeWaitOverflow", "connections in this network namespace", count)
        .beside("/proc/net/sockstat tw", "sockets in TIME_WAIT", peak);
        Some(match full {
            true => found,
            false => found.confirmed_by(
                "tw of /proc/net/sockstat at that instant: near net.ipv4.tcp_max_tw_buckets or not",
            ),
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let wanted = case.now.max_tw_buckets.unwrap_or(1 << 16).saturating_mul(2);
        format!(
            "net.ipv4.tcp_max_tw_buckets={wanted} (sockets: closes a second times 60), where late segments of an old connection would do harm; \
         else leave it"
        )
    }
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat};

    use crate::{evidence::Evidence, forecast::History, reading::Readings, verdict::judge};

    #[test]
    fn time_wait_comes_last_and_refuses_nothing() {
        let mut history = History::default();
        history.add(&Readings {
            sockstat: Some(Sockstat { tw: 1, ..Sockstat::default() }),
            max_tw_buckets: Some(1),
            ..Readings::default()
        });
        let counter = |name: &str| (name.to_owned(), 3);
        let seen = Evidence {
            tcp_ext: [counter("TCPTimeWaitOverflow"), counter("ListenOverflows")].into(),
            ..Evidence::default()
        };
        let verdict = judge(&seen, &history);
        let last = &verdict.causes[1];
        assert_eq!((last.limit, last.confidence), (LimitName::TimeWait, Confidence::Certain));
        assert!(last.text.contains("nothing was refused"));
    }
}
