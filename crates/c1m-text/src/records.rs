//! What a record says in words.

pub mod diagnosis;
mod doctor;
pub mod held;
pub mod watch;

use std::{collections::BTreeMap, time::SystemTime};

use c1m_record::*;

use crate::records::{
    diagnosis::{limits_lines, verdict_lines},
    doctor::{applied_lines, doctor_lines, restored_lines},
    held::{holders_lines, states_lines},
    watch::{ended_lines, usage_line, watching_line},
};

/// The lines of one record, without time stamps.
pub fn lines(record: &Record) -> Vec<String> {
    match record {
        Record::Hooks(hooks) => hooks_lines(hooks),
        Record::Listening(listening) => vec![listening_line(listening)],
        Record::Online(online) => vec![format!("online user {}", online.online)],
        Record::Crossing(crossing) => vec![crossing_line(crossing)],
        Record::Refused(refused) => refused_lines(refused),
        Record::Refusal(refusal) => vec![refusal_line(refusal)],
        Record::Aborted(aborted) => vec![format!(
            "orphan reset  {}  pages={} tcp_mem={}{}  hook={}",
            aborted.limit,
            aborted.pages,
            triple(aborted.tcp_mem),
            socket_fields(&aborted.socket),
            aborted.hook
        )],
        Record::OomKill(kill) => {
            let scope = match kill.in_cgroup {
                Some(true) => " for=cgroup",
                Some(false) => " for=host",
                None => "",
            };
            vec![format!(
                "oom kill  pid={} comm={}{scope}  hook={}",
                kill.pid, kill.comm, kill.hook
            )]
        }
        Record::Pressure(pressure) => vec![pressure_line(pressure)],
        Record::Overflow(overflow) => vec![format!(
            "overflow  {} queue at {}  listener={} len={} max={}  hook={}",
            overflow.queue,
            overflow.at,
            overflow.listener.as_deref().unwrap_or("unknown"),
            overflow.len,
            overflow.max,
            overflow.hook
        )],
        Record::Ports(ports) => vec![format!(
            "no port left  source={} destination={} pid={} comm={}  hook={}",
            ports.source.as_deref().unwrap_or("unknown"),
            ports.destination.as_deref().unwrap_or("unknown"),
            ports.pid,
            ports.comm,
            ports.hook
        )],
        Record::CallError(error) => vec![format!(
            "call failed  {} {}  pid={} comm={}  hook={}",
            error.call, error.errno, error.pid, error.comm, error.hook
        )],
        Record::Warning(warning) => vec![format!("warning  {}: {}", warning.name, warning.text)],
        Record::Limits(limits) => limits_lines(limits),
        Record::Verdict(verdict) => verdict_lines(verdict),
        Record::Summary(summary) => summary_lines(summary),
        Record::Holders(holders) => holders_lines(holders),
        Record::States(states) => states_lines(states, usize::MAX),
        Record::Watching(watching) => vec![watching_line(watching)],
        Record::Usage(usage) => vec![usage_line(usage)],
        Record::Ended(ended) => ended_lines(ended, refused_lines(&ended.refused)),
        Record::Doctor(doctor) => doctor_lines(doctor),
        Record::Applied(applied) => applied_lines(applied),
        Record::Restored(restored) => restored_lines(restored),
    }
}

/// How many signals come from programs, and those that come from nowhere.
fn hooks_lines(hooks: &Hooks) -> Vec<String> {
    let attached = hooks.hooks.iter().filter(|hook| hook.attached).count();
    let best = hooks.hooks.iter().filter(|hook| hook.reason.is_none()).count();
    let mut lines = vec![format!(
        "hooks  {attached} of {} signals by programs, {best} as exact as can be  kernel={}  (every one: --trace --dry-run)",
        hooks.hooks.len(),
        hooks.kernel
    )];
    lines.extend(hooks.hooks.iter().filter(|hook| hook.hook.is_none()).flat_map(hook_lines));
    lines
}

