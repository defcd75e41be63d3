//! `c1m-server doctor` as a program: assessments of configured settings, which the running kernel itself has to agree with, the files of `--emit`, and
//! `--apply`. What needs root or a network namespace of its own is counted as ignored, with the reason.

mod takes;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode, Output, Stdio},
};

use c1m_record::{Assessment, Doctor, Line, Record};
use c1m_sys::confine::unshare_network;
use c1m_testkit::{child::closed_pipe, schema};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let tests = vec![
        test("a_file_is_assessed_line_by_line", a_file_is_assessed_line_by_line),
        test("standard_input_and_folders_are_read", standard_input_and_folders_are_read),
        test("control_characters_stay_out_of_the_text", control_characters_stay_out_of_the_text),
        test("emit_replaces_nothing_by_itself", emit_replaces_nothing_by_itself),
        test("emit_follows_no_link", emit_follows_no_link),
        test("a_closed_standard_output_fits_nothing", a_closed_standard_output_fits_nothing),
        in_own_network("the_kernel_takes_what_is_said", takes::the_kernel_takes_what_is_said),
        in_own_network("the_kernel_takes_what_is_said_of_any_text", takes::of_any_text),
        in_own_network("apply_lowers_nothing", apply_lowers_nothing),
        in_own_network(
            "apply_leaves_nothing_that_nobody_read",
            apply_leaves_nothing_that_nobody_read,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn test(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}

/// In a thread of its own, since namespaces are a thread's.
fn in_own_network(name: &str, body: fn()) -> Trial {
    Trial::ignorable_test(name, move || {
        let done = std::thread::spawn(move || unshare_network().map(|()| body())).join();
        match done {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(error)) => {
                Ok(Completion::ignored_with(format!("no network namespace: {error}")))
            }
            Err(_) => Err(Failed::from("it panicked, see above")),
        }
    })
}

/// `doctor ... && start` must not start because of a `| head`.
fn a_closed_standard_output_fits_nothing() {
    for (connections, expected) in [("10", 0), ("1g", 1)] {
        let output = Command::new(env!("CARGO_BIN_EXE_c1m-server"))
            .args(["doctor", "--connections", connections])
            .stdout(closed_pipe())
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(expected), Vec::new()));
    }
}

