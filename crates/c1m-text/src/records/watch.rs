//! What a watch says in words.

use c1m_record::*;

pub(super) fn watching_line(watching: &Watching) -> String {
    let ports = match watching.ports.as_slice() {
        [] => "all".into(),
        ports => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
    };
    let netns = watching.netns.map_or("every one".into(), |inode| inode.to_string());
    let mut line = format!(
        "watching  ports={ports} netns={netns} connections={} every={}s",
        known(watching.connections),
        watching.interval_s
    );
    if let Some(pid) = watching.pid {
        line += &format!(" pid={pid} comm={}", watching.comm.as_deref().unwrap_or("unknown"));
    }
    if let Some(cgroup) = &watching.cgroup {
        line += &format!(" cgroup={cgroup}");
    }
    if let Some(command) = &watching.command {
        line += &format!(" command={}", command.join(" "));
    }
    if let Some(url) = &watching.metrics {
        line += &format!(" metrics={url}");
    }
    line + "  (times are UTC)"
}

pub(super) fn usage_line(usage: &Usage) -> String {
    let next = match &usage.next {
        Some(next) => format!("{} ({}){}", next.limit.name(), next.scope.name(), until(next.in_s)),
        None => "none in sight".into(),
    };
    format!(
        "usage  {}  {}  {}  next={next}",
        watched(&usage.watched),
        host(&usage.host),
        netns(&usage.netns)
    )
}

/// Totals, the own cost, and how it ended, which stands last.
pub(super) fn ended_lines(ended: &Ended, refused: Vec<String>) -> Vec<String> {
    let mut lines = vec![
        format!("summary  elapsed={:.1}s  {}", ended.elapsed_s, watched(&ended.watched)),
        format!(
            "now  {}  {}  pages_max={}",
            host(&ended.host),
            netns(&ended.netns),
            known(ended.tcp_mem_pages_max)
        ),
        pressure_line(&ended.host.pressure),
    ];
    lines.extend(refused);
    let percent =
        ended.own_cpu_percent.map_or("unknown".into(), |percent| format!("{percent:.1} %"));
    lines.push(format!(
        "cost  cpu user={:.2}s system={:.2}s, while watching {percent} of one core",
        ended.cpu_user_s, ended.cpu_system_s
    ));
    let mut events = format!("events  dropped={} suppressed={}", ended.dropped, ended.suppressed);
    if let Some(not_shown) = ended.not_shown.filter(|count| *count > 0) {
        events += &format!(" not_shown={not_shown}");
    }
    if ended.dropped > 0 {
        let by: Vec<String> = ended
            .dropped_by
            .iter()
            .map(|(name, count)| format!("{}={count}", name.replace(' ', "_")))
            .collect();
        events += &format!("  lost by {}", by.join(" "));
    }
    lines.push(events);
    lines.extend(crate::records::dropped_line(ended.lines_dropped));
    lines.push(ended_line(ended));
    lines
}

fn ended_line(ended: &Ended) -> String {
    let limit = ended.limit.map_or("none", LimitName::name);
    let mut line = format!("ended  limit={limit}");
    if let Some(command) = &ended.command {
        line += &match (command.code, command.signal) {
            (Some(code), _) => format!(" command=exit {code}"),
            (None, Some(signal)) => format!(" command=signal {signal}"),
            (None, None) => " command=unknown".into(),
        };
    }
    line
}

/// Time under memory pressure, with what is not known said.
pub(super) fn pressure_line(pressure: &UnderPressure) -> String {
    let ms = |ms: Option<f64>| ms.map_or("unknown".into(), |ms| format!("{ms:.0}ms"));
    let now = match pressure.now {
        Some(true) => format!("yes, for {}", ms(pressure.lasting_ms)),
        Some(false) => "no".into(),
        None => "unknown from here".into(),
    };
    format!("under pressure  now={now} total={} (host)", ms(pressure.total_ms))
}

fn watched(watched: &Watched) -> String {
    let rate = |rate: Option<f64>| rate.map_or("unknown".into(), |rate| format!("{rate:.0}/s"));
    format!(
        "connections={} opened={} ({}) closed={} ({})",
        known(watched.connections),
        known(watched.opened),
        rate(watched.opened_per_s),
        known(watched.closed),
        rate(watched.closed_per_s)
    )
}

fn host(host: &HostUsage) -> String {
    let limits = host.tcp_mem.map_or("unknown from here".into(), |[low, pressure, high]| {
        format!("{low}/{pressure}/{high}")
    });
    let mut text = format!(
        "host: pages={} of {limits} orphans={} sockets={}",
        known(host.tcp_mem_pages),
        known(host.orphans),
        known(host.sockets)
    );
    if host.pressure.now == Some(true) {
        let lasting = host.pressure.lasting_ms.map_or("unknown".into(), |ms| format!("{ms:.0}ms"));
        text += &format!(" under_pressure_for={lasting}");
    }
    text
}

fn netns(netns: &NetnsUsage) -> String {
    format!(
        "netns {}: inuse={} time_wait={}",
        known(netns.inode.map(u64::from)),
        known(netns.inuse),
        known(netns.time_wait)
    )
}

/// ` in 12s`, or nothing where no time is known.
pub fn until(seconds: Option<f64>) -> String {
    seconds.map_or(String::new(), |seconds| format!(" in {seconds:.0}s"))
}

pub fn known(value: Option<u64>) -> String {
    value.map_or("unknown".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

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
    fn what_is_not_seen_is_unknown_and_never_zero() {
        let lines = ended_lines(&ended(), Vec::new());
        assert_eq!(
            lines,
            [
                "summary  elapsed=2.0s  connections=unknown opened=4 (unknown) closed=1 (unknown)",
                "now  host: pages=unknown of unknown from here orphans=unknown sockets=unknown  netns 7: inuse=3 \
                 time_wait=unknown  pages_max=9",
                "under pressure  now=unknown from here total=unknown (host)",
                "cost  cpu user=0.01s system=0.02s, while watching 1.5 % of one core",
                "events  dropped=2 suppressed=0  lost by ring_buffer=2",
                "ended  limit=none",
            ]
        );
    }

    #[test]
    fn lines_that_are_missing_are_counted() {
        let lines = ended_lines(&Ended { lines_dropped: 12, ..ended() }, Vec::new());
        assert_eq!(lines[lines.len() - 2], "output  lines_dropped=12");
    }

    #[test]
    fn the_last_line_names_the_limit_and_the_commands_end() {
        let command = |code, signal| Some(CommandEnd { pid: 1, code, signal });
        let hit = Ended {
            limit: Some(LimitName::Nofile),
            confidence: Some(Confidence::Certain),
            command: command(Some(3), None),
            ..ended()
        };
        assert_eq!(ended_line(&hit), "ended  limit=nofile command=exit 3");
        let killed = Ended { command: command(None, Some(9)), ..ended() };
        assert_eq!(ended_line(&killed), "ended  limit=none command=signal 9");
    }

    #[test]
    fn pressure_says_how_long() {
        let lasting =
            UnderPressure { now: Some(true), lasting_ms: Some(1234.4), total_ms: Some(2000.0) };
        assert_eq!(
            pressure_line(&lasting),
            "under pressure  now=yes, for 1234ms total=2000ms (host)"
        );
        let over = UnderPressure { now: Some(false), lasting_ms: None, total_ms: None };
        assert_eq!(pressure_line(&over), "under pressure  now=no total=unknown (host)");
    }
}
