//! Inside a container: what is not visible from there is unknown, and never 0.

use std::{net::TcpListener, path::Path, process::Command, sync::mpsc::channel, thread};

use c1m_record::{
    Holders, HoldersScope, LimitName, LimitReading, Record, Source, States, TcpState,
};
use c1m_sys::{
    confine,
    netns::{Namespace, OWN},
};
use c1m_testkit::{Child, Outcome, Skip, child::outcome, schema};

use crate::server::{binary, needs_ebpf};

/// A container with root's privileges on the host, as `docker run --privileged` makes one.
const PRIVILEGED: [&str; 6] = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc"];
/// One without any, whose root is somebody's own.
const ROOTLESS: [&str; 4] = ["unshare", "--user", "--map-root-user", "--net"];
/// On the host, but without what other network namespaces take.
const CONFINED: [&str; 3] = ["setpriv", "--bounding-set", "-sys_admin"];

/// Runs the binary by what is to confine it.
fn within(by: &[&str], arguments: &[&str]) -> Outcome {
    outcome(Command::new(by[0]).args(&by[1..]).arg(binary()).args(arguments))
}

fn can(by: &[&str]) -> Result<(), Skip> {
    match Command::new(by[0]).args(&by[1..]).arg("true").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Skip(format!("{by:?}: {}", String::from_utf8_lossy(&output.stderr)))),
        Err(error) => Err(Skip(format!("no {}: {error}", by[0]))),
    }
}

fn records(output: Outcome) -> Vec<Record> {
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    output.records(&schema::SERVER)
}

fn holders(by: &[&str], more: &[&str]) -> Holders {
    match records(within(by, &[&["holders", "--json"], more].concat())).remove(0) {
        Record::Holders(holders) => holders,
        other => panic!("{other:?}"),
    }
}

fn states(by: &[&str], more: &[&str]) -> States {
    match records(within(by, &[&["states", "--json"], more].concat())).remove(0) {
        Record::States(states) => states,
        other => panic!("{other:?}"),
    }
}

fn tells(unseen: &[String], what: &str) -> bool {
    unseen.iter().any(|it| it.contains(what))
}

pub(crate) fn privileged() -> Result<(), Skip> {
    needs_ebpf()?;
    can(&PRIVILEGED)?;
    for more in [&[][..], &["--netns", "self"]] {
        let snapshot = holders(&PRIVILEGED, more);
        assert_eq!((snapshot.source, snapshot.scope), (Source::Iterators, HoldersScope::Part));
        assert_eq!(
            (snapshot.unexplained_pages, snapshot.unlisted_sockets),
            (None, None),
            "{snapshot:?}"
        );
        // The host's, and visible from everywhere.
        assert!(
            snapshot.accounted_pages.is_some() && snapshot.accounted_sockets.is_some(),
            "{snapshot:?}"
        );
        assert!(tells(&snapshot.unseen, "outside of this PID namespace"), "{more:?}: {snapshot:?}");
        let snapshot = states(&PRIVILEGED, more);
        assert!(tells(&snapshot.unseen, "outside of this PID namespace"), "{more:?}: {snapshot:?}");
    }
    let watch = ["watch", "--json", "--duration", "100ms"];
    // The probes are everywhere; where connections were before is not visible.
    let snapshot = records(within(&PRIVILEGED, &watch));
    check_connections(&snapshot, None);
    let is_reported =
        |record: &Record| matches!(record, Record::Warning(it) if it.name == "present");
    assert!(snapshot.iter().any(is_reported), "{snapshot:?}");
    check_scopes(&snapshot);
    let snapshot = records(within(&PRIVILEGED, &[&watch[..], &["--netns", "self"]].concat()));
    check_connections(&snapshot, Some(0));
    check_scopes(&snapshot);
    Ok(())
}

/// Of the watch, of each look, and of the end: the same in all.
fn check_connections(records: &[Record], expected: Option<u64>) {
    let counts = records.iter().filter_map(|record| match record {
        Record::Watching(watching) => Some(watching.connections),
        Record::Usage(usage) => Some(usage.watched.connections),
        Record::Ended(ended) => Some(ended.watched.connections),
        _ => None,
    });
    let counts: Vec<Option<u64>> = counts.collect();
    assert!(counts.len() >= 3 && counts.iter().all(|it| *it == expected), "{records:?}");
}

