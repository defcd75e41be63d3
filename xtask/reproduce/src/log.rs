//! Everything that was said, line by line: what the servers of the acts told, the acts, and the whole run. And the report of it.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use c1m_program::{
    replace::Place,
    streams,
    writer::{Patience, Rank, WriteError, Writer},
};
use c1m_report::file::Page;

use super::{End, cli::Args};

/// Where the lines go: to the file of `--output`, into the page of `--report`, and out of a guest.
#[derive(Default)]
pub struct Log {
    file: Option<(String, Writer)>,
    report: Option<Report>,
    prints: bool,
}

/// The file of `--report`, which is written as a whole at the end.
enum Report {
    Page(Page),
    Markdown(PathBuf, Place),
}

impl Log {
    /// Opens the files before the run, which takes minutes.
    pub fn open(args: &Args) -> Result<Self, End> {
        let open = |path: &PathBuf| match streams::file(path) {
            Ok(writer) => Ok((path.display().to_string(), writer)),
            Err(error) => Err(another(&refused(error), "--output")),
        };
        let file = args.output.as_ref().map(open).transpose()?;
        let report = args.report.as_deref().map(Report::open).transpose()?;
        Ok(Self { file, report, prints: args.all_lines })
    }

    /// Does anybody want the lines of the servers?
    pub fn is_wanted(&self) -> bool {
        self.file.is_some() || matches!(self.report, Some(Report::Page(_)))
    }

    /// A line of a server, of which a reader of `--json` hears nothing.
    pub(super) fn server(&mut self, line: &str) -> Result<(), End> {
        if self.prints {
            print(line)?;
        }
        self.take(line)
    }

    /// A line of the run. A file that can't be written costs lines of that file, not the run: see [`Self::changes`].
    pub fn take(&mut self, line: &str) -> Result<(), End> {
        if let Some((_, writer)) = &self.file {
            writer.print(format!("{line}\n"), Rank::Ordinary).map_err(refused)?;
        }
        match &mut self.report {
            Some(Report::Page(page)) => page
                .take_line(line.as_bytes())
                .map_err(|error| End::Failed(format!("the page cannot be made: {error}"))),
            _ => Ok(()),
        }
    }

    /// What has become of the file of `--output` since this was last asked: that it can't be written, and that it can again.
    pub fn changes(&self) -> Vec<String> {
        let texts = |(name, writer): &(String, Writer)| {
            writer.changes().iter().map(|change| change.text(name)).collect()
        };
        self.file.as_ref().map(texts).unwrap_or_default()
    }

    /// Writes the report in Markdown, where that is wanted.
    pub(super) fn write_markdown(&mut self, text: impl FnOnce() -> String) -> Result<(), End> {
        match &mut self.report {
            Some(Report::Markdown(path, place)) => place
                .write(text().as_bytes(), Some(Patience::END))
                .map_err(|error| unwritten(path, &error)),
            _ => Ok(()),
        }
    }

    /// Writes the page of all that was taken, the end of the run or not, and waits for the file of `--output`.
    pub fn finish(&mut self) -> Result<(), End> {
        let written = match &mut self.report {
            Some(Report::Page(page)) => {
                page.write().map_err(|error| End::Refused(error.to_string()))
            }
            _ => Ok(()),
        };
        let finish = |(_, writer): &(String, Writer)| writer.finish(Patience::END).map_err(refused);
        let finished = self.file.as_ref().map_or(Ok(()), finish);
        written.and(finished)
    }
}

impl Report {
    fn open(path: &Path) -> Result<Self, End> {
        if is_page(path) {
            let page = Page::open(path);
            return page.map(Self::Page).map_err(|error| End::Refused(error.to_string()));
        }
        match Place::open(path) {
            Ok(place) => Ok(Self::Markdown(path.into(), place)),
            Err(error) => Err(another(&unwritten(path, &error), "--report")),
        }
    }
}

fn refused(error: WriteError) -> End {
    End::Refused(match error {
        WriteError::Refused { name, source } => format!("cannot write {name}: {source}"),
        unread @ WriteError::Unread { .. } => unread.to_string(),
    })
}

fn unwritten(path: &Path, error: &io::Error) -> End {
    End::Refused(format!("cannot write {}: {error}", path.display()))
}

/// The same before a run, when there is time to name another file.
fn another(end: &End, flag: &str) -> End {
    End::Refused(format!("{}: choose another {flag}", end.told().0))
}

/// Is the report to be looked at in a browser? By its name.
pub(super) fn is_page(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|name| ["html", "htm"].contains(&name.to_ascii_lowercase().as_str()))
}

/// One line, or several, on standard output. A reader that has gone away is no error.
pub(super) fn print(text: &str) -> Result<(), End> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(End::Refused(format!("cannot write standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_its_name() {
        for (path, expected) in
            [("run.html", true), ("a/RUN.HTM", true), ("run.md", false), ("html", false)]
        {
            assert_eq!(is_page(Path::new(path)), expected, "{path}");
        }
    }
}
