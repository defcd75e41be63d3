//! A command that a watch starts has the surroundings that it would have had without it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use c1m_sys::inherited::{self, Inherited};

use c1m_testkit::Skip;

use crate::{
    server::{binary, needs_ebpf},
    watch::ROLE,
};

/// What this program does in the test: see [`report`].
pub(crate) const ROLE_REPORT: &str = "report";
const REPORT_FILE: &str = "C1M_KERNEL_TEST_REPORT";
/// Settings that count, or that answer each reader with something else.
const COUNTERS: [&str; 10] = [
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random",
    "net/netfilter/nf_conntrack_count",
];

/// Writes what this process has inherited, and every setting of the kernel, as lines `name=value`.
pub(crate) fn report() {
    let mut text = format!("inherited={:x?}\n", Inherited::at_start());
    for line in fs::read_to_string("/proc/self/limits").unwrap().lines() {
        text.push_str(&format!("limit={line}\n"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let names = [
        "Umask",
        "Cpus_allowed",
        "Mems_allowed",
        "SigBlk",
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
        "Groups",
    ];
    for line in status.lines().filter(|line| names.iter().any(|name| line.starts_with(name))) {
        text.push_str(&format!("status={line}\n"));
    }
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    text.push_str(&format!("descriptors={descriptors}\n"));
    for name in ["ns/net", "ns/mnt", "cwd"] {
        let link = fs::read_link(Path::new("/proc/self").join(name)).unwrap();
        text.push_str(&format!("{name}={}\n", link.display()));
    }
    for name in ["oom_score_adj", "cgroup", "autogroup", "timerslack_ns"] {
        let value = fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
        text.push_str(&format!("{name}={value:?}\n"));
    }
    settings(Path::new("/proc/sys"), &mut text);
    fs::write(env::var_os(REPORT_FILE).unwrap(), text).unwrap();
}

fn settings(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let name = path.strip_prefix("/proc/sys").unwrap();
        if COUNTERS.iter().any(|counter| name.starts_with(counter)) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            settings(&path, text);
        } else if let Ok(value) = fs::read(&path) {
            let value = String::from_utf8_lossy(&value);
            text.push_str(&format!("sysctl {}={value:?}\n", name.display()));
        }
    }
}

/// Lines of one kind (`limit`) have the same name: they are kept together.
fn reported(command: &mut Command, given: Inherited) -> BTreeMap<String, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    command.env(ROLE, ROLE_REPORT).env(REPORT_FILE, &file).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = inherited::spawn(command, given).unwrap().wait().unwrap();
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{status}: {error}"));
    let mut report = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        report.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    report
}

/// Limits, signals, affinity, descriptors and the kernel's settings are those of a command that is started without the watch.
pub(crate) fn as_without_a_watch() -> Result<(), Skip> {
    needs_ebpf()?;
    let own = env::current_exe().unwrap();
    let (_, hard) = c1m_sys::process::nofile().unwrap();
    let given = Inherited {
        nofile: Some((256, hard)),
        blocked: Inherited::bit(libc::SIGUSR1) | Inherited::bit(libc::SIGTERM),
        ignored: Inherited::bit(libc::SIGPIPE) | Inherited::bit(libc::SIGHUP),
    };
    let direct = || reported(&mut Command::new(&own), given);
    let before = direct();
    let watched = {
        // With metrics it looks for holders, for which it takes many descriptors.
        let mut watch = Command::new(binary());
        watch.args(["watch", "--metrics-addr", "127.0.0.1:0", "--cmd"]).arg(&own);
        reported(&mut watch, given)
    };
    let after = direct();
    assert_eq!(before["inherited"], [format!("{given:x?}")]);
    for (name, value) in &before {
        // Somebody else on this host may change a setting meanwhile.
        if after.get(name) == Some(value) {
            assert_eq!(watched.get(name), Some(value), "{name}");
        }
    }
    assert!(before.len() > 200, "{} names", before.len());
    Ok(())
}
