//! Programs that print JSON records, which are checked against the published schema of their lines.

use std::{
    io,
    process::Command,
    time::{Duration, Instant},
};

use c1m_record::{Line, SCHEMA_VERSION};
use serde::de::DeserializeOwned;

use crate::{
    child::{Child, Outcome},
    schema::Schema,
    wait::{CEILING, left},
};

/// A running program whose records are read. It is killed when dropped.
#[derive(Debug)]
pub struct Program<R> {
    child: Child,
    schema: Option<&'static Schema>,
    /// All records that were read so far.
    pub lines: Vec<Line<R>>,
}

/// A function that has an answer to one kind of records: its value.
///
/// `program.wait_for("it listens", only!(Record::Listening))`
#[macro_export]
macro_rules! only {
    ($kind:path) => {
        |record: &_| match record {
            $kind(value) => Some(value.clone()),
            _ => None,
        }
    };
}

impl Outcome {
    /// The records on standard output, which are checked against the schema.
    ///
    /// # Panics
    /// A line is something else.
    #[track_caller]
    pub fn records<R: DeserializeOwned>(&self, schema: &Schema) -> Vec<R> {
        self.lines.iter().map(|line| record(&line.text, Some(schema)).record).collect()
    }
}

#[track_caller]
fn record<R: DeserializeOwned>(text: &str, schema: Option<&Schema>) -> Line<R> {
    if let Some(schema) = schema {
        schema.check(text);
    }
    let line: Line<R> = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(line.v, SCHEMA_VERSION);
    line
}

impl<R: DeserializeOwned + Clone + std::fmt::Debug> Program<R> {
    /// See [`Child::start`]. Every line is checked against the schema.
    pub fn start(command: &mut Command, schema: &'static Schema) -> io::Result<Self> {
        Ok(Self::of(Child::start(command)?, Some(schema)))
    }

    /// Reads the records of a program that runs.
    pub fn of(child: Child, schema: Option<&'static Schema>) -> Self {
        Self { child, schema, lines: Vec::new() }
    }

    /// The program.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// All records that were read so far.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &R> {
        self.lines.iter().map(|line| &line.record)
    }

    /// The next record; `None`: there is none within `patience`, or it was the last one.
    ///
    /// # Panics
    /// It is not understood.
    #[track_caller]
    pub fn next(&mut self, patience: Duration) -> Option<R> {
        let line = self.child.next(patience).ok()??;
        Some(self.take(&line.text))
    }

    #[track_caller]
    fn take(&mut self, text: &str) -> R {
        let line = record(text, self.schema);
        self.lines.push(line.clone());
        line.record
    }

    /// The next record, however long the program uses its CPU before; `None`: it has ended, or does nothing any more.
    ///
    /// # Panics
    /// It is not understood.
    #[track_caller]
    pub fn record(&mut self) -> Option<R> {
        self.record_before(Instant::now() + CEILING)
    }

    #[track_caller]
    fn record_before(&mut self, end: Instant) -> Option<R> {
        let line = self.child.line(end).ok()??;
        Some(self.take(&line.text))
    }

    /// The first record from now on for which `choose` has an answer. `None`: the program has ended, or does nothing any more.
    pub fn find<T>(&mut self, mut choose: impl FnMut(&R) -> Option<T>) -> Option<T> {
        let end = Instant::now() + CEILING;
        loop {
            let record = self.record_before(end)?;
            if let Some(chosen) = choose(&record) {
                return Some(chosen);
            }
        }
    }

    /// The same within `limit`.
    pub fn find_in<T>(
        &mut self,
        limit: Duration,
        mut choose: impl FnMut(&R) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            let record = self.next(left(end))?;
            if let Some(chosen) = choose(&record) {
                return Some(chosen);
            }
        }
    }

    /// The first record from now on for which `choose` has an answer.
    ///
    /// # Panics
    /// It does not come.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, choose: impl FnMut(&R) -> Option<T>) -> T {
        self.find(choose).unwrap_or_else(|| self.missing(what))
    }

    /// The first record of all for which `choose` has an answer, of those that were read before, too.
    ///
    /// # Panics
    /// It does not come.
    #[track_caller]
    pub fn wait_for_any<T>(&mut self, what: &str, mut choose: impl FnMut(&R) -> Option<T>) -> T {
        let before = self.records().find_map(&mut choose);
        before.unwrap_or_else(|| self.wait_for(what, choose))
    }

    #[track_caller]
    fn missing(&mut self, what: &str) -> ! {
        // Else it would be waited for.
        self.child.kill();
        let stderr = self.child.end().map(|outcome| outcome.stderr);
        panic!("no {what}: {:#?}, {stderr:?}", self.lines)
    }

    /// The last record of those that were read so far for which `choose` has an answer.
    pub fn last<T>(&self, choose: impl FnMut(&R) -> Option<T>) -> Option<T> {
        self.records().rev().find_map(choose)
    }

    /// Waits for its end, and reads all records.
    ///
    /// # Panics
    /// It does not come to one.
    #[track_caller]
    pub fn end(&mut self) -> Outcome {
        self.try_end().unwrap_or_else(|error| panic!("{error}: {:#?}", self.lines))
    }

    /// The same, with an error.
    pub fn try_end(&mut self) -> io::Result<Outcome> {
        let outcome = self.child.end()?;
        outcome.lines.iter().for_each(|line| drop(self.take(&line.text)));
        Ok(outcome)
    }

    /// Ends it by SIGTERM, and reads all records.
    ///
    /// # Panics
    /// It does not come to an end.
    #[track_caller]
    pub fn finish(&mut self) -> Outcome {
        self.child.signal(libc::SIGTERM).expect("it is a child of this process");
        self.end()
    }
}