/// What is the host's is known; of what belongs to somebody, nobody was named.
fn check_scopes(records: &[Record]) {
    let limits = records.iter().find_map(|record| match record {
        Record::Limits(limits) => Some(&limits.limits),
        _ => None,
    });
    let limits = limits.unwrap_or_else(|| panic!("{records:?}"));
    let of = |name| -> &LimitReading { limits.iter().find(|line| line.limit == name).unwrap() };
    for name in [LimitName::TcpMemPressure, LimitName::TcpMemHigh, LimitName::Memory] {
        assert!(of(name).used.is_some() && of(name).ceiling.is_some(), "{:?}", of(name));
    }
    for name in [LimitName::Nofile, LimitName::MemoryCgroup, LimitName::AcceptQueue] {
        assert_eq!((of(name).used, of(name).headroom), (None, None), "{:?}", of(name));
    }
}

pub(crate) fn rootless() -> Result<(), Skip> {
    can(&ROOTLESS)?;
    let snapshot = holders(&ROOTLESS, &[]);
    assert_eq!((snapshot.source, snapshot.scope), (Source::SockDiag, HoldersScope::Part));
    assert_eq!(
        (snapshot.total.closed_but_open, snapshot.unexplained_pages),
        (None, None),
        "{snapshot:?}"
    );
    assert!(tells(&snapshot.unseen, "its own user namespace"), "{snapshot:?}");
    let snapshot = states(&ROOTLESS, &[]);
    assert_eq!(snapshot.source, Source::SockDiag);
    assert!(tells(&snapshot.unseen, "its own user namespace"), "{snapshot:?}");
    let output = within(&ROOTLESS, &["watch", "--duration", "100ms"]);
    let said = &output.stderr;
    assert_eq!(output.code, Some(3), "{said}");
    assert!(said.contains("user namespace") && said.contains("sudo"), "{said}");
    assert_eq!((said.lines().count(), output.lines.len()), (1, 0), "{said}");
    Ok(())
}

/// A network namespace that is visible and can't be entered.
pub(crate) fn confined() -> Result<(), Skip> {
    needs_ebpf()?;
    can(&CONFINED)?;
    let (sender, answer) = channel();
    let (done, wait) = channel::<()>();
    let inside = thread::spawn(move || {
        confine::unshare_network().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = Namespace::open(Path::new(OWN)).unwrap().inode;
        // A process as a whole, which ends with this thread.
        let _other = Child::confined(Command::new("sleep").arg("600"), None).unwrap();
        sender.send((inode, listener.local_addr().unwrap().port())).unwrap();
        // Until the test has looked.
        let _ = wait.recv();
    });
    let (inode, port) = answer.recv().unwrap();
    let snapshot = states(&CONFINED, &[]);
    let own = |count: u64| (TcpState::Listen, port, inode, count);
    let rows = snapshot.rows.iter().map(|row| (row.state, row.port, row.netns, row.count));
    // Its listener has a descriptor, and is in no table that can be walked.
    assert!(!rows.clone().any(|row| row == own(1)), "{snapshot:?}");
    assert!(
        tells(&snapshot.unseen, &format!("connections in network namespace {inode}")),
        "{snapshot:?}"
    );
    let snapshot = holders(&CONFINED, &["--by", "port", "--top", "100000"]);
    let is_there = |row: &c1m_record::HolderRow| {
        (row.port, row.netns) == (Some(port), Some(inode)) && row.memory.sockets == 1
    };
    assert!(snapshot.rows.iter().any(is_there), "{snapshot:?}");
    assert_eq!(
        (snapshot.scope, snapshot.unlisted_sockets),
        (HoldersScope::Part, None),
        "{snapshot:?}"
    );
    let what = format!("sockets without a process in network namespace {inode}");
    assert!(tells(&snapshot.unseen, &what), "{snapshot:?}");
    let snapshot = records(within(&CONFINED, &["watch", "--json", "--duration", "100ms"]));
    check_connections(&snapshot, None);
    done.send(()).unwrap();
    inside.join().unwrap();
    Ok(())
}
