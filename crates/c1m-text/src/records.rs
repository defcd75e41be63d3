//! Records as lines of a log: `word  key=value ...`. Each kind has its forms; what a form cannot say stands in a function.

mod form;

use c1m_record::*;
use serde::Serialize;
use serde_json::Value;

use crate::{
    page::{Format, Page},
    pages,
    records::form::fill,
};

/// What is known of a socket.
macro_rules! socket {
    () => {
        "[ {=local}][ {=remote}][ {=pid}][ {=comm}][ {=cgroup}][ {=netns}]"
    };
}

/// Usage of the host and of the network namespace.
macro_rules! usage {
    () => {
        concat!(
            "host: pages={host.tcp_mem_pages} of {host.tcp_mem:/?unknown from here} {=host.orphans} {=host.sockets}",
            "{host.pressure.now:true= under_pressure|false=?}[_for={host.pressure.lasting_ms:.0ms}]",
            "  netns {netns.inode}: {=netns.inuse} {=netns.time_wait}"
        )
    };
}

macro_rules! watched {
    () => {
        "{=watched.connections} {=watched.opened} ({watched.opened_per_s:.0/s}) {=watched.closed} ({watched.closed_per_s:.0/s})"
    };
}

const PRESSURE: &str = "under pressure  now={host.pressure.now:true=yes|false=no?unknown from here}[, for {host.pressure.lasting_ms:.0ms}] \
    total={host.pressure.total_ms:.0ms} (host)";
const EVENTS: &str = "[events  {=dropped} {=suppressed}]< {=not_shown}>[  dropped by {dropped_by}]";
/// Nothing when no line is missing.
const LINES_DROPPED: &str = "<output  {=lines_dropped}>";

const REFUSED: &[&str] = &[
    "refused  high: send={high_send} receive={high_receive}  fair_share: send={fair_share_send} receive={fair_share_receive}  memcg: \
     send={memcg_send} receive={memcg_receive}  {=forced_first_skb}",
    "followed  {=dropped_skb} {=dropped_tcp_mem} {=dropped_receive_buffer} {=ofo_pruned} {=collapsed} {=allowed_above_high} \
     {=forced_above_high}",
    "orphans  aborted_too_many={orphans_aborted_too_many} aborted_out_of_memory={orphans_aborted_out_of_memory} \
     in_timers={orphans_in_timers} max={orphans_max}",
    "pressure  entries={pressure_entries} by_allocator={pressure_entries_allocator} exits={pressure_exits} ms={pressure_ms}",
    "queues  accept_at_syn={accept_queue_syn} accept_at_ack={accept_queue_ack} syn={syn_queue_full}  {=ports_exhausted}  calls: \
     {call_errors}",
    "kernel counters  {kernel}",
];

const SUMMARY: &[&str] = &[
    "summary  {=held} {=peak} {=accepted} {=closed} {=requests} elapsed={elapsed_s:.1s}",
    "memory  rss={rss_bytes:size} pss_at_peak={pss_bytes:size} user_per_connection={user_bytes_per_connection:.1 bytes}",
    "cpu  user={cpu_user_s:.2s} system={cpu_system_s:.2s}",
    "[sockstat  used={sockstat.sockets_used} {=sockstat.inuse} {=sockstat.inuse6} {=sockstat.orphan} {=sockstat.tw} {=sockstat.alloc} \
     mem={sockstat.tcp_mem_pages} pages]",
    "[file-nr  {=file_nr.allocated} {=file_nr.max}]",
    "errors  {errors}",
];

const ENDED: &[&str] = &[
    concat!("summary  elapsed={elapsed_s:.1s}  ", watched!()),
    concat!("now  ", usage!(), "  pages_max={tcp_mem_pages_max}"),
    PRESSURE,
];
const ENDED_COST: &str = "cost  cpu user={cpu_user_s:.2s} system={cpu_system_s:.2s}, while watching {own_cpu_percent:.1 %} of one core";
const ENDED_LAST: &str =
    "ended  limit={limit?none}[ command=exit {command.code}][ command=signal {command.signal}]";

