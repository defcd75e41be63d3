//! Every command of the README and of docs/, run as it is there: in a network namespace and with files of its own, with fewer connections, and
//! ended by SIGTERM after a moment where it would go on. What a command is to be run by elsewhere is said in [`ELSEWHERE`].

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::LazyLock,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// What begins a command that is not run here, and what runs it.
const ELSEWHERE: [(&str, &str); 10] = [
    ("cargo build", "`cargo xtask bench` does"),
    ("cargo test", "`cargo xtask test` does"),
    ("sudo dpkg ", "tests/package installs and purges"),
    ("man ", "tests/package reads the pages"),
    ("sha256sum ", "tests/package unpacks the archive's twin, the package"),
    ("tar ", "as sha256sum"),
    ("sudo install ", "as sha256sum"),
    ("sudo systemctl ", "there is no systemd in a build; tests/package runs the unit's command"),
    ("journalctl ", "as systemctl"),
    ("kubectl ", "tests/kubernetes.rs holds the manifests against the schemas"),
];

/// What makes a block one of commands.
const PROGRAMS: [&str; 5] = ["c1m-server", "c1m-client", "cargo ", "curl ", "sudo "];

/// Numbers of connections that are too many for a test.
const FEWER: [(&str, &str); 4] = [
    ("--connections 1m", "--connections 2k"),
    ("--connections 64k", "--connections 1k"),
    ("--connections 1024000", "--connections 2k"),
    ("connected==64k", "connected==1k"),
];

/// Exit codes of commands that have one of these texts in them, the first one that fits. All others end with 0.
const CODES: [(&str, &[&str]); 6] = [
    // The parts that are merged here have fewer connections.
    ("connected==1024000", &["1"]),
    // tcp_mem is unknown in a network namespace, and whether a million fit is the host's affair.
    ("doctor --connections 1.024m --queued-bytes", &["1", "3"]),
    ("--queued-bytes", &["3"]),
    // Other programs may meet a limit meanwhile, and a host may be slow, or small.
    ("_p99<", &["0", "1"]),
    ("c1m-server --trace", &["0", "1"]),
    ("c1m-server watch", &["0", "1"]),
];
/// Where the kernel refuses it, what traces ends with 3.
const TRACING: [&str; 2] = ["--trace", "c1m-server watch"];

/// A command that goes on is ended so long after it has printed something, in seconds.
const MOMENT: &str = "1";
/// One that ends by itself, or is to print something, is given so long, on however slow a host.
const PATIENCE: &str = "120";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They wait most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(6));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
    let docs = fs::read_dir(root.join("docs")).expect("there are docs");
    let mut pages: Vec<PathBuf> = docs
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root.join("README.md"));
    pages.sort();
    let tests = pages
        .into_iter()
        .filter_map(|page| {
            let text = fs::read_to_string(&page).expect("a page is text");
            let blocks = blocks(&text);
            let name = page.strip_prefix(root).unwrap_or(&page).display().to_string();
            (!blocks.is_empty()).then(|| Trial::ignorable_test(name, move || run(&blocks)))
        })
        .collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// The fenced blocks that consist of commands: their lines, without comments. A transcript is one whose commands begin with `$ `.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    for (number, block) in text.split("```").enumerate() {
        let Some((_, body)) = block.split_once('\n').filter(|_| number % 2 == 1) else { continue };
        let lines: Vec<&str> = match body.lines().any(|line| line.starts_with("$ ")) {
            true => body.lines().filter_map(|line| line.strip_prefix("$ ")).collect(),
            false => body.lines().collect(),
        };
        let commands: Vec<String> = lines
            .iter()
            .map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        let is_command = |line: &String| {
            let own = line.trim_start_matches("sudo ").trim_start_matches("target/release/");
            PROGRAMS.iter().any(|program| own.starts_with(program))
                || ELSEWHERE.iter().any(|(begin, _)| line.starts_with(begin))
        };
        if commands.first().is_some_and(|first| is_command(first) && !first.contains("  ")) {
            blocks.push(commands);
        }
    }
    blocks
}

