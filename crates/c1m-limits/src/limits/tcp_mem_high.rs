//! net.ipv4.tcp_mem, third value; and what all limits by net.ipv4.tcp_mem have in common.

use c1m_record::{Confidence, Effect, LimitName, Scope, Setting};

use super::{About, Limit};
use crate::{
    case::Case,
    configured::setting::{Answer, Context, Known, Numbers, Rule, size, spaced},
    finding::Finding,
    preflight::need::{NO_PAGE, Need, Planned, first_without, setting, unseen},
    raise::{at_least, mib, with_slack},
    reading::{Readings, Usage},
};

pub(super) const HOOK: &str = "tp_btf/sock_exceed_buf_limit";
/// Pages that each CPU may keep apart from the kernel's counter (include/net/sock.h, `sk_memory_allocated_add`, 6.18).
const CPU_PAGES: u64 = 256;

pub(super) struct TcpMemHigh;

impl Limit for TcpMemHigh {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::TcpMemHigh,
            scope: Scope::Host,
            unit: "pages",
            setting: "net.ipv4.tcp_mem, third value",
            source: "/proc/net/sockstat mem, net.ipv4.tcp_mem",
            symptom: "sends stall, received segments are dropped or answered by a zero window; new connections still succeed",
            distinguished_by: "usage above the third value in the very call that was refused; TCPRcvQDrop alone never names it, because a full receive \
                buffer moves it as well",
            kernel: "net/core/sock.c, __sk_mem_raise_allocated (5.4 to 6.18)",
            label: "tcp_mem high",
            summary: [
                "sends stall, received segments are dropped",
                "net.ipv4.tcp_mem, third value",
            ],
            metric: None,
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        usage(now, 2)
    }

    fn noise(&self, now: &Readings) -> u64 {
        noise(now)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        need(planned, 2, Effect::Stalls, true)
    }

    fn settings(&self) -> &'static [Known] {
        const { &[Known::new("net.ipv4.tcp_mem", Numbers::Long(3), Rule::Numbers(assess))] }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let observed = case.observed;
        let refused = observed.refused_high();
        let crossed = observed.crossed_high.unwrap_or(0);
        let taken =
            observed.allowed_above_high.unwrap_or(0) + observed.forced_above_high.unwrap_or(0);
        let past = observed.past_high == Some(true) || case.was_past(LimitName::TcpMemHigh);
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
        // A few refusals beside many orphans that were reset are not a harm of their own: the orphans are what was lost.
        let is_harm = refused > 0 && refused >= observed.orphans_out_of_memory.unwrap_or(0);
        let found = if is_harm { found } else { found.harmless() };
        Some(
            found
                .saw(HOOK, "refused to senders, above high", observed.refused_high_send)
                .saw(HOOK, "refused to receivers, above high", observed.refused_high_receive)
                .saw("crossing of tcp_mem high", "times", crossed)
                .saw(
                    "__sk_mem_raise_allocated",
                    "allowed above high all the same",
                    observed.allowed_above_high.unwrap_or(0),
                )
                .saw(
                    "sk_forced_mem_schedule",
                    "taken above high without being asked",
                    observed.forced_above_high.unwrap_or(0),
                )
                .saw(
                    "kfree_skb PROTO_MEM",
                    "segments dropped with room in their receive buffer",
                    observed.dropped_tcp_mem.unwrap_or(0),
                )
                .beside("/proc/net/sockstat mem", "pages", case.peak(LimitName::TcpMemHigh)),
        )
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        remedy(case)
    }
}

/// `level`: 1 for pressure, 2 for high.
pub(super) fn usage(now: &Readings, level: usize) -> Usage {
    let pages = now.sockstat.map(|sockets| sockets.tcp_mem_pages);
    Usage::new(pages, now.tcp_mem.map(|limits| limits[level]))
}

/// What the CPUs keep apart, either way.
pub(super) fn noise(now: &Readings) -> u64 {
    2 * CPU_PAGES * now.cpus.unwrap_or(1)
}

pub(super) fn need(planned: &Planned<'_>, level: usize, effect: Effect, counts: bool) -> Need {
    let queued = planned.queued();
    let each = queued.map(|(pages, _)| pages);
    let used = planned.now.sockstat.map(|sockets| sockets.tcp_mem_pages);
    let all = each.map(|each| planned.connections().saturating_mul(each));
    let needed = match all {
        Some(0) => Some(0),
        _ => all.zip(used).map(|(all, used)| all.saturating_add(used)),
    };
    let now = planned.now.tcp_mem.map(|limits| limits[level]);
    let stops_at =
        now.zip(used).zip(each).and_then(|((now, used), each)| first_without(now, used, each));
    let (remedy, settings) = more(planned, needed.or(all));
    Need {
        now,
        used,
        needed,
        stops_at,
        effect: Some(effect),
        counts,
        remedy,
        settings,
        risk: "it is the whole host's, also for containers; too much of it ends in the OOM killer. Pages, not bytes and not kB".into(),
        note: queued.map(|queued| match queued {
            (0, _) => "idle connections use none of it".into(),
            (pages, bytes) => format!("{pages} pages ({bytes} bytes) for each connection"),
        }),
        unknown: match queued {
            None => Some(NO_PAGE.into()),
            _ if now.is_none() || used.is_none() => Some(unseen("net.ipv4.tcp_mem")),
            _ => None,
        },
    }
}