/// One line a signal.
pub fn every_hook(hooks: &Hooks) -> Vec<String> {
    hooks_lines(hooks).into_iter().take(1).chain(hooks.hooks.iter().flat_map(hook_lines)).collect()
}

/// The reason may have the verifier's log in it: a line each.
fn hook_lines(hook: &Hook) -> Vec<String> {
    let way = match (&hook.hook, hook.precision, &hook.says) {
        (Some(way), Some(precision), Some(says)) => {
            format!("{way} ({}: {says})", precision_name(precision))
        }
        _ => "not on this host".into(),
    };
    let reason = hook.reason.as_ref().map(|reason| format!("  because {reason}"));
    let text = format!("hook  {}: {way}{}", hook.signal, reason.unwrap_or_default());
    text.split('\n').map(str::to_owned).collect()
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Exact => "exact",
        Precision::Connection => "per connection",
        Precision::Interval => "per interval",
    }
}

fn pressure_line(pressure: &Pressure) -> String {
    let mut line = match (pressure.direction, &pressure.cause) {
        (Direction::Up, Some(cause)) => format!("memory pressure begins  cause={cause}"),
        (Direction::Up, None) => "memory pressure begins".into(),
        (Direction::Down, _) => "memory pressure ends".into(),
    };
    if let Some(duration) = pressure.duration_ms {
        line += &format!("  lasted={duration:.1}ms");
    }
    line + &format!(
        "  pages={} tcp_mem={}{}  hook={}",
        pressure.pages,
        triple(pressure.tcp_mem),
        socket_fields(&pressure.socket),
        pressure.hook
    )
}

fn listening_line(listening: &Listening) -> String {
    let most = listening.max_connections.map(|n| format!(" max_connections={n}"));
    let metrics = listening.metrics.iter().map(|url| format!(" metrics={url}"));
    format!(
        "listening  {}  workers={} capacity={}{} backlog={} pid={}{}  (times are UTC)",
        listening.address,
        listening.workers,
        listening.capacity,
        most.unwrap_or_default(),
        listening.backlog,
        listening.pid,
        metrics.collect::<String>()
    )
}

fn crossing_line(crossing: &Crossing) -> String {
    let level = crossing.level.name();
    let direction = match crossing.direction {
        Direction::Up => "above",
        Direction::Down => "back below",
    };
    let precision = precision_name(crossing.precision);
    let mut line = format!(
        "crossing  {} {direction} {level}  pages={} limit={} connections={}{}  hook={} ({precision})",
        crossing.limit,
        crossing.pages,
        crossing.limit_pages,
        crossing.connections,
        socket_fields(&crossing.socket),
        crossing.hook
    );
    if let Some(age) = crossing.pressure_age_ms {
        line += &format!(" pressure_for={age:.0}ms");
    }
    if crossing.limit_moved {
        line += " (the limit was moved)";
    }
    if crossing.suppressed > 0 {
        line += &format!(" not_shown={}", crossing.suppressed);
    }
    line
}

fn refusal_line(refusal: &Refusal) -> String {
    format!(
        "refused  {} {}  pages={} tcp_mem={} connections={} receive_queue={} send_queue={}{}  hook={}",
        refusal.limit,
        refusal.side,
        refusal.pages,
        triple(refusal.tcp_mem),
        refusal.connections,
        refusal.receive_queue_bytes,
        refusal.send_queue_bytes,
        socket_fields(&refusal.socket),
        refusal.hook
    )
}

