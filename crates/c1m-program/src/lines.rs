//! What programs print: JSON lines for programs. For people a page of a command that answers once, and lines `HH:MM:SS.mmm  text` of one that works
//! on. Times are UTC.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::Arc,
    time::SystemTime,
};

use c1m_record::*;
use c1m_sys::stream::Stream;
use c1m_text::{
    escape,
    page::{Format, Page},
    records,
    units::clock,
};
use clap::ColorChoice;
use serde::Serialize;

use crate::{
    EnvironmentRefused, unless_closed,
    writer::{Patience, Rank, WriteError, Writer},
};

/// Standard output, as errors name it.
pub const STDOUT: &str = "standard output";
/// Of a terminal that does not say how wide it is.
const COLUMNS: usize = 80;

/// Standard output of a command that answers once. What it prints is written and flushed as a whole.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    json: bool,
    format: Format,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W, json: bool, format: Format) -> Self {
        Self { out, json, format }
    }

    /// The record as one line of JSON, or its page.
    ///
    /// # Errors
    /// Those of the output. That its reader has closed the pipe is none: see [`unless_closed`].
    pub fn print(&mut self, record: Record, page: &Page) -> Result<(), WriteError> {
        let text = match self.json {
            true => json_line(SystemTime::now(), record),
            false => Ok(page.render(self.format)),
        };
        let write = |text: String| {
            unless_closed(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()))
        };
        text.and_then(write).map_err(|error| WriteError::refused(STDOUT, error))
    }
}

/// A printer on standard output, for a command that answers once.
///
/// # Errors
/// It can't be written.
pub fn printer(json: bool, color: ColorChoice) -> Result<Printer<Stream>, EnvironmentRefused> {
    let out = Stream::stdout()
        .map_err(|error| EnvironmentRefused(format!("cannot write standard output: {error}")))?;
    Ok(Printer::new(out, json, format_of(color)))
}

/// As wide as the terminal that standard output is. Elsewhere nothing is wrapped: one line per row, and its notes indented below it.
fn format_of(color: ColorChoice) -> Format {
    let is_terminal = io::stdout().is_terminal();
    let columns = || terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0.into());
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let color = match color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // https://no-color.org
        ColorChoice::Auto => {
            is_terminal
                && variable("NO_COLOR").is_none()
                && variable("TERM").is_none_or(|terminal| terminal != "dumb")
        }
    };
    Format { width: is_terminal.then(columns), color }
}

/// Records of a program that works on, written by a thread of their own.
pub struct Lines {
    writer: Arc<Writer>,
    json: bool,
    rank: Rank,
}

impl Lines {
    #[must_use]
    pub fn new(writer: Arc<Writer>, json: bool) -> Self {
        Self { writer, json, rank: Rank::Ordinary }
    }

    /// # Errors
    /// As of [`Writer::print`].
    pub fn print(&self, time: SystemTime, record: &Record) -> Result<(), WriteError> {
        let text = formatted(self.json, time, record)
            .map_err(|error| WriteError::refused(STDOUT, error))?;
        self.writer.print(text, self.rank)
    }

    /// What comes from here on are the last lines: there is room for them.
    pub fn conclude(&mut self) {
        self.rank = Rank::Last;
    }

    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Waits until all is written, in bounded time.
    ///
    /// # Errors
    /// As of [`Writer::finish`].
    pub fn finish(&self) -> Result<(), WriteError> {
        self.writer.finish(Patience::END)
    }
}

/// A record as one line of JSON, or as one or more lines for people.
///
/// # Errors
/// It has no form in JSON.
pub fn formatted(json: bool, time: SystemTime, record: &Record) -> io::Result<String> {
    if json { json_line(time, record) } else { Ok(human(time, record)) }
}

/// One line of JSON.
fn json_line<R: Serialize>(time: SystemTime, record: R) -> io::Result<String> {
    let mut line = serde_json::to_string(&Line::at(time, record))?;
    line.push('\n');
    Ok(line)
}

/// One or more lines, each with the time in front.
fn human(time: SystemTime, record: &Record) -> String {
    let clock = clock(time);
    let lines = records::lines(record);
    lines.iter().map(|line| format!("{clock}  {}\n", escape::line(line))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn warning() -> Record {
        Record::Warning(Warning { name: "EMFILE".into(), text: "the table is full".into() })
    }

    fn printed(json: bool, record: &Record) -> String {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(45_296_789);
        formatted(json, time, record).unwrap()
    }

    #[test]
    fn json_lines_have_version_time_and_kind() {
        let line = printed(true, &warning());
        assert_eq!(
            line,
            "{\"v\":2,\"ts\":\"1970-01-01T12:34:56.789000Z\",\"kind\":\"warning\",\"name\":\"EMFILE\",\
             \"text\":\"the table is full\"}\n"
        );
        let back: Line<Record> = serde_json::from_str(&line).unwrap();
        assert_eq!(back.record, warning());
    }

    #[test]
    fn human_lines_have_a_time() {
        assert_eq!(
            printed(false, &warning()),
            "12:34:56.789  warning  EMFILE: the table is full\n"
        );
        let online = Record::Online(Online {
            online: 1_024_000,
            accepted: 1_024_000,
            closed: 0,
            accepted_per_s: 0.0,
            pss_bytes: None,
            tcp_mem_pages: None,
            connections: None,
            dropped: None,
        });
        assert_eq!(printed(false, &online), "12:34:56.789  online user 1024000\n");
    }

    #[test]
    fn a_page_has_no_time_and_json_is_not_a_page() {
        let mut page = Page::default();
        page.line("text\u{1b}");
        for (json, first) in [(false, "text\\u{1b}\n"), (true, "{\"v\":")] {
            let mut out = Vec::new();
            Printer::new(&mut out, json, Format::default()).print(warning(), &page).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert!(out.starts_with(first) && out.lines().count() == 1, "{out}");
        }
    }

    #[test]
    fn an_error_is_told_and_a_reader_that_has_closed_is_none() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let print = |kind| {
            let mut printer = Printer::new(Broken(kind), true, Format::default());
            printer.print(warning(), &Page::default())
        };
        let result = print(io::ErrorKind::StorageFull);
        let Err(WriteError::Refused { name, source }) = result else { panic!("{result:?}") };
        assert_eq!((name.as_str(), source.kind()), (STDOUT, io::ErrorKind::StorageFull));
        assert!(print(io::ErrorKind::BrokenPipe).is_ok(), "the result has the exit code");
    }
}