const HOLDERS: &str = "holders  {total.sockets} sockets hold {total.pages} pages, {scope:host=the whole host|part=a part of the host}  \
    took={took_ms:.1ms}";
const HOLDER: &str = "{=pages} receive={receive_bytes} send={send_bytes} backlog={backlog_bytes} forward={forward_bytes}  {=sockets} \
    {=closed_but_open}< {=shared}>  states: {states}";
const LIMIT: &str = "limit  {limit}  {=used} of {ceiling} {unit} ({scope})  {=source}[ {=at_connection}][ in={in_s:.0s}]";
const CAUSE: &str = "{limit} ({confidence}, {scope}): {text}";
const EVIDENCE: &str = "  seen  {source}: {value} {what}[ of {limit}]";
const HOOK: &str = "hook  {probe}: {hook?not on this host}";

/// The forms of a kind that needs no more.
fn forms(record: &Record) -> &'static [&'static str] {
    match record {
        Record::Listening(_) => &[
            "listening  {address}  {=workers} {=capacity}[ {=max_connections}] {=backlog} {=pid}[ {=metrics}]  (times are UTC)",
        ],
        Record::Online(_) => &["online user {online}"],
        Record::Crossing(_) => &[concat!(
            "crossing  {limit} {direction:up=above|down=back below} {level}  {=pages} limit={limit_pages} {=connections}",
            socket!(),
            "  {=hook} ({resolution:connection=per connection|interval=per interval})[ pressure_for={pressure_age_ms:.0ms}]",
            "{limit_moved:true= (the limit was moved)|false=}< not_shown={suppressed}>"
        )],
        Record::Refused(_) => REFUSED,
        Record::Refusal(_) => &[concat!(
            "refused  {limit} {side}  {=pages} tcp_mem={tcp_mem:/} {=connections} receive_queue={receive_queue_bytes} send_queue={send_queue_bytes}",
            socket!(),
            "  {=hook}"
        )],
        Record::Aborted(_) => &[concat!(
            "orphan reset  {limit}  {=pages} tcp_mem={tcp_mem:/}",
            socket!(),
            "  {=hook}"
        )],
        Record::OomKill(_) => {
            &["oom kill  {=pid} {=comm}[ for={in_cgroup:true=cgroup|false=host}]  {=hook}"]
        }
        Record::Pressure(_) => &[concat!(
            "memory pressure {direction:up=begins|down=ends}[  {=cause}][  lasted={duration_ms:.1ms}]  {=pages} tcp_mem={tcp_mem:/}",
            socket!(),
            "  {=hook}"
        )],
        Record::Overflow(_) => {
            &["overflow  {queue} queue at {at}  {=listener} {=len} {=max}  {=hook}"]
        }
        Record::Ports(_) => &["no port left  {=source} {=destination} {=pid} {=comm}  {=hook}"],
        Record::CallError(_) => &["call failed  {call} {errno}  {=pid} {=comm}  {=hook}"],
        Record::Warning(_) => &["warning  {name}: {text}"],
        Record::Watching(_) => &[
            "watching  ports={ports:,?all} netns={netns?every one} {=connections} every={interval_s}s\
            [ {=pid} comm={comm?unknown}][ {=cgroup}][ command={command: }][ {=metrics}]  (times are UTC)",
        ],
        Record::Usage(_) => &[concat!(
            "usage  ",
            watched!(),
            "  ",
            usage!(),
            "  next={next.limit?none in sight}[ ({next.scope})][ in {next.in_s:.0s}]"
        )],
        _ => &[],
    }
}

