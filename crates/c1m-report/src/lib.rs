//! A run as one page that a person looks at: a function of records alone, in memory that does not
//! grow with them.
//!
//! - [`input`]: JSON lines, one at a time.
//! - [`run`], [`series`], [`acts`]: what is kept of a run, and what `cargo xtask reproduce` says of
//!   it.
//! - [`page`]: the page; [`plot`]: its pictures; [`say`]: numbers and foreign text.

mod acts;
pub mod file;
mod input;
mod page;
mod plot;
mod run;
mod say;
mod series;

use std::{collections::BTreeMap, time::SystemTime};

use c1m_record::Record;
pub use input::{BadInput, LONGEST_LINE};
pub use plot::panels;

use acts::{Act, Reproduction};
use run::Run;

/// Runs in one input that have a part of the page each; further ones are counted.
const RUNS: usize = 12;
/// Names of records that are not known, each with its number.
const UNKNOWN_KINDS: usize = 16;

/// What can be drawn of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlotName {
    /// Pages of tcp_mem over connections.
    Connections,
    /// Pages of tcp_mem and connections over time.
    Time,
    /// Memory per connection, by component, beside the article's.
    Memory,
}

impl PlotName {
    const ALL: [Self; 3] = [Self::Connections, Self::Time, Self::Memory];
}

/// Something that was said, and the number of the line that said it, from 1 on.
#[derive(Debug, Clone, PartialEq)]
struct Kept<R> {
    line: u64,
    /// Microseconds since 1970, UTC.
    at: u64,
    record: R,
}

/// Everything that the page is made of.
#[derive(Debug, Default)]
pub struct Report {
    lines: u64,
    runs: Vec<Run>,
    /// Records of runs for which there was no room.
    left_out: u64,
    reproduction: Option<Kept<Reproduction>>,
    /// Kinds of records that this version does not know.
    unknown: BTreeMap<String, u64>,
    /// The last line was cut off: whoever wrote it was ended.
    is_cut_off: bool,
}

impl Report {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has no record been taken? Blank lines are none, and neither is a line that was cut off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
            && self.left_out == 0
            && self.reproduction.is_none()
            && self.unknown.is_empty()
    }

    /// Takes the next record of a run.
    pub fn take(&mut self, time: SystemTime, record: &Record) {
        self.lines += 1;
        let (line, at) = (self.lines, micros(time));
        if let Some(run) = self.run_for(|run| run.is_over_before(record)) {
            run.take(line, at, record);
        }
    }

    fn take_act(&mut self, kept: Kept<Act>) {
        if let Some(run) = self.run_for(Run::is_over_before_act) {
            run.act = Some(kept);
        }
    }

    /// The last line of a reproduction, which has its acts once more.
    fn take_reproduction(&mut self, mut kept: Kept<Reproduction>) {
        let acts = std::mem::take(&mut kept.record.acts);
        if !self.runs.iter().any(|run| run.act.is_some()) {
            for (index, act) in acts.into_iter().enumerate() {
                let record = Act { place: format!("/acts/{index}"), ..act };
                self.take_act(Kept { line: kept.line, at: kept.at, record });
            }
        }
        self.reproduction = Some(kept);
    }

    fn take_unknown(&mut self, kind: &str) {
        let name = match self.unknown.contains_key(kind) || self.unknown.len() < UNKNOWN_KINDS {
            true => kind,
            false => "others",
        };
        *self.unknown.entry(name.into()).or_default() += 1;
    }

    /// The run that goes on, or a new one. `None`: there is no room for a further one, and what
    /// follows is not of the last that had some.
    fn run_for(&mut self, is_over: impl Fn(&Run) -> bool) -> Option<&mut Run> {
        let is_new = self.left_out == 0 && self.runs.last().is_none_or(is_over);
        if self.left_out > 0 || (is_new && self.runs.len() == RUNS) {
            self.left_out += 1;
            return None;
        }
        if is_new {
            self.runs.push(Run::default());
        }
        self.runs.last_mut()
    }

    /// The page: one file, without a script, that asks nobody for anything.
    #[must_use]
    pub fn html(&self) -> String {
        page::page(self).into_string()
    }

    /// The plots alone, one below the other, as one SVG file.
    #[must_use]
    pub fn svg(&self) -> String {
        plot::file(self)
    }

    /// One plot of the run that is number `run` in the input, from 1 on, as an SVG file. `None`:
    /// there is no such run, or nothing to draw.
    #[must_use]
    pub fn picture(&self, run: usize, plot: PlotName) -> Option<String> {
        plot::file_of(self.runs.get(run.checked_sub(1)?)?, plot)
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
