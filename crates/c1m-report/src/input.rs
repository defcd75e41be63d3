//! JSON lines, one at a time: as long as one of them is all that is held of them.

use std::{
    fmt,
    io::{self, BufRead, Read as _},
    time::SystemTime,
};

use c1m_record::{Line, Record, SCHEMA_VERSION};
use serde::Deserialize;

use super::{
    Kept, Report,
    acts::{Act, Reproduction},
    micros,
    say::foreign,
};

/// A longer line than this is none of ours: the longest ones name every row of `holders`.
pub const LONGEST_LINE: u64 = 16 << 20;

/// Why the input can't be reported on.
#[derive(Debug)]
pub enum BadInput {
    /// It could not be read any further.
    Io(io::Error),
    /// This line, counted from 1, is not what these programs write.
    Line { number: u64, why: String },
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Line { number, why } => write!(f, "line {number}: {why}"),
        }
    }
}

impl std::error::Error for BadInput {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Line { .. } => None,
        }
    }
}

/// What every line has.
#[derive(Deserialize)]
struct Envelope {
    v: u32,
    ts: String,
    kind: String,
}

/// What `cargo xtask reproduce` adds.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Reproduced {
    Act(Box<Act>),
    Reproduction(Reproduction),
}

impl Report {
    /// Takes JSON lines to their end.
    ///
    /// # Errors
    /// The first line that is not one of `--json` or `--output`, with its number. A last line
    /// without its end is no error: it was cut off when the program was, and the page says so.
    pub fn read(&mut self, mut input: impl BufRead) -> Result<(), BadInput> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input
                .by_ref()
                .take(LONGEST_LINE + 1)
                .read_until(b'\n', &mut line)
                .map_err(BadInput::Io)?;
            if read == 0 {
                return Ok(());
            }
            let is_whole = line.last() == Some(&b'\n');
            if !is_whole && line.len() as u64 > LONGEST_LINE {
                return Err(self
                    .bad(format!("longer than {} MiB, so not one of c1m's", LONGEST_LINE >> 20)));
            }
            match self.take_line(&line) {
                Err(_) if !is_whole && self.lines > 0 => {
                    self.is_cut_off = true;
                    return Ok(());
                }
                taken => taken?,
            }
        }
    }

    /// Takes one line, with or without its end.
    ///
    /// # Errors
    /// It is not one of `--json` or `--output`.
    pub fn take_line(&mut self, line: &[u8]) -> Result<(), BadInput> {
        let line = line.trim_ascii();
        if line.is_empty() {
            self.lines += 1;
            return Ok(());
        }
        let envelope: Envelope = serde_json::from_slice(line).map_err(|error| {
            self.bad(format!("not a JSON line of c1m ({error}): it needs v, ts and kind, as --json and --output write them"))
        })?;
        if !(1..=SCHEMA_VERSION).contains(&envelope.v) {
            return Err(self.bad(format!(
                "version {} of the records, and this program knows versions up to {SCHEMA_VERSION}: use the c1m-server that wrote it",
                envelope.v
            )));
        }
        let Ok(time) = humantime::parse_rfc3339(&envelope.ts) else {
            return Err(
                self.bad(format!("`{}` is not a time as RFC 3339 has it", foreign(&envelope.ts)))
            );
        };
        match envelope.kind.as_str() {
            "act" | "reproduction" => self.take_reproduced(line, time),
            kind => match serde_json::from_slice::<Line<Record>>(line) {
                Ok(line) => {
                    self.take(time, &line.record);
                    Ok(())
                }
                Err(error) if is_known(kind) => {
                    Err(self.bad(format!("not a whole `{}` record ({error})", foreign(kind))))
                }
                Err(_) => {
                    self.lines += 1;
                    self.take_unknown(kind);
                    Ok(())
                }
            },
        }
    }

    fn take_reproduced(&mut self, line: &[u8], time: SystemTime) -> Result<(), BadInput> {
        let line: Line<Reproduced> = serde_json::from_slice(line)
            .map_err(|error| self.bad(format!("not a whole record of a reproduction ({error})")))?;
        self.lines += 1;
        let (number, at) = (self.lines, micros(time));
        match line.record {
            Reproduced::Act(act) => self.take_act(Kept { line: number, at, record: *act }),
            Reproduced::Reproduction(record) => {
                self.take_reproduction(Kept { line: number, at, record });
            }
        }
        Ok(())
    }

    /// The next line is bad.
    fn bad(&self, why: String) -> BadInput {
        BadInput::Line { number: self.lines + 1, why }
    }
}

/// Is it a record of c1m-server? One of its names, and the error is about what is missing; else
/// about the name.
fn is_known(kind: &str) -> bool {
    let probe = serde_json::json!({ "kind": kind });
    match serde_json::from_value::<Record>(probe) {
        Ok(_) => true,
        Err(error) => !error.to_string().starts_with("unknown variant"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARNING: &str =
        r#"{"v":1,"ts":"2026-01-02T03:04:05.000006Z","kind":"warning","name":"EMFILE","text":"x"}"#;

    fn read(text: &str) -> Result<Report, String> {
        let mut report = Report::new();
        report.read(text.as_bytes()).map(|()| report).map_err(|error| error.to_string())
    }

    #[test]
    fn the_bad_line_is_named() {
        let bad = |line: &str| read(&format!("{WARNING}\n\n{line}\n{WARNING}\n")).unwrap_err();
        for (line, part) in [
            ("not JSON", "line 3: not a JSON line of c1m"),
            ("[1]", "line 3: not a JSON line of c1m"),
            ("{}", "it needs v, ts and kind"),
            (r#"{"v":3,"ts":"2026-01-02T03:04:05Z","kind":"warning"}"#, "line 3: version 3"),
            (r#"{"v":1,"ts":"yesterday","kind":"warning"}"#, "line 3: `yesterday` is not a time"),
            (
                r#"{"v":1,"ts":"2026-01-02T03:04:05Z","kind":"warning","name":"x"}"#,
                "line 3: not a whole `warning` record",
            ),
            (
                r#"{"v":1,"ts":"2026-01-02T03:04:05Z","kind":"act"}"#,
                "line 3: not a whole record of a reproduction",
            ),
            ("\u{0}", "line 3: "),
        ] {
            assert!(bad(line).contains(part), "{line}: {}", bad(line));
        }
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        let error = Report::new().read(endless).unwrap_err().to_string();
        assert_eq!(error, "line 1: longer than 16 MiB, so not one of c1m's");
    }

    #[test]
    fn a_program_that_was_killed_leaves_half_a_line() {
        let report = read(&format!("{WARNING}\n{}", &WARNING[..40])).unwrap();
        assert!(report.is_cut_off);
        assert_eq!(report.lines, 1);
        // A whole one without its end is whole.
        let report = read(&format!("{WARNING}\n{WARNING}")).unwrap();
        assert!(!report.is_cut_off);
        assert_eq!(report.lines, 2);
        // Nothing else than half a line is not ours.
        assert!(read(&WARNING[..40]).is_err());
    }

    #[test]
    fn records_of_other_programs_are_counted() {
        let mut text = String::new();
        for index in 0..100 {
            text +=
                &format!("{{\"v\":1,\"ts\":\"2026-01-02T03:04:05Z\",\"kind\":\"new{index}\"}}\n");
        }
        let report = read(&text).unwrap();
        assert_eq!(report.unknown.len(), super::super::UNKNOWN_KINDS + 1);
        assert_eq!(report.unknown.values().sum::<u64>(), 100);
        assert!(report.runs.is_empty());
    }
}