fn run(blocks: &[Vec<String>]) -> Result<Completion, Failed> {
    // Root and its own namespaces: what the commands need themselves.
    if !own_namespaces("true").status()?.success() {
        return Ok(Completion::ignored_with("no network and mount namespace of its own"));
    }
    let mut failures = Vec::new();
    for block in blocks {
        let commands: Vec<&String> = block
            .iter()
            .filter(|line| !ELSEWHERE.iter().any(|(begin, _)| line.starts_with(begin)))
            .collect();
        for command in commands.iter().filter_map(|line| line.strip_prefix("cargo xtask ")) {
            failures.extend(understood(command)?);
        }
        let here: Vec<String> = commands
            .iter()
            .filter(|line| !line.starts_with("cargo xtask "))
            .map(|line| {
                FEWER.iter().fold((*line).clone(), |line, (all, few)| line.replace(all, few))
            })
            .collect();
        if !here.is_empty() {
            failures.extend(run_block(&here)?);
        }
    }
    if failures.is_empty() { Ok(Completion::Completed) } else { Err(failures.join("\n").into()) }
}

/// Commands of developers have tests of their own, and take minutes: here, whether the flags are.
fn understood(command: &str) -> Result<Option<String>, Failed> {
    let words =
        command.split_ascii_whitespace().filter(|word| !word.contains(['[', ']', '|', '…']));
    let words = words.take_while(|word| *word != "--").chain(["--help"]);
    let output = Command::new(XTASK).args(words).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| format!("cargo xtask {command}: {said}")))
}

