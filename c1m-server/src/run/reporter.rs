//! What a running server tells: when it listens, once an interval, when something is wrong, and at the end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use c1m_host::{files, process, sockstat};
use c1m_preflight::plan::Plan;
use c1m_probe::lost::Lost;
use c1m_program::{EnvironmentRefused, lines::Lines, streams, writer::WriteError};
use c1m_record::{Hooks, Limits, Listening, Online, Record, Summary, Verdict, Warning};
use c1m_report::file::Page;
use c1m_sys::process::{cpu_seconds, drop_capabilities, page_bytes};
use tokio::sync::Notify;

use crate::{
    cli::Serve,
    diagnose::{
        measure::Measure,
        tracing::{Timed, Tracing},
    },
    metrics::Metrics,
    serve::{Notice, Snapshot},
};

pub(super) struct Reporter {
    lines: Lines,
    /// An error has ended standard output, or its reader.
    failed: Arc<Notify>,
    /// That of `--report`.
    page: Option<Page>,
    /// Those of `--metrics-addr`, with what they need to be measured.
    metrics: Option<(Metrics, Measure)>,
    interval: Duration,
    quiet: bool,
    start: Instant,
    last: Last,
    /// PSS beside the highest number held for which it was read.
    at_peak: Option<Peak>,
    /// When each warning was last printed.
    warned: BTreeMap<String, Instant>,
}

/// The last `online` line.
struct Last {
    time: Instant,
    online: u64,
    accepted: u64,
}

#[derive(Clone, Copy)]
struct Peak {
    held: u64,
    pss_bytes: u64,
}

impl Peak {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a quotient for people, of numbers far below 2^52"
    )]
    fn bytes_per_connection(self) -> Option<f64> {
        (self.held > 0).then(|| self.pss_bytes as f64 / self.held as f64)
    }
}

impl Reporter {
    /// # Errors
    /// The thread that writes can't be had.
    pub(super) fn new(
        cli: &Serve,
        page: Option<Page>,
        metrics: Option<Metrics>,
    ) -> Result<Self, WriteError> {
        // Of a traced server no thread keeps a capability.
        let writer = streams::stdout(cli.json, drop_capabilities)?;
        let failed = Arc::new(Notify::new());
        let failure = failed.clone();
        writer.on_failure(move || failure.notify_one());
        let start = Instant::now();
        Ok(Self {
            lines: Lines::new(Arc::new(writer), cli.json),
            failed,
            page,
            metrics: metrics.map(|metrics| (metrics, Measure::begin())),
            interval: cli.interval,
            quiet: cli.quiet,
            start,
            last: Last { time: start, online: 0, accepted: 0 },
            at_peak: None,
            warned: BTreeMap::new(),
        })
    }

    pub(super) fn hooks(&mut self, hooks: Hooks) -> Result<(), WriteError> {
        self.print(Record::Hooks(hooks))
    }

    /// Until an error has ended standard output, which it returns, or its reader.
    pub(super) async fn failed(&self) -> Result<(), WriteError> {
        self.failed.notified().await;
        self.lines.writer().check()
    }

    /// What comes from here on are the last lines.
    pub(super) fn conclude(&mut self) {
        self.lines.conclude();
    }

    /// Waits until all is written, in bounded time.
    pub(super) fn finish(&self) -> Result<(), WriteError> {
        self.lines.finish()
    }

    /// What tracing has to tell, each with the time at which it happened.
    pub(super) fn events(&mut self, events: Vec<Timed>) -> Result<(), WriteError> {
        events.into_iter().try_for_each(|(time, record)| self.print_at(time, record))
    }

    pub(super) fn listening(
        &mut self,
        cli: &Serve,
        plan: &Plan,
        address: SocketAddr,
        metrics: Option<String>,
    ) -> Result<(), WriteError> {
        self.print(Record::Listening(Listening {
            address: address.to_string(),
            workers: plan.workers,
            capacity: plan.capacity(),
            max_connections: cli.max_connections,
            backlog: plan.backlog,
            pid: std::process::id(),
            page_bytes: page_bytes().ok(),
            metrics,
        }))?;
        match files::somaxconn() {
            Some(somaxconn) if cli.backlog > somaxconn => self.warn(
                "somaxconn",
                &format!(
                    "the kernel cuts --backlog {} to {somaxconn}: raise net.core.somaxconn",
                    cli.backlog
                ),
            ),
            _ => Ok(()),
        }
    }

    /// The interval is over: says how many are online, when that has changed.
    pub(super) fn online(
        &mut self,
        now: &Snapshot,
        tracing: Option<&Tracing>,
    ) -> Result<(), WriteError> {
        if now.held == self.last.online {
            return Ok(());
        }
        let time = Instant::now();
        let accepted = now.accepted - self.last.accepted;
        let pss_bytes = self.look_at_memory(now.held).and_then(|memory| memory.pss_bytes);
        let record = Online {
            online: now.held,
            accepted: now.accepted,
            closed: now.closed,
            accepted_per_s: rate(accepted, time - self.last.time),
            pss_bytes,
            tcp_mem_pages: sockstat::sockstat().ok().map(|sockets| sockets.tcp_mem_pages),
            connections: tracing.map(Tracing::connections),
            dropped: tracing.map(|tracing| tracing.lost().total()),
        };
        self.last = Last { time, online: now.held, accepted: now.accepted };
        let (time, record) = (SystemTime::now(), Record::Online(record));
        if self.quiet {
            self.keep(time, &record);
            return Ok(());
        }
        self.print_at(time, record)
    }

