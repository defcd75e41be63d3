//! c1m-client as a process, whose JSON lines are taken one by one, in bounded time.

use std::process::Command;

use c1m_client::record::{ClientRecord, Lost, Plan, Ramped, Sample, Summary, Waiting};
use c1m_record::Verdict;
use c1m_testkit::{Program, child, schema};

pub(crate) struct Client {
    program: Program<ClientRecord>,
    /// Of the records that have been read so far.
    pub(crate) lost: Vec<Lost>,
    pub(crate) waiting: Vec<Waiting>,
}

impl Client {
    /// Starts it with `--json` and these flags, separated by blanks.
    pub(crate) fn start(flags: &str) -> Self {
        Self::start_with_limit(flags, None)
    }

    /// As [`Self::start`], with a soft and hard limit of open files.
    pub(crate) fn start_with_limit(flags: &str, nofile: Option<u64>) -> Self {
        let limit = nofile.map_or(String::new(), |limit| format!("ulimit -n {limit} && "));
        let script = format!("{limit}exec {} --json {flags}", env!("CARGO_BIN_EXE_c1m-client"));
        let mut command = Command::new("sh");
        let program = Program::start(command.args(["-c", &script]), &schema::CLIENT).unwrap();
        Self { program, lost: Vec::new(), waiting: Vec::new() }
    }

    fn read(&mut self) -> ClientRecord {
        let record = self.program.record();
        record.unwrap_or_else(|| panic!("no record: {:?}", self.program.end().stderr))
    }

    /// The next record that says where the run is. Those that come in between are kept.
    fn next(&mut self) -> ClientRecord {
        loop {
            match self.read() {
                ClientRecord::Progress(_) => {}
                ClientRecord::Lost(lost) => self.lost.push(lost),
                ClientRecord::Waiting(waiting) => self.waiting.push(waiting),
                record => return record,
            }
        }
    }

    /// Waits until so many connections were said to be lost, while it holds.
    pub(crate) fn loses(&mut self, connections: u64) {
        while self.lost.iter().map(|lost| lost.connections).sum::<u64>() < connections {
            match self.read() {
                ClientRecord::Lost(lost) => self.lost.push(lost),
                other => panic!("no losses, but {other:?}"),
            }
        }
    }

    pub(crate) fn plan(&mut self) -> Plan {
        match self.next() {
            ClientRecord::Plan(plan) => *plan,
            other => panic!("no plan, but {other:?}"),
        }
    }

    pub(crate) fn ramped(&mut self) -> Ramped {
        match self.next() {
            ClientRecord::Ramped(ramped) => ramped,
            other => panic!("no end of the ramp, but {other:?}"),
        }
    }

    pub(crate) fn sample(&mut self) -> Sample {
        match self.next() {
            ClientRecord::Sample(sample) => sample,
            other => panic!("no sample, but {other:?}"),
        }
    }

    /// The last two records: the verdict, and the summary.
    pub(crate) fn verdict_and_summary(&mut self) -> (Verdict, Summary) {
        match self.next() {
            ClientRecord::Verdict(verdict) => (verdict, self.last()),
            other => panic!("no verdict, but {other:?}"),
        }
    }

    pub(crate) fn summary(&mut self) -> Summary {
        self.verdict_and_summary().1
    }

    fn last(&mut self) -> Summary {
        match self.next() {
            ClientRecord::Summary(summary) => *summary,
            other => panic!("no summary, but {other:?}"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Whether it has written this to standard error.
    pub(crate) fn has_said(&mut self, text: &str) -> bool {
        self.program.child().said().contains(text)
    }

    /// Sends signals to it alone, in this order.
    pub(crate) fn signal(&self, names: &[&str]) {
        child::signal(self.pid(), names);
    }

    /// Waits for its end: exit code and what it wrote to standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let outcome = self.program.end();
        (outcome.code, outcome.stderr)
    }
}