fn refused_lines(refused: &Refused) -> Vec<String> {
    let maybe = |count: Option<u64>| count.map_or("unknown".into(), |n| n.to_string());
    vec![
        format!(
            "refused  high: send={} receive={}  fair_share: send={} receive={}  memcg: send={} receive={}  forced_first_skb={}",
            refused.high_send,
            refused.high_receive,
            refused.fair_share_send,
            refused.fair_share_receive,
            refused.memcg_send,
            refused.memcg_receive,
            refused.forced_first_skb
        ),
        format!(
            "followed  dropped_skb={} dropped_tcp_mem={} dropped_receive_buffer={} ofo_pruned={} collapsed={} allowed_above_high={} \
             forced_above_high={}",
            maybe(refused.dropped_skb),
            maybe(refused.dropped_tcp_mem),
            maybe(refused.dropped_receive_buffer),
            maybe(refused.ofo_pruned),
            maybe(refused.collapsed),
            maybe(refused.allowed_above_high),
            maybe(refused.forced_above_high)
        ),
        format!(
            "orphans  aborted_too_many={} aborted_out_of_memory={} in_timers={} max={}",
            maybe(refused.orphans_aborted_too_many),
            maybe(refused.orphans_aborted_out_of_memory),
            maybe(refused.orphans_in_timers),
            maybe(refused.orphans_max)
        ),
        format!(
            "pressure  entries={} by_allocator={} exits={} ms={}",
            maybe(refused.pressure_entries),
            maybe(refused.pressure_entries_allocator),
            maybe(refused.pressure_exits),
            maybe(refused.pressure_ms)
        ),
        format!(
            "queues  accept_at_syn={} accept_at_ack={} syn={}  ports_exhausted={}  calls: {}",
            maybe(refused.accept_queue_syn),
            maybe(refused.accept_queue_ack),
            maybe(refused.syn_queue_full),
            maybe(refused.ports_exhausted),
            refused.call_errors.as_ref().map_or("unknown".into(), pairs)
        ),
        format!("kernel counters  {}", pairs(&refused.kernel)),
    ]
}

fn summary_lines(summary: &Summary) -> Vec<String> {
    let bytes =
        |bytes: Option<u64>| bytes.map_or("unknown".into(), |b| format!("{} KiB", b / 1024));
    let each = summary
        .user_bytes_per_connection
        .map_or("unknown".into(), |bytes| format!("{bytes:.1} bytes"));
    let mut lines = vec![
        format!(
            "summary  held={} peak={} accepted={} closed={} requests={} elapsed={:.1}s",
            summary.held,
            summary.peak,
            summary.accepted,
            summary.closed,
            summary.requests.map_or("unknown".into(), |count| count.to_string()),
            summary.elapsed_s
        ),
        format!(
            "memory  rss={} pss_at_peak={} user_per_connection={each}",
            bytes(summary.rss_bytes),
            bytes(summary.pss_bytes)
        ),
        format!("cpu  user={:.2}s system={:.2}s", summary.cpu_user_s, summary.cpu_system_s),
    ];
    if let Some(s) = &summary.sockstat {
        lines.push(format!(
            "sockstat  used={} inuse={} inuse6={} orphan={} tw={} alloc={} mem={} pages",
            s.sockets_used, s.inuse, s.inuse6, s.orphan, s.tw, s.alloc, s.tcp_mem_pages
        ));
    }
    if let Some(files) = &summary.file_nr {
        lines.push(format!("file-nr  allocated={} max={}", files.allocated, files.max));
    }
    lines.push(format!("errors  {}", pairs(&summary.errors)));
    if let Some(refused) = &summary.refused {
        lines.extend(refused_lines(refused));
    }
    if let (Some(dropped), Some(suppressed)) = (summary.dropped, summary.suppressed) {
        let mut line = format!("events  dropped={dropped} suppressed={suppressed}");
        if let Some(not_shown) = summary.not_shown.filter(|count| *count > 0) {
            line += &format!(" not_shown={not_shown}");
        }
        if dropped > 0 {
            line += &format!("  lost by {}", pairs(&summary.dropped_by));
        }
        lines.push(line);
    }
    lines.extend(dropped_line(summary.lines_dropped));
    lines
}

/// Lines of this output that are missing; nothing when none is.
pub fn dropped_line(lines: u64) -> Option<String> {
    (lines > 0).then(|| format!("output  lines_dropped={lines}"))
}

