//! What surrounds a program: CPUs that it may not use, a cgroup namespace, a network namespace that no process is in.

use std::{
    env, fs,
    io::Write as _,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use c1m_host::cpus;
use c1m_limits::footprint::charged_pages;
use c1m_record::{LimitName, LimitReading, Record, TcpState};
use c1m_sys::{
    confine::{self, mount},
    netns::{Namespace, OWN},
    process::page_bytes,
};
use c1m_testkit::{Child, Outcome, PATIENCE, Skip, cgroup::Cgroup, child::outcome, only, schema};

use crate::{
    held::{count_states, look},
    host::connect,
    server::{binary, needs_ebpf},
    watch::{ROLE, Watch},
};

/// This program in its own cgroup; then c1m-server. See [`become_member`].
pub(crate) const ROLE_MEMBER: &str = "member of a cgroup";
/// This program in its own cgroup, and in a namespace of it; then a watch. See [`watch_confined`].
pub(crate) const ROLE_CONFINED: &str = "watch in a cgroup namespace";
const OWN_CGROUP: &str = "C1M_KERNEL_TEST_CGROUP";
/// Where cgroups are mounted anew; without it they stay as they are.
const MOUNT_ANEW: &str = "C1M_KERNEL_TEST_MOUNT";
/// This program while only a mount keeps a network namespace. See [`keep_network`].
pub(crate) const ROLE_KEEPER: &str = "keep a network namespace";
const MOUNT_FILE: &str = "C1M_KERNEL_TEST_FILE";

const V1: &str = "/sys/fs/cgroup/memory";
/// Limits of two cgroups, in bytes: of the target, and of the watch itself.
const OF_TARGET: u64 = 2 << 30;
const OF_WATCH: u64 = 1 << 30;

/// A program that may run on one CPU has threads for one; pages that the kernel keeps apart are those of each CPU that is online.
pub(crate) fn fewer_cpus() -> Result<(), Skip> {
    needs_ebpf()?;
    let online = cpus::online().expect("the kernel says which CPUs are online");
    if online < 2 {
        return Err(Skip("the kernel runs on one CPU".into()));
    }
    let reserve = |output: Outcome| match output.records(&schema::SERVER).remove(0) {
        Record::Holders(holders) => holders.reserve_pages,
        other => panic!("{other:?}"),
    };
    let holders = ["holders", "--json"];
    let everywhere = reserve(outcome(Command::new(binary()).args(holders)));
    let pinned = |arguments: &[&str]| {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0"]).arg(binary()).args(arguments);
        command
    };
    assert_eq!(reserve(outcome(&mut pinned(&holders))), everywhere);
    assert_eq!(everywhere, cpus::reserve_pages());
    let dry = ["--listen", "127.0.0.1:0", "--json", "--duration", "1ms"];
    let said: Vec<Record> = outcome(&mut pinned(&dry)).records(&schema::SERVER);
    let listening = said.iter().find_map(only!(Record::Listening));
    assert_eq!(listening.map(|it| it.workers), Some(1), "{said:?}");
    Ok(())
}

/// From inside a private cgroup namespace: another process's cgroup is its own or unknown, and never that of the watch.
pub(crate) fn cgroup_namespace() -> Result<(), Skip> {
    needs_ebpf()?;
    let (of_target, of_watch) = (Cgroup::new("target")?, Cgroup::new("watch")?);
    of_target.limit(OF_TARGET)?;
    of_watch.limit(OF_WATCH)?;
    let mut command = Command::new(env::current_exe().unwrap());
    let target = Child::start(command.env(ROLE, "wait")).unwrap();
    let sees = |is_mounted_anew: bool, pid: u32| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(ROLE, ROLE_CONFINED).env(OWN_CGROUP, &of_watch.folder);
        if is_mounted_anew {
            command.env(MOUNT_ANEW, of_watch.root());
        }
        let pid = pid.to_string();
        command.args(["watch", "--json", "--port", "1", "--interval", "100ms", "--pid", &pid]);
        let mut watch = Watch::start_by(&mut command);
        let reading = watch.wait_for("limits", |record| match record {
            Record::Limits(limits) => {
                limits.limits.iter().find(|it| it.limit == LimitName::MemoryCgroup).cloned()
            }
            _ => None,
        });
        watch.finish();
        reading
    };
    // Mounts are as they were: the target's folder can be reached, and it is its own.
    of_target.add(target.pid())?;
    let seen = sees(false, target.pid());
    assert_eq!(seen.ceiling, Some(OF_TARGET), "{seen:?}");
    // What is mounted begins at the watch's own cgroup, as in a container: the target's can't be reached.
    assert_unknown(&sees(true, target.pid()));
    // The target is where the hidden mount begins, whose folder now shows the watch's own cgroup.
    fs::write(Path::new(of_target.root()).join("cgroup.procs"), target.pid().to_string()).unwrap();
    assert_unknown(&sees(true, target.pid()));
    Ok(())
}

