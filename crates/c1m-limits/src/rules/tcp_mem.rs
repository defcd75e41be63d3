//! tcp_mem: its second value (pressure) and its third (high).

use crate::{case::Case, verdict::Finding};
use c1m_record::{Confidence, LimitName, Tier};

const HOOK: &str = "tp_btf/sock_exceed_buf_limit";

pub(crate) fn tcp_mem(case: &Case<'_>) -> Vec<Finding> {
    let high = high(case);
    let pressure = pressure(case, high.is_some());
    high.into_iter().chain(pressure).collect()
}

fn high(case: &Case<'_>) -> Option<Finding> {
    let seen = case.seen;
    let refused = seen.refused_high();
    let crossed = seen.crossed_high.unwrap_or(0);
    let taken = seen.allowed_above_high.unwrap_or(0) + seen.forced_above_high.unwrap_or(0);
    let past = seen.past_high == Some(true) || case.was_past(LimitName::TcpMemHigh);
    if refused + crossed + taken == 0 && !past {
        return None;
    }
    let text = if refused > 0 {
        format!(
            "{refused} allocations were refused because tcp_mem was above its third value: data waited or was dropped, no connection was refused"
        )
    } else {
        "tcp_mem usage went above its third value; nothing was seen to be refused".to_owned()
    };
    let found = Finding::new(LimitName::TcpMemHigh, Confidence::Certain, text);
    // A few refusals beside many orphans that were reset do not stand for themselves: the orphans are what was lost.
    let stands = refused > 0 && refused >= seen.orphans_out_of_memory.unwrap_or(0);
    let found = if stands { found } else { found.harmless() };
    Some(
        found
            .saw(HOOK, "refused to senders, above high", seen.refused_high_send)
            .saw(HOOK, "refused to receivers, above high", seen.refused_high_receive)
            .saw("crossing of tcp_mem high", "times", crossed)
            .saw(
                "__sk_mem_raise_allocated",
                "allowed above high all the same",
                seen.allowed_above_high.unwrap_or(0),
            )
            .saw(
                "sk_forced_mem_schedule",
                "taken above high without being asked",
                seen.forced_above_high.unwrap_or(0),
            )
            .saw(
                "kfree_skb PROTO_MEM",
                "segments dropped with room in their receive buffer",
                seen.dropped_tcp_mem.unwrap_or(0),
            )
            .beside("/proc/net/sockstat mem", "pages", case.peak(LimitName::TcpMemHigh)),
    )
}

/// How pressure is known to have begun because of usage, from the surest sign down.
fn entered(case: &Case<'_>) -> Option<Confidence> {
    let seen = case.seen;
    let past = seen.crossed_pressure.unwrap_or(0) > 0
        || seen.past_pressure == Some(true)
        || case.was_past(LimitName::TcpMemPressure);
    match (seen.pressure_entries, seen.counter("TCPMemoryPressures")) {
        _ if past => Some(Confidence::Certain),
        (Some(1..), _) => Some(Confidence::Certain),
        // The hook on the function saw that it was an allocation which failed (net/ipv4/tcp_output.c, tcp_stream_alloc_skb).
        (Some(0), _) | (None, 0) => None,
        // Between two looks usage can cross and come back.
        (None, _) if case.history.was_past_low() => Some(Confidence::Likely),
        (None, _) if case.tier == Tier::Counters => Some(Confidence::Possible),
        (None, _) => None,
    }
}

fn pressure(case: &Case<'_>, high: bool) -> Option<Finding> {
    let seen = case.seen;
    let refused = seen.refused_fair_share();
    let by_allocator = seen.pressure_entries_allocator.unwrap_or(0) > 0;
    let entered = entered(case);
    // Pressure that began before the start lasts until usage is back at the first value.
    let lasted = case.history.was_past_low() && !by_allocator;
    let dropped = seen.counter("TCPRcvQDrop") + seen.counter("TCPOFODrop");
    let found = if refused > 0 && (entered.is_some() || lasted) {
        Finding::new(
            LimitName::TcpMemPressure,
            Confidence::Certain,
            format!(
                "{refused} allocations were refused under memory pressure, to sockets above their fair share of tcp_mem"
            ),
        )
    } else if high {
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
            // Nobody watched what was refused, and something was dropped.
            (_, Tier::Counters, 1..) => found.settled_by("--trace: it sees which allocation is refused, and at what usage"),
            _ => found.harmless().settled_by(
                "--trace where functions can be hooked: the same counter moves when an skb could not be allocated",
            ),
        }
    };
    Some(
        found
            .saw(HOOK, "refused to senders, fair share", seen.refused_fair_share_send)
            .saw(HOOK, "refused to receivers, fair share", seen.refused_fair_share_receive)
            .saw(
                "tcp_enter_memory_pressure",
                "entries with usage above the limit",
                seen.pressure_entries.unwrap_or(0),
            )
            .saw("crossing of tcp_mem pressure", "times", seen.crossed_pressure.unwrap_or(0))
            .saw(
                "TcpExt TCPMemoryPressures",
                "entries, for whatever reason",
                seen.counter("TCPMemoryPressures"),
            )
            .beside("/proc/net/sockstat mem", "pages", case.peak(LimitName::TcpMemPressure)),
    )
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat, Tier};

    use crate::{evidence::Evidence, forecast::History, reading::Readings, verdict::judge};

    /// tcp_mem is 100, 200, 300.
    fn history(pages: u64) -> History {
        let mut history = History::default();
        history.add(&Readings {
            tcp_mem: Some([100, 200, 300]),
            sockstat: Some(Sockstat { tcp_mem_pages: pages, ..Sockstat::default() }),
            ..Readings::default()
        });
        history
    }

    fn causes(seen: Evidence, pages: u64) -> Vec<(LimitName, Confidence)> {
        let seen = Evidence { tier: seen.tier.or(Some(Tier::Tracepoints)), ..seen };
        let verdict = judge(&seen, &history(pages));
        verdict.causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    const HIGH: (LimitName, Confidence) = (LimitName::TcpMemHigh, Confidence::Certain);
    const PRESSURE: (LimitName, Confidence) = (LimitName::TcpMemPressure, Confidence::Certain);

    #[test]
    fn refusals_above_high_come_before_those_of_the_fair_share() {
        let seen = Evidence {
            refused_high_receive: 1,
            refused_fair_share_receive: 500,
            crossed_pressure: Some(1),
            ..Evidence::default()
        };
        assert_eq!(causes(seen, 310), [HIGH, PRESSURE]);
    }

    #[test]
    fn usage_above_high_names_it_also_when_nothing_was_refused() {
        let seen =
            Evidence { crossed_high: Some(1), crossed_pressure: Some(1), ..Evidence::default() };
        assert_eq!(causes(seen, 0), [HIGH]);
        assert_eq!(causes(Evidence::default(), 301), [HIGH]);
        assert_eq!(causes(Evidence::default(), 300), [PRESSURE]);
        let forced = Evidence { forced_above_high: Some(3), ..Evidence::default() };
        assert_eq!(causes(forced, 0), [HIGH]);
    }

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