/// So that all of it stays below the second value too, where no socket is kept to its fair share; at most half of memory.
fn more(planned: &Planned<'_>, needed: Option<u64>) -> (String, Vec<Setting>) {
    let Some((needed, page)) = needed.zip(planned.now.page()) else {
        return ("fewer connections, or let applications read".into(), Vec::new());
    };
    let residue = noise(planned.now);
    let high = needed.saturating_add(residue).saturating_mul(3) / 2;
    let high = high.max(planned.now.tcp_mem.map_or(0, |limits| limits[2]));
    let most = planned.now.memory_total_bytes.map(|total| total / page / 2);
    if most.is_none_or(|most| high > most) {
        let text = "fewer connections, or fewer queued bytes: let applications read; half of this host's memory would not do for tcp_mem";
        return (text.into(), Vec::new());
    }
    let level = |wanted, index: usize| at_least(wanted, planned.now.tcp_mem.map(|it| it[index]));
    let value = format!("{} {} {high}", level(high / 2, 0), level(high / 3 * 2, 1));
    let text = format!(
        "net.ipv4.tcp_mem=\"{value}\" (pages; {} MiB at most), or let applications read",
        mib(high.saturating_mul(page))
    );
    (text, setting("net.ipv4.tcp_mem", value))
}

/// The kernel's own default is 1/16 of memory for pressure, three quarters and one and a half of that for the others (net/ipv4/tcp.c,
/// tcp_init_mem, 6.18). Below it nobody is helped by any other number.
pub(super) fn remedy(case: &Case<'_>) -> String {
    let free_data = "let applications read, and send no faster than peers do";
    let (Some([low, pressure, high]), Some(total), Some(page)) =
        (case.now.tcp_mem, case.now.memory_total_bytes, case.now.page())
    else {
        return format!(
            "{free_data}; net.ipv4.tcp_mem (pages) is a setting of the host, and not to be seen from here"
        );
    };
    let pages = total / page;
    let peak = case.peak(LimitName::TcpMemHigh).map_or(0, |peak| peak.used);
    // What was refused is not in the peak.
    let wanted = with_slack(peak).max(high.saturating_mul(2)).max(pages / 32 * 3);
    let third = wanted.min(pages / 4).max(high);
    if third <= high {
        return format!(
            "{free_data}: net.ipv4.tcp_mem is at {high} pages already, a quarter of memory or more, and beyond that the OOM killer comes first"
        );
    }
    format!(
        "{free_data}; or net.ipv4.tcp_mem=\"{} {} {third}\" (pages, not bytes: {} MiB at most, {} % of memory). It is the whole host's, \
         also for containers, and too much of it ends in the OOM killer",
        low.max(third / 2),
        pressure.max(third / 3 * 2),
        mib(third.saturating_mul(page)),
        third * 100 / pages.max(1)
    )
}

/// Of a configured value.
fn assess(context: &Context<'_>, name: &str, values: &[i128]) -> Answer {
    let &[low, pressure, high] = values else { return Answer::depends_on_present() };
    let mut complaints = by_itself(context, [low, pressure, high]);
    let present = context.present_numbers(name);
    if complaints.is_empty() && values.iter().zip(&present).any(|(value, own)| value < own) {
        let what = match present.as_slice() {
            [_, own_pressure, own_high] if pressure >= *own_pressure && high >= *own_high => {
                "once there is memory pressure, it lasts until usage is below low"
            }
            _ => "queues meet the limit earlier",
        };
        complaints.push(format!(
            "lower than the {} that this host has already: {what}",
            spaced(&present)
        ));
    }
    Answer::of_complaints(complaints, || {
        if context.run.queued_bytes == 0 {
            return Answer::nothing(
                "idle connections use none of it: tcp_mem counts what waits in queues, and no socket, inode or file",
            );
        }
        let present = present.get(2).copied();
        context.compared(
            Some(LimitName::TcpMemHigh),
            "queues meet the limit earlier",
            high,
            present,
        )
    })
}

/// What is wrong with it on a host of this memory.
fn by_itself(context: &Context<'_>, [low, pressure, high]: [i128; 3]) -> Vec<String> {
    let mut all = Vec::new();
    if (low, pressure) == (4096, 87_380)
        || (low, pressure) == (4096, 65_536)
        || (low, pressure) == (4096, 16_384)
    {
        let of = context.host.readings.page().map(|page| format!(" of {page} bytes"));
        all.push(format!(
            "{low} {pressure} are the bytes of tcp_rmem or tcp_wmem, and the unit here is pages{}",
            of.unwrap_or_default()
        ));
    }
    if low > pressure || pressure > high {
        all.push("the three values have to ascend: low, pressure, high".into());
    }
    if let Some(total) = context.host.readings.memory_total_bytes {
        all.extend(beside_memory(context, pressure, high, total));
    }
    if pressure == high {
        let equal = if low == high {
            "three equal values leave"
        } else {
            "pressure and high are equal, which leaves"
        };
        all.push(format!(
            "{equal} no band: memory pressure begins where allocations are refused already"
        ));
    }
    all
}