/// The lines of one record, without time stamps.
#[must_use]
pub fn lines(record: &Record) -> Vec<String> {
    match record {
        Record::Hooks(hooks) => hooks_lines(hooks),
        Record::Limits(limits) => limits_lines(limits),
        Record::Verdict(verdict) => verdict_lines(verdict),
        Record::Summary(summary) => {
            let mut lines = filled(SUMMARY, summary);
            lines.extend(summary.refused.iter().flat_map(|refused| filled(REFUSED, refused)));
            lines.extend(filled(&[EVENTS, LINES_DROPPED], summary));
            lines
        }
        Record::Ended(ended) => ended_lines(ended),
        Record::Holders(holders) => holders_lines(holders),
        Record::Applied(applied) => applied_lines(applied),
        Record::Restored(restored) => match restored.settings.as_slice() {
            [] => vec!["restored  no setting had to be restored".into()],
            settings => settings.iter().map(|text| format!("restored  {text}")).collect(),
        },
        Record::States(states) => of_page(&pages::states(states, usize::MAX)),
        Record::Doctor(doctor) => of_page(&pages::doctor(doctor)),
        _ => filled(forms(record), record),
    }
}

/// Records of commands that answer once have no form of their own.
fn of_page(page: &Page) -> Vec<String> {
    page.render(Format::default()).lines().map(str::to_owned).collect()
}

fn filled(forms: &[&str], record: &impl Serialize) -> Vec<String> {
    // Records are always JSON.
    let value = serde_json::to_value(record).unwrap_or(Value::Null);
    forms.iter().filter_map(|form| fill(form, &value)).collect()
}

/// The probes without an attach method have a line each. The reason may have the verifier's log in it.
fn hooks_lines(hooks: &Hooks) -> Vec<String> {
    let sum = pages::probes(hooks);
    let mut lines =
        vec![format!("probes: {sum}  kernel={}  (every one: doctor --hooks)", hooks.kernel)];
    for hook in hooks.hooks.iter().filter(|hook| hook.hook.is_none()) {
        let reason = hook.reason.as_deref().unwrap_or("unknown");
        let text = filled(&[HOOK], hook).concat() + "  because " + reason;
        lines.extend(text.split('\n').map(str::to_owned));
    }
    lines
}

/// For people only those that are half used or grow with connections: `--json` has them all.
fn limits_lines(limits: &Limits) -> Vec<String> {
    let mut lines = filled(&["limits  next={next?none in sight}"], limits);
    let near = limits.limits.iter().filter(|reading| is_near(reading));
    lines.extend(near.flat_map(|reading| filled(&[LIMIT], reading)));
    lines
}

fn is_near(reading: &LimitReading) -> bool {
    let half =
        matches!((reading.used, reading.headroom), (Some(used @ 1..), Some(left)) if used >= left);
    half || reading.at_connection.is_some()
}

/// A verdict, one line a cause and one for each thing that goes with it.
#[must_use]
pub fn verdict_lines(verdict: &Verdict) -> Vec<String> {
    if verdict.quiet {
        return vec!["verdict  no limit was hit".into()];
    }
    let mut lines = Vec::new();
    for (number, cause) in (1..).zip(&verdict.causes) {
        lines.push(format!("verdict  {number}. {}", filled(&[CAUSE], cause).concat()));
        lines.extend(cause.evidence.iter().flat_map(|evidence| filled(&[EVIDENCE], evidence)));
        lines.extend(cause.to_confirm.iter().map(|text| format!("  to confirm  {text}")));
        lines.extend(cause.remedy.iter().map(|text| format!("  remedy  {text}")));
    }
    lines
}

/// Totals, the program's own cost, and last how it ended.
fn ended_lines(ended: &Ended) -> Vec<String> {
    let mut lines = filled(ENDED, ended);
    lines.extend(filled(REFUSED, &ended.refused));
    lines.extend(filled(&[ENDED_COST, EVENTS, LINES_DROPPED], ended));
    let command = match &ended.command {
        Some(CommandEnd { code: None, signal: None, .. }) => " command=unknown",
        _ => "",
    };
    lines.push(filled(&[ENDED_LAST], ended).concat() + command);
    lines
}