    /// A look for those who scrape, which no line has.
    pub(super) fn sample(&mut self, now: &Snapshot, limits: Limits, tracing: Option<&Tracing>) {
        if self.metrics.is_none() {
            return;
        }
        let mut records = vec![Record::Summary(self.summary(now))];
        let Some((metrics, measure)) = &mut self.metrics else { return };
        if let Some(tracing) = tracing {
            let (mut usage, _) = measure.take(tracing, tracing.sample(), &limits);
            // There were none before the port was bound.
            usage.watched.connections = Some(tracing.connections());
            records.extend([Record::Usage(usage), Record::Refused(tracing.last_refused().clone())]);
        }
        records.push(Record::Limits(limits));
        metrics.sample(&records);
    }

    /// Each name once an interval at most; the summary has the counts.
    pub(super) fn notices(&mut self, notices: Vec<Notice>) -> Result<(), WriteError> {
        notices.iter().try_for_each(|notice| self.warn(notice.name, &notice.text))
    }

    pub(super) fn limits(&mut self, limits: Limits) -> Result<(), WriteError> {
        self.print(Record::Limits(limits))
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) -> Result<(), WriteError> {
        self.print(Record::Verdict(verdict))
    }

    /// What is true now, and is printed at the end.
    pub(super) fn summary(&mut self, now: &Snapshot) -> Summary {
        let memory = self.look_at_memory(now.held);
        let (cpu_user_s, cpu_system_s) = cpu_seconds().unwrap_or_default();
        Summary {
            held: now.held,
            peak: now.peak,
            accepted: now.accepted,
            closed: now.closed,
            requests: Some(now.requests),
            errors: now.errors.clone(),
            rss_bytes: memory.map(|memory| memory.rss_bytes),
            pss_bytes: self.at_peak.map(|peak| peak.pss_bytes),
            user_bytes_per_connection: self.at_peak.and_then(Peak::bytes_per_connection),
            cpu_user_s,
            cpu_system_s,
            elapsed_s: self.start.elapsed().as_secs_f64(),
            sockstat: sockstat::sockstat().ok(),
            file_nr: files::file_nr().ok(),
            refused: None,
            dropped: None,
            dropped_by: BTreeMap::new(),
            suppressed: None,
            not_shown: None,
            lines_dropped: self.lines.writer().missing(),
        }
    }

    /// Tracing is asked as late as can be: closing adds to it.
    pub(super) fn print_summary(
        &mut self,
        mut summary: Summary,
        tracing: Option<&Tracing>,
    ) -> Result<(), WriteError> {
        summary.refused = tracing.map(|tracing| Box::new(tracing.refused()));
        let lost = tracing.map(Tracing::lost);
        summary.dropped = lost.as_ref().map(Lost::total);
        summary.dropped_by = lost.map(|lost| lost.by()).unwrap_or_default();
        summary.suppressed = tracing.map(Tracing::suppressed);
        summary.not_shown = tracing.map(Tracing::not_shown);
        summary.lines_dropped = self.lines.writer().missing();
        self.print(Record::Summary(summary))
    }

    pub(super) fn warn(&mut self, name: &str, text: &str) -> Result<(), WriteError> {
        let now = Instant::now();
        let recent = self.warned.get(name).is_some_and(|last| now - *last < self.interval);
        if recent {
            return Ok(());
        }
        self.warned.insert(name.into(), now);
        self.print(Record::Warning(Warning { name: name.into(), text: text.into() }))
    }

    fn look_at_memory(&mut self, held: u64) -> Option<process::Memory> {
        let memory = process::memory().ok()?;
        if let Some(pss_bytes) = memory.pss_bytes
            && self.at_peak.is_none_or(|peak| held >= peak.held)
        {
            self.at_peak = Some(Peak { held, pss_bytes });
        }
        Some(memory)
    }

    fn print(&mut self, record: Record) -> Result<(), WriteError> {
        self.print_at(SystemTime::now(), record)
    }

    fn print_at(&mut self, time: SystemTime, record: Record) -> Result<(), WriteError> {
        self.keep(time, &record);
        self.lines.print(time, &record)
    }

    fn keep(&mut self, time: SystemTime, record: &Record) {
        if let Some(page) = &mut self.page {
            page.take(time, record);
        }
        if let Some((metrics, _)) = &mut self.metrics {
            metrics.take(time, record);
        }
    }

    /// Writes the page of all records, the end of it or not.
    pub(super) fn write_page(&mut self) -> Result<(), EnvironmentRefused> {
        self.page.as_mut().map_or(Ok(()), Page::write)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people, of numbers far below 2^52")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}
