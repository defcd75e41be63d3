//! Facts on standard output, as lines for people or JSON lines; progress on standard error.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use c1m_server::{
    command::streams,
    output::{
        diagnosis::verdict_lines,
        escape,
        lines::STDOUT,
        record::Line,
        writer::{Patience, Rank, WriteError, Writer},
    },
    sys::stream::Stream,
};

use crate::{
    record::{
        AcceptQueue, ClientRecord, EndedBy, Latency, Lost, Plan, Progress, Ramped, Requirement,
        Sample, Summary, Unit, Waiting,
    },
    summary::remedy,
};

/// Back to the beginning of the line, which is emptied: ECMA-48, EL.
const CLEAR: &str = "\r\x1b[2K";
/// Of the bar, in columns.
const BAR: usize = 20;

/// Where records and progress go. Threads of their own write them, so nobody who does not read holds up a run.
pub struct Show {
    json: bool,
    quiet: bool,
    out: Arc<Writer>,
    /// Progress for people, and the live line: standard error, unless both streams are terminals. Then one thread writes both, in order.
    progress: Option<Arc<Writer>>,
    /// Only on a terminal.
    live: Option<Live>,
}

impl Show {
    /// `connections`: the end of the live line.
    ///
    /// # Errors
    /// There is no thread to write.
    pub fn new(json: bool, quiet: bool, connections: u64) -> Result<Self, WriteError> {
        let out = Arc::new(streams::stdout(json, || Ok(()))?);
        let wants_progress = !json && !quiet;
        let is_live = wants_progress && io::stderr().is_terminal();
        let progress = match wants_progress {
            true if is_live && io::stdout().is_terminal() => Some(out.clone()),
            true => Some(Arc::new(streams::stderr(json)?)),
            false => None,
        };
        let live = is_live.then(|| Live::new(connections));
        Ok(Self { json, quiet, out, progress, live })
    }

    /// Hands a record over, whole.
    ///
    /// # Errors
    /// The one that has ended standard output.
    pub fn record(&self, record: &ClientRecord) -> Result<(), WriteError> {
        let text = text(self.json, record)?;
        let rank = match record {
            ClientRecord::Verdict(_) | ClientRecord::Summary(_) => Rank::Last,
            _ => Rank::Ordinary,
        };
        self.clear();
        self.out.print(text, rank)
    }

    /// Moves the live line. `tried`: connections that were established or given up.
    pub fn live(&self, tried: u64) {
        if let (Some(live), Some(to)) = (&self.live, &self.progress)
            && to.is_idle()
        {
            // A live line that can't be written is no reason to stop.
            let _ = to.raw(live.line(tried).into_bytes());
        }
    }

    /// Prints progress where there is no live line.
    ///
    /// # Errors
    /// The one that has ended standard output.
    pub fn progress(&self, progress: &Progress) -> Result<(), WriteError> {
        if self.quiet || self.live.is_some() {
            return Ok(());
        }
        let record = ClientRecord::Progress(progress.clone());
        match &self.progress {
            // For people progress is no fact, and it must not stop the run.
            Some(to) => drop(to.print(text(self.json, &record)?, Rank::Ordinary)),
            None => self.record(&record)?,
        }
        Ok(())
    }

    /// Takes the live line away.
    pub fn ramp_over(&mut self) {
        self.clear();
        self.live = None;
    }

    fn clear(&self) {
        if let (Some(_), Some(to)) = (&self.live, &self.progress) {
            let _ = to.raw(CLEAR.into());
        }
    }

    /// # Errors
    /// The one that has ended standard output.
    pub fn check(&self) -> Result<(), WriteError> {
        self.out.check()
    }

    /// Calls `told` when an error ends standard output.
    pub fn on_failure(&self, told: impl FnOnce() + Send + 'static) {
        self.out.on_failure(told);
    }

    /// Lines that were dropped so far because nobody read them.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        self.out.missing()
    }

    /// Waits until all is written, in bounded time.
    ///
    /// # Errors
    /// As of [`Writer::finish`], for standard output.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.ramp_over();
        let finished = self.out.finish(Patience::END);
        if let Some(progress) = self.progress.take().filter(|it| !Arc::ptr_eq(it, &self.out)) {
            // It is no fact.
            let _ = progress.finish(Patience::WORD);
        }
        finished
    }
}

/// Prints the one record of a command that answers once, and waits for as long as it takes.
///
/// # Errors
/// Those of standard output.
pub fn once(json: bool, record: &ClientRecord) -> Result<(), WriteError> {
    let text = text(json, record)?;
    let print = || Stream::stdout()?.write_all(text.as_bytes());
    print().map_err(|error| WriteError::refused(STDOUT, error))
}

/// Whole lines.
fn text(json: bool, record: &ClientRecord) -> Result<String, WriteError> {
    let now = SystemTime::now();
    let text = match json {
        true => serde_json::to_string(&Line::at(now, record))
            .map_err(|error| WriteError::refused(STDOUT, error.into()))?,
        false => lines(now, record),
    };
    Ok(text + "\n")
}

/// The line of a terminal that shows how far the ramp is.
struct Live {
    start: Instant,
    connections: u64,
}

impl Live {
    fn new(connections: u64) -> Self {
        Self { start: Instant::now(), connections }
    }

    fn line(&self, tried: u64) -> String {
        CLEAR.to_owned() + &live_text(tried, self.connections, self.start.elapsed())
    }
}

fn live_text(tried: u64, connections: u64, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let (tried_f, all_f) = (tried as f64, connections as f64);
    let rate = tried_f / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let to_go = match Duration::try_from_secs_f64((all_f - tried_f).max(0.0) / rate) {
        Ok(time) => format!("{}s", time.as_secs()),
        // Nothing was tried yet.
        Err(_) => "?".into(),
    };
    let full = usize::try_from(tried.min(connections) * BAR as u64 / connections.max(1));
    let bar = "#".repeat(full.unwrap_or(BAR));
    format!(
        "[{bar:-<BAR$}] {tried}/{connections}  {rate:.0}/s  {}s gone, {to_go} to go",
        elapsed.as_secs()
    )
}

/// `HH:MM:SS.mmm`, UTC.
fn clock(now: SystemTime) -> String {
    humantime::format_rfc3339_millis(now).to_string().chars().skip(11).take(12).collect()
}

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
    use std::time::UNIX_EPOCH;

    use super::*;

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
