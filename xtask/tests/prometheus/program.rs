//! The programs: Prometheus and promtool where they are, and ours as they were built with this test.

use std::{
    env,
    fmt::Debug,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use c1m_client::record::{ClientRecord, Ramped};
use c1m_record::Record;
use c1m_testkit::{
    Program, only,
    schema::{self, Schema},
    scrape::{get, scrape},
};
use libtest_mimic::{Completion, Failed};
use serde::de::DeserializeOwned;

/// Names the program, where it is not installed.
const PROGRAM: &str = "C1M_PROMETHEUS";
const INSTALLED: &str = "/usr/bin/prometheus";
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
        .expect("promtool is beside Prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:#?} of {input}");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A program of ours with JSON output, as it was built with this test.
pub(crate) fn start<R: DeserializeOwned + Clone + Debug>(
    name: &str,
    arguments: &[&str],
    schema: &'static Schema,
) -> Program<R> {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name(name);
    assert!(program.exists(), "{} is not built: test the whole workspace", program.display());
    Program::start(Command::new(program).args(arguments).arg("--json"), schema).unwrap()
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
    let mut server = start::<Record>("c1m-server", &fixed, &schema::SERVER);
    let listening = server.wait_for("listening server", only!(Record::Listening));
    is_clean(&prometheus, &listening.metrics.unwrap());

    let connections = CONNECTIONS.to_string();
    let flags = ["--connect", &listening.address, "--connections", &connections, "--metrics-addr"];
    let flags = [&flags[..], &["127.0.0.1:0", "--pin", "6K"]].concat();
    let mut client = start::<ClientRecord>("c1m-client", &flags, &schema::CLIENT);
    let plan = client.wait_for("plan", only!(ClientRecord::Plan));
    let url = plan.metrics.expect("the client says where its metrics are");
    let ramped = client.wait_for("end of the ramp", only!(ClientRecord::Ramped));
    check_client(&url, &ramped);
    is_clean(&prometheus, &url);
    assert_eq!(client.finish().code, Some(0));
    assert_eq!(server.finish().code, Some(0));
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
