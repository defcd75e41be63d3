//! A watch from its first record to its last: interval, events, keys, signals and the command, on
//! one thread.

use std::{
    future::pending,
    os::fd::AsFd as _,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use c1m_host::{
    target::{Processes, Target},
    task,
};
use c1m_program::{exporter::Bound, writer::WriteError};
use c1m_record::{
    CommandEnd, Confidence, Ended, Hooks, LimitName, Record, Verdict, Warning, Watching,
};
use c1m_sys::{
    process::{cpu_seconds, page_bytes},
    readable::Readable,
    signal::{self, Shutdown},
};
use tokio::time::Instant;

use super::{
    EXIT_COMMAND, EXIT_LIMIT,
    child::Running,
    holding::{Found, Holding, shown, unknown},
    screen::Screen,
    sink::Sink,
};
use crate::{
    cli::watch::Watch,
    diagnose::{
        Diagnosis,
        measure::Measure,
        tracing::{Timed, Tracing},
    },
    output::view::Action,
    serve::Snapshot,
    ticks::{MIN_INTERVAL, at, tick, ticks},
};

/// Events may come in floods; more pictures a second nobody sees.
const PICTURES: Duration = Duration::from_millis(100);
/// What is handed on to the command besides what would end the watch.
const HANDED_ON: [i32; 3] = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGCONT];

/// Has to be there before any thread is started, the reader of keys included.
pub(super) fn signals(args: &Watch) -> anyhow::Result<Shutdown> {
    let with_command = [&HANDED_ON[..], &[libc::SIGCHLD]].concat();
    let others = if args.command().is_some() { &with_command[..] } else { &[] };
    Shutdown::with(others).context("cannot listen for signals")
}

/// What is watched, as a record.
pub(super) fn watching(
    args: &Watch,
    target: &Target,
    tracing: &Tracing,
    metrics: Option<&Bound>,
) -> Watching {
    let cgroup = match &target.processes {
        Processes::Cgroup(folder) => Some(folder.display().to_string()),
        Processes::None | Processes::Tree(_) => None,
    };
    Watching {
        ports: target.ports.clone(),
        netns: target.netns,
        pid: args.pid,
        comm: args.pid.and_then(task::comm),
        cgroup,
        command: args.command().map(<[String]>::to_vec),
        interval_s: args.interval.max(MIN_INTERVAL).as_secs_f64(),
        page_bytes: page_bytes().ok(),
        connections: tracing.all_connections().ok(),
        metrics: metrics.map(Bound::url),
    }
}

pub(super) struct Session<'a> {
    args: &'a Watch,
    tracing: Tracing,
    diagnosis: Diagnosis,
    measure: Measure,
    holding: Holding,
    sink: Sink,
    shutdown: Shutdown,
    signalled: Readable,
    drawn: Option<Instant>,
    /// A signal came before there was a command to get it.
    has_to_end: bool,
}

impl<'a> Session<'a> {
    pub(super) fn begin(
        args: &'a Watch,
        tracing: Tracing,
        diagnosis: Diagnosis,
        sink: Sink,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let signalled = Readable::new(shutdown.as_fd()).context("cannot wait for signals")?;
        let measure = Measure::begin();
        // Lines have the holders when a limit was crossed, the view and the metrics always.
        let is_wanted = sink.screen.is_some() || sink.metrics.is_some();
        let every = is_wanted.then_some(args.interval.max(MIN_INTERVAL));
        let holding = Holding::begin(every);
        Ok(Self {
            args,
            tracing,
            diagnosis,
            measure,
            holding,
            sink,
            shutdown,
            signalled,
            drawn: None,
            has_to_end: false,
        })
    }

    /// What stands at the beginning, and a first sample.
    pub(super) fn first(
        &mut self,
        hooks: Hooks,
        watching: Watching,
        main_process: Option<u32>,
    ) -> anyhow::Result<()> {
        self.sink.record(Record::Hooks(hooks))?;
        self.sink.record(Record::Watching(watching))?;
        if let Some(pid) = main_process {
            let text = format!(
                "only this process is watched, and those that it started: --pid {pid} watches the one that started it, with all of its workers"
            );
            self.sink.record(warning("worker", text))?;
        }
        if let Err(reason) = self.tracing.all_connections() {
            let text = format!("connections that were there before are not counted: {reason}");
            self.sink.record(warning("present", text))?;
        }
        self.sample()?;
        self.sink.record(Record::Limits(self.diagnosis.limits()))?;
        self.draw()
    }

    /// Whether a signal that ends the watch came while it began.
    pub(super) fn is_to_end(&mut self) -> anyhow::Result<bool> {
        let ends = signal::ends().context("cannot look for signals")?;
        while let Some(taken) = self.shutdown.take()? {
            self.has_to_end |= ends.contains(&taken.number);
        }
        Ok(self.has_to_end)
    }

