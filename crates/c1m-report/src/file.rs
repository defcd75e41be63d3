//! A report that grows with a run, and its file.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use c1m_program::{EnvironmentRefused, replace::Place, writer::Patience};
use c1m_record::Record;

use crate::{BadInput, Report};

/// The page of `--report`.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    place: Place,
    report: Report,
}

impl Page {
    /// Checks before the run that the file can be written, so that the run does not end without its
    /// page. An older file stays as it is until the new page is whole.
    ///
    /// # Errors
    /// It can't be written.
    pub fn open(path: &Path) -> Result<Self, EnvironmentRefused> {
        let place = Place::open(path).map_err(|error| refused(path, &error))?;
        Ok(Self { path: path.into(), place, report: Report::new() })
    }

    pub fn take(&mut self, time: SystemTime, record: &Record) {
        self.report.take(time, record);
    }

    /// Takes a JSON line of these programs.
    ///
    /// # Errors
    /// It is none.
    pub fn take_line(&mut self, line: &[u8]) -> Result<(), BadInput> {
        self.report.take_line(line)
    }

    /// Writes what was taken so far, and puts it where an older page may be. Nothing of a run that
    /// said nothing.
    ///
    /// # Errors
    /// It can't be written, or it is a pipe that nobody reads.
    pub fn write(&mut self) -> Result<(), EnvironmentRefused> {
        if self.report.is_empty() {
            return Ok(());
        }
        let page = self.report.html();
        self.place
            .write(page.as_bytes(), Some(Patience::END))
            .map_err(|error| refused(&self.path, &error))
    }
}

fn refused(path: &Path, error: &io::Error) -> EnvironmentRefused {
    EnvironmentRefused(format!(
        "cannot write {} ({error}): choose another --report",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use c1m_record::Warning;

    #[test]
    fn an_older_page_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.html");
        std::fs::write(&path, "x".repeat(1 << 20)).unwrap();
        let mut page = Page::open(&path).unwrap();
        page.write().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        let warning = Warning { name: "EMFILE".into(), text: "the table is full".into() };
        page.take(SystemTime::now(), &Record::Warning(warning));
        page.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>"), "{text}");
        let error = Page::open(&folder.path().join("no/run.html")).unwrap_err().to_string();
        assert!(error.contains("choose another --report"), "{error}");
    }
}
