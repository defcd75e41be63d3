//! A few cheap faults, tripped for real on the running kernel: each verdict, each counter, and the host's settings afterwards.
//!
//! Needs root, and a kernel that takes the probes. Where they are refused the tests are counted as ignored, with the reason.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use c1m_testkit::{schema::Schema, undisturbed};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// What the faults below change, and has to be as it was.
const SETTINGS: [&str; 3] = ["net/ipv4/tcp_mem", "net/ipv4/tcp_max_orphans", "fs/file-max"];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host: one tcp_mem, and probes that see everybody.
    arguments.test_threads = Some(1);
    let fault = |name: &'static str| {
        Trial::ignorable_test(format!("the_verdict_is_right_{name}"), move || trip(name))
    };
    let faults = [
        "quiet_idle",
        "quiet_busy",
        "tcp_mem_fair_share",
        "tcp_mem_high_unread",
        "orphans",
        "receive_buffer",
        "accept_queue",
        "nofile",
        "file_max",
        "ports",
    ];
    let mut tests: Vec<Trial> = faults.map(fault).into();
    tests.push(Trial::test("a_fault_that_does_not_exist_is_a_wrong_usage", || {
        let output = faults_command(&["--only", "no_such_fault"]).output()?;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        Ok(())
    }));
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn faults_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(XTASK);
    // What was built with this test; a release build takes minutes.
    let server = Path::new(XTASK).with_file_name("c1m-server");
    assert!(server.exists(), "{} is not built: test the whole workspace", server.display());
    command.arg("faults").arg("--server-program").arg(server);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn settings() -> Vec<Option<String>> {
    SETTINGS.map(|name| fs::read_to_string(format!("/proc/sys/{name}")).ok()).into()
}

fn trip(name: &str) -> Result<Completion, Failed> {
    let schema = Schema::read("faults");
    let before = settings();
    // The probes see the whole host: what another program does beside a run is in the verdict too.
    undisturbed(|| {
        let output = faults_command(&["--json", "--only", name]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(settings(), before, "{said}");
        stdout.lines().for_each(|line| schema.check(line));
        let Some(line) = stdout.lines().last() else {
            assert_eq!(output.status.code(), Some(3), "{said}");
            return Ok(Ok(Completion::ignored_with(said.lines().last().unwrap_or_default())));
        };
        let faults: Value = serde_json::from_str(line)?;
        let fault = &faults["faults"][0];
        assert_eq!(fault["name"], name, "{line}");
        if let Some(reason) = fault["skipped_because"].as_str() {
            assert_eq!(output.status.code(), Some(3), "{stdout}");
            return Ok(Ok(Completion::ignored_with(reason)));
        }
        let is_right = fault["right"] == 1 && fault["wrong"] == 0;
        assert_eq!(output.status.code(), Some(i32::from(!is_right)), "{stdout}");
        Ok(if is_right { Ok(Completion::Completed) } else { Err(stdout) })
    })
}