fn beside_memory(context: &Context<'_>, pressure: i128, high: i128, total: u64) -> Option<String> {
    let page = context.host.readings.page()?;
    let pages = total / page;
    if high > pages.into() {
        return Some(beyond_memory(high, page, total));
    }
    // 1/16 of the free pages at boot for pressure, one and a half of that for high (net/ipv4/tcp.c, tcp_init_mem, 6.18). What the kernel itself
    // took at boot was not free.
    let (default_pressure, default_high) = (pages / 16, pages / 32 * 3);
    let is_low = |value: i128, default: u64| value < i128::from(default / 4 * 3);
    let bytes = |pages: i128| size(u128::try_from(pages).unwrap_or(0) * u128::from(page));
    if is_low(high, default_high) {
        return Some(format!(
            "high is {high} pages ({}), below the kernel's own default of about {default_high} for this host: it makes the limit lower than it was",
            bytes(high)
        ));
    }
    is_low(pressure, default_pressure).then(|| {
        format!(
            "pressure is {pressure} pages ({}), below the kernel's own default of about {default_pressure} for this host: receive windows stop growing there",
            bytes(pressure)
        )
    })
}

/// The value may be written in another unit: the one in which it makes sense on this host.
fn beyond_memory(high: i128, page: u64, total: u64) -> String {
    let value = u128::try_from(high).unwrap_or(0);
    let beyond = format!(
        "high is {high} pages of {page} bytes, {}, more than the {} MiB of this host",
        size(value * u128::from(page)),
        mib(total)
    );
    let total = u128::from(total);
    let as_kb = value * 1024 <= total;
    // Less is no limit that anybody would set for a host: what one socket may hold is written so.
    let as_bytes = value <= total;
    match (as_kb, as_bytes) {
        (true, _) if value * 1024 >= 1 << 30 && !value.is_multiple_of(1 << 20) => {
            format!(
                "{beyond}: it looks like kB ({}) or bytes ({}), and the unit is pages",
                size(value * 1024),
                size(value)
            )
        }
        (true, _) => format!(
            "{beyond}: it looks like bytes ({}) or kB ({}), and the unit is pages",
            size(value),
            size(value * 1024)
        ),
        (false, true) => {
            format!("{beyond}: it looks like bytes ({}), and the unit is pages", size(value))
        }
        (false, false) => {
            format!("{beyond}: it is no limit at all, and the OOM killer comes first")
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat, Tier};

    use super::beyond_memory;
    use crate::{
        evidence::Evidence, forecast::History, limits::tests::remedy, reading::Readings,
        verdict::judge,
    };

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

    pub(in crate::limits) fn causes(seen: Evidence, pages: u64) -> Vec<(LimitName, Confidence)> {
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
    fn tcp_mem_is_never_lowered_and_never_beyond_a_quarter_of_memory() {
        let now = |high| Readings {
            tcp_mem: Some([high / 2, high / 3 * 2, high]),
            memory_total_bytes: Some(4096 * 1_000_000),
            page_bytes: Some(4096),
            sockstat: Some(Sockstat { tcp_mem_pages: high + 1, ..Sockstat::default() }),
            ..Readings::default()
        };
        // Far too low: the kernel's own default would do.
        let text = remedy(LimitName::TcpMemHigh, &Evidence::default(), now(512));
        assert!(text.contains("\"46875 62500 93750\" (pages, not bytes: 367 MiB"), "{text}");
        let text = remedy(LimitName::TcpMemHigh, &Evidence::default(), now(200_000));
        assert!(text.contains(" 250000\" (pages"), "{text}");
        let text = remedy(LimitName::TcpMemHigh, &Evidence::default(), now(250_000));
        assert!(text.contains("OOM killer comes first") && !text.contains('='), "{text}");
        let inside = remedy(LimitName::TcpMemHigh, &Evidence::default(), Readings::default());
        assert!(inside.contains("not to be seen from here"), "{inside}");
    }

    #[test]
    fn another_unit_is_told_by_its_size() {
        let told = |high| beyond_memory(high, 4096, 24 << 30);
        assert!(
            told(16_777_216).contains("looks like bytes (16 MiB) or kB (16 GiB)"),
            "{}",
            told(16_777_216)
        );
        assert!(
            told(12_884_901_888).contains("looks like bytes (12 GiB)"),
            "{}",
            told(12_884_901_888)
        );
        assert!(
            told(13_000_000).contains("looks like kB (12 GiB) or bytes"),
            "{}",
            told(13_000_000)
        );
        assert!(told(i128::from(i64::MAX)).contains("no limit at all"));
    }
}