/// The doctor with `input` on its standard input.
fn doctor(input: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_c1m-server"))
        .args(["doctor", "--connections", "1000"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without a look at its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn record(output: &Output) -> Doctor {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.lines().next().unwrap_or_else(|| panic!("{output:?}"));
    schema::SERVER.check(line);
    match serde_json::from_str::<Line<Record>>(line).unwrap().record {
        Record::Doctor(doctor) => doctor,
        other => panic!("{other:?}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn a_file_is_assessed_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.conf");
    let own: u64 =
        fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let lines = format!(
        "# for many connections\nnet.core.somaxconn = 1\nnet.ipv4.ip_local_port_range = 1024-65535\n-net/core/somaxconn = {:#x} # enough\n\
         net.ipv4.tcp_syncookies = 1\nvm.swappiness = 10\nvm.no_such_setting = 1\n",
        own + 1
    );
    fs::write(&path, &lines).unwrap();
    let output = doctor("", &["--json", "--judge", path.to_str().unwrap()]);
    let told = record(&output);
    let named: Vec<_> = told.configured.iter().filter(|it| Path::new(&it.file) == path).collect();
    let words: Vec<_> = named.iter().map(|it| (it.line, it.assessment)).collect();
    assert_eq!(
        words,
        [
            (Some(2), Assessment::Harms),
            (Some(3), Assessment::Refused),
            (Some(4), Assessment::Nothing),
            (Some(5), Assessment::Nothing),
            (Some(7), Assessment::Absent),
        ],
        "{named:?}"
    );
    assert_eq!(named[0].overridden_by, Some(format!("{}:4", path.display())));
    assert_eq!(named[2].taken, Some((own + 1).to_string()));
    assert_eq!(named[2].present, Some(own.to_string()), "the host's own, and not a plan");
    assert_eq!(told.unassessed, ["vm.swappiness"]);
    assert_eq!(output.status.code(), Some(1), "a line is refused");

    fs::write(&path, lines.replace("1024-65535", "1024 65535")).unwrap();
    let fine = doctor("", &["--judge", path.to_str().unwrap()]);
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
    let said = text(&fine.stdout);
    assert!(
        said.contains("tuning.conf:2  net.core.somaxconn = 1 ") && said.contains("does not count"),
        "{said}"
    );
    assert!(said.contains("\nSettings without an assessment\n  1: vm.swappiness\n"), "{said}");
}

fn standard_input_and_folders_are_read() {
    let output = doctor("net.core.somaxconn = yes\n", &["--json", "--judge", "-"]);
    let told = record(&output).configured.into_iter().find(|it| it.file == "-").unwrap();
    assert_eq!((told.line, told.assessment), (Some(1), Assessment::Refused));
    assert_eq!(output.status.code(), Some(1));

    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.parent().unwrap().display().to_string()
    };
    let library = write("usr/lib/sysctl.d/50-a.conf", "net.ipv4.tcp_timestamps = 0\n");
    let own = write("etc/sysctl.d/50-a.conf", "net.ipv4.tcp_timestamps = 1\n");
    let limits = write("limits.d/a.conf", "* hard nofile yes\n");
    let output = doctor("", &["--json", "--judge", &library, &own, &limits]);
    let told = record(&output).configured;
    let words: Vec<_> = told
        .iter()
        .filter(|it| Path::new(&it.file).starts_with(root.path()))
        .map(|it| it.assessment)
        .collect();
    assert_eq!(words, [Assessment::Nothing, Assessment::Ignored, Assessment::Refused], "{told:?}");

    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for path in [&empty, Path::new("/nonexistent/a.conf")] {
        let output = doctor("", &["--judge", path.to_str().unwrap()]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(said.contains(path.to_str().unwrap()) && said.lines().count() == 1, "{said}");
    }
}

fn control_characters_stay_out_of_the_text() {
    let output = doctor(
        "net.core.somaxconn = \u{1b}[2J\u{7}\na\u{1b}[31mb\nc\rd = \u{9b}1\n",
        &["--judge", "-"],
    );
    let said = text(&output.stdout);
    assert!(said.contains("\n-:1    net.core.somaxconn") && said.contains("\n-:2 "), "{said}");
    assert!(!said.contains(|it: char| it.is_control() && it != '\n'), "{said:?}");
}

const EMITTED: [&str; 3] = [
    "sysctl.d/90-c1m.conf",
    "systemd/system/c1m-server.service.d/90-c1m.conf",
    "security/limits.d/90-c1m.conf",
];

fn emit_replaces_nothing_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("etc");
    let emit = |more: &[&str]| doctor("", &[&["--emit", to.to_str().unwrap()], more].concat());
    assert_eq!(emit(&[]).status.code(), Some(0));
    let written = EMITTED.map(|name| fs::read_to_string(to.join(name)).unwrap());
    for name in &EMITTED[..2] {
        fs::remove_file(to.join(name)).unwrap();
    }
    fs::write(to.join(EMITTED[2]), "somebody's own").unwrap();
    let refused = emit(&[]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(said.contains(EMITTED[2]) && said.contains("--force"), "{said}");
    assert!(!to.join(EMITTED[0]).exists(), "all of them or none");
    assert_eq!(fs::read_to_string(to.join(EMITTED[2])).unwrap(), "somebody's own");
    assert_eq!(emit(&["--force"]).status.code(), Some(0));
    assert_eq!(EMITTED.map(|name| fs::read_to_string(to.join(name)).unwrap()), written);
    // What was written is read again without a complaint.
    let folders = EMITTED.map(|name| to.join(name).parent().unwrap().display().to_string());
    let arguments: Vec<&str> =
        ["--judge"].into_iter().chain(folders.iter().map(String::as_str)).collect();
    assert_eq!(doctor("", &arguments).status.code(), Some(0));
}

fn emit_follows_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("elsewhere")).unwrap();
    fs::write(at("elsewhere/file"), "untouched").unwrap();
    let emit = |to: &str| doctor("", &["--force", "--emit", at(to).to_str().unwrap()]);
    let refused = |to: &str| {
        let output = emit(to);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(text(&output.stderr).contains("is a symbolic link"), "{output:?}");
    };
    symlink(at("elsewhere"), at("link")).unwrap();
    refused("link");
    refused("link/");
    fs::create_dir(at("etc")).unwrap();
    symlink(at("elsewhere"), at("etc/sysctl.d")).unwrap();
    refused("etc");
    fs::create_dir_all(at("own/sysctl.d")).unwrap();
    symlink(at("elsewhere/file"), at("own").join(EMITTED[0])).unwrap();
    assert_eq!(emit("own").status.code(), Some(0));
    assert!(!at("own").join(EMITTED[0]).is_symlink());
    assert_eq!(fs::read_to_string(at("elsewhere/file")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(at("elsewhere")).unwrap().count(), 1);
}

fn apply_leaves_nothing_that_nobody_read() {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let range =
        || fs::read_to_string(RANGE).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    fs::write(RANGE, "30000 30999\n").unwrap();
    let state = tempfile::tempdir().unwrap();
    let program = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_c1m-server"))
            .args(["doctor", "--sources", "1", "--connections", "10000", "--apply", "--yes"])
            .args(["--state-dir", state.path().to_str().unwrap()])
            .args(more)
            .stdout(closed_pipe())
            .output()
            .unwrap()
    };
    let kept = program(&["--keep"]);
    let said = text(&kept.stderr);
    assert!(said.contains("ip_local_port_range = 1024 65535"), "it was changed: {said}");
    assert!(said.contains("standard output was closed"), "{said}");
    assert_eq!((kept.status.code(), range()), (Some(3), "30000 30999".into()), "{said}");
    // One that waits for a signal ends at once, as if it had not waited: whether all connections fit then is the host's affair.
    fs::write(RANGE, "1024 65535\n").unwrap();
    let mut idle = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    idle.args(["doctor", "--sources", "1", "--connections", "10000"]);
    let expected = idle.output().unwrap().status.code();
    fs::write(RANGE, "30000 30999\n").unwrap();
    let waited = program(&[]);
    assert_eq!(waited.status.code(), expected, "{waited:?}");
    assert_eq!(range(), "30000 30999");
}

fn apply_lowers_nothing() {
    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(SOMAXCONN, "65535\n").unwrap();
    fs::write(RANGE, "30000 30999\n").unwrap();
    let state = tempfile::tempdir().unwrap();
    let state = ["--state-dir", state.path().to_str().unwrap()];
    // A short queue of the program, and a burst of 2,500 for each of two listeners.
    let run = [
        "--workers",
        "2",
        "--backlog",
        "128",
        "--rate",
        "50k",
        "--sources",
        "1",
        "--connections",
        "10000",
    ];
    let program = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_c1m-server"))
            .arg("doctor")
            .args(state)
            .args(more)
            .output()
            .unwrap()
    };
    let applied = program(&[&run[..], &["--apply", "--keep", "--yes"]].concat());
    let said = text(&applied.stdout);
    assert!(said.contains("applied  net.ipv4.ip_local_port_range = 1024 65535"), "{applied:?}");
    assert!(
        !said.contains("applied  net.core.somaxconn") && said.contains("somaxconn=65535 is enough"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(SOMAXCONN).unwrap().trim(), "65535");
    let restored = program(&["--restore"]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    assert_eq!(
        fs::read_to_string(RANGE).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["30000", "30999"]
    );
}
