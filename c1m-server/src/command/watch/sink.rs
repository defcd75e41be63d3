//! Where the records of a watch go: to the view or to lines, and to a file.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    time::SystemTime,
};

use super::screen::Screen;
use crate::{
    cli::watch::Watch,
    command::{EnvironmentRefused, metrics::Metrics, page::Page, tracing::Timed},
    output::{
        lines::{Printer, clock},
        record::{Limits, Record, Refused, Usage},
    },
};

pub(super) struct Sink {
    lines: Option<Printer<Box<dyn Write>>>,
    file: Option<Printer<File>>,
    /// That of `--report`.
    page: Option<Page>,
    /// Those of `--metrics-addr`.
    pub(super) metrics: Option<Metrics>,
    pub(super) screen: Option<Screen>,
    /// What is printed once the view is gone: for who reads the terminal afterwards.
    json: bool,
}

impl Sink {
    /// # Errors
    /// The file of `--output` or `--report` can't be written, or the terminal not be taken.
    pub(super) fn new(args: &Watch, metrics: Option<Metrics>) -> anyhow::Result<Self> {
        let file = match &args.output {
            None => None,
            Some(path) => Some(Printer::new(
                File::create(path).map_err(|error| {
                    EnvironmentRefused(format!(
                        "cannot write {} ({error}): choose another --output",
                        path.display()
                    ))
                })?,
                true,
            )),
        };
        let page = args.report.as_deref().map(Page::open).transpose()?;
        let printer = |out: Box<dyn Write>| Some(Printer::new(out, args.json));
        let mut sink = Self { lines: None, file, page, metrics, screen: None, json: args.json };
        // The command has the standard streams for itself.
        if args.command().is_some() {
            if sink.file.is_none() {
                sink.lines = printer(Box::new(io::stderr()));
            }
        } else if wants_view(args) {
            sink.screen = Some(Screen::open()?);
        } else {
            sink.lines = printer(Box::new(io::stdout()));
        }
        Ok(sink)
    }

    pub(super) fn record(&mut self, record: Record) -> io::Result<()> {
        self.timed((SystemTime::now(), record))
    }

    pub(super) fn events(&mut self, events: Vec<Timed>) -> io::Result<()> {
        events.into_iter().try_for_each(|event| self.timed(event))
    }

    fn timed(&mut self, (time, record): Timed) -> io::Result<()> {
        if let Some(screen) = &mut self.screen {
            screen.view.take(&clock(time), &record);
        }
        if let Some(page) = &mut self.page {
            page.take(time, &record);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.take(time, &record);
        }
        if let Some(file) = &mut self.file {
            file.print(time, record.clone())?;
        }
        match &mut self.lines {
            Some(lines) => lines.print(time, record),
            None => Ok(()),
        }
    }

    /// Writes the page of all that was told.
    pub(super) fn write_page(&mut self) -> Result<(), EnvironmentRefused> {
        self.page.as_mut().map_or(Ok(()), Page::write)
    }

    /// A look: lines have it when a number has changed, the view and the metrics always.
    pub(super) fn look(
        &mut self,
        usage: Usage,
        has_changed: bool,
        limits: Limits,
        refused: &Refused,
    ) -> io::Result<()> {
        let usage = Record::Usage(usage);
        if let Some(metrics) = &mut self.metrics {
            let records = [Record::Limits(limits.clone()), Record::Refused(refused.clone())];
            metrics.look(records.iter().chain([&usage]));
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
        if self.screen.take().is_some() {
            self.lines = Some(Printer::new(Box::new(io::stdout()), self.json));
        }
    }
}

fn wants_view(args: &Watch) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !args.no_tui && !args.json && !is_set("NO_COLOR") && !is_dumb && io::stdout().is_terminal()
}