/// What is known of a socket, each field with a space in front.
fn socket_fields(socket: &Socket) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!(" {name}={value}");
        }
    };
    field("local", socket.local.clone());
    field("remote", socket.remote.clone());
    field("pid", socket.pid.map(|pid| pid.to_string()));
    field("comm", socket.comm.clone());
    field("cgroup", socket.cgroup.map(|id| id.to_string()));
    field("netns", socket.netns.map(|inode| inode.to_string()));
    text
}

fn triple([low, pressure, high]: [u64; 3]) -> String {
    format!("{low}/{pressure}/{high}")
}

fn pairs(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".into();
    }
    let pairs: Vec<String> =
        counts.iter().map(|(name, count)| format!("{}={count}", name.replace(' ', "_"))).collect();
    pairs.join(" ")
}

/// The time of day as lines for people have it: `08:16:54.123`.
#[must_use]
pub fn clock(time: SystemTime) -> String {
    let stamp = humantime::format_rfc3339_millis(time).to_string();
    // 2026-11-22T08:16:54.123Z
    stamp.get(11..23).unwrap_or(&stamp).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_is_unknown() {
        let mut summary = Summary {
            held: 3,
            peak: 5,
            accepted: 9,
            closed: 6,
            requests: Some(11),
            errors: BTreeMap::from([("accept EMFILE".into(), 2), ("431".into(), 1)]),
            rss_bytes: Some(2 << 20),
            pss_bytes: None,
            user_bytes_per_connection: None,
            cpu_user_s: 0.5,
            cpu_system_s: 1.25,
            elapsed_s: 10.0,
            sockstat: None,
            file_nr: Some(FileNr { allocated: 7, max: 8 }),
            refused: None,
            dropped: None,
            dropped_by: BTreeMap::new(),
            suppressed: None,
            not_shown: None,
            lines_dropped: 0,
        };
        assert_eq!(
            lines(&Record::Summary(summary.clone())),
            [
                "summary  held=3 peak=5 accepted=9 closed=6 requests=11 elapsed=10.0s",
                "memory  rss=2048 KiB pss_at_peak=unknown user_per_connection=unknown",
                "cpu  user=0.50s system=1.25s",
                "file-nr  allocated=7 max=8",
                "errors  431=1 accept_EMFILE=2",
            ]
        );
        summary.refused = Some(Box::default());
        (summary.dropped, summary.suppressed) = (Some(0), Some(4));
        let full = lines(&Record::Summary(summary.clone()));
        assert_eq!(full.last().unwrap(), "events  dropped=0 suppressed=4");
        assert!(full.iter().any(|line| line.contains("dropped_skb=unknown")));
        summary.not_shown = Some(12);
        summary.dropped = Some(3);
        summary.dropped_by =
            BTreeMap::from([("ring buffer".into(), 2), ("tp_btf/kfree_skb".into(), 1)]);
        let last = lines(&Record::Summary(summary)).pop().unwrap();
        assert_eq!(
            last,
            "events  dropped=3 suppressed=4 not_shown=12  lost by ring_buffer=2 tp_btf/kfree_skb=1"
        );
    }

    #[test]
    fn a_crossing_shows_what_is_known_of_the_socket() {
        let crossing = Crossing {
            limit: "tcp_mem".into(),
            level: Level::High,
            direction: Direction::Up,
            limit_moved: false,
            pages: 101,
            limit_pages: 100,
            tcp_mem: [50, 75, 100],
            connections: 42,
            socket: Socket { local: Some("127.0.0.1:80".into()), ..Socket::default() },
            hook: "tp_btf/x".into(),
            precision: Precision::Exact,
            pressure_age_ms: Some(12.3),
            suppressed: 0,
        };
        assert_eq!(
            lines(&Record::Crossing(crossing)),
            [
                "crossing  tcp_mem above high  pages=101 limit=100 connections=42 local=127.0.0.1:80  hook=tp_btf/x \
              (exact) pressure_for=12ms"
            ]
        );
    }
}
