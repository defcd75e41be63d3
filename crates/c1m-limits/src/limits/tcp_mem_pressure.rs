//! net.ipv4.tcp_mem, second value: above it each socket has to stay within its fair share.

use c1m_record::{Confidence, Effect, LimitName, Scope, Tier};

use super::{
    About, Limit,
    tcp_mem_high::{self, HOOK, TcpMemHigh},
};
use crate::{
    case::Case,
    client::outcome::Unanswered,
    finding::Finding,
    preflight::need::{Need, Planned},
    reading::{Readings, Usage},
};

pub(super) struct TcpMemPressure;

impl Limit for TcpMemPressure {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::TcpMemPressure,
            scope: Scope::Host,
            unit: "pages",
            setting: "net.ipv4.tcp_mem, second value",
            source: "/proc/net/sockstat mem, net.ipv4.tcp_mem",
            symptom: "receive windows stop growing; a socket with more than its fair share of queued data is refused more",
            distinguished_by: "the refused allocation's own values: usage at or below high and the kernel under pressure, which began because usage was \
                above the second value and not because an allocation of an skb failed",
            kernel: "net/core/sock.c, __sk_mem_raise_allocated; net/ipv4/tcp.c, tcp_enter_memory_pressure (5.4 to 6.18)",
            label: "tcp_mem pressure",
            summary: ["receive windows stop growing", "net.ipv4.tcp_mem, second value"],
            metric: None,
        }
    }

    fn roots(&self) -> &'static [LimitName] {
        &[LimitName::TcpMemHigh]
    }

    fn usage(&self, now: &Readings) -> Usage {
        tcp_mem_high::usage(now, 1)
    }

    fn noise(&self, now: &Readings) -> u64 {
        tcp_mem_high::noise(now)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        tcp_mem_high::need(planned, 1, Effect::Slows, false)
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let observed = case.observed;
        let refused = observed.refused_fair_share();
        let by_allocator = observed.pressure_entries_allocator.unwrap_or(0) > 0;
        let entered = entered(case);
        // Pressure that began before the start lasts until usage is back at the first value.
        let lasted = case.history.was_past_low() && !by_allocator;
        let dropped = observed.counter("TCPRcvQDrop") + observed.counter("TCPOFODrop");
        let found = if refused > 0 && (entered.is_some() || lasted) {
            Finding::new(
                LimitName::TcpMemPressure,
                Confidence::Certain,
                format!(
                    "{refused} allocations were refused under memory pressure, to sockets above their fair share of tcp_mem"
                ),
            )
        } else if TcpMemHigh.judge(case).is_some() {
            // It lies on the way.
            return None;
        } else {
            let confidence = entered?;
            let found = Finding::new(
                LimitName::TcpMemPressure,
                confidence,
                "tcp_mem usage went above its second value: the kernel was under memory pressure; nothing was seen to be refused",
            );
            match (confidence, case.tier, dropped) {
                (Confidence::Certain, ..) => found.harmless(),
                // No hook counted what was refused, and something was dropped.
                (_, Tier::Counters, 1..) => found.confirmed_by("--trace: it sees which allocation is refused, and at what usage"),
                _ => found.harmless().confirmed_by("--trace where functions can be hooked: the same counter moves when an skb could not be allocated"),
            }
        };
        Some(
            found
                .saw(HOOK, "refused to senders, fair share", observed.refused_fair_share_send)
                .saw(HOOK, "refused to receivers, fair share", observed.refused_fair_share_receive)
                .saw(
                    "tcp_enter_memory_pressure",
                    "entries with usage above the limit",
                    observed.pressure_entries.unwrap_or(0),
                )
                .saw(
                    "crossing of tcp_mem pressure",
                    "times",
                    observed.crossed_pressure.unwrap_or(0),
                )
                .saw(
                    "TcpExt TCPMemoryPressures",
                    "entries, for whatever reason",
                    observed.counter("TCPMemoryPressures"),
                )
                .beside("/proc/net/sockstat mem", "pages", case.peak(LimitName::TcpMemPressure)),
        )
    }

    fn unanswered(&self) -> Option<Unanswered> {
        Some(Unanswered {
            source: "TcpExt TCPMemoryPressures",
            grown: |outcome| outcome.server_host.unwrap_or_default().memory_pressures,
            text: "the kernel was under memory pressure of tcp_mem",
            elsewhere: None,
            remedy: "let applications read; net.ipv4.tcp_mem (pages, of the whole host) only when queued bytes times connections needs more",
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        tcp_mem_high::remedy(case)
    }
}

/// How pressure is known to have begun because of usage, from the surest sign down.
fn entered(case: &Case<'_>) -> Option<Confidence> {
    let observed = case.observed;
    let past = observed.crossed_pressure.unwrap_or(0) > 0
        || observed.past_pressure == Some(true)
        || case.was_past(LimitName::TcpMemPressure);
    match (observed.pressure_entries, observed.counter("TCPMemoryPressures")) {
        _ if past => Some(Confidence::Certain),
        (Some(1..), _) => Some(Confidence::Certain),
        // The hook on the function saw that it was an allocation which failed (net/ipv4/tcp_output.c, tcp_stream_alloc_skb).
        (Some(0), _) | (None, 0) => None,
        // Between two samples usage can cross and come back.
        (None, _) if case.history.was_past_low() => Some(Confidence::Likely),
        (None, _) if case.tier == Tier::Counters => Some(Confidence::Possible),
        (None, _) => None,
    }
}

/// Whether tcp_mem kept anybody waiting, or might have: then what stalls may stall for that.
pub(super) fn was_short(case: &Case<'_>) -> bool {
    let observed = case.observed;
    observed.refused_high() + observed.refused_fair_share() > 0
        || observed.counter("TCPMemoryPressures") > 0
        || observed.pressure_entries.unwrap_or(0) > 0
        || observed.crossed_pressure.unwrap_or(0) > 0
        || observed.past_pressure == Some(true)
        || case.was_past(LimitName::TcpMemPressure)
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Tier};

    use crate::{
        evidence::Evidence, forecast::History, limits::tcp_mem_high::tests::causes, verdict::judge,
    };

    const PRESSURE: (LimitName, Confidence) = (LimitName::TcpMemPressure, Confidence::Certain);

    #[test]
    fn pressure_without_a_refusal_says_so() {
        let seen = Evidence {
            pressure_entries: Some(1),
            tier: Some(Tier::Functions),
            ..Evidence::default()
        };
        let verdict = judge(&seen, &History::default());
        assert_eq!(verdict.causes[0].limit, LimitName::TcpMemPressure);
        assert!(verdict.causes[0].text.contains("nothing was seen to be refused"));
    }

    #[test]
    fn an_allocator_failure_is_not_tcp_mem() {
        let counter = [("TCPMemoryPressures".to_owned(), 1)];
        let functions = Evidence {
            tier: Some(Tier::Functions),
            pressure_entries: Some(0),
            pressure_entries_allocator: Some(1),
            tcp_ext: counter.clone().into(),
            refused_fair_share_send: 1,
            ..Evidence::default()
        };
        assert_eq!(causes(functions, 150), []);
        let tracepoints = Evidence { tcp_ext: counter.clone().into(), ..Evidence::default() };
        assert_eq!(causes(tracepoints.clone(), 0), []);
        // With usage that high it was rather a crossing that nobody saw.
        assert_eq!(causes(tracepoints, 150), [(LimitName::TcpMemPressure, Confidence::Likely)]);
        let counters =
            Evidence { tier: Some(Tier::Counters), tcp_ext: counter.into(), ..Evidence::default() };
        assert_eq!(causes(counters, 0), [(LimitName::TcpMemPressure, Confidence::Possible)]);
    }

    #[test]
    fn a_refused_fair_share_needs_pressure() {
        let one = Evidence { refused_fair_share_receive: 1, ..Evidence::default() };
        assert_eq!(causes(one.clone(), 50), []);
        assert_eq!(causes(one, 150), [PRESSURE], "pressure from before lasts down to low");
    }
}
