//! Whatever happens to a run of `xtask reproduce`, the kernel's settings end as they were, and no process stays behind.
//!
//! The runs have a server and a client that only speak, and a tree of settings in a folder: no privilege, no load. What needs
//! a real setting uses one of a network namespace of its own, as root.

mod support;

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, ExitCode, Stdio},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::{Value, json};
use support::{
    fake::{self, CLIENT, SERVER},
    run::{
        self, Stand, TCP_MEM, child_of, eventually, finish, is_root, is_running, json_lines, signal,
    },
};

fn main() -> ExitCode {
    if let Some(code) = fake::dispatch() {
        return code;
    }
    let test = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let tests = vec![
        test("a_whole_run_meets_its_targets", a_whole_run_meets_its_targets),
        test("a_missed_target_is_exit_code_1", a_missed_target_is_exit_code_1),
        test("a_refusal_that_was_not_counted_fails_nothing", uncounted_refusals),
        test("without_a_terminal_it_wants_yes", without_a_terminal_it_wants_yes),
        test("an_impossible_run_starts_nothing", an_impossible_run_starts_nothing),
        test("low_limits_are_raised_and_put_back", low_limits_are_raised_and_put_back),
        test("programs_that_fail_end_the_run", programs_that_fail_end_the_run),
        test("a_run_without_steps_is_ended", a_run_without_steps_is_ended),
        test("signals_end_the_run_in_order", signals_end_the_run_in_order),
        test("a_killed_server_or_client_ends_the_run", a_killed_server_or_client_ends_the_run),
        test("a_killed_xtask_is_cleaned_up_after", a_killed_xtask_is_cleaned_up_after),
        test("a_killed_helper_is_cleaned_up_after", a_killed_helper_is_cleaned_up_after),
        test("when_both_are_killed_restore_puts_back", when_both_are_killed_restore_puts_back),
        test(
            "when_both_are_killed_the_next_run_puts_back",
            when_both_are_killed_the_next_run_puts_back,
        ),
        test("only_one_run_at_a_time", only_one_run_at_a_time),
        test("somebody_elses_value_is_left_alone", somebody_elses_value_is_left_alone),
        test("the_report_and_the_table_say_the_same", the_report_and_the_table_say_the_same),
        test("a_reader_that_goes_away_is_no_error", a_reader_that_goes_away_is_no_error),
        Trial::ignorable_test("a_real_setting_survives_sigkill", a_real_setting_survives_sigkill),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn a_whole_run_meets_its_targets() {
    let stand = Stand::new("good");
    let finished = stand.run_all().expect_code(0);
    let last = finished.last_json();
    assert_eq!(last["kind"], "reproduction");
    assert_eq!(last["v"], 1);
    for (field, value) in [
        ("connections", json!(16_000)),
        ("dropped", json!(0)),
        ("restored", json!(true)),
        ("missed", json!([])),
        ("server_user_bytes_per_connection", json!(20.0)),
    ] {
        assert_eq!(last[field], value, "{field}");
    }
    let acts = last["acts"].as_array().unwrap();
    let names: Vec<&Value> = acts.iter().map(|act| &act["name"]).collect();
    assert_eq!(names, ["default", "cure", "idle"]);
    // ⌈(29139 + 1) · 16000 / 30121⌉, as 16000 · 7711 / 4096 = 30121.09 pages are planned.
    assert_eq!(acts[0]["expected"], 15_479);
    assert_eq!(acts[0]["connections"], 15_479);
    assert_eq!(acts[0]["error_percent"], 0.0);
    assert_eq!(acts[0]["tcp_mem"], json!([14_569, 19_426, 29_139]));
    assert_eq!((&acts[0]["pages"], &acts[0]["limit_pages"]), (&json!(29_140), &json!(29_139)));
    assert_eq!(acts[1]["crossings"][2]["connections"], Value::Null);
    for act in &acts[1..] {
        assert_eq!(act["tcp_mem"], json!([12_288, 32_768, 49_152]));
        assert_eq!((&act["held"], &act["answered"]), (&json!(16_000), &json!(1_000)));
    }
    // One record for each act, before the last line.
    assert_eq!(finished.stdout.lines().count(), 4);
    stand.expect_untouched();
}

fn a_missed_target_is_exit_code_1() {
    for (scenario, told) in [
        ("late crossing", "act 1: high was crossed at connection 15,799, expected at 15,479"),
        ("lost events", "act 2: 3 events were lost"),
        ("short client", "act 3: 15,999 of 16,000 connections were held"),
    ] {
        let stand = Stand::new(scenario);
        let finished = stand.run_all().expect_code(1).expect_error(told);
        assert!(!finished.last_json()["missed"].as_array().unwrap().is_empty());
        stand.expect_untouched();
    }
}

fn uncounted_refusals() {
    let stand = Stand::new("uncounted refusals");
    let told = "not counted: act 1: 3 of 3 refusals not counted (100.000 %)";
    let finished = stand.run_all().expect_code(0).expect_error(told);
    let last = finished.last_json();
    assert_eq!((&last["missed"], &last["dropped"]), (&json!([]), &json!(9)));
    assert_eq!(last["uncounted"].as_array().unwrap().len(), 3);
    stand.expect_untouched();
}

fn without_a_terminal_it_wants_yes() {
    let stand = Stand::new("good");
    stand.run(&["--connections", "16000"]).expect_code(2).expect_error("--yes");
    stand.run(&["--connections", "10", "--yes"]).expect_code(2);
    assert!(!stand.path("run").exists());
    assert!(!stand.path("fake-server.pid").exists());
}

fn an_impossible_run_starts_nothing() {
    let stand = Stand::new("good");
    stand
        .run(&["--connections", "1g", "--yes"])
        .expect_code(3)
        .expect_error("of memory for both ends");
    fs::write(stand.path("proc/sys/net/ipv4/ip_local_port_range"), "1024 1023").unwrap();
    stand
        .run(&["--connections", "16000", "--yes"])
        .expect_code(3)
        .expect_error("net.ipv4.ip_local_port_range");
    fs::remove_file(stand.path("proc/sys/net/ipv4/tcp_mem")).unwrap();
    stand
        .run(&["--connections", "16000", "--yes"])
        .expect_code(3)
        .expect_error("the host's network namespace");
    assert!(!stand.path("fake-server.pid").exists());
}

fn low_limits_are_raised_and_put_back() {
    let stand = Stand::new("stands still");
    fs::write(stand.path("proc/sys/fs/epoll/max_user_watches"), "1000\n").unwrap();
    let run = stand.start();
    stand.wait_for_halfway();
    assert_eq!(stand.setting("fs/epoll/max_user_watches"), "42000");
    signal(run.id(), "INT");
    finish(run).expect_code(130).expect_error("fs.epoll.max_user_watches: 1000 → 42000");
    assert_eq!(stand.setting("fs/epoll/max_user_watches"), "1000");
    stand.expect_untouched();
}

fn programs_that_fail_end_the_run() {
    for (scenario, code, told) in [
        ("server refuses", 3, "this kernel has no BTF"),
        ("server dies", 4, "a worker panicked"),
        ("client dies", 4, "out of addresses"),
        ("garbage from the client", 4, "`not a record`"),
    ] {
        let stand = Stand::new(scenario);
        stand.run_all().expect_code(code).expect_error(told);
        stand.expect_untouched();
    }
}

fn a_run_without_steps_is_ended() {
    let stand = Stand::new("stands still");
    let arguments = ["--connections", "16000", "--yes", "--json"];
    let mut command = stand.command(&arguments);
    // The last value counts.
    let arguments: Vec<_> = command
        .get_args()
        .map(|argument| if argument == "15s" { "1s".into() } else { argument.to_owned() })
        .collect();
    command = Command::new(run::XTASK);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
        .expect_code(4)
        .expect_error("nothing moved for 1s while connections were opened");
    stand.expect_untouched();
}

fn signals_end_the_run_in_order() {
    for name in ["INT", "TERM", "HUP"] {
        let stand = Stand::new("stands still");
        let run = stand.start();
        stand.wait_for_halfway();
        signal(run.id(), name);
        finish(run)
            .expect_code(130)
            .expect_error("net.ipv4.tcp_mem is `287898 383867 575796` again");
        stand.expect_untouched();
    }
}

fn a_killed_server_or_client_ends_the_run() {
    for (program, told) in [(SERVER, "the server ended"), (CLIENT, "the client ended")] {
        let stand = Stand::new("stands still");
        let run = stand.start();
        stand.wait_for_halfway();
        signal(stand.pid(program), "KILL");
        finish(run).expect_code(4).expect_error(told).expect_error("signal 9");
        stand.expect_untouched();
    }
}

fn a_killed_xtask_is_cleaned_up_after() {
    let stand = Stand::new("stands still");
    let run = stand.start();
    stand.wait_for_halfway();
    let helper = helper_of(&run);
    signal(run.id(), "KILL");
    assert_eq!(finish(run).code, None);
    stand.expect_untouched();
    assert!(eventually(|| !is_running(helper)), "the privileged half ({helper}) is still there");
}

fn a_killed_helper_is_cleaned_up_after() {
    let stand = Stand::new("stands still");
    let run = stand.start();
    stand.wait_for_halfway();
    signal(helper_of(&run), "KILL");
    finish(run).expect_code(4).expect_error("net.ipv4.tcp_mem is `287898 383867 575796` again");
    stand.expect_untouched();
}

/// Kills both halves at once, and answers when the programs are gone; the settings stay changed.
fn kill_both(stand: &Stand) {
    let run = stand.start();
    stand.wait_for_halfway();
    let helper = helper_of(&run);
    // Stopped first, so that neither sees the other die.
    for name in ["STOP", "KILL"] {
        signal(run.id(), name);
        signal(helper, name);
    }
    assert_eq!(finish(run).code, None);
    for program in [SERVER, CLIENT] {
        assert!(eventually(|| !is_running(stand.pid(program))), "{program} is still there");
    }
    assert_eq!(stand.tcp_mem(), "14569 19426 29139");
    assert!(stand.state_file().exists());
}

fn when_both_are_killed_restore_puts_back() {
    let stand = Stand::new("stands still");
    kill_both(&stand);
    let restore = || finish(stand_restore(&stand));
    restore().expect_code(0).expect_error("net.ipv4.tcp_mem is `287898 383867 575796` again");
    stand.expect_untouched();
    restore().expect_code(0).expect_error("nothing to put back");
}

fn when_both_are_killed_the_next_run_puts_back() {
    let stand = Stand::new("stands still");
    kill_both(&stand);
    stand.set_scenario("good");
    let finished = stand.run_all().expect_code(0).expect_error("an earlier run was killed");
    // What it changed back to is what was there before the killed run.
    assert!(finished.stderr.contains("net.ipv4.tcp_mem: 287898 383867 575796 →"), "{finished:?}");
    stand.expect_untouched();
}

fn stand_restore(stand: &Stand) -> Child {
    Command::new(run::XTASK)
        .args(["reproduce", "--restore", "--proc-dir"])
        .arg(stand.path("proc"))
        .arg("--state-dir")
        .arg(stand.path("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn only_one_run_at_a_time() {
    let stand = Stand::new("stands still");
    let run = stand.start();
    stand.wait_for_halfway();
    finish(stand_restore(&stand))
        .expect_code(3)
        .expect_error("another run is changing kernel settings");
    assert_eq!(stand.tcp_mem(), "14569 19426 29139");
    signal(run.id(), "INT");
    finish(run).expect_code(130);
    stand.expect_untouched();
}

fn somebody_elses_value_is_left_alone() {
    let stand = Stand::new("stands still");
    let run = stand.start();
    stand.wait_for_halfway();
    fs::write(stand.path("proc/sys/net/ipv4/tcp_mem"), "7 8 9\n").unwrap();
    signal(run.id(), "INT");
    finish(run)
        .expect_code(130)
        .expect_error("net.ipv4.tcp_mem was left at `7 8 9`")
        .expect_error(TCP_MEM);
    assert_eq!(stand.tcp_mem(), "7 8 9");
    assert!(!stand.state_file().exists());
}

fn the_report_and_the_table_say_the_same() {
    let stand = Stand::new("good");
    let report = stand.path("report.md");
    let finished = stand
        .run(&["--connections", "16000", "--yes", "--report", report.to_str().unwrap()])
        .expect_code(0);
    let page = fs::read_to_string(report).unwrap();
    for told in [
        "connection 15,479, expected 15,479 (0.000 %)",
        "932448 1243264 1864896",
        "16,000 of 16,000",
    ] {
        assert!(finished.stdout.contains(told), "{told} is not in\n{}", finished.stdout);
        assert!(page.contains(told), "{told} is not in\n{page}");
    }
    let json = page.lines().find(|line| line.starts_with("{\"v\":1")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(json).unwrap()["kind"], "reproduction");
}

fn a_reader_that_goes_away_is_no_error() {
    let stand = Stand::new("good");
    let mut run = stand.start();
    drop(run.stdout.take());
    finish(run).expect_code(0);
    stand.expect_untouched();
}

fn helper_of(run: &Child) -> u32 {
    child_of(run.id(), "__privileged").unwrap()
}

/// A process that keeps a network namespace, so that its settings outlive the privileged half.
struct Namespace(Child);

impl Namespace {
    fn new() -> Option<Self> {
        let child = Command::new("unshare").args(["-n", "sleep", "300"]).spawn().ok()?;
        let namespace = Self(child);
        let own = fs::read_link("/proc/self/ns/net").ok()?;
        let path = format!("/proc/{}/ns/net", namespace.0.id());
        eventually(|| fs::read_link(&path).is_ok_and(|other| other != own)).then_some(namespace)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", program]);
        command
    }

    fn somaxconn(&self) -> String {
        let output = self.command("cat").arg("/proc/sys/net/core/somaxconn").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().into()
    }

    /// The privileged half in this namespace, which has told that it is ready.
    fn helper(&self, state: &std::path::Path) -> (Child, Value) {
        let mut helper = self
            .command(run::XTASK)
            .args(["__privileged", "--state-dir"])
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = json_lines(helper.stdout.as_mut().unwrap()).next().unwrap();
        assert_eq!(ready["is"], "ready", "{ready}");
        (helper, ready)
    }

    fn set(&self, helper: &mut Child, value: &str) {
        let change =
            json!({"do": "set", "changes": [{"name": "net.core.somaxconn", "value": value}]});
        writeln!(helper.stdin.as_mut().unwrap(), "{change}").unwrap();
        assert!(eventually(|| self.somaxconn() == value));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_real_setting_survives_sigkill() -> Result<Completion, Failed> {
    if !is_root() {
        return Ok(Completion::ignored_with("needs root"));
    }
    let Some(namespace) = Namespace::new() else {
        return Ok(Completion::ignored_with("no network namespace can be made here"));
    };
    let state = tempfile::tempdir()?;
    let before = namespace.somaxconn();
    assert_ne!(before, "1234");

    // The other half dies: the pipe ends.
    let (mut helper, _) = namespace.helper(state.path());
    namespace.set(&mut helper, "1234");
    drop(helper.stdin.take());
    helper.wait()?;
    assert_eq!(namespace.somaxconn(), before);

    // It dies itself: the next one puts back.
    let (mut helper, _) = namespace.helper(state.path());
    namespace.set(&mut helper, "1234");
    helper.kill()?;
    helper.wait()?;
    assert_eq!(namespace.somaxconn(), "1234");
    let (mut helper, ready) = namespace.helper(state.path());
    assert_eq!(ready["stale"][0]["fate"], "restored", "{ready}");
    assert_eq!(namespace.somaxconn(), before);
    drop(helper.stdin.take());
    helper.wait()?;
    Ok(Completion::Completed)
}
