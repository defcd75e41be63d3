//! The streams that a program writes while it works: standard output, standard error, and a file of lines. Each has a thread of its own, and no
//! reader, terminal or disk can keep the program from its signals.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::SystemTime,
};

use c1m_record::{Record, Warning};
use c1m_sys::{process::block_signals, stream::Stream};
use c1m_text::escape;

use crate::{
    lines::{STDOUT, formatted},
    writer::{Destination, Missing, OnError, Patience, Rank, WriteError, Writer},
};

/// As errors name it.
const STDERR: &str = "standard error";
/// Of the warning that stands for missing lines.
const NAME: &str = "output";

impl Destination for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }
}

/// Standard output, as JSON lines or text. The thread runs `begin` before anything else, such as to give up what it does not need.
///
/// # Errors
/// The thread can't be had, or what `begin` said.
pub fn stdout(
    json: bool,
    begin: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<Writer, WriteError> {
    let start = || start(STDOUT, Stream::stdout()?, OnError::Stop, begin, json);
    start().map_err(|error| WriteError::refused(STDOUT, error))
}

/// Standard error, as JSON lines or text.
///
/// # Errors
/// The thread can't be had.
pub fn stderr(json: bool) -> Result<Writer, WriteError> {
    let start = || start(STDERR, Stream::stderr()?, OnError::Stop, || Ok(()), json);
    start().map_err(|error| WriteError::refused(STDERR, error))
}

/// Says a text on standard error, escaped, and waits a moment for it to be taken. With standard error closed or not read there is nobody to say it to.
pub fn say(text: &str) {
    if let Ok(writer) = stderr(false) {
        let _ = writer.print(format!("{}\n", escape::paragraph(text)), Rank::Last);
        let _ = writer.finish(Patience::WORD);
    }
}

/// A file of JSON lines, made anew. While it can't be written, the lines are lost and counted, and the next one is tried.
///
/// # Errors
/// It can't be opened.
pub fn file(path: &Path) -> Result<Writer, WriteError> {
    let name = path.display().to_string();
    let start = || start(&name, LineFile::create(path)?, OnError::GoOn, || Ok(()), true);
    start().map_err(|error| WriteError::refused(&name, error))
}

fn start(
    name: &str,
    destination: impl Destination,
    on_error: OnError,
    begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    json: bool,
) -> io::Result<Writer> {
    // The thread inherits the mask: signals are for those who wait for them.
    let _mask = block_signals()?;
    let own = name.to_owned();
    let notice = move |lines, missing: Missing<'_>| missing_line(json, &own, lines, missing);
    Writer::start(name, destination, on_error, begin, notice)
}

/// Stands where lines are missing.
fn missing_line(json: bool, stream: &str, lines: u64, missing: Missing<'_>) -> String {
    let why = match missing {
        Missing::Unread => format!("nobody read {stream} in time"),
        Missing::Refused(error) => format!("{stream} could not be written ({error})"),
    };
    let text = format!("lines missing here: {lines}, because {why}");
    let record = Record::Warning(Warning { name: NAME.into(), text });
    // A record of two texts is always JSON.
    formatted(json, SystemTime::now(), &record).unwrap_or_default()
}

/// A file that holds whole lines only, as far as it can be cut.
struct LineFile {
    file: File,
    /// Bytes of the file so far; `None`: no regular file.
    length: Option<u64>,
    /// It ends with a part of a line.
    is_cut: bool,
}

impl LineFile {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let length = file.metadata()?.is_file().then_some(0);
        Ok(Self { file, length, is_cut: false })
    }
}

impl Destination for LineFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_cut {
            self.file.write_all(b"\n")?;
            self.is_cut = false;
        }
        let written = self.file.write(bytes)?;
        self.length = self.length.map(|length| length + written as u64);
        Ok(written)
    }

    fn take_back(&mut self, written: usize) {
        let Some(length) = self.length else {
            self.is_cut |= written > 0;
            return;
        };
        let whole = length.saturating_sub(written as u64);
        let cut = self.file.set_len(whole).and_then(|()| self.file.seek(SeekFrom::Start(whole)));
        match cut {
            Ok(_) => self.length = Some(whole),
            Err(_) => self.is_cut |= written > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_with_a_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut file = LineFile::create(&path).unwrap();
        assert_eq!(Destination::write(&mut file, b"whole\n").unwrap(), 6);
        assert_eq!(Destination::write(&mut file, b"cut").unwrap(), 3);
        file.take_back(3);
        assert_eq!(Destination::write(&mut file, b"next\n").unwrap(), 5);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nnext\n");
    }

    #[test]
    fn missing_lines_are_said_with_their_number_and_why() {
        let text = missing_line(false, STDOUT, 12, Missing::Unread);
        assert!(text.ends_with(
            "  warning  output: lines missing here: 12, because nobody read standard output in time\n"
        ));
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let json = missing_line(true, "run.jsonl", 1, Missing::Refused(&full));
        assert!(json.starts_with('{') && json.ends_with("}\n"), "{json}");
        assert!(json.contains("run.jsonl could not be written (No space left"), "{json}");
    }
}
