//! What `xtask guest` makes of a guest's end, with real guests: a command that ends, one that hangs, and a kernel that panics.
//!
//! They need what `cargo xtask test` provides: qemu and an unpacked kernel. Without it they are counted as ignored,
//! with the reason.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const SERIES: &str = "6.12";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each guest keeps a CPU busy, but for the one that hangs.
    arguments.test_threads.get_or_insert(2);
    let test = |name: &str, run: fn()| {
        Trial::ignorable_test(name, move || {
            if let Some(missing) = missing() {
                return Ok::<_, Failed>(Completion::ignored_with(missing));
            }
            run();
            Ok(Completion::Completed)
        })
    };
    let tests = vec![
        test("output_comes_through_and_modules_are_loaded", output_and_modules),
        test("the_commands_code_is_that_of_the_guest", code),
        test("a_guest_that_hangs_is_a_failure", hang),
        test("a_kernel_that_panics_is_a_failure", panic),
        Trial::test("what_is_not_there_is_told_before_anything_starts", || {
            nothing_starts();
            Ok(())
        }),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn missing() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let kernels = fs::read_dir(target.join("guest/kernels")).into_iter().flatten();
    let is_here = kernels.filter_map(Result::ok).any(|package| {
        package.file_name().to_string_lossy().starts_with(&format!("linux-image-{SERIES}."))
    });
    if !is_here {
        return Some(format!("no kernel {SERIES}: run `cargo xtask test`"));
    }
    let qemu = Command::new("qemu-system-x86_64").arg("--version").output();
    (!qemu.is_ok_and(|output| output.status.success())).then(|| "no qemu-system-x86_64".into())
}

/// Runs `xtask guest` with the programs that were built with this test.
fn guest(arguments: &[&str], command: &[&str]) -> Output {
    let programs = Path::new(XTASK).parent().unwrap();
    Command::new(XTASK)
        .args(["guest", "--kernel", SERIES, "--memory", "512M", "--programs"])
        .arg(programs)
        .args(arguments)
        .arg("--")
        .args(command)
        .output()
        .unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32, stdout: &str, stderr: &[&str]) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert_eq!(out, stdout, "{err}");
    for part in stderr {
        assert!(err.contains(part), "no `{part}` in: {err}");
    }
}

fn output_and_modules() {
    let version = format!("c1m-server {}\n", env!("CARGO_PKG_VERSION"));
    // It needs others, and is compressed in some packages.
    let arguments = ["--module", "nf_conntrack", "--cpus", "2"];
    expect(&guest(&arguments, &["/bin/c1m-server", "-V"]), 0, &version, &["exit 0"]);
    let error = "kernel 6.12";
    let absent = guest(&["--module", "no-such"], &["/bin/c1m-server"]);
    expect(&absent, 3, "", &[error, "has no module no_such"]);
}

fn code() {
    let output = guest(&[], &["/bin/c1m-client", "--no-such-flag"]);
    expect(&output, 2, "", &["--no-such-flag", "the command ended with 2"]);
    let output = guest(&[], &["/bin/absent"]);
    expect(&output, 4, "", &["cannot run /bin/absent"]);
}

fn hang() {
    let output =
        guest(&["--timeout", "20s"], &["/bin/c1m-server", "--listen", "127.0.0.1:0", "--json"]);
    let told = ["did not end within 20 s", "console"];
    let listening = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listening.contains("\"listening\""), "it never ran: {output:?}");
    expect(&output, 1, &listening, &told);
}

fn panic() {
    // The kernel finds no first process.
    let output = guest(&["--append", "rdinit=/absent init=/absent"], &["/bin/c1m-server"]);
    expect(&output, 1, "", &["the kernel panicked", "Kernel panic - not syncing"]);
}

fn nothing_starts() {
    let run = |kernel: &str| {
        let arguments = ["guest", "--kernel", kernel, "--", "/bin/c1m-server"];
        Command::new(XTASK).args(arguments).output().unwrap()
    };
    expect(&run("/absent/vmlinuz"), 2, "", &["a series such as 6.12, or the file"]);
    expect(&run("six"), 2, "", &["a series such as 6.12, or the file"]);
}
