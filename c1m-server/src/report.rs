//! Makes a page out of JSON lines. Asks nothing of the kernel.

use std::{
    fs::File,
    io::{self, BufReader, Write as _},
    path::Path,
};

use c1m_program::{
    EnvironmentRefused, UsageRefused, lines::STDOUT, replace::Place, unless_closed,
    writer::WriteError,
};
use c1m_report::{BadInput, PlotName, Report};
use c1m_sys::stream::Stream;

use crate::cli;

/// What stands for a standard stream.
const STREAM: &str = "-";

/// Reads the lines and writes the page, or its plots.
///
/// # Errors
/// A file can't be read or written, or a line is none of ours: see [`crate::exit::exit_code`].
pub fn run(args: &cli::Report) -> anyhow::Result<()> {
    let mut report = Report::new();
    let name = args.input.display();
    let read = if args.input == Path::new(STREAM) {
        report.read(io::stdin().lock())
    } else {
        let file = File::open(&args.input).map_err(|error| {
            EnvironmentRefused(format!(
                "cannot open {name} ({error}): give a file of JSON lines, or - for standard input"
            ))
        })?;
        report.read(BufReader::new(file))
    };
    read.map_err(|error| match error {
        BadInput::Io(error) => EnvironmentRefused(format!("{name} cannot be read: {error}")).into(),
        error @ BadInput::Line { .. } => {
            anyhow::Error::from(UsageRefused(format!("{name}, {error}")))
        }
    })?;
    if report.is_empty() {
        return Err(UsageRefused(format!(
            "{name} has no records: give the lines of a run with --json, or the file of --output"
        ))
        .into());
    }
    let text = match args.plot {
        Some(plot) => report.picture(args.run, named(plot)).ok_or_else(|| {
            let run = args.run;
            UsageRefused(format!("{name}: there is no run {run} with this plot: leave out --plot and --run for every plot that there is"))
        })?,
        None if args.svg => report.svg(),
        None => report.html(),
    };
    write(&args.output, &text)
}

fn named(plot: cli::Plot) -> PlotName {
    match plot {
        cli::Plot::Connections => PlotName::Connections,
        cli::Plot::Time => PlotName::Time,
        cli::Plot::Memory => PlotName::Memory,
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new(STREAM) {
        let written = Stream::stdout().and_then(|mut out| out.write_all(text.as_bytes()));
        return Ok(unless_closed(written).map_err(|error| WriteError::refused(STDOUT, error))?);
    }
    let written = Place::open(path).and_then(|mut place| place.write(text.as_bytes(), None));
    written.map_err(|error| {
        EnvironmentRefused(format!(
            "cannot write {} ({error}): choose another --output",
            path.display()
        ))
        .into()
    })
}
