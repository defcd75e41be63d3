//! The programs: Prometheus and promtool where they are, and ours as they were built with this test.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use c1m_client::record::{ClientRecord, Ramped};
use c1m_record::{Line, Record};
use c1m_sys::process::terminate;
use libtest_mimic::{Completion, Failed};
use serde::de::DeserializeOwned;

use crate::scrape::{get, scrape};

/// Names the program, where it is not installed.
const PROGRAM: &str = "C1M_PROMETHEUS";
const INSTALLED: &str = "/usr/bin/prometheus";
/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS: u64 = 40;

/// Prometheus, or why a test without it is ignored.
pub(crate) fn prometheus() -> Result<PathBuf, Completion> {
    let named = env::var_os(PROGRAM).map(PathBuf::from);
    let installed = || Some(PathBuf::from(INSTALLED)).filter(|file| file.is_file());
    let ignored = || format!("no {INSTALLED}, and no other one named by {PROGRAM}");
    named.or_else(installed).ok_or_else(|| Completion::ignored_with(ignored()))
}

/// Gives `input` to promtool, which must be content and say nothing against it. What it says.
#[track_caller]
pub(crate) fn promtool(prometheus: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(prometheus.with_file_name("promtool"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool stands beside Prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:#?} of {input}");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A program of ours that prints JSON lines. Killed when dropped.
pub(crate) struct Program<R> {
    child: Child,
    lines: Receiver<String>,
    /// All that was taken so far.
    pub(crate) records: Vec<R>,
}

impl<R: DeserializeOwned + Clone> Program<R> {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        // What was built with this test.
        let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name(name);
        assert!(program.exists(), "{} is not built: test the whole workspace", program.display());
        let mut child = Command::new(program)
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).take_while(|l| sender.send(l.clone()).is_ok()).count()
        });
        Self { child, lines, records: Vec::new() }
    }

    /// The first record from now on for which `choose` has an answer; `None` when the program has ended.
    pub(crate) fn wait_for<T>(&mut self, mut choose: impl FnMut(&R) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).ok()?;
            let line: Line<R> = serde_json::from_str(&line).unwrap();
            self.records.push(line.record.clone());
            if let Some(chosen) = choose(&line.record) {
                return Some(chosen);
            }
        }
    }

    /// Asks it to end, and takes the rest of its records. Its exit code.
    pub(crate) fn finish(&mut self) -> Option<i32> {
        terminate(&mut self.child).unwrap();
        self.wait_for(|_| None::<()>);
        self.child.wait().unwrap().code()
    }
}

impl<R> Drop for Program<R> {
    fn drop(&mut self) {
        // One that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// promtool has nothing against the page at `url`.
pub(crate) fn is_clean(prometheus: &Path, url: &str) {
    let answer = get(url);
    let page = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(promtool(prometheus, &["check", "metrics"], page), "", "{page}");
}

/// A server without tracing, and a client: the pages, and the client's figures beside its records.
pub(crate) fn server_and_client() -> Result<Completion, Failed> {
    let prometheus = match prometheus() {
        Ok(prometheus) => prometheus,
        Err(ignored) => return Ok(ignored),
    };
    let fixed = ["--listen", "127.0.0.1:0", "--workers", "1", "--metrics-addr", "127.0.0.1:0"];
    let mut server = Program::<Record>::start("c1m-server", &fixed);
    let listening = server.wait_for(|record| match record {
        Record::Listening(listening) => Some(listening.clone()),
        _ => None,
    });
    let listening = listening.expect("the server listens");
    is_clean(&prometheus, &listening.metrics.unwrap());

    let connections = CONNECTIONS.to_string();
    let flags = ["--connect", &listening.address, "--connections", &connections, "--metrics-addr"];
    let flags = [&flags[..], &["127.0.0.1:0", "--pin", "6K"]].concat();
    let mut client = Program::<ClientRecord>::start("c1m-client", &flags);
    let plan = client.wait_for(|record| match record {
        ClientRecord::Plan(plan) => Some(plan.clone()),
        _ => None,
    });
    let url = plan.and_then(|plan| plan.metrics).expect("the client tells where its metrics are");
    let ramped = client.wait_for(|record| match record {
        ClientRecord::Ramped(ramped) => Some(ramped.clone()),
        _ => None,
    });
    check_client(&url, &ramped.expect("the end of the ramp"));
    is_clean(&prometheus, &url);
    assert_eq!(client.finish(), Some(0));
    assert_eq!(server.finish(), Some(0));
    Ok(Completion::Completed)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn check_client(url: &str, ramped: &Ramped) {
    let samples = scrape(url);
    let page = c1m_sys::process::page_bytes().unwrap();
    let pinned = ramped.pin.unwrap().planned_pages * page;
    for (name, value) in [
        ("c1m_client_connections_planned", CONNECTIONS as f64),
        ("c1m_client_connections", ramped.established as f64),
        ("c1m_client_connections_established_total", ramped.established as f64),
        ("c1m_client_connections_answered_total", ramped.answered as f64),
        ("c1m_client_connections_failed_total", ramped.failed as f64),
        ("c1m_client_heartbeats_due_total", 0.0),
        ("c1m_client_heartbeats_answered_total", 0.0),
        ("c1m_client_answers_wrong_total", 0.0),
        ("c1m_client_pinned_bytes", pinned as f64),
        ("c1m_client_ramp_seconds", ramped.ramp_s),
        ("c1m_client_connect_seconds_count", ramped.connect_us.count as f64),
        ("c1m_client_connect_seconds_bucket{le=\"10\"}", ramped.connect_us.count as f64),
        ("c1m_client_first_byte_seconds_count", ramped.first_byte_us.count as f64),
        ("c1m_client_first_byte_seconds_bucket{le=\"+Inf\"}", ramped.first_byte_us.count as f64),
        ("c1m_client_unanswered_total{stage=\"connect\"}", 0.0),
        ("c1m_client_unanswered_total{stage=\"first_byte\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} of {samples:#?}");
    }
    assert!(pinned > 0 && ramped.established == CONNECTIONS, "{ramped:?}");
}
