//! Where the records of a watch go: to the view or to lines, and to a file.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use c1m_program::{
    EnvironmentRefused,
    lines::Lines,
    streams,
    writer::{WriteError, Writer},
};
use c1m_record::{Limits, Record, Refused, Usage, Warning};
use c1m_report::file::Page;
use c1m_text::units::clock;
use tokio::sync::Notify;

use super::screen::Screen;
use crate::{cli::watch::Watch, diagnose::tracing::Timed, metrics::Metrics};

/// The files of a watch.
pub(super) struct Files {
    /// That of `--output`.
    lines: Option<FileLines>,
    /// That of `--report`.
    page: Option<Page>,
}

struct FileLines {
    path: PathBuf,
    lines: Lines,
}

impl Files {
    /// A pipe may be waited for without end: open them while a signal still ends this.
    ///
    /// # Errors
    /// One of them can't be written.
    pub(super) fn open(args: &Watch) -> anyhow::Result<Self> {
        let open = |path: &PathBuf| {
            let lines = streams::file(path).map_err(|error| {
                let why = format!("{:#}", anyhow::Error::from(error));
                EnvironmentRefused(format!("{why}: choose another --output"))
            })?;
            anyhow::Ok(FileLines { path: path.clone(), lines: Lines::new(Arc::new(lines), true) })
        };
        let lines = args.output.as_ref().map(open).transpose()?;
        let page = args.report.as_deref().map(Page::open).transpose()?;
        Ok(Self { lines, page })
    }
}

pub(super) struct Sink {
    /// Standard output, or standard error beside a command.
    lines: Option<Lines>,
    /// Such as beside a command whose facts go to a file: lines have warnings of the output itself alone.
    is_quiet: bool,
    /// Standard output, while the view has it.
    terminal: Option<Arc<Writer>>,
    file: Option<FileLines>,
    page: Option<Page>,
    /// Those of `--metrics-addr`.
    pub(super) metrics: Option<Metrics>,
    pub(super) screen: Option<Screen>,
    /// What is printed once the view is gone: for who reads the terminal afterwards.
    json: bool,
    /// An error has ended the stream of the lines or of the view.
    failed: Arc<Notify>,
}

impl Sink {
    /// # Errors
    /// There is no thread to write, or the terminal can't be taken.
    pub(super) fn new(
        args: &Watch,
        files: Files,
        metrics: Option<Metrics>,
    ) -> anyhow::Result<Self> {
        let has_command = args.command().is_some();
        // The command has the standard streams for itself.
        let writer = match has_command {
            true => streams::stderr(args.json),
            false => streams::stdout(args.json, || Ok(())),
        }?;
        let writer = Arc::new(writer);
        let failed = Arc::new(Notify::new());
        let is_quiet = has_command && files.lines.is_some();
        let mut sink = Self {
            lines: None,
            is_quiet,
            terminal: None,
            file: files.lines,
            page: files.page,
            metrics,
            screen: None,
            json: args.json,
            failed: failed.clone(),
        };
        if !is_quiet {
            writer.on_failure(move || failed.notify_one());
        }
        if !has_command && wants_view(args) {
            sink.screen = Some(Screen::open(writer.clone())?);
            sink.terminal = Some(writer);
        } else {
            sink.lines = Some(Lines::new(writer, args.json));
        }
        Ok(sink)
    }

    pub(super) fn record(&mut self, record: Record) -> Result<(), WriteError> {
        self.timed((SystemTime::now(), record))
    }

    pub(super) fn events(&mut self, events: Vec<Timed>) -> Result<(), WriteError> {
        events.into_iter().try_for_each(|event| self.timed(event))
    }

    fn timed(&mut self, (time, record): Timed) -> Result<(), WriteError> {
        if let Some(file) = &self.file {
            file.lines.print(time, &record)?;
        }
        self.show(time, &record)?;
        match &self.lines {
            Some(lines) if !self.is_quiet => lines.print(time, &record),
            _ => Ok(()),
        }
    }