    /// Until a key, a signal, the end of `--duration` or that of the command, or until the reader
    /// of standard output has closed it. The exit code.
    pub(super) async fn run(mut self, command: Option<Running>) -> anyhow::Result<u8> {
        let code = self.run_to_its_end(command).await;
        self.shutdown.end_at_once()?;
        // Also of a watch that failed: the page shows what was seen until then.
        let written = self.sink.write_page();
        let finished = self.sink.finish();
        let code = code?;
        written?;
        Ok(finished.map(|()| code)?)
    }

    async fn run_to_its_end(&mut self, mut command: Option<Running>) -> anyhow::Result<u8> {
        if command.is_some() {
            self.diagnosis.command_starts();
        }
        let held = self.hold(&mut command).await;
        if let Some(command) = &mut command {
            command.end().await.context("cannot end the command")?;
        }
        // The terminal first: what follows is to be read afterwards, an error as well.
        self.sink.close_view();
        // The terminal is as it was, and the command has ended: nothing is left behind.
        self.shutdown.end_at_once()?;
        held?;
        let how = command.as_ref().map(Running::how);
        let verdict = self.end(how.clone())?;
        if self.has_to_end {
            // The command was not started.
            return Ok(EXIT_COMMAND);
        }
        Ok(exit_code(&verdict, how.as_ref()))
    }

    async fn hold(&mut self, command: &mut Option<Running>) -> anyhow::Result<()> {
        if self.has_to_end {
            return Ok(());
        }
        let end = self.args.duration.and_then(|duration| Instant::now().checked_add(duration));
        let mut ticks = ticks(self.args.interval);
        let failed = self.sink.failed();
        loop {
            tokio::select! {
                () = at(end) => return Ok(()),
                () = tick(&mut ticks) => self.sample()?,
                ready = self.tracing.readable() => {
                    ready?;
                    let events = self.tracing.take()?;
                    self.events(events)?;
                    // What comes within a moment is drawn together, at the next sample at the latest.
                    if self.drawn.is_some_and(|drawn| drawn.elapsed() < PICTURES) {
                        continue;
                    }
                }
                () = failed.notified() => {
                    self.sink.check()?;
                    // Its reader has closed it. A command still runs to its end, and the exit code
                    // says what came of it.
                    if command.is_none() {
                        return Ok(());
                    }
                }
                found = self.holding.found() => self.found(found)?,
                action = action(&mut self.sink.screen) => {
                    if action == Action::End {
                        return Ok(());
                    }
                }
                ready = self.signalled.wait() => {
                    ready?;
                    if self.is_ended_by_signals(command)? {
                        return Ok(());
                    }
                }
            }
            self.draw()?;
        }
    }

    /// Takes the signals that have come: the command gets them, and without one they end the watch.
    fn is_ended_by_signals(&mut self, command: &mut Option<Running>) -> anyhow::Result<bool> {
        while let Some(signal) = self.shutdown.take()? {
            match command {
                None => return Ok(true),
                Some(command) if signal.number == libc::SIGCHLD => {
                    if command.has_ended()? {
                        return Ok(true);
                    }
                }
                // A terminal's signal goes to every process in the foreground, the command too.
                Some(_) if signal.by_kernel => {}
                Some(command) => command.signal(signal.number)?,
            }
        }
        Ok(false)
    }

    fn sample(&mut self) -> anyhow::Result<()> {
        if let Some(text) = self.tracing.recount_if_needed() {
            self.sink.record(Record::Warning(Warning { name: "recounted".into(), text }))?;
        }
        let sample = self.tracing.sample();
        let events = self.tracing.poll_with(sample)?;
        self.events(events)?;
        self.diagnosis.told_tcp_mem(sample.map(|sample| sample.tcp_mem));
        let verdict =
            self.diagnosis.tick(&self.snapshot(), Some(&self.tracing), self.args.interval);
        if let Some(verdict) = verdict {
            self.sink.record(Record::Verdict(verdict))?;
        }
        for warning in self.diagnosis.warnings() {
            self.sink.record(Record::Warning(warning))?;
        }
        let limits = self.diagnosis.limits();
        let (usage, has_changed) = self.measure.take(&self.tracing, sample, &limits);
        self.sink.sample(usage, has_changed, limits, self.tracing.last_refused())?;
        Ok(())
    }

    fn events(&mut self, events: Vec<Timed>) -> Result<(), WriteError> {
        events.iter().for_each(|(_, record)| self.holding.ask_after(record));
        self.sink.events(events)
    }

