//! Whatever happens to a run of `xtask reproduce`, the kernel's settings end as they were, and no process stays behind.
//!
//! The runs have a server and a client that only speak, and a tree of settings in a folder: no privilege, no load. What needs
//! a real setting changes one by one, as root.

mod support;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use c1m_testkit::{
    child::{self, child_of, is_root, is_running},
    eventually,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::{Value, json};
use support::{
    fake::{self, CLIENT, SERVER},
    run::{self, Fixture, TCP_MEM, finish, json_lines},
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
        test("the_tightest_limit_of_a_cgroup_counts", the_tightest_limit_of_a_cgroup_counts),
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
        test(
            "a_file_that_cant_be_written_starts_nothing",
            a_file_that_cant_be_written_starts_nothing,
        ),
        test(
            "what_is_full_is_exit_code_3_with_its_name",
            what_is_full_is_exit_code_3_with_its_name,
        ),
        test("an_older_report_stays_until_the_new_one_is_whole", an_older_report_stays),
        test(
            "the_privileged_half_does_what_a_run_needs_and_nothing_else",
            the_privileged_half_does_what_a_run_needs_and_nothing_else,
        ),
        test(
            "on_the_running_kernel_another_server_is_refused",
            on_the_running_kernel_another_server_is_refused,
        ),
        test(
            "the_server_has_nothing_of_the_callers_environment",
            the_server_has_nothing_of_the_callers_environment,
        ),
        test("a_server_that_counts_late_is_waited_for", a_server_that_counts_late_is_waited_for),
        test("what_still_goes_is_waited_for", what_still_goes_is_waited_for),
        Trial::ignorable_test("a_real_setting_survives_sigkill", a_real_setting_survives_sigkill),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn a_whole_run_meets_its_targets() {
    let fixture = Fixture::new("good");
    let finished = fixture.run_all().expect_code(0);
    let last = finished.last_json();
    assert_eq!(last["kind"], "reproduction");
    assert_eq!(last["v"], c1m_record::SCHEMA_VERSION);
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
    fixture.expect_untouched();
}

fn a_missed_target_is_exit_code_1() {
    for (scenario, told) in [
        ("late crossing", "act 1: high was crossed at connection 15,799, expected at 15,479"),
        ("lost events", "act 2: 3 events were lost"),
        ("short client", "act 3: 15,999 of 16,000 connections were held"),
    ] {
        let fixture = Fixture::new(scenario);
        let finished = fixture.run_all().expect_code(1).expect_error(told);
        assert!(!finished.last_json()["missed"].as_array().unwrap().is_empty());
        fixture.expect_untouched();
    }
}

fn uncounted_refusals() {
    let fixture = Fixture::new("uncounted refusals");
    let told = "not counted: act 1: 3 of 3 refusals not counted (100.000 %)";
    let finished = fixture.run_all().expect_code(0).expect_error(told);
    let last = finished.last_json();
    assert_eq!((&last["missed"], &last["dropped"]), (&json!([]), &json!(9)));
    assert_eq!(last["uncounted"].as_array().unwrap().len(), 3);
    fixture.expect_untouched();
}

fn without_a_terminal_it_wants_yes() {
    let fixture = Fixture::new("good");
    fixture.run(&["--connections", "16000"]).expect_code(2).expect_error("--yes");
    fixture.run(&["--connections", "10", "--yes"]).expect_code(2);
    assert!(!fixture.path("run").exists());
    assert!(!fixture.path("fake-server.pid").exists());
}

fn an_impossible_run_starts_nothing() {
    let fixture = Fixture::new("good");
    fixture
        .run(&["--connections", "1g", "--yes"])
        .expect_code(3)
        .expect_error("of memory for both ends");
    fs::write(fixture.path("proc/sys/net/ipv4/ip_local_port_range"), "1024 1023").unwrap();
    fixture
        .run(&["--connections", "16000", "--yes"])
        .expect_code(3)
        .expect_error("net.ipv4.ip_local_port_range");
    fs::remove_file(fixture.path("proc/sys/net/ipv4/tcp_mem")).unwrap();
    fixture
        .run(&["--connections", "16000", "--yes"])
        .expect_code(3)
        .expect_error("the host's network namespace");
    assert!(!fixture.path("fake-server.pid").exists());
}

fn low_limits_are_raised_and_put_back() {
    let fixture = Fixture::new("stands still");
    fs::write(fixture.path("proc/sys/fs/epoll/max_user_watches"), "1000\n").unwrap();
    let run = fixture.start();
    fixture.wait_for_halfway();
    assert_eq!(fixture.setting("fs/epoll/max_user_watches"), "42000");
    child::signal(run.id(), &["INT"]);
    finish(run).expect_code(130).expect_error("fs.epoll.max_user_watches: 1000 → 42000");
    assert_eq!(fixture.setting("fs/epoll/max_user_watches"), "1000");
    fixture.expect_untouched();
}

fn programs_that_fail_end_the_run() {
    for (scenario, code, told) in [
        ("server refuses", 3, "this kernel has no BTF"),
        ("server dies", 4, "a worker panicked"),
        ("client dies", 4, "out of addresses"),
        ("garbage from the client", 4, "`not a record`"),
    ] {
        let fixture = Fixture::new(scenario);
        fixture.run_all().expect_code(code).expect_error(told);
        fixture.expect_untouched();
    }
}

fn a_run_without_steps_is_ended() {
    let fixture = Fixture::new("stands still");
    finish(fixture.start_with_stall("1s"))
        .expect_code(4)
        .expect_error("nothing moved for 1s while connections were opened");
    fixture.expect_untouched();
}

/// A slow host: the server takes longer to count than any constant that was thought of on a fast one.
fn a_server_that_counts_late_is_waited_for() {
    let fixture = Fixture::new("server counts late");
    let finished = fixture.run_all().expect_code(0);
    assert_eq!(finished.last_json()["acts"][1]["held"], 16_000);
    fixture.expect_untouched();
}

/// A slow host: sockets of an act take longer to go than nothing may move, and the next act begins when they are gone.
fn what_still_goes_is_waited_for() {
    let fixture = Fixture::new("good");
    let sockstat = fixture.path("proc/net/sockstat");
    let quiet = fs::read_to_string(&sockstat).unwrap();
    // As the kernel does it: whoever reads sees all of the one or all of the other.
    let replace = |text: &str| {
        let beside = sockstat.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, &sockstat).unwrap();
    };
    let mut run = fixture.start_with_stall("4s");
    let mut acts = json_lines(run.stdout.take().unwrap());
    assert_eq!(acts.next().unwrap()["kind"], "act");
    for left in (1..=12).rev() {
        replace(&quiet.replace("alloc 1", &format!("alloc {}", left * 1_000)));
        thread::sleep(Duration::from_millis(500));
    }
    replace(&quiet);
    assert_eq!(acts.filter(|line| line["kind"] == "act").count(), 2);
    let finished = finish(run).expect_code(0);
    assert!(!finished.stderr.contains("not quiet yet"), "{}", finished.stderr);
    fixture.expect_untouched();
}

fn signals_end_the_run_in_order() {
    for name in ["INT", "TERM", "HUP", "QUIT"] {
        let fixture = Fixture::new("stands still");
        let run = fixture.start();
        fixture.wait_for_halfway();
        child::signal(run.id(), &[name]);
        finish(run)
            .expect_code(130)
            .expect_error("net.ipv4.tcp_mem is `287898 383867 575796` again");
        fixture.expect_untouched();
    }
}

fn a_killed_server_or_client_ends_the_run() {
    for (program, told) in [(SERVER, "the server ended"), (CLIENT, "the client ended")] {
        let fixture = Fixture::new("stands still");
        let run = fixture.start();
        fixture.wait_for_halfway();
        child::signal(fixture.pid(program), &["KILL"]);
        finish(run).expect_code(4).expect_error(told).expect_error("signal 9");
        fixture.expect_untouched();
    }
}

fn a_killed_xtask_is_cleaned_up_after() {
    let fixture = Fixture::new("stands still");
    let run = fixture.start();
    fixture.wait_for_halfway();
    let helper = helper_of(&run);
    child::signal(run.id(), &["KILL"]);
    assert_eq!(finish(run).code, None);
    fixture.expect_untouched();
    assert!(eventually(|| !is_running(helper)), "the privileged half ({helper}) is still there");
}

fn a_killed_helper_is_cleaned_up_after() {
    let fixture = Fixture::new("stands still");
    let run = fixture.start();
    fixture.wait_for_halfway();
    child::signal(helper_of(&run), &["KILL"]);
    finish(run).expect_code(4).expect_error("net.ipv4.tcp_mem is `287898 383867 575796` again");
    fixture.expect_untouched();
}

/// Kills both halves at once, and answers when the programs are gone; the settings stay changed.
fn kill_both(fixture: &Fixture) {
    let run = fixture.start();
    fixture.wait_for_halfway();
    let helper = helper_of(&run);
    // Stopped first, so that neither sees the other die.
    for name in ["STOP", "KILL"] {
        child::signal(run.id(), &[name]);
        child::signal(helper, &[name]);
    }
    assert_eq!(finish(run).code, None);
    for program in [SERVER, CLIENT] {
        assert!(eventually(|| !is_running(fixture.pid(program))), "{program} is still there");
    }
    assert_eq!(fixture.tcp_mem(), "14569 19426 29139");
    assert!(fixture.state_file().exists());
}

fn when_both_are_killed_restore_puts_back() {
    let fixture = Fixture::new("stands still");
    kill_both(&fixture);
    let restore = || finish(restore(&fixture));
    restore().expect_code(0).expect_error("net.ipv4.tcp_mem is `287898 383867 575796` again");
    fixture.expect_untouched();
    restore().expect_code(0).expect_error("nothing to put back");
}

fn when_both_are_killed_the_next_run_puts_back() {
    let fixture = Fixture::new("stands still");
    kill_both(&fixture);
    fixture.set_scenario("good");
    let finished = fixture.run_all().expect_code(0).expect_error("an earlier run was killed");
    // What it changed back to is what was there before the killed run.
    assert!(finished.stderr.contains("net.ipv4.tcp_mem: 287898 383867 575796 →"), "{finished:?}");
    fixture.expect_untouched();
}

fn restore(fixture: &Fixture) -> Child {
    Command::new(run::XTASK)
        .args(["reproduce", "--restore", "--proc-dir"])
        .arg(fixture.path("proc"))
        .arg("--state-dir")
        .arg(fixture.path("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn only_one_run_at_a_time() {
    let fixture = Fixture::new("stands still");
    let run = fixture.start();
    fixture.wait_for_halfway();
    finish(restore(&fixture))
        .expect_code(3)
        .expect_error("another run is changing kernel settings");
    assert_eq!(fixture.tcp_mem(), "14569 19426 29139");
    child::signal(run.id(), &["INT"]);
    finish(run).expect_code(130);
    fixture.expect_untouched();
}

fn somebody_elses_value_is_left_alone() {
    let fixture = Fixture::new("stands still");
    let run = fixture.start();
    fixture.wait_for_halfway();
    fs::write(fixture.path("proc/sys/net/ipv4/tcp_mem"), "7 8 9\n").unwrap();
    child::signal(run.id(), &["INT"]);
    finish(run)
        .expect_code(130)
        .expect_error("net.ipv4.tcp_mem was left at `7 8 9`")
        .expect_error(TCP_MEM);
    assert_eq!(fixture.tcp_mem(), "7 8 9");
    assert!(!fixture.state_file().exists());
}

fn the_report_and_the_table_say_the_same() {
    let fixture = Fixture::new("good");
    let report = fixture.path("report.md");
    let finished = fixture
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
    let json = page.lines().find(|line| line.starts_with("{\"v\":")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(json).unwrap()["kind"], "reproduction");
}

fn a_reader_that_goes_away_is_no_error() {
    let fixture = Fixture::new("good");
    let mut run = fixture.start();
    drop(run.stdout.take());
    finish(run).expect_code(0);
    fixture.expect_untouched();
}

fn a_file_that_cant_be_written_starts_nothing() {
    let fixture = Fixture::new("good");
    let missing = fixture.path("no");
    for flag in ["--output", "--report"] {
        // A folder that is not there, a folder in place of a file, and a file system without files of ours.
        for path in ["run.jsonl", "run.md", "run.html"]
            .map(|name| missing.join(name))
            .into_iter()
            .chain([fixture.path("proc"), "/proc/run.md".into()])
        {
            let path = path.to_str().unwrap();
            fixture
                .run(&["--connections", "16000", "--yes", flag, path])
                .expect_code(3)
                .expect_error(path)
                .expect_error(&format!("choose another {flag}"));
            assert!(!fixture.path(SERVER).with_extension("pid").exists(), "a server was started");
            assert!(!fixture.path("run").exists(), "the privileged half was started");
        }
    }
    fixture.expect_untouched();
}

/// The run itself is whole: the table is on standard output where it can be, and the settings are back.
fn what_is_full_is_exit_code_3_with_its_name() {
    for flag in ["--output", "--report"] {
        let fixture = Fixture::new("good");
        let finished = fixture
            .run(&["--connections", "16000", "--yes", flag, "/dev/full"])
            .expect_code(3)
            .expect_error("error: cannot write /dev/full: No space left on device");
        assert!(finished.stdout.contains("connection 15,479, expected 15,479"), "{finished:?}");
        fixture.expect_untouched();
    }
    for json in [&["--json"][..], &[]] {
        let fixture = Fixture::new("good");
        let report = fixture.path("report.md");
        let arguments = ["--connections", "16000", "--yes", "--report", report.to_str().unwrap()];
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = fixture.command(&[&arguments[..], json].concat());
        finish(command.stdout(full).spawn().unwrap())
            .expect_code(3)
            .expect_error("error: cannot write standard output: No space left on device");
        fixture.expect_untouched();
        // With --json the first act could not be told already.
        assert_eq!(report.exists(), json.is_empty());
    }
}

fn an_older_report_stays() {
    let fixture = Fixture::new("client dies");
    let report = fixture.path("report.md");
    let older = "older\n".repeat(1 << 16);
    fs::write(&report, &older).unwrap();
    let arguments = ["--connections", "16000", "--yes", "--report", report.to_str().unwrap()];
    assert_ne!(fixture.run(&arguments).code, Some(0));
    assert_eq!(fs::read_to_string(&report).unwrap(), older);
    let before = fs::metadata(&report).unwrap();
    fixture.set_scenario("good");
    fixture.run(&arguments).expect_code(0);
    assert!(fs::read_to_string(&report).unwrap().contains("15,479"));
    use std::os::unix::fs::MetadataExt as _;
    let after = fs::metadata(&report).unwrap();
    assert_ne!(after.ino(), before.ino(), "it was written in place, where a full disk cuts it off");
}

/// The files of a cgroup, version 1, version 2, or both mounted, in a folder that the mounts of the fixture name.
fn the_tightest_limit_of_a_cgroup_counts() {
    const NONE: &str = "9223372036854771712";
    let v1 = |memory, sockets| {
        [
            ("memory.usage_in_bytes", "0"),
            ("memory.limit_in_bytes", memory),
            ("memory.kmem.tcp.usage_in_bytes", "0"),
            ("memory.kmem.tcp.limit_in_bytes", sockets),
        ]
    };
    let v2 = |max, high| [("memory.current", "0"), ("memory.max", max), ("memory.high", high)];
    for (kind, membership, files, limit) in [
        ("cgroup", "4:memory:/a\n", &v1("1048576", NONE)[..], "1.0 MiB are available"),
        ("cgroup", "4:memory:/a\n0::/a\n", &v1("1048576", NONE), "1.0 MiB are available"),
        (
            "cgroup",
            "4:memory:/a\n",
            &v1(NONE, "1048576"),
            "kmem.tcp.limit_in_bytes of the cgroup leaves 1.0 MiB",
        ),
        (
            "cgroup",
            "4:memory:/a\n0::/a\n",
            &v1(NONE, "1048576"),
            "kmem.tcp.limit_in_bytes of the cgroup leaves 1.0 MiB",
        ),
        ("cgroup2", "0::/a\n", &v2("1048576", "max"), "1.0 MiB are available"),
        ("cgroup2", "0::/a\n", &v2("max", "1048576"), "1.0 MiB are available"),
    ] {
        let fixture = Fixture::new("good");
        for folder in ["proc/self", "tree/a", "beside/a"] {
            fs::create_dir_all(fixture.path(folder)).unwrap();
        }
        let mount = |number, folder: &str, kind, options| {
            let folder = fixture.path(folder);
            format!("{number} 1 0:{number} / {} rw - {kind} none rw{options}\n", folder.display())
        };
        let options = if kind == "cgroup" { ",memory" } else { "" };
        let mut mounts = mount(36, "tree", kind, options);
        if membership.lines().count() > 1 {
            mounts += &mount(37, "beside", "cgroup2", "");
        }
        fs::write(fixture.path("proc/self/mountinfo"), mounts).unwrap();
        fs::write(fixture.path("proc/self/cgroup"), membership).unwrap();
        for (name, text) in files {
            fs::write(fixture.path("tree/a").join(name), format!("{text}\n")).unwrap();
        }
        fixture.run(&["--connections", "16000", "--yes"]).expect_code(3).expect_error(limit);
        assert!(!fixture.path(SERVER).with_extension("pid").exists(), "a server was started");
        fixture.expect_untouched();
    }
}

fn helper_of(run: &Child) -> u32 {
    child_of(run.id(), "__privileged").unwrap()
}

/// A setting of the running kernel that a run may change, and which one watch more does not matter to.
const SETTING: &str = "/proc/sys/fs/epoll/max_user_watches";

fn setting() -> u64 {
    fs::read_to_string(SETTING).unwrap().trim().parse().unwrap()
}

/// The privileged half for the running kernel, with what it said first.
fn privileged(state: &Path, arguments: &[&str]) -> (Child, Value) {
    let mut helper = Command::new(run::XTASK)
        .args(["__privileged", "--state-dir"])
        .arg(state)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let first = answer(&mut helper);
    (helper, first)
}

fn answer(helper: &mut Child) -> Value {
    json_lines(helper.stdout.as_mut().unwrap()).next().unwrap_or_default()
}

fn ask(helper: &mut Child, request: &Value) -> Value {
    writeln!(helper.stdin.as_mut().unwrap(), "{request}").unwrap();
    answer(helper)
}

fn set(helper: &mut Child, value: u64) {
    let changes = json!([{"name": "fs.epoll.max_user_watches", "value": value.to_string()}]);
    let told = ask(helper, &json!({"do": "set", "changes": changes}));
    assert_eq!(told["is"], "done", "{told}");
    assert_eq!(setting(), value);
}

/// Whatever comes by the pipe: it starts no program, changes no setting and reads no file but those of a run.
fn the_privileged_half_does_what_a_run_needs_and_nothing_else() {
    let fixture = Fixture::new("good");
    let mark = fixture.path("mark");
    let script = format!("touch {}", mark.display());
    let pattern = fixture.path("proc/sys/kernel/core_pattern");
    fs::write(&pattern, "core\n").unwrap();
    let places = fixture.path("proc");
    let arguments = ["--proc-dir", places.to_str().unwrap()];
    let (mut helper, ready) = privileged(&fixture.path("run"), &arguments);
    assert_eq!(ready["is"], "ready", "{ready}");
    for request in [
        json!({"do": "start", "program": "/bin/sh", "arguments": ["-c", script]}),
        json!({"do": "start", "program": "/bin/sh", "arguments": ["-c", script], "port": 1, "connections": 1}),
        json!({"do": "start", "port": 1, "connections": 1, "arguments": ["--output", mark]}),
        json!({"do": "set", "changes": [{"name": "kernel.core_pattern", "value": format!("|/bin/sh -c {script}")}]}),
        json!({"do": "set", "changes": [{"name": "fs.file-max", "value": "many"}]}),
        json!({"do": "read", "path": places.join("self/root/etc/passwd")}),
    ] {
        let told = ask(&mut helper, &request);
        assert_eq!(told["is"], "failed", "{request}: {told}");
    }
    assert!(!mark.exists());
    assert_eq!(fs::read_to_string(pattern).unwrap(), "core\n");
    drop(helper.stdin.take());
    helper.wait().unwrap();
}

/// Another server is for folders in the place of the kernel's files.
fn on_the_running_kernel_another_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut helper, told) = privileged(folder.path(), &["--server-program", "/bin/sh"]);
    assert_eq!(told["is"], "failed", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("/bin/sh is not started as root"), "{message}");
    assert!(!helper.wait().unwrap().success());
}

/// What a loader or a library reads there is the user's, and the server is root.
fn the_server_has_nothing_of_the_callers_environment() {
    let fixture = Fixture::new("stands still");
    let mut command = fixture.command(&["--connections", "16000", "--yes", "--json"]);
    let run = command.env("LD_PRELOAD", "").env("C1M_OF_THE_CALLER", "1").spawn().unwrap();
    fixture.wait_for_halfway();
    let server = fs::read(format!("/proc/{}/environ", fixture.pid(SERVER))).unwrap();
    assert!(server.is_empty(), "{}", String::from_utf8_lossy(&server));
    child::signal(run.id(), &["INT"]);
    finish(run).expect_code(130);
    fixture.expect_untouched();
}

fn a_real_setting_survives_sigkill() -> Result<Completion, Failed> {
    if !is_root() {
        return Ok(Completion::ignored_with("needs root"));
    }
    let state = tempfile::tempdir()?;
    let before = setting();

    // The other half dies: the pipe ends.
    let (mut helper, _) = privileged(state.path(), &[]);
    set(&mut helper, before + 1);
    drop(helper.stdin.take());
    helper.wait()?;
    assert_eq!(setting(), before);

    // It dies itself: the next one puts back.
    let (mut helper, _) = privileged(state.path(), &[]);
    set(&mut helper, before + 1);
    helper.kill()?;
    helper.wait()?;
    assert_eq!(setting(), before + 1);
    let (mut helper, ready) = privileged(state.path(), &[]);
    assert_eq!(ready["stale"][0]["result"], "restored", "{ready}");
    assert_eq!(setting(), before);
    drop(helper.stdin.take());
    helper.wait()?;
    Ok(Completion::Completed)
}
