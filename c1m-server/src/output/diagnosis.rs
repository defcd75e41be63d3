//! Limits and verdicts in words.

use super::record::*;

pub(super) fn limits_lines(limits: &Limits) -> Vec<String> {
    let next = limits.next.map_or("none in sight", name);
    let mut lines = vec![format!("limits  next={next}")];
    lines.extend(limits.limits.iter().map(reading_line));
    lines
}

fn reading_line(reading: &LimitReading) -> String {
    let known = |value: Option<u64>| value.map_or("unknown".into(), |value| value.to_string());
    let mut line = format!(
        "limit  {}  used={} of {} {} ({})  source={}",
        name(reading.limit),
        known(reading.used),
        known(reading.ceiling),
        reading.unit,
        scope(reading.scope),
        reading.source
    );
    if let Some(connection) = reading.at_connection {
        line += &format!(" at_connection={connection}");
    }
    if let Some(seconds) = reading.in_s {
        line += &format!(" in={seconds:.0}s");
    }
    line
}

pub(super) fn verdict_lines(verdict: &Verdict) -> Vec<String> {
    if verdict.quiet {
        return vec!["verdict  no limit was hit".into()];
    }
    verdict.causes.iter().enumerate().flat_map(|(index, cause)| cause_lines(index, cause)).collect()
}

fn cause_lines(index: usize, cause: &Cause) -> Vec<String> {
    let confidence = match cause.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    };
    let mut lines = vec![format!(
        "verdict  {}. {} ({confidence}, {}): {}",
        index + 1,
        name(cause.limit),
        scope(cause.scope),
        cause.text
    )];
    for evidence in &cause.evidence {
        let limit = evidence.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        lines.push(format!(
            "  seen  {}: {} {}{limit}",
            evidence.source, evidence.value, evidence.what
        ));
    }
    lines.extend(cause.settle.iter().map(|text| format!("  to be sure  {text}")));
    lines.extend(cause.advice.iter().map(|text| format!("  remedy  {text}")));
    lines
}

/// As in JSON.
fn name(limit: LimitName) -> &'static str {
    match limit {
        LimitName::TcpMemPressure => "tcp_mem_pressure",
        LimitName::TcpMemHigh => "tcp_mem_high",
        LimitName::MemoryCgroup => "memory_cgroup",
        LimitName::ReceiveBuffer => "receive_buffer",
        LimitName::SendBuffer => "send_buffer",
        LimitName::Orphans => "orphans",
        LimitName::OrphanMemory => "orphan_memory",
        LimitName::Nofile => "nofile",
        LimitName::NrOpen => "nr_open",
        LimitName::FileMax => "file_max",
        LimitName::AcceptQueue => "accept_queue",
        LimitName::SynQueue => "syn_queue",
        LimitName::Ports => "ports",
        LimitName::Conntrack => "conntrack",
        LimitName::EpollWatches => "epoll_watches",
        LimitName::TimeWait => "time_wait",
        LimitName::Memory => "memory",
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Host => "host",
        Scope::Netns => "netns",
        Scope::Cgroup => "cgroup",
        Scope::User => "user",
        Scope::Process => "process",
        Scope::Listener => "listener",
        Scope::Socket => "socket",
        Scope::Tuple => "tuple",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_what_was_seen_and_what_to_do() {
        let verdict = Verdict {
            quiet: false,
            tier: Tier::Functions,
            causes: vec![Cause {
                limit: LimitName::Orphans,
                scope: Scope::Host,
                confidence: Confidence::Certain,
                text: "125 orphans were reset because there were too many".into(),
                evidence: vec![Evidence {
                    source: "fexit/tcp_check_oom".into(),
                    what: "orphans".into(),
                    value: 75,
                    limit: Some(50),
                }],
                settle: None,
                advice: Some("raise net.ipv4.tcp_max_orphans above 75".into()),
            }],
        };
        assert_eq!(
            verdict_lines(&verdict),
            [
                "verdict  1. orphans (certain, host): 125 orphans were reset because there were too many",
                "  seen  fexit/tcp_check_oom: 75 orphans of 50",
                "  remedy  raise net.ipv4.tcp_max_orphans above 75",
            ]
        );
    }

    #[test]
    fn names_are_those_of_the_json() {
        for limit in [LimitName::TcpMemHigh, LimitName::EpollWatches, LimitName::FileMax] {
            assert_eq!(serde_json::to_value(limit).unwrap(), name(limit));
        }
        assert_eq!(serde_json::to_value(Scope::Netns).unwrap(), scope(Scope::Netns));
    }
}
