//! c1m-client as a process, whose JSON lines are taken one by one, in bounded time.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use c1m_client::record::{ClientRecord, Lost, Plan, Ramped, Sample, Summary, Waiting};
use c1m_record::{Line, SCHEMA_VERSION, Verdict};

use super::schema::Schema;

/// Far more than anything here takes, and an end all the same.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Client {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<()>>,
    /// What it has written to standard error so far.
    said: Arc<Mutex<String>>,
    schema: Schema,
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
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // Ends with the pipe, or with the test.
            out.lines().map_while(Result::ok).take_while(|l| sender.send(l.clone()).is_ok()).count()
        });
        let said = Arc::<Mutex<String>>::default();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let text = said.clone();
        let stderr = std::thread::spawn(move || {
            let mut line = String::new();
            while err.read_line(&mut line).unwrap() > 0 {
                text.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        Self {
            child,
            lines,
            stderr: Some(stderr),
            said,
            schema: Schema::read("c1m-client"),
            lost: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn read(&mut self) -> ClientRecord {
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
            let _ = self.child.kill();
            let _ = self.stderr.take().map(JoinHandle::join);
            panic!("no record: {:?}", self.said.lock().unwrap());
        };
        self.schema.check(&line);
        let line: Line<ClientRecord> = serde_json::from_str(&line).unwrap();
        assert_eq!(line.v, SCHEMA_VERSION);
        line.record
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
        self.child.id()
    }

    /// Whether it has written this to standard error.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.said.lock().unwrap().contains(text)
    }

    /// Sends signals to it alone, in this order.
    pub(crate) fn signal(&self, names: &[&str]) {
        for name in names {
            let script = format!("kill -{name} {}", self.child.id());
            assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        }
    }

    /// Waits for its end: exit code and what it wrote to standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        self.stderr.take().unwrap().join().unwrap();
        (code, self.said.lock().unwrap().clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Of a test that failed nothing stays behind. One that has ended is not an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
