//! Records of the client as lines for people.

use std::{fmt::Write as _, time::SystemTime};

use c1m_text::{escape, records::verdict_lines, units::clock};

use crate::{
    record::{
        AcceptQueue, ClientRecord, EndedBy, Latency, Lost, Plan, Progress, Ramped, Requirement,
        Sample, Summary, Unit, Waiting,
    },
    summary::remedy,
};

/// A record as lines for people, each with the time.
#[must_use]
pub fn lines(now: SystemTime, record: &ClientRecord) -> String {
    let texts = match record {
        ClientRecord::Plan(plan) => plan_lines(plan),
        ClientRecord::Progress(Progress { established, answered, failed, rate_per_s }) => {
            vec![format!(
                "progress  established={established} answered={answered} failed={failed} rate={rate_per_s:.0}/s"
            )]
        }
        ClientRecord::Waiting(waiting) => vec![waiting_line(waiting)],
        ClientRecord::Lost(lost) => vec![lost_line(lost)],
        ClientRecord::Ramped(ramped) => ramped_lines(ramped),
        ClientRecord::Sample(sample) => sample_lines(sample).to_vec(),
        ClientRecord::Warning(warning) => {
            vec![format!("warning   {}: {}", warning.name, warning.text)]
        }
        ClientRecord::Verdict(verdict) => verdict_lines(verdict),
        ClientRecord::Summary(summary) => summary_lines(summary),
    };
    let clock = clock(now);
    texts
        .iter()
        .map(|text| format!("{clock}  {}", escape::line(text)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines = vec![format!(
        "plan      connections={} target={} capacity={} sources={} ports_per_source={} destinations={} workers={} in_flight={}",
        plan.connections,
        plan.target,
        plan.capacity,
        plan.sources,
        plan.ports_per_source,
        plan.destinations,
        plan.workers,
        plan.in_flight,
    )];
    if let Some(url) = &plan.metrics {
        lines.push(format!("metrics   {url}"));
    }
    if let Some(shard) = &plan.shard {
        lines.push(format!(
            "shard     {}/{} connections={} of {} from={}",
            shard.index, shard.of, plan.connections, shard.connections, shard.first_connection
        ));
    }
    if let Some(start_at) = &plan.asked.start_at {
        lines.push(format!("start     at={start_at}"));
    }
    if let Some(pin) = &plan.pin {
        lines.push(format!(
            "pin       bytes_per_connection={} overhead_bytes={} planned_pages={}",
            pin.bytes_per_connection, pin.overhead_bytes, pin.planned_pages
        ));
        lines.extend(pin.plan.iter().map(|step| {
            format!(
                "pin       pages={} connections={} response_bytes={}",
                step.pages, step.connections, step.response_bytes
            )
        }));
    }
    lines
}

fn waiting_line(waiting: &Waiting) -> String {
    let Waiting { unanswered_s, in_flight, left, accept_queue, give_up_s } = waiting;
    let mut line = format!("waiting   nothing answered for {unanswered_s:.1}s");
    if let (Some(in_flight), Some(left)) = (in_flight, left) {
        let _ = write!(line, " in_flight={in_flight} left={left}");
    }
    if let Some(AcceptQueue { listeners, full, queued, most }) = accept_queue {
        let _ = match full {
            0 => write!(line, " accept_queue={queued}/{most}"),
            _ => write!(
                line,
                ": the server's accept queue is full (queued={queued} backlog={most} full={full} of {listeners})"
            ),
        };
    }
    match unanswered_s >= give_up_s {
        true => line + ": giving up",
        false => line + &format!(", giving up after {give_up_s}s"),
    }
}

fn lost_line(Lost { connections, held, reasons }: &Lost) -> String {
    let reasons: Vec<String> =
        reasons.iter().map(|(name, count)| format!("{name}: {count}")).collect();
    format!("lost      connections={connections} held={held} ({})", reasons.join(", "))
}

/// Why the run ended, where that is not what it was told to do.
fn ended_line(summary: &Summary) -> Option<String> {
    let Summary { connected, lost, plan, .. } = summary;
    let why = match summary.ended_by {
        EndedBy::Hold | EndedBy::Signal => return None,
        EndedBy::NoneConnected => "no connection was established".into(),
        EndedBy::AllLost => format!(
            "every connection was lost: the peer or the network ended {lost} of {connected}"
        ),
        EndedBy::NoAnswer => format!("nothing answered for {}s (--give-up)", plan.asked.give_up_s),
        EndedBy::Failure => "a worker could not go on".into(),
    };
    Some(format!("ended     {why}"))
}

fn ramped_lines(ramped: &Ramped) -> Vec<String> {
    let mut lines = vec![
        format!(
            "ramped    established={} answered={} failed={} ramp={:.3}s rate={}",
            ramped.established,
            ramped.answered,
            ramped.failed,
            ramped.ramp_s,
            rate(ramped.rate_per_s)
        ),
        latency_line("connect", &ramped.connect_us),
        latency_line("first byte", &ramped.first_byte_us),
    ];
    if let Some(pin) = &ramped.pin {
        lines.push(format!(
            "pinned    planned_pages={} accounted_pages={} tolerance_pages={}",
            pin.planned_pages, pin.accounted_pages, pin.tolerance_pages
        ));
    }
    lines
}

/// Connections a second, if it is known.
fn rate(per_s: Option<f64>) -> String {
    per_s.map_or("-".into(), |per_s| format!("{per_s:.0}/s"))
}

fn summary_lines(summary: &Summary) -> Vec<String> {
    let mut lines = match &summary.merged {
        // Nobody has seen it yet.
        Some(merged) => {
            let mut lines = plan_lines(&summary.plan);
            lines.push(format!(
                "merged    shards={} started_apart={:.3}s",
                merged.shards, merged.started_apart_s
            ));
            lines
        }
        None => Vec::new(),
    };
    lines.push(format!(
        "summary   connected={} held_at_end={} lost={} answered={} failed={} rate={} elapsed={:.3}s cpu_user={:.3}s cpu_system={:.3}s",
        summary.connected,
        summary.held_at_end,
        summary.lost,
        summary.answered,
        summary.failed,
        rate(summary.rate_per_s),
        summary.elapsed_s,
        summary.cpu_user_s,
        summary.cpu_system_s,
    ));
    lines.extend(ended_line(summary));
    lines.push(latency_line("connect", &summary.connect_us));
    lines.push(latency_line("first byte", &summary.first_byte_us));
    if let Some(beats) = &summary.heartbeats {
        lines.push(format!(
            "heartbeat due={} answered={} late={} wrong={} missed={}",
            beats.due, beats.answered, beats.late, beats.wrong, beats.missed
        ));
        lines.push(latency_line("heartbeat", &beats.latency_us));
    }
    if let (Some(_), Some(sample)) = (&summary.merged, &summary.sample) {
        lines.extend(sample_lines(sample));
    }
    lines.extend(summary.errors.iter().map(|(name, count)| match remedy(name) {
        Some(remedy) => format!("error     {name}: {count} ({remedy})"),
        None => format!("error     {name}: {count}"),
    }));
    if summary.lines_dropped > 0 {
        lines.push(format!("output    lines_dropped={}", summary.lines_dropped));
    }
    lines.extend(summary.requirements.iter().map(requirement_line));
    lines
}

fn sample_lines(sample: &Sample) -> [String; 2] {
    let Sample { asked, answered, wrong, missed, took_s, latency_us } = sample;
    [
        format!(
            "sample    asked={asked} answered={answered} wrong={wrong} missed={missed} took={took_s:.3}s"
        ),
        latency_line("sample", latency_us),
    ]
}

fn requirement_line(requirement: &Requirement) -> String {
    let unit = match requirement.unit {
        Unit::Count => "",
        Unit::Percent => "%",
        Unit::Ns => "ns",
        Unit::Us => "us",
        Unit::Ms => "ms",
        Unit::S => "s",
    };
    let actual = match (requirement.actual, &requirement.unknown) {
        (Some(actual), _) => format!("{actual}{unit}"),
        (None, why) => format!("unknown: {}", why.as_deref().unwrap_or("not measured")),
    };
    let held = if requirement.held { "held" } else { "NOT HELD" };
    format!("require   {}: {held} ({actual})", requirement.require)
}

fn latency_line(name: &str, latency: &Latency) -> String {
    let Latency { count, unanswered, p50, p90, p99, p999, max } = latency;
    let points = [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max)];
    let points = points.map(|(name, us)| match us {
        Some(us) => format!("{name}={us}us"),
        None => format!("{name}=-"),
    });
    format!("latency   {name}: count={count} unanswered={unanswered} {}", points.join(" "))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{super::live_text, *};

    #[test]
    fn lines_begin_with_the_time() {
        let now = UNIX_EPOCH + Duration::from_millis(86_400_000 + 3_723_004);
        let sample = ClientRecord::Sample(crate::record::Sample {
            asked: 3,
            answered: 2,
            wrong: 0,
            missed: 1,
            took_s: 0.5,
            latency_us: Latency { count: 2, unanswered: 1, p50: Some(7), ..Latency::default() },
        });
        assert_eq!(
            lines(now, &sample),
            "01:02:03.004  sample    asked=3 answered=2 wrong=0 missed=1 took=0.500s\n\
             01:02:03.004  latency   sample: count=2 unanswered=1 p50=7us p90=- p99=- p99.9=- max=-"
        );
    }

    #[test]
    fn the_live_line_fits_a_terminal() {
        assert_eq!(
            live_text(250, 1000, Duration::from_secs(5)),
            "[#####---------------] 250/1000  50/s  5s gone, 15s to go"
        );
        assert!(live_text(0, 1000, Duration::ZERO).ends_with("0s gone, ? to go"));
        let last = live_text(10_000_000, 10_000_000, Duration::from_secs(1000));
        assert!(last.len() < 80, "{last}");
    }

    #[test]
    fn an_error_comes_with_the_knob_behind_it() {
        let summary = Summary {
            errors: [("socket ENFILE".into(), 2), ("status 404".into(), 1)].into(),
            ..crate::merge::tests::summary(3)
        };
        let lines = summary_lines(&summary).join("\n");
        assert!(lines.contains("socket ENFILE: 2 (descriptors of the host: fs.file-max)"));
        assert!(lines.ends_with("status 404: 1"));
    }

    #[test]
    fn a_requirement_comes_with_its_value_or_why_there_is_none() {
        let mut requirement = Requirement {
            require: "connect_p99<50ms".into(),
            metric: "connect_p99".into(),
            operator: "<".into(),
            threshold: 50.0,
            unit: Unit::Ms,
            actual: Some(62.5),
            unknown: None,
            held: false,
        };
        assert_eq!(requirement_line(&requirement), "require   connect_p99<50ms: NOT HELD (62.5ms)");
        (requirement.actual, requirement.unknown) = (None, Some("nothing came".into()));
        assert_eq!(
            requirement_line(&requirement),
            "require   connect_p99<50ms: NOT HELD (unknown: nothing came)"
        );
    }
}
