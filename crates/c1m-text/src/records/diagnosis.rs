//! Limits and verdicts in words.

use c1m_record::*;

/// For people only those that are half used or grow with connections: `--json` has them all.
pub(super) fn limits_lines(limits: &Limits) -> Vec<String> {
    let next = limits.next.map_or("none in sight", LimitName::name);
    let mut lines = vec![format!("limits  next={next}")];
    lines.extend(limits.limits.iter().filter(|reading| is_near(reading)).map(reading_line));
    lines
}

fn is_near(reading: &LimitReading) -> bool {
    let half =
        matches!((reading.used, reading.headroom), (Some(used @ 1..), Some(left)) if used >= left);
    half || reading.at_connection.is_some()
}

fn reading_line(reading: &LimitReading) -> String {
    let known = |value: Option<u64>| value.map_or("unknown".into(), |value| value.to_string());
    let mut line = format!(
        "limit  {}  used={} of {} {} ({})  source={}",
        reading.limit.name(),
        known(reading.used),
        known(reading.ceiling),
        reading.unit,
        reading.scope.name(),
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

/// A verdict, one line a cause and one for each thing that goes with it.
pub fn verdict_lines(verdict: &Verdict) -> Vec<String> {
    if verdict.quiet {
        return vec!["verdict  no limit was hit".into()];
    }
    verdict.causes.iter().enumerate().flat_map(|(index, cause)| cause_lines(index, cause)).collect()
}

fn cause_lines(index: usize, cause: &Cause) -> Vec<String> {
    let confidence = cause.confidence.name();
    let mut lines = vec![format!(
        "verdict  {}. {} ({confidence}, {}): {}",
        index + 1,
        cause.limit.name(),
        cause.scope.name(),
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
                    source: "tcp_check_oom".into(),
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
                "  seen  tcp_check_oom: 75 orphans of 50",
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
            in_s: at_connection.map(|_| 2.4),
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
                "limit  file_max  used=10 of 100 files (host)  source=x at_connection=91 in=2s",
                "limit  conntrack  used=60 of 100 files (host)  source=x",
            ]
        );
    }
}
