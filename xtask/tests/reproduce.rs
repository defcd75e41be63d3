//! The main job at 1/64 of its scale, for real: 16,000 connections, eBPF on the running kernel, the host's own tcp_mem.
//!
//! Needs root, and a kernel that takes the probes. Where they are refused the tests are counted as ignored, with the reason.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use c1m_testkit::{
    child::{child_of, is_root, is_running, signal},
    eventually, figures,
    schema::Schema,
    undisturbed,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::{Value, json};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const TCP_MEM: &str = "/proc/sys/net/ipv4/tcp_mem";
const STATE_FILE: &str = "/run/c1m/sysctl.json";
/// `tcp_mem` of act 1: the article's, times 16,000 / 1,024,000.
const ACT_1: [u64; 3] = [14_569, 19_426, 29_139];
/// The server that a run starts is recognised by it.
const SERVER: &str = "c1m-server";
const CLIENT: &str = "c1m-client";
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host, one tcp_mem.
    arguments.test_threads = Some(1);
    let kill =
        |name: &'static str, victim: Victim| Trial::ignorable_test(name, move || survive(victim));
    let tests = vec![
        Trial::ignorable_test("the_crossing_is_where_the_plan_has_it", reproduction),
        Trial::ignorable_test("a_client_that_dies_of_its_server_is_not_the_cause", cause),
        kill("a_killed_server_leaves_nothing_behind", Victim::Server),
        kill("a_killed_client_leaves_nothing_behind", Victim::Client),
        kill("a_killed_helper_leaves_nothing_behind", Victim::Helper),
        kill("a_killed_xtask_leaves_nothing_behind", Victim::Xtask),
        kill("when_all_are_killed_restore_puts_back", Victim::All),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn command() -> Command {
    program(SERVER);
    with_client(&program(CLIENT))
}

fn with_client(client: &Path) -> Command {
    let mut command = Command::new(XTASK);
    command
        .args(["reproduce", "--connections", "16000", "--yes", "--json"])
        // What was built with this test. The server beside xtask is taken in any case.
        .args(["--client-program".as_ref(), client.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A program of the workspace, which is beside xtask.
fn program(name: &str) -> PathBuf {
    let program = Path::new(XTASK).with_file_name(name);
    assert!(program.exists(), "{} is not built: test the whole workspace", program.display());
    program
}

/// The environment's refusal, if this is one.
fn refusal(output: &Output) -> Option<Completion> {
    let said = String::from_utf8_lossy(&output.stderr);
    (output.status.code() == Some(3))
        .then(|| Completion::ignored_with(said.lines().last().unwrap_or_default()))
}

fn reproduction() -> Result<Completion, Failed> {
    let before = tcp_mem()?;
    let schema = Schema::read("reproduce");
    // Other programs of the host can move the place of the crossing.
    undisturbed(|| {
        let folder = tempfile::tempdir()?;
        let (lines, page) = (folder.path().join("run.jsonl"), folder.path().join("run.html"));
        let files = [OsStr::new("--output"), lines.as_ref(), OsStr::new("--report"), page.as_ref()];
        let output = command().args(files).output()?;
        if let Some(ignored) = refusal(&output) {
            return Ok(Ok(ignored));
        }
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        stdout.lines().for_each(|line| schema.check(line));
        let said = format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(tcp_mem()?, before, "{said}");
        let last = stdout.lines().last().ok_or_else(|| Failed::from(said.as_str()))?;
        let run: Value = serde_json::from_str(last)?;
        check(&run, &said);
        let told = figures::check(&fs::read_to_string(page)?, &fs::read_to_string(lines)?);
        for kind in ["act", "crossing", "limits", "reproduction", "summary", "verdict"] {
            assert!(told.contains(kind), "{kind} is not on the page: {told:?}");
        }
        let missed = run["missed"].as_array().map_or(usize::MAX, Vec::len);
        assert_eq!(output.status.code(), Some(i32::from(missed != 0)), "{said}");
        // What does not depend on other programs was checked above, so this is the place of the crossing.
        Ok(if missed == 0 { Ok(Completion::Completed) } else { Err(run["missed"].to_string()) })
    })
}

/// Everything but the place of the crossing, which other programs of the host can move.
fn check(run: &Value, said: &str) {
    assert_eq!(run["kind"], "reproduction", "{said}");
    assert_eq!(run["dropped"], 0, "{said}");
    assert_eq!(run["restored"], true, "{said}");
    assert_eq!(run["acts"][0]["tcp_mem"], json!(ACT_1), "{said}");
    for level in 0..3 {
        let crossing = &run["acts"][0]["crossings"][level];
        assert_eq!(crossing["limit_pages"], ACT_1[level], "{said}");
        assert!(crossing["connections"].as_u64().is_some(), "not reported: {crossing}\n{said}");
        // What crossed is above the limit.
        assert!(crossing["pages"].as_u64() > Some(ACT_1[level]), "{said}");
    }
    for act in [&run["acts"][1], &run["acts"][2]] {
        assert_eq!(act["held"], 16_000, "{said}");
        assert_eq!(act["answered"], 1_000, "{said}");
    }
    let planned = run["acts"][1]["planned_pages"].as_u64();
    // 7711 bytes are 1.8826 pages.
    assert_eq!(planned.map(|pages| pages / 100), Some(301), "{said}");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    Client,
    Helper,
    Xtask,
    All,
}

/// Kills one of the processes in act 1 at each of several moments, and looks for what is left.
fn survive(victim: Victim) -> Result<Completion, Failed> {
    if !is_root() {
        return Ok(Completion::ignored_with("only root can kill the privileged half"));
    }
    let before = tcp_mem()?;
    for delay_ms in [0, 150, 700] {
        let mut run = command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if !wait_for_act_1(&mut run)? {
            let output = run.wait_with_output()?;
            return refusal(&output).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into());
        }
        thread::sleep(Duration::from_millis(delay_ms));
        let family = Family::of(&run);
        family.kill(victim);
        let output = run.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        let expected = if matches!(victim, Victim::Xtask | Victim::All) { None } else { Some(4) };
        assert_eq!(code, expected, "{victim:?} killed after {delay_ms} ms: {said}");
        assert!(
            eventually(|| family.is_gone()),
            "{family:?}, {:?} after {delay_ms} ms: {said}",
            strays()
        );
        if victim == Victim::All {
            assert!(fs::exists(STATE_FILE)?, "no state file: {said}");
            let restored = Command::new(XTASK).args(["reproduce", "--restore"]).output()?;
            assert_eq!(restored.status.code(), Some(0), "{restored:?}");
        }
        let is_back =
            || tcp_mem().is_ok_and(|now| now == before) && !fs::exists(STATE_FILE).unwrap_or(true);
        assert!(eventually(is_back), "tcp_mem is {:?} after {delay_ms} ms: {said}", tcp_mem()?);
    }
    Ok(Completion::Completed)
}

/// The death of a client that lost its server is heard of before the server's, and the server's is reported.
fn cause() -> Result<Completion, Failed> {
    let before = tcp_mem()?;
    let folder = tempfile::tempdir()?;
    let (client, mark) = (folder.path().join("client"), folder.path().join("ended"));
    let script = format!("#!/bin/sh\necho refused >&2\n: >{}\nexit 3\n", mark.display());
    fs::write(&client, script)?;
    fs::set_permissions(&client, PermissionsExt::from_mode(0o755))?;
    let mut run = with_client(&client).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if !wait_for_act_1(&mut run)? {
        let output = run.wait_with_output()?;
        return refusal(&output).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into());
    }
    let server = Family::of(&run).server_or_wait();
    assert!(eventually(|| mark.exists() || !is_running(run.id())), "no client was started");
    signal(server, &["KILL"]);
    let output = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("client: refused"), "{said}");
    let told = said.lines().last().unwrap_or_default();
    assert!(told.starts_with("error: the server ended before its time (signal 9)"), "{said}");
    assert_eq!(tcp_mem()?, before, "{said}");
    Ok(Completion::Completed)
}

/// Waits for the `tcp_mem` of act 1. `false`: the run ended before.
fn wait_for_act_1(run: &mut Child) -> Result<bool, Failed> {
    // A first build takes minutes.
    let end = Instant::now() + 30 * LIMIT;
    while Instant::now() < end {
        if tcp_mem()? == ACT_1 {
            return Ok(true);
        }
        if run.try_wait()?.is_some() {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
    run.kill()?;
    Err("act 1 never began".into())
}

/// The processes of one run, as they are at one moment.
#[derive(Debug)]
struct Family {
    xtask: u32,
    helper: u32,
    server: Option<u32>,
    client: Option<u32>,
}

impl Family {
    fn of(run: &Child) -> Self {
        let xtask = run.id();
        let helper = child_of(xtask, "__privileged").expect("there is a privileged half");
        Self { xtask, helper, server: child_of(helper, SERVER), client: child_of(xtask, CLIENT) }
    }

    fn kill(&self, victim: Victim) {
        let victims = match victim {
            Victim::Server => vec![self.server_or_wait()],
            Victim::Client => vec![self.client_or_wait()],
            Victim::Helper => vec![self.helper],
            Victim::Xtask => vec![self.xtask],
            Victim::All => vec![self.xtask, self.helper],
        };
        // Stopped first, so that none of several sees another die.
        for name in ["STOP", "KILL"] {
            victims.iter().for_each(|pid| signal(*pid, &[name]));
        }
    }

    fn server_or_wait(&self) -> u32 {
        self.server.unwrap_or_else(|| wait_for_child(self.helper, SERVER))
    }

    fn client_or_wait(&self) -> u32 {
        self.client.unwrap_or_else(|| wait_for_child(self.xtask, CLIENT))
    }

    /// None of them runs, and no server or client that was started at the last moment.
    fn is_gone(&self) -> bool {
        let known = [Some(self.xtask), Some(self.helper), self.server, self.client];
        known.into_iter().flatten().all(|pid| !is_running(pid)) && strays().is_empty()
    }
}

/// Servers and clients of such a run, whoever their parent is by now.
fn strays() -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_running(*pid) && is_of_a_run(*pid))
        .collect()
}

fn is_of_a_run(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let is_program = [SERVER, CLIENT].iter().any(|name| words[0].ends_with(name));
    is_program && words.iter().any(|word| word == "16000")
}

fn wait_for_child(parent: u32, name: &str) -> u32 {
    let mut found = None;
    eventually(|| {
        found = child_of(parent, name);
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("no {name} was started"))
}

/// The host's own; outside of its network namespace there is none to read.
fn tcp_mem() -> Result<[u64; 3], Failed> {
    let text = fs::read_to_string(TCP_MEM).unwrap_or_default();
    let numbers: Vec<u64> =
        text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Ok(numbers.try_into().unwrap_or([0; 3]))
}