    fn show(&mut self, time: SystemTime, record: &Record) -> Result<(), WriteError> {
        if let Some(screen) = &mut self.screen {
            screen.view.take(&clock(time), record);
        }
        if let Some(page) = &mut self.page {
            page.take(time, record);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.take(time, record);
        }
        Ok(())
    }

    /// Says that the file can't be written, and that it can again. The file says it by itself.
    fn tell_changes(&mut self) -> Result<(), WriteError> {
        let Some(file) = &self.file else { return Ok(()) };
        let name = file.path.display().to_string();
        let changes = file.lines.writer().changes();
        let texts: Vec<String> = changes.iter().map(|change| change.text(&name)).collect();
        for text in texts {
            let (time, name) = (SystemTime::now(), "output".into());
            let warning = Record::Warning(Warning { name, text });
            self.show(time, &warning)?;
            match &self.lines {
                // It is said beside a command; the file is what counts.
                Some(lines) if self.is_quiet => drop(lines.print(time, &warning)),
                Some(lines) => lines.print(time, &warning)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Is notified when an error, or their reader, has ended the lines or the view.
    pub(super) fn failed(&self) -> Arc<Notify> {
        self.failed.clone()
    }

    /// # Errors
    /// The one that has ended the lines or the view.
    pub(super) fn check(&self) -> Result<(), WriteError> {
        self.writer().map_or(Ok(()), Writer::check)
    }

    fn writer(&self) -> Option<&Writer> {
        self.terminal.as_deref().or(self.lines.as_ref().map(Lines::writer))
    }

    /// Lines of both streams that are missing.
    pub(super) fn lines_dropped(&self) -> u64 {
        let file = self.file.as_ref().map(|file| file.lines.writer());
        [self.writer(), file].into_iter().flatten().map(Writer::missing).sum()
    }

    /// What comes from here on are the last lines.
    pub(super) fn conclude(&mut self) {
        let file = self.file.as_mut().map(|file| &mut file.lines);
        [self.lines.as_mut(), file].into_iter().flatten().for_each(Lines::conclude);
    }

    /// Waits until all is written, in bounded time.
    pub(super) fn finish(&mut self) -> Result<(), WriteError> {
        let file = self.file.as_ref().map_or(Ok(()), |file| file.lines.finish());
        let told = self.tell_changes();
        let lines = self.lines.as_ref().map_or(Ok(()), Lines::finish);
        file?;
        if self.is_quiet {
            return Ok(());
        }
        told.and(lines)
    }

    /// Writes the page of all that was told.
    pub(super) fn write_page(&mut self) -> Result<(), EnvironmentRefused> {
        self.page.as_mut().map_or(Ok(()), Page::write)
    }

    /// A sample: lines have it when a number has changed, the view and the metrics always.
    pub(super) fn sample(
        &mut self,
        usage: Usage,
        has_changed: bool,
        limits: Limits,
        refused: &Refused,
    ) -> Result<(), WriteError> {
        self.tell_changes()?;
        let usage = Record::Usage(usage);
        if let Some(metrics) = &mut self.metrics {
            let records = [Record::Limits(limits.clone()), Record::Refused(refused.clone())];
            metrics.sample(records.iter().chain([&usage]));
        }
        if let Some(screen) = &mut self.screen {
            screen.view.take_limits(limits);
            if !has_changed {
                screen.view.take("", &usage);
            }
        }
        if has_changed { self.record(usage) } else { Ok(()) }
    }

    /// The view is over, and what follows is printed to where it was.
    pub(super) fn close_view(&mut self) {
        self.screen = None;
        if let Some(writer) = self.terminal.take() {
            self.lines = Some(Lines::new(writer, self.json));
        }
    }
}

fn wants_view(args: &Watch) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !args.no_tui && !args.json && !is_set("NO_COLOR") && !is_dumb && io::stdout().is_terminal()
}
