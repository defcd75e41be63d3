//! The receive buffer of one socket: SO_RCVBUF, net.ipv4.tcp_rmem.

use c1m_record::{Confidence, Effect, LimitName, Scope, Tier};

use super::{About, Limit, tcp_mem_pressure};
use crate::{
    case::Case,
    configured::setting::{Answer, Context, Known, Numbers, Rule, size},
    finding::Finding,
    preflight::need::{NO_PAGE, Need, Planned},
    reading::{Readings, Usage},
};

pub(super) struct ReceiveBuffer;

impl Limit for ReceiveBuffer {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::ReceiveBuffer,
            scope: Scope::Socket,
            unit: "bytes",
            setting: "SO_RCVBUF, net.ipv4.tcp_rmem, third value",
            source: "net.ipv4.tcp_rmem; no sum of all sockets is worth its price",
            symptom: "the peer's sends stall at a zero window; segments are dropped (TCPRcvQDrop)",
            distinguished_by: "sk_rmem_alloc against sk_rcvbuf in the instant of the drop; without that, drops or windows that stay closed while tcp_mem \
                refused nothing",
            kernel: "net/ipv4/tcp_input.c, tcp_try_rmem_schedule, tcp_can_ingest (6.18)",
            label: "receive buffer",
            summary: ["the peer's sends stall at a zero window", "SO_RCVBUF"],
            metric: None,
        }
    }

    fn roots(&self) -> &'static [LimitName] {
        &[LimitName::MemoryCgroup, LimitName::TcpMemHigh, LimitName::TcpMemPressure]
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(None, now.tcp_rmem.map(|limits| limits[2]))
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        need(planned, planned.now.tcp_rmem, "net.ipv4.tcp_rmem")
    }

    fn settings(&self) -> &'static [Known] {
        const { &[Known::new("net.ipv4.tcp_rmem", Numbers::Int(3, 1), Rule::Numbers(assess))] }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let observed = case.observed;
        let counter = |name| observed.counter(name);
        let dropped = counter("TCPRcvQDrop") + counter("TCPOFODrop");
        let hooked = observed.dropped_receive_buffer;
        let short = tcp_mem_pressure::was_short(case) || observed.refused_memcg() > 0;
        // Windows that were closed and not opened again. Those of the kernel's own want of memory are not counted there
        // (net/ipv4/tcp_output.c, tcp_select_window, 6.18), and each opening is.
        let closed = counter("TCPToZeroWindowAdv").saturating_sub(counter("TCPFromZeroWindowAdv"));
        // Asked for longer than a retransmission takes: not one that opens again at once.
        let stalled = if counter("TCPWinProbe") > 0 { closed } else { 0 };
        let sure =
            if case.tier == Tier::Counters { Confidence::Possible } else { Confidence::Likely };
        let found = match (hooked, dropped) {
            (Some(count @ 1..), _) => Finding::new(
                LimitName::ReceiveBuffer,
                Confidence::Certain,
                format!("{count} segments were dropped because their socket's receive buffer was full: the application does not read"),
            ),
            // The hook saw each of the drops, or tcp_mem was short: then a drop is no sign of this.
            (None, 1..) if !short => Finding::new(
                LimitName::ReceiveBuffer,
                sure,
                format!("{dropped} segments were dropped though tcp_mem refused nothing: their socket's receive buffer was full"),
            )
            .confirmed_by("kfree_skb with the socket (Linux 6.12 and later), or fexit of tcp_try_rmem_schedule"),
            _ if stalled > 0 && !short => Finding::new(
                LimitName::ReceiveBuffer,
                sure,
                format!("{stalled} receive windows were closed and not opened again: senders wait for applications that do not read"),
            )
            .confirmed_by("ss -tmi: Recv-Q and rb of the socket that is not read"),
            _ => return None,
        };
        Some(
            found
                .saw(
                    case.hook("tcp_try_rmem_schedule", "tp_btf/kfree_skb PROTO_MEM"),
                    "segments dropped with rmem_alloc above sk_rcvbuf",
                    hooked.unwrap_or(0),
                )
                .saw(
                    "TcpExt TCPRcvQDrop",
                    "segments dropped, for whatever reason",
                    counter("TCPRcvQDrop"),
                )
                .saw("TcpExt TCPToZeroWindowAdv", "windows closed and not opened again", closed)
                .saw("TcpExt TCPWinProbe", "probes of senders that wait", counter("TCPWinProbe")),
        )
    }

    fn remedy(&self, _: &Case<'_>) -> String {
        "let the application read; net.ipv4.tcp_rmem (bytes, third value) or SO_RCVBUF only when bandwidth times delay needs more: \
         each connection can hold that much, and tcp_mem counts it"
            .into()
    }
}