    /// Prints who holds the memory, if that was asked for; the view and the metrics have it in any
    /// case.
    fn found(&mut self, found: Found) -> Result<(), WriteError> {
        let (was_asked, holders) = match found {
            Found::Holders { was_asked, holders } => (was_asked, *holders),
            Found::Failed(text) => {
                if let Some(screen) = &mut self.sink.screen {
                    screen.view.holders = Some(unknown(&text));
                }
                if let Some(metrics) = &mut self.sink.metrics {
                    metrics.forget_holders();
                }
                return self.sink.record(warning("holders", text));
            }
            Found::Recovered { failures } => {
                let text = format!(
                    "who holds the memory is known again, after {failures} failed attempts"
                );
                return self.sink.record(warning("holders", text));
            }
        };
        if let Some(screen) = &mut self.sink.screen {
            screen.view.holders = Some(shown(&holders));
        }
        let record = Record::Holders(holders);
        if was_asked {
            return self.sink.record(record);
        }
        if let Some(metrics) = &mut self.sink.metrics {
            metrics.take(SystemTime::now(), &record);
        }
        Ok(())
    }

    /// As a server of our own would say it.
    fn snapshot(&self) -> Snapshot {
        Snapshot { held: self.tracing.connections(), ..Snapshot::default() }
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let Some(screen) = &mut self.sink.screen else { return Ok(()) };
        self.drawn = Some(Instant::now());
        screen.draw()
    }

    /// The last sample, limits, verdict and summary.
    fn end(&mut self, command: Option<CommandEnd>) -> anyhow::Result<Verdict> {
        self.sample()?;
        self.diagnosis.closing(&self.snapshot(), Some(&self.tracing));
        let verdict = self.diagnosis.end(&self.snapshot().errors, Some(&self.tracing));
        self.sink.conclude();
        self.sink.record(Record::Limits(self.diagnosis.limits()))?;
        self.sink.record(Record::Verdict(verdict.clone()))?;
        let (usage, elapsed_s) = self.measure.total(&self.tracing);
        let (cpu_user_s, cpu_system_s) = cpu_seconds().unwrap_or_default();
        let lost = self.tracing.lost();
        let root = root(&verdict);
        let ended = Ended {
            elapsed_s,
            watched: usage.watched,
            host: usage.host,
            netns: usage.netns,
            tcp_mem_pages_max: self.measure.pages_max(),
            refused: Box::new(self.tracing.refused()),
            dropped: lost.total(),
            dropped_by: lost.by(),
            suppressed: self.tracing.suppressed(),
            not_shown: Some(self.tracing.not_shown()),
            cpu_user_s,
            cpu_system_s,
            own_cpu_percent: usage.own_cpu_percent,
            limit: root.map(|(limit, _)| limit),
            confidence: root.map(|(_, confidence)| confidence),
            command,
            lines_dropped: self.sink.lines_dropped(),
        };
        self.sink.events(vec![(SystemTime::now(), Record::Ended(ended))])?;
        Ok(verdict)
    }
}

fn warning(name: &str, text: String) -> Record {
    Record::Warning(Warning { name: name.into(), text })
}

/// The limit that was hit: the first cause, unless others fit as well.
fn root(verdict: &Verdict) -> Option<(LimitName, Confidence)> {
    let first = verdict.causes.first()?;
    (first.confidence > Confidence::Possible).then_some((first.limit, first.confidence))
}

fn exit_code(verdict: &Verdict, command: Option<&CommandEnd>) -> u8 {
    match command {
        None => 0,
        Some(_) if root(verdict).is_some() => EXIT_LIMIT,
        Some(command) if command.code == Some(0) => 0,
        Some(_) => EXIT_COMMAND,
    }
}

async fn action(screen: &mut Option<Screen>) -> Action {
    match screen {
        Some(screen) => screen.action().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use c1m_record::{Cause, Scope, Tier};

    fn verdict(confidences: &[Confidence]) -> Verdict {
        let cause = |confidence: &Confidence| Cause {
            limit: LimitName::Nofile,
            scope: Scope::Process,
            confidence: *confidence,
            text: String::new(),
            evidence: Vec::new(),
            to_confirm: None,
            remedy: None,
        };
        Verdict {
            quiet: confidences.is_empty(),
            tier: Tier::Tracepoints,
            causes: confidences.iter().map(cause).collect(),
        }
    }

    #[test]
    fn the_exit_code_tells_a_limit_from_a_command_that_failed() {
        let ended = |code, signal| Some(CommandEnd { pid: 1, code, signal });
        let code = |confidences: &[Confidence], command: Option<CommandEnd>| {
            exit_code(&verdict(confidences), command.as_ref())
        };
        assert_eq!(code(&[], ended(Some(0), None)), 0);
        assert_eq!(code(&[], ended(Some(1), None)), EXIT_COMMAND);
        assert_eq!(code(&[], ended(None, Some(9))), EXIT_COMMAND);
        assert_eq!(code(&[Confidence::Certain], ended(Some(0), None)), EXIT_LIMIT);
        assert_eq!(code(&[Confidence::Likely], ended(Some(7), None)), EXIT_LIMIT);
        // Others fit as well: that is no answer.
        assert_eq!(code(&[Confidence::Possible], ended(Some(0), None)), 0);
        // A watch without a command has done what it is for.
        assert_eq!(code(&[Confidence::Certain], None), 0);
    }
}
