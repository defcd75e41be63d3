//! The systemd unit: by systemd's own tools, and by a run of what it starts.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use libtest_mimic::{Completion, Failed};

use crate::{Tried, program, said, succeeds, tool, without};

/// As docs/install.md says it, of 10, times 10: systemd says more than this of a unit that allows more.
const EXPOSURE: &str = "20";
/// A user who owns nothing.
const NOBODY: &str = "65534";

fn unit() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("dist/systemd/c1m-watch.service")
}

/// The values of a setting, in order.
fn settings(name: &str) -> Result<Vec<String>, Failed> {
    let text = fs::read_to_string(unit())?;
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let values: Vec<String> = values.map(str::to_owned).collect();
    assert!(!values.is_empty(), "the unit has no {name}=");
    Ok(values)
}

pub(crate) fn systemd_takes_it() -> Tried {
    let Some(analyze) = tool("systemd-analyze") else { return without("systemd-analyze") };
    let security = |unit: &Path| {
        let mut command = Command::new(&analyze);
        command.args(["security", "--offline=true", "--no-pager"]);
        command.arg(format!("--threshold={EXPOSURE}")).arg(unit).output()
    };
    let output = security(&unit())?;
    assert!(output.status.success(), "{}", said(&output));

    // As installed: the program and the page are where the unit says.
    let folder = tempfile::tempdir()?;
    let installed = folder.path().join("c1m-watch.service");
    let text = fs::read_to_string(unit())?;
    let server = program("c1m-server").display().to_string();
    let text = text.replace("/usr/bin/c1m-server", &server);
    let without_page: String =
        text.split_inclusive('\n').filter(|line| !line.starts_with("Documentation=")).collect();
    fs::write(&installed, &without_page)?;
    let told = succeeds(Command::new(&analyze).arg("verify").arg(&installed))?;
    assert!(!told.contains("c1m-watch"), "{told}");

    // And both can say no.
    fs::write(&installed, without_page.replace("[Service]", "[Service]\nNoSuchSetting=1"))?;
    let told = Command::new(&analyze).arg("verify").arg(&installed).output()?;
    assert!(said(&told).contains("NoSuchSetting"), "{}", said(&told));
    fs::write(
        &installed,
        without_page.replace("ProtectSystem=strict", "").replace("SystemCallFilter", "X-Filter"),
    )?;
    assert!(!security(&installed)?.status.success());
    Ok(Completion::Completed)
}

/// Runs ExecStart for a while, as a user who owns nothing, with the unit's capabilities alone, and holds its system calls against the filter.
pub(crate) fn it_does() -> Tried {
    let (Some(setpriv), Some(strace), Some(analyze)) =
        (tool("setpriv"), tool("strace"), tool("systemd-analyze"))
    else {
        return without("setpriv, strace or systemd-analyze");
    };
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let own = folder.path().join("c1m-server");
    fs::copy(program("c1m-server"), &own)?;
    let calls_file = folder.path().join("calls");
    let start = settings("ExecStart")?.remove(0);
    let arguments = start.strip_prefix("/usr/bin/c1m-server ").ok_or("another program")?;
    assert_eq!(settings("AmbientCapabilities")?, settings("CapabilityBoundingSet")?);
    let capabilities: Vec<String> = settings("AmbientCapabilities")?[0]
        .split(' ')
        .map(|name| name.replace("CAP_", "+").to_lowercase())
        .collect();
    let run_with = |capabilities: &[String], before: &[&str], arguments: &str| {
        let set = format!("-all,{}", capabilities.join(","));
        let mut command = Command::new(&setpriv);
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"]);
        command.args(["--inh-caps", &set, "--ambient-caps", &set, "--bounding-set", &set]);
        command.args(before).arg(&own).args(arguments.split(' ')).args(["--duration", "1s"]);
        command.stdin(Stdio::null()).output()
    };
    let run = |capabilities: &[String], before: &[&str]| run_with(capabilities, before, arguments);
    let (strace, file) = (strace.display().to_string(), calls_file.display().to_string());
    let output = run(&capabilities, &[&strace, "-f", "-o", &file])?;
    if output.status.code() == Some(3) {
        let with_all =
            Command::new(&own).args(["watch", "--json", "--duration", "100ms"]).output()?;
        if with_all.status.code() == Some(3) {
            return Ok(Completion::ignored_with(said(&with_all)));
        }
    }
    let text = said(&output);
    assert!(output.status.success() && text.contains("\"kind\":\"ended\""), "{text}");

    assert!(!text.contains("\"connections\":null"), "{text}");
    // What can't be counted with them is not counted as 0.
    let everywhere = said(&run_with(&capabilities, &[], "watch --json")?);
    assert!(everywhere.contains("\"connections\":null"), "{everywhere}");
    assert!(everywhere.contains("CAP_SYS_PTRACE"), "{everywhere}");

    let allowed = allowed(&analyze)?;
    let used = used(&fs::read_to_string(&calls_file)?);
    assert!(used.contains("bpf") && used.contains("epoll_wait"), "{used:?}");
    let refused: Vec<_> = used.difference(&allowed).collect();
    assert!(refused.is_empty(), "the filter refuses {refused:?}");
    assert!(!allowed.contains("mount") && !allowed.contains("ptrace"), "{allowed:?}");

    // Each of the capabilities is needed: CAP_SYS_ADMIN is not there to stand for them.
    for left_out in 0..capabilities.len() {
        let mut fewer = capabilities.clone();
        let name = fewer.remove(left_out);
        let output = run(&fewer, &[])?;
        assert_eq!(output.status.code(), Some(3), "without {name}: {}", said(&output));
    }
    Ok(Completion::Completed)
}

/// The system calls that strace saw.
fn used(calls: &str) -> BTreeSet<String> {
    let call = |line: &str| {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let name = call.split_once('(')?.0;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| name.to_owned())
    };
    // The first is setpriv's, which systemd does before its filter is in force.
    calls.lines().filter_map(call).filter(|name| name != "execve").collect()
}

/// The system calls that the unit's filters allow, as this systemd has its groups.
fn allowed(analyze: &Path) -> Result<BTreeSet<String>, Failed> {
    let mut allowed = group(analyze, "@default")?;
    for line in settings("SystemCallFilter")? {
        let (is_refused, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line.as_str()),
        };
        for name in names.split(' ') {
            for call in group(analyze, name)? {
                if is_refused {
                    allowed.remove(&call)
                } else {
                    allowed.insert(call)
                };
            }
        }
    }
    Ok(allowed)
}

fn group(analyze: &Path, name: &str) -> Result<BTreeSet<String>, Failed> {
    if !name.starts_with('@') {
        return Ok([name.to_owned()].into());
    }
    let text = succeeds(Command::new(analyze).args(["syscall-filter", "--no-pager", name]))?;
    let mut calls = BTreeSet::new();
    for word in
        text.lines().skip(1).map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'))
    {
        calls.extend(group(analyze, word)?);
    }
    Ok(calls)
}