#[track_caller]
fn assert_unknown(seen: &LimitReading) {
    assert_eq!((seen.used, seen.ceiling), (None, None), "{seen:?}");
}

/// Of version 2 memory.high, of version 1 the limit for sockets, each without a memory.max that would be met before: the doctor's row is of it.
pub(crate) fn softer_limits() -> Result<(), Skip> {
    const CONNECTIONS: u64 = 100_000;
    const LIMIT: u64 = 64 << 20;
    let group = Cgroup::new("soft")?;
    group.limit(1 << 40)?;
    let (file, queued) = match group.is_v1 {
        true => ("memory.kmem.tcp.limit_in_bytes", "3000"),
        false => ("memory.high", "0"),
    };
    let doctor = |queued: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(ROLE, ROLE_MEMBER).env(OWN_CGROUP, &group.folder);
        command.args(["doctor", "--json", "--connections", &CONNECTIONS.to_string()]);
        let output = outcome(command.args(["--queued-bytes", queued]));
        let Some(Record::Doctor(doctor)) = output.records(&schema::SERVER).into_iter().next()
        else {
            panic!("{output:?}")
        };
        assert_eq!(doctor.page_bytes, Some(page_bytes().unwrap()));
        doctor.limits.into_iter().find(|limit| limit.limit == LimitName::MemoryCgroup).unwrap()
    };
    assert_eq!(doctor(queued).now, Some(1 << 40));
    group.write(file, LIMIT)?;
    let limit = doctor(queued);
    assert_eq!((limit.now, limit.hit), (Some(LIMIT), true), "{limit:?}");
    assert!(limit.stops_at.is_some_and(|at| at > 1 && at < CONNECTIONS), "{limit:?}");
    assert!(limit.fix.as_ref().is_some_and(|fix| fix.contains(&format!("{file}="))), "{limit:?}");
    if group.is_v1 {
        // What sockets hold has nothing to do with idle connections.
        let idle = doctor("0");
        assert_eq!((idle.now, idle.hit), (Some(1 << 40), false), "{idle:?}");
        let page = page_bytes().unwrap();
        let each = charged_pages(3000, page) * page;
        assert_eq!(limit.stops_at, Some((LIMIT - limit.used.unwrap()) / each + 1), "{limit:?}");
    }
    Ok(())
}

/// Goes into the cgroup, and becomes c1m-server.
pub(crate) fn become_member() {
    join();
    become_server();
}