fn holders_lines(holders: &Holders) -> Vec<String> {
    let mut lines = filled(&[HOLDERS], holders);
    lines.extend(
        holders.rows.iter().map(|row| {
            format!("holder  {}  {}", pages::name(row), filled(&[HOLDER], row).concat())
        }),
    );
    lines.extend(filled(&["<further rows  {rows_omitted} with {pages_omitted} pages>"], holders));
    lines.extend(holders.unseen.iter().map(|what| format!("not seen  {what}")));
    lines.push(format!("accounted  {}", pages::meaning(holders).0));
    lines
}

fn applied_lines(applied: &Applied) -> Vec<String> {
    let changes = applied.changes.iter();
    let mut lines: Vec<String> = changes
        .flat_map(|change| filled(&["applied  {name} = {to}, before {from}"], change))
        .collect();
    if !applied.left.is_empty() {
        let left: Vec<_> = applied.left.iter().map(|limit| limit.name()).collect();
        lines
            .push(format!("left  {}: no kernel setting moves it, see its remedy", left.join(", ")));
    }
    lines.push(match (applied.changes.is_empty(), applied.keep) {
        (true, _) => "no sysctl change needed".into(),
        (_, true) => "applied  until `c1m-server doctor --restore`".into(),
        (_, false) => "applied  until SIGINT or SIGTERM; if this is killed, `c1m-server doctor --restore` restores it".into(),
    });
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::records::form::{path, places};

    fn summary() -> Summary {
        Summary {
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
        }
    }

    #[test]
    fn a_summary_says_what_is_unknown() {
        let mut summary = summary();
        assert_eq!(
            lines(&Record::Summary(summary.clone())),
            [
                "summary  held=3 peak=5 accepted=9 closed=6 requests=11 elapsed=10.0s",
                "memory  rss=2.0 MiB pss_at_peak=unknown user_per_connection=unknown",
                "cpu  user=0.50s system=1.25s",
                "file-nr  allocated=7 max=8",
                "errors  431=1 accept_EMFILE=2",
            ]
        );
        summary.refused = Some(Box::default());
        (summary.dropped, summary.suppressed) = (Some(0), Some(4));
        let full = lines(&Record::Summary(summary.clone()));
        assert_eq!(full.last().unwrap(), "events  dropped=0 suppressed=4");
        assert!(full.iter().any(|line| line.contains("dropped_skb=unknown")), "{full:?}");
        (summary.not_shown, summary.dropped, summary.lines_dropped) = (Some(12), Some(3), 9);
        summary.dropped_by =
            BTreeMap::from([("ring buffer".into(), 2), ("tp_btf/kfree_skb".into(), 1)]);
        let full = lines(&Record::Summary(summary));
        assert_eq!(
            full[full.len() - 2..],
            [
                "events  dropped=3 suppressed=4 not_shown=12  dropped by ring_buffer=2 tp_btf/kfree_skb=1",
                "output  lines_dropped=9",
            ]
        );
    }

    #[test]
    fn a_crossing_shows_what_is_known_of_the_socket() {
        let mut crossing = Crossing {
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
            resolution: Resolution::Exact,
            pressure_age_ms: Some(12.3),
            suppressed: 0,
        };
        assert_eq!(
            lines(&Record::Crossing(crossing.clone())),
            [
                "crossing  tcp_mem above high  pages=101 limit=100 connections=42 local=127.0.0.1:80  hook=tp_btf/x \
                 (exact) pressure_for=12ms"
            ]
        );
        (crossing.direction, crossing.limit_moved, crossing.suppressed) =
            (Direction::Down, true, 3);
        (crossing.resolution, crossing.pressure_age_ms) = (Resolution::Interval, None);
        assert_eq!(
            lines(&Record::Crossing(crossing)),
            [
                "crossing  tcp_mem back below high  pages=101 limit=100 connections=42 local=127.0.0.1:80  hook=tp_btf/x \
                 (per interval) (the limit was moved) not_shown=3"
            ]
        );
    }

    fn ended() -> Ended {
        Ended {
            elapsed_s: 2.0,
            watched: Watched { opened: Some(4), closed: Some(1), ..Watched::default() },
            host: HostUsage::default(),
            netns: NetnsUsage { inode: Some(7), inuse: Some(3), time_wait: None },
            tcp_mem_pages_max: Some(9),
            refused: Box::default(),
            dropped: 2,
            dropped_by: BTreeMap::from([("ring buffer".into(), 2)]),
            suppressed: 0,
            not_shown: Some(0),
            cpu_user_s: 0.01,
            cpu_system_s: 0.02,
            own_cpu_percent: Some(1.5),
            limit: None,
            confidence: None,
            command: None,
            lines_dropped: 0,
        }
    }

    #[test]
    fn what_is_not_known_is_unknown_and_never_zero() {
        let all = lines(&Record::Ended(ended()));
        assert_eq!(
            all[..3],
            [
                "summary  elapsed=2.0s  connections=unknown opened=4 (unknown) closed=1 (unknown)",
                "now  host: pages=unknown of unknown from here orphans=unknown sockets=unknown  netns 7: inuse=3 \
                 time_wait=unknown  pages_max=9",
                "under pressure  now=unknown from here total=unknown (host)",
            ]
        );
        assert_eq!(
            all[all.len() - 3..],
            [
                "cost  cpu user=0.01s system=0.02s, while watching 1.5 % of one core",
                "events  dropped=2 suppressed=0  dropped by ring_buffer=2",
                "ended  limit=none",
            ]
        );
        assert!(all.iter().any(|line| line.starts_with("refused  high: send=0")), "{all:?}");
    }

    #[test]
    fn the_last_line_names_the_limit_and_the_commands_end() {
        let last = |limit, code, signal| {
            let command = Some(CommandEnd { pid: 1, code, signal });
            lines(&Record::Ended(Ended { limit, command, ..ended() })).pop().unwrap()
        };
        assert_eq!(
            last(Some(LimitName::Nofile), Some(3), None),
            "ended  limit=nofile command=exit 3"
        );
        assert_eq!(last(None, Some(0), None), "ended  limit=none command=exit 0");
        assert_eq!(last(None, None, Some(9)), "ended  limit=none command=signal 9");
        assert_eq!(last(None, None, None), "ended  limit=none command=unknown");
    }

    #[test]
    fn pressure_says_how_long() {
        let line = |now, lasting_ms, total_ms| {
            let pressure = UnderPressure { now, lasting_ms, total_ms };
            let host = HostUsage { pressure, ..HostUsage::default() };
            lines(&Record::Ended(Ended { host, ..ended() }))[1..3].to_vec()
        };
        let lasting = line(Some(true), Some(1234.4), Some(2000.0));
        assert!(
            lasting[0].contains("sockets=unknown under_pressure_for=1234ms  netns"),
            "{lasting:?}"
        );
        assert_eq!(lasting[1], "under pressure  now=yes, for 1234ms total=2000ms (host)");
        let over = line(Some(false), None, None);
        assert_eq!(over[1], "under pressure  now=no total=unknown (host)");
        assert!(!over[0].contains("under_pressure"), "{over:?}");
    }

    #[test]
    fn a_verdict_says_what_was_seen_and_what_to_do() {
        let verdict = Verdict {
            quiet: false,
            tier: Tier::Functions,
            causes: vec![Cause {
                limit: LimitName::Orphans,
                scope: Scope::Host,
                confidence: Confidence::Likely,
                text: "125 orphans were reset because there were too many".into(),
                evidence: vec![Evidence {
                    source: "tcp_check_oom".into(),
                    what: "orphans".into(),
                    value: 75,
                    limit: Some(0),
                }],
                to_confirm: Some("trace it".into()),
                remedy: Some("raise net.ipv4.tcp_max_orphans above 75".into()),
            }],
        };
        assert_eq!(
            verdict_lines(&verdict),
            [
                "verdict  1. orphans (likely, host): 125 orphans were reset because there were too many",
                "  seen  tcp_check_oom: 75 orphans of 0",
                "  to confirm  trace it",
                "  remedy  raise net.ipv4.tcp_max_orphans above 75",
            ]
        );
    }

    #[test]
    fn people_see_the_limits_that_are_near() {
        let reading = |limit, used, headroom, at_connection| LimitReading {
            limit,
            scope: Scope::Host,
            unit: "files".into(),
            used,
            ceiling: Some(100),
            headroom,
            source: "x".into(),
            at_connection,
            in_s: at_connection.map(|_| 0.4),
        };
        let limits = Limits {
            limits: vec![
                reading(LimitName::Orphans, Some(1), Some(99), None),
                reading(LimitName::TimeWait, None, None, None),
                reading(LimitName::FileMax, Some(10), Some(90), Some(91)),
                reading(LimitName::Conntrack, Some(60), Some(40), None),
            ],
            next: Some(LimitName::FileMax),
        };
        assert_eq!(
            limits_lines(&limits),
            [
                "limits  next=file_max",
                "limit  file_max  used=10 of 100 files (host)  source=x at_connection=91 in=0s",
                "limit  conntrack  used=60 of 100 files (host)  source=x",
            ]
        );
    }

    #[test]
    fn what_could_not_be_changed_is_said() {
        let applied = Applied { changes: Vec::new(), keep: false, left: vec![LimitName::Memory] };
        let lines = applied_lines(&applied).join("\n");
        assert_eq!(
            lines,
            "left  memory: no kernel setting moves it, see its remedy\nno sysctl change needed"
        );
    }

    #[test]
    fn a_watch_says_what_is_watched() {
        let mut watching = Watching {
            ports: Vec::new(),
            netns: None,
            pid: None,
            comm: None,
            cgroup: None,
            command: None,
            interval_s: 1.0,
            page_bytes: None,
            connections: None,
            metrics: None,
        };
        let line = |watching: &Watching| lines(&Record::Watching(watching.clone())).concat();
        assert_eq!(
            line(&watching),
            "watching  ports=all netns=every one connections=unknown every=1s  (times are UTC)"
        );
        (watching.ports, watching.netns, watching.pid) = (vec![80, 443], Some(7), Some(12));
        watching.command = Some(vec!["sh".into(), "-c".into()]);
        assert_eq!(
            line(&watching),
            "watching  ports=80,443 netns=7 connections=unknown every=1s pid=12 comm=unknown command=sh -c  (times are UTC)"
        );
    }

    /// A form that names a field which no record has would say `unknown` for ever.
    #[test]
    fn every_place_of_a_form_is_a_field() {
        let schema = include_str!("../../../docs/schema/c1m-server.json");
        let source = include_str!("records.rs").split("mod tests").next().unwrap();
        let literals = source.split('"').skip(1).step_by(2).filter(|text| text.contains('{'));
        let mut count = 0;
        for form in literals.clone() {
            for (open, close) in [('{', '}'), ('[', ']'), ('<', '>')] {
                assert_eq!(form.matches(open).count(), form.matches(close).count(), "{form}");
            }
            for name in places(form)
                .map(path)
                .filter(|path| !path.is_empty())
                .flat_map(|path| path.split('.'))
            {
                count += 1;
                let is_variable = ["sum", "reason", "text", "number"].contains(&name);
                assert!(
                    is_variable || schema.contains(&format!("\"{name}\": {{")),
                    "{name} in {form}"
                );
            }
        }
        assert!(count > 100, "{count} places");
    }
}
