//! Everything that was said, line by line: what the servers of the acts told, the acts, and the whole run.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use c1m_report::file::Page;

use super::{End, cli::Args};

/// Where the lines go: to the file of `--output`, into the page of `--report`, and out of a guest.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<(PathBuf, File)>,
    page: Option<Page>,
    prints: bool,
}

impl Log {
    /// Opens the files before the run, which takes minutes.
    pub fn open(args: &Args) -> Result<Self, End> {
        let file = args.output.as_ref().map(|path| match File::create(path) {
            Ok(file) => Ok((path.clone(), file)),
            Err(error) => Err(End::Refused(format!(
                "cannot write {} ({error}): choose another --output",
                path.display()
            ))),
        });
        let page = args.report.as_deref().filter(|path| is_page(path)).map(Page::open);
        let page = page.transpose().map_err(|error| End::Refused(error.to_string()))?;
        Ok(Self { file: file.transpose()?, page, prints: args.all_lines })
    }

    /// Does anybody want the lines of the servers?
    pub fn is_wanted(&self) -> bool {
        self.file.is_some() || self.page.is_some()
    }

    /// A line of a server, of which a reader of `--json` hears nothing.
    pub(super) fn server(&mut self, line: &str) -> Result<(), End> {
        if self.prints {
            print(line)?;
        }
        self.take(line)
    }

    /// A line of the run.
    pub fn take(&mut self, line: &str) -> Result<(), End> {
        if let Some((path, file)) = &mut self.file {
            writeln!(file, "{line}").map_err(|error| {
                End::Failed(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        match &mut self.page {
            Some(page) => page
                .take_line(line.as_bytes())
                .map_err(|error| End::Failed(format!("the page cannot be made: {error}"))),
            None => Ok(()),
        }
    }

    /// Writes the page of all that was taken, the end of the run or not.
    pub fn write_page(&mut self) -> Result<(), End> {
        self.page
            .as_mut()
            .map_or(Ok(()), Page::write)
            .map_err(|error| End::Failed(error.to_string()))
    }
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
            Err(End::Failed(format!("cannot write to standard output: {error}")))
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