fn join() {
    let own = env::var_os(OWN_CGROUP).map(PathBuf::from).unwrap();
    fs::write(own.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

fn become_server() {
    let error = Command::new(binary()).args(env::args_os().skip(1)).env_remove(ROLE).exec();
    panic!("{error}");
}

/// Goes into the cgroup, makes it the root of a namespace, and becomes the watch.
pub(crate) fn watch_confined() {
    join();
    confine::unshare_cgroup().unwrap();
    if let Some(folder) = env::var_os(MOUNT_ANEW).map(PathBuf::from) {
        let (kind, options) =
            if folder == Path::new(V1) { ("cgroup", "memory") } else { ("cgroup2", "") };
        // The kernel refuses a file system right over itself (fs/namespace.c, do_add_mount, 6.18).
        confine::mount_memory(&folder, 1 << 20).unwrap();
        mount(kind, &folder, options).unwrap();
    }
    become_server();
}

/// Makes a network namespace with a connection in it, leaves it to a mount alone, and says which it is.
pub(crate) fn keep_network() {
    let file = env::var_os(MOUNT_FILE).map(PathBuf::from).unwrap();
    let before = Namespace::open(Path::new(OWN)).unwrap();
    confine::unshare_mounts().unwrap();
    confine::unshare_network().unwrap();
    confine::keep_network(&file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut waiting = connect(listener.local_addr().unwrap());
    waiting.write_all(b"unread").unwrap();
    let inode = Namespace::open(Path::new(OWN)).unwrap().inode;
    before.enter().unwrap();
    drop(before);
    println!("{inode} {}", listener.local_addr().unwrap().port());
    thread::sleep(4 * PATIENCE);
}

/// By `--netns inode:N`; and every command takes the same words.
pub(crate) fn kept_by_a_mount() -> Result<(), Skip> {
    needs_ebpf()?;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blue");
    fs::write(&file, "").unwrap();
    let mut keeper = Command::new(env::current_exe().unwrap());
    keeper.env(ROLE, ROLE_KEEPER).env(MOUNT_FILE, &file);
    let mut keeper = Child::start(&mut keeper).unwrap();
    let line = keeper.next(PATIENCE).unwrap().expect("a line").text;
    let (inode, port) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    let (inode, port): (u32, u16) = (inode.parse().unwrap(), port.parse().unwrap());
    let name = format!("inode:{inode}");

    let mut watch = Watch::start(&["--netns", &name, "--interval", "100ms"]);
    assert_eq!(watch.watching().netns, Some(inode));
    // The counters of the first look are that namespace's: a connection with both ends.
    let usage = watch.records().find_map(only!(Record::Usage)).expect("a first look").netns;
    assert_eq!((usage.inode, usage.inuse), (Some(inode), Some(3)), "{usage:?}");
    watch.finish();
    let seen = look(&["--by", "port", "--top", "100000", "--netns", &name]);
    let row = seen.rows.iter().find(|row| row.netns == Some(inode) && row.port == Some(port));
    let row = row.unwrap_or_else(|| panic!("{seen:?}"));
    assert_eq!(row.memory.states.get(&TcpState::Established), Some(&1), "{row:?}");
    let counted = count_states(&["--netns", &name]);
    assert!(counted.rows.iter().any(|row| row.netns == inode && row.port == port), "{counted:?}");
    same_words(&name, &keeper.pid().to_string());
    Ok(())
}

/// With an exit code and an error each.
fn same_words(inode: &str, pid: &str) {
    let commands = [
        &["watch", "--json", "--duration", "1ms"][..],
        &["holders", "--json"],
        &["states", "--json"],
    ];
    let said = |arguments: &[&str], word: &str| {
        let mut command = Command::new(binary());
        let output = outcome(command.args(arguments).arg(format!("--netns={word}")));
        let error = output.stderr.lines().find(|line| line.starts_with("error: "));
        (output.code, error.map(str::to_owned))
    };
    for (word, code) in [
        ("self", 0),
        ("all", 0),
        (pid, 0),
        (inode, 0),
        ("inode:1", 3),
        ("4294967294", 3),
        ("", 2),
        ("0", 2),
        ("+1", 2),
        ("1,024", 2),
        ("inode:", 2),
        ("inode:+1", 2),
        ("init", 2),
        ("4294967296", 2),
    ] {
        let answers: Vec<_> = commands.iter().map(|command| said(command, word)).collect();
        for answer in &answers {
            assert_eq!(answer.0, Some(code), "{word}: {answers:?}");
            assert_eq!(answer, &answers[0], "{word}");
        }
    }
}
