//! Results out of JSON lines, of which none is stepped over in silence.

use std::io::{self, BufRead, Read as _};

use c1m_record::{Line, SCHEMA_VERSION};
use serde::Deserialize;

use super::MergeError;
use crate::record::{ClientRecord, Summary};

/// A result, and where it stands.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: String,
    pub(super) result: Box<Summary>,
}

/// The longest line that is read, in bytes. A result has some tens of thousands, most of them
/// histograms.
const LONGEST_LINE: usize = 4 << 20;

/// Steps over blank lines, and over the white space before a line. Returns how many lines. None of
/// them is taken apart: a disk full of them would keep a merge busy for minutes.
fn skip_blank(input: &mut impl BufRead) -> io::Result<u64> {
    let is_blank = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'\t' | b' ');
    let mut lines = 0;
    loop {
        let bytes = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let end = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
        lines += bytes[..end].iter().filter(|byte| **byte == b'\n').count() as u64;
        let is_over = end < bytes.len() || bytes.is_empty();
        input.consume(end);
        if is_over {
            return Ok(lines);
        }
    }
}

/// Reads all lines of a file, which has at least one result. Blank lines are nothing.
pub(super) fn read(name: &str, mut input: impl BufRead) -> Result<Vec<Found>, MergeError> {
    let (mut found, mut line, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        number += 1 + skip_blank(&mut input).map_err(|error| MergeError::Io(name.into(), error))?;
        line.clear();
        let bound = LONGEST_LINE as u64 + 1;
        let length = input.by_ref().take(bound).read_until(b'\n', &mut line);
        if length.map_err(|error| MergeError::Io(name.into(), error))? == 0 {
            break;
        }
        let place = format!("{name}:{number}");
        if line.len() > LONGEST_LINE {
            return Err(MergeError::Line(
                place,
                format!("is longer than {LONGEST_LINE} bytes: no record of c1m-client is"),
            ));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match parse(&line) {
            Ok(ClientRecord::Summary(result)) => found.push(Found { place, result }),
            Ok(_) => {}
            Err(why) => return Err(MergeError::Line(place, why)),
        }
    }
    if found.is_empty() { Err(MergeError::NoResult(name.into())) } else { Ok(found) }
}

fn parse(line: &[u8]) -> Result<ClientRecord, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let why = |error: serde_json::Error| match error.is_eof() {
        true => {
            "ends in the middle of a record: the run, or what kept its output, was cut off".into()
        }
        false => format!(
            "is no record of c1m-client ({error}): give what --json printed on standard output, and nothing else"
        ),
    };
    // First: what another version says may be read as something else.
    let Version { v } = serde_json::from_slice(line).map_err(why)?;
    if !(1..=SCHEMA_VERSION).contains(&v) {
        return Err(format!(
            "has schema version {v}, and this c1m-client reads versions up to {SCHEMA_VERSION}: merge with the version that measured"
        ));
    }
    let line: Line<ClientRecord> = serde_json::from_slice(line).map_err(why)?;
    Ok(line.record)
}