/// Of the buffer whose three values are `name`'s.
pub(super) fn need(planned: &Planned<'_>, limits: Option<[u64; 3]>, name: &str) -> Need {
    let queued = planned.queued().map(|(_, bytes)| bytes);
    Need {
        now: limits.map(|limits| limits[2]),
        needed: queued,
        effect: Some(Effect::Bounds),
        risk: format!(
            "each connection may hold as much as the third value of {name}, and tcp_mem counts it"
        ),
        note: Some("of one socket; idle connections take nothing of it".into()),
        unknown: match (limits, queued) {
            (None, _) => Some(format!("{name} can't be read from here")),
            (_, None) => Some(NO_PAGE.into()),
            _ => None,
        },
        ..Need::default()
    }
}

/// Of a configured value, for one socket in bytes.
pub(super) fn assess(context: &Context<'_>, name: &str, values: &[i128]) -> Answer {
    let &[least, default, most] = values else { return Answer::depends_on_present() };
    let is_receive = name.ends_with("rmem");
    let mut all = Vec::new();
    if most < default {
        all.push(format!("the third value is below the second: a queue begins with {default} bytes and never grows"));
    } else if default < least {
        all.push("the three values have to ascend: least, default, most".into());
    }
    if (4..=4096).contains(&default)
        && (1 << 10..=1 << 20).contains(&most)
        && most >= default * 16
        && least <= 16
    {
        all.push("it looks like kB or pages, and the unit is bytes".into());
    }
    // A million of them are what is written about.
    if least > 16 * 4096 {
        all.push(format!(
            "the first value is what each socket may hold even above tcp_mem: {} for {} connections",
            size(u128::try_from(least).unwrap_or(0) * u128::from(context.run.connections)),
            context.run.connections
        ));
    }
    let present = context.present_numbers(name);
    // 131,072 since Linux 4.20, and 87,380 before.
    let usual = if is_receive { 87_380 } else { 16_384 };
    let own = present.get(1).copied().unwrap_or(usual).max(usual);
    let is_now = present == values;
    if default < if is_now { usual } else { own } {
        all.push(format!(
            "a second value of {default} bytes instead of {own} slows each connection down at its beginning, and saves nothing: idle \
             connections take none of it"
        ));
    }
    if present.get(2).is_some_and(|own| most < *own) {
        all.push(format!("the third value is lower than the {} of this host: fast connections over long ways get slower", present[2]));
    }
    Answer::of_complaints(all, || {
        Answer::nothing(format!(
            "{name} bounds one socket's queue (up to {}): idle connections take nothing of it, whatever it says",
            size(u128::try_from(most).unwrap_or(0))
        ))
    })
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Tier};

    use crate::{evidence::Evidence, forecast::History, verdict::judge};

    fn seen(tier: Tier, pairs: &[(&str, u64)]) -> Evidence {
        let tcp_ext = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Evidence { tier: Some(tier), tcp_ext, ..Evidence::default() }
    }

    fn first(seen: &Evidence) -> Option<(LimitName, Confidence)> {
        judge(seen, &History::default()).causes.first().map(|c| (c.limit, c.confidence))
    }

    #[test]
    fn a_window_that_stays_closed_is_a_reader_that_does_not_read() {
        let stalled = [("TCPToZeroWindowAdv", 4), ("TCPFromZeroWindowAdv", 1), ("TCPWinProbe", 6)];
        let at = |tier| first(&seen(tier, &stalled));
        assert_eq!(at(Tier::Tracepoints), Some((LimitName::ReceiveBuffer, Confidence::Likely)));
        assert_eq!(at(Tier::Counters), Some((LimitName::ReceiveBuffer, Confidence::Possible)));
    }

    #[test]
    fn windows_that_open_again_are_flow_control() {
        for pairs in [
            &[("TCPToZeroWindowAdv", 4), ("TCPFromZeroWindowAdv", 4), ("TCPWinProbe", 6)][..],
            &[("TCPToZeroWindowAdv", 4), ("TCPFromZeroWindowAdv", 9)],
            &[("TCPToZeroWindowAdv", 1), ("TCPWantZeroWindowAdv", 5)],
            &[("PruneCalled", 4), ("TCPRcvCollapsed", 90)],
        ] {
            assert_eq!(first(&seen(Tier::Tracepoints, pairs)), None, "{pairs:?}");
        }
    }

    #[test]
    fn a_drop_is_the_buffers_own_when_tcp_mem_refused_nothing() {
        let drops = seen(Tier::Tracepoints, &[("TCPRcvQDrop", 3)]);
        assert_eq!(first(&drops), Some((LimitName::ReceiveBuffer, Confidence::Likely)));
        let hooked =
            Evidence { dropped_receive_buffer: Some(3), dropped_tcp_mem: Some(0), ..drops.clone() };
        assert_eq!(first(&hooked), Some((LimitName::ReceiveBuffer, Confidence::Certain)));
        let refused =
            Evidence { refused_high_receive: 6, dropped_receive_buffer: Some(0), ..drops };
        let verdict = judge(&refused, &History::default());
        assert_eq!(verdict.causes.len(), 1);
        assert_eq!(verdict.causes[0].limit, LimitName::TcpMemHigh);
    }
}