fn own_namespaces(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", script]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs the commands of a block, one after the other; a server stays until the end of the block.
fn run_block(commands: &[String]) -> Result<Option<String>, Failed> {
    let folder = tempfile::tempdir()?;
    let place = folder.path();
    set_up(place)?;
    if commands.iter().any(|line| line.contains("part-*")) {
        parts(place)?;
    }
    let mut script = vec![
        "set -u".to_owned(),
        "mount --make-rprivate / && mount -t tmpfs none /etc/sysctl.d".into(),
        "echo 'net.ipv4.tcp_mem = 25600 51200 102400' | tee /etc/sysctl.d/50-tuning.conf >/etc/sysctl.d/99-tuning.conf".into(),
        "ip link set lo up; for n in 0.1 1.1 1.2; do ip address add 10.9.$n/32 dev lo; done".into(),
    ];
    let is_client = |line: &String| line.contains("c1m-client --connect");
    let is_server = |line: &String| {
        let rest = line.split_once("c1m-server").map(|(_, rest)| rest.trim_start());
        rest.is_some_and(|rest| rest.starts_with("--") && !rest.starts_with("--version"))
    };
    let needs_one = |line: &String| is_client(line) || line.contains("nginx.pid");
    if commands.iter().any(needs_one) && !commands.iter().any(is_server) {
        // In the place of nginx, too.
        script.push(
            "c1m-server --quiet --listen 0.0.0.0:8000 >ready & SERVER=$!; mount -t tmpfs none /run; echo $SERVER >/run/nginx.pid; while [ ! -s ready ]; do sleep 0.1; done"
                .into(),
        );
    }
    let (mut ends, mut ended_last) = (Vec::new(), Vec::new());
    for (index, command) in commands.iter().enumerate() {
        let quoted = command.replace('\'', "'\\''");
        // `echo n`: an answer for those that ask.
        script.push(format!(
            "echo n | timeout --foreground --preserve-status --kill-after 20 {PATIENCE} sh -c 'exec {quoted}' >{index}.out 2>&1 & P=$!"
        ));
        let goes_on = is_client(command)
            || ["c1m-server watch", "--apply"].iter().any(|it| command.contains(it));
        if is_server(command) || goes_on {
            script.push(format!(
                "while [ ! -s {index}.out ] && kill -0 $P 2>/dev/null; do sleep 0.1; done; sleep {MOMENT}"
            ));
        }
        match is_server(command) {
            true => {
                ended_last.push(format!("kill $P{index}; wait $P{index}; echo $? >{index}.code"))
            }
            false if goes_on => script.push(format!("kill $P; wait $P; echo $? >{index}.code")),
            false => script.push(format!("wait $P; echo $? >{index}.code")),
        }
        if is_server(command) {
            script.push(format!("P{index}=$P"));
        }
        ends.push(format!("{index}.code"));
    }
    script.extend(ended_last);
    script.push("kill ${SERVER-} 2>/dev/null; wait".into());
    let status =
        own_namespaces(&script.join("\n")).current_dir(place).env("PATH", path(place)).status()?;
    if !status.success() {
        return Ok(Some(format!("{commands:?}: the script ended with {status}")));
    }
    for (index, command) in commands.iter().enumerate() {
        let code = fs::read_to_string(place.join(&ends[index])).unwrap_or_default();
        let output = fs::read_to_string(place.join(format!("{index}.out"))).unwrap_or_default();
        if !is_expected(command, code.trim()) {
            return Ok(Some(format!("`{command}` ended with {}: {output}", code.trim())));
        }
    }
    Ok(None)
}

fn is_expected(command: &str, code: &str) -> bool {
    static IS_REFUSED: LazyLock<bool> = LazyLock::new(|| {
        let server = Path::new(XTASK).with_file_name("c1m-server");
        let dry_run = Command::new(server).args(["--trace", "--dry-run"]).output();
        dry_run.is_ok_and(|output| output.status.code() == Some(3))
    });
    if *IS_REFUSED && TRACING.iter().any(|it| command.contains(it)) {
        return code == "3";
    }
    let codes = CODES.iter().find(|(part, _)| command.contains(part)).map(|(_, codes)| *codes);
    codes.unwrap_or(&["0"]).contains(&code)
}

/// Our programs before all others.
fn path(place: &Path) -> String {
    format!("{}:{}", place.join("bin").display(), env::var("PATH").unwrap_or_default())
}

/// What the commands find: the programs, by both of their names, and files that readers have.
fn set_up(place: &Path) -> Result<(), Failed> {
    let programs = Path::new(XTASK).parent().ok_or("a program without a folder")?;
    let tool = |name: &str, text: &str| -> Result<(), Failed> {
        let path = place.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    };
    fs::create_dir_all(place.join("bin"))?;
    fs::create_dir_all(place.join("target"))?;
    symlink(programs, place.join("target/release"))?;
    for name in ["c1m-server", "c1m-client"] {
        symlink(programs.join(name), place.join("bin").join(name))?;
    }
    tool("bin/sudo", "exec \"$@\"")?;
    tool("load-test.sh", "exit 0")?;
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../c1m-server/tests/fixtures/report");
    fs::copy(fixtures.join("watch.jsonl"), place.join("run.jsonl"))?;
    let kept = "docs/reproduction";
    fs::create_dir_all(place.join(kept))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::copy(root.join(kept).join("run.jsonl"), place.join(kept).join("run.jsonl"))?;
    Ok(())
}

/// Results of two parts of a run, for `c1m-client merge part-*.jsonl`.
fn parts(place: &Path) -> Result<(), Failed> {
    let script = "ip link set lo up; timeout 60 c1m-server --quiet --listen 127.0.0.1:8000 >/dev/null & S=$!; sleep 0.5; for i in 0 1; do c1m-client --connect 127.0.0.1:8000 \
                  --connections 2k --shard $i/2 --source 127.0.0.2 --source 127.0.0.3 --hold 0s --json >part-$i.jsonl; done; kill $S";
    own_namespaces(script).current_dir(place).env("PATH", path(place)).status()?;
    Ok(())
}
