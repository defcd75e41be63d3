use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::*;

const BEFORE: &str = "287898 383867 575796";

/// A tree with `net.ipv4.tcp_mem` and `fs.file-max`, and a folder for the state.
struct Host {
    tree: TempDir,
    run: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { tree: tempfile::tempdir().unwrap(), run: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.tree.path().join("net/ipv4")).unwrap();
        fs::create_dir_all(host.tree.path().join("fs")).unwrap();
        host.write("net/ipv4/tcp_mem", "287898\t383867\t575796\n");
        host.write("fs/file-max", "1000\n");
        host
    }

    fn write(&self, path: &str, value: &str) {
        fs::write(self.tree.path().join(path), value).unwrap();
    }

    fn tcp_mem(&self) -> String {
        Tree::at(self.tree.path()).read(&name("net.ipv4.tcp_mem")).unwrap()
    }

    fn state(&self) -> PathBuf {
        self.run.path().join(STATE_FILE)
    }

    fn take(&self) -> Result<(Guard, Vec<Outcome>), GuardError> {
        Guard::take(Tree::at(self.tree.path()), self.run.path(), Duration::ZERO)
    }

    /// A state file as a process leaves it that was killed after it had written `written` or was
    /// about to.
    fn leave_behind(&self, owner: Owner, written: &[&str]) {
        let settings = vec![Entry {
            name: name("net.ipv4.tcp_mem"),
            old: BEFORE.into(),
            written: written.iter().map(|value| (*value).into()).collect(),
            netns: Origin::of(&name("net.ipv4.tcp_mem")),
        }];
        write_state(self.run.path(), &State { v: STATE_VERSION, owner, settings }).unwrap();
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn change(text: &str, value: &str) -> Change {
    Change { name: name(text), value: value.into() }
}

fn dead() -> Owner {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    Owner { pid: child.id(), start_ticks: 1, boot_id: boot_id().unwrap() }
}

fn results(outcomes: &[Outcome]) -> Vec<&RestoreResult> {
    outcomes.iter().map(|outcome| &outcome.result).collect()
}

#[test]
fn what_was_changed_is_put_back() {
    let host = Host::new();
    let (mut guard, stale) = host.take().unwrap();
    assert_eq!(stale, []);
    guard.set(&[change("net.ipv4.tcp_mem", "1 2\t3"), change("fs.file-max", "2000")]).unwrap();
    assert_eq!(host.tcp_mem(), "1 2 3");
    guard.set(&[change("net.ipv4.tcp_mem", "4 5 6")]).unwrap();
    assert_eq!(host.tcp_mem(), "4 5 6");
    assert!(host.state().exists());
    assert_eq!(results(&guard.restore()), [&RestoreResult::Restored, &RestoreResult::Restored]);
    assert_eq!(host.tcp_mem(), BEFORE);
    assert!(!host.state().exists());
    // What is back is forgotten.
    assert_eq!(guard.restore(), []);
}

#[test]
fn an_end_an_error_and_a_panic_put_back_too() {
    let host = Host::new();
    let (mut guard, _) = host.take().unwrap();
    guard.set(&[change("net.ipv4.tcp_mem", "1 2 3")]).unwrap();
    drop(guard);
    assert_eq!(host.tcp_mem(), BEFORE);

    let (mut guard, _) = host.take().unwrap();
    let error = guard
        .set(&[change("net.ipv4.tcp_mem", "1 2 3"), change("net.ipv4.no_such", "1")])
        .unwrap_err();
    assert!(error.to_string().contains("net.ipv4.no_such"), "{error}");
    drop(guard);
    assert_eq!(host.tcp_mem(), BEFORE);

    let panicked = std::panic::catch_unwind(|| {
        let (mut guard, _) = host.take().unwrap();
        guard.set(&[change("net.ipv4.tcp_mem", "1 2 3")]).unwrap();
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(host.tcp_mem(), BEFORE);
    assert!(!host.state().exists());
}

#[test]
fn a_change_by_somebody_else_is_left_alone() {
    let host = Host::new();
    let (mut guard, _) = host.take().unwrap();
    guard.set(&[change("net.ipv4.tcp_mem", "1 2 3")]).unwrap();
    host.write("net/ipv4/tcp_mem", "7 8 9");
    let error = guard.set(&[change("net.ipv4.tcp_mem", "4 5 6")]).unwrap_err();
    assert!(matches!(error, GuardError::Foreign { .. }), "{error}");
    let outcomes = guard.restore();
    assert_eq!(results(&outcomes), [&RestoreResult::Foreign { present: "7 8 9".into() }]);
    assert!(!outcomes[0].is_back());
    let told = outcomes[0].to_string();
    for value in ["7 8 9", "1 2 3", BEFORE] {
        assert!(told.contains(value), "{told}");
    }
    assert_eq!(host.tcp_mem(), "7 8 9");
    assert!(!host.state().exists());
}

#[test]
fn the_next_run_puts_back_what_a_killed_one_left() {
    let host = Host::new();
    host.leave_behind(dead(), &["1 2 3", "4 5 6"]);
    // Killed between the file and the second change.
    host.write("net/ipv4/tcp_mem", "1 2 3");
    let (_guard, stale) = host.take().unwrap();
    assert_eq!(results(&stale), [&RestoreResult::Restored]);
    assert_eq!(host.tcp_mem(), BEFORE);
    assert!(!host.state().exists());
}

#[test]
fn a_crash_before_the_change_is_harmless() {
    let host = Host::new();
    host.leave_behind(dead(), &["1 2 3"]);
    let (_guard, stale) = host.take().unwrap();
    assert_eq!(results(&stale), [&RestoreResult::Unchanged]);
    assert_eq!(host.tcp_mem(), BEFORE);
}

#[test]
fn a_file_from_before_the_last_boot_means_nothing() {
    let host = Host::new();
    host.leave_behind(Owner { boot_id: "another".into(), ..dead() }, &["1 2 3"]);
    host.write("net/ipv4/tcp_mem", "1 2 3");
    let (_guard, stale) = host.take().unwrap();
    assert_eq!(stale, []);
    assert_eq!(host.tcp_mem(), "1 2 3");
    assert!(!host.state().exists());
}

#[test]
fn one_run_at_a_time() {
    let host = Host::new();
    let (guard, _) = host.take().unwrap();
    let error = host.take().unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(guard);

    // Also when the lock is not there any more, but its owner is.
    let pid = std::process::id();
    let start_ticks = start_ticks(pid).unwrap();
    host.leave_behind(Owner { pid, start_ticks, boot_id: boot_id().unwrap() }, &["1 2 3"]);
    assert!(matches!(host.take(), Err(GuardError::Busy { .. })));
    assert!(host.state().exists());
    // Another process with the same number is not the owner.
    let owner = Owner { pid, start_ticks: start_ticks + 1, boot_id: boot_id().unwrap() };
    host.leave_behind(owner, &["1 2 3"]);
    assert!(host.take().is_ok());
}

#[test]
fn a_file_that_is_not_understood_is_kept() {
    let owner = r#""owner":{"pid":1,"start_ticks":1,"boot_id":"x"}"#;
    for text in [
        String::new(),
        // Before a setting had its network namespace.
        format!(r#"{{"v":1,{owner},"settings":[]}}"#),
        "{".into(),
        "[]".into(),
        "\0\u{1}".into(),
        format!(r#"{{"v":99,{owner},"settings":[]}}"#),
        format!(
            r#"{{"v":2,{owner},"settings":[{{"name":"../../etc/passwd","old":"1","written":["2"]}}]}}"#
        ),
        format!(r#"{{"v":2,{owner},"settings":[{{"name":"fs.file-max","old":"1"}}]}}"#),
    ] {
        let host = Host::new();
        fs::write(host.state(), &text).unwrap();
        let error = host.take().unwrap_err();
        assert!(matches!(error, GuardError::Garbage { .. }), "{text}: {error}");
        assert!(error.to_string().contains(&host.state().display().to_string()));
        assert_eq!(fs::read_to_string(host.state()).unwrap(), text);
        assert_eq!(host.tcp_mem(), BEFORE);
    }
}

#[test]
fn what_cannot_be_put_back_is_kept_for_the_next_attempt() {
    let host = Host::new();
    let (mut guard, _) = host.take().unwrap();
    guard.set(&[change("net.ipv4.tcp_mem", "1 2 3"), change("fs.file-max", "2000")]).unwrap();
    fs::rename(host.tree.path().join("fs"), host.tree.path().join("away")).unwrap();
    let outcomes = guard.restore();
    assert!(
        matches!(results(&outcomes)[..], [RestoreResult::Failed { .. }, RestoreResult::Restored]),
        "{outcomes:?}"
    );
    drop(guard);
    assert!(host.state().exists());

    fs::rename(host.tree.path().join("away"), host.tree.path().join("fs")).unwrap();
    let mut state = read_state(&host.state()).unwrap().unwrap();
    state.owner = dead();
    write_state(host.run.path(), &state).unwrap();
    let (_guard, stale) = host.take().unwrap();
    assert_eq!(results(&stale), [&RestoreResult::Restored]);
    assert_eq!(fs::read_to_string(host.tree.path().join("fs/file-max")).unwrap(), "1000\n");
}

#[test]
fn a_process_that_was_not_waited_for_is_no_owner() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    assert!(start_ticks(child.id()).is_some());
    child.kill().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while start_ticks(child.id()).is_some() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(start_ticks(child.id()), None);
    child.wait().unwrap();
}

#[test]
fn what_is_kept_waits_for_its_restoring_and_not_for_the_next_run() {
    let host = Host::new();
    // A test beside this one that starts a program has the lock for an instant, too: between fork
    // and exec.
    let take = || Guard::take(Tree::at(host.tree.path()), host.run.path(), Duration::from_secs(10));
    let (mut guard, _) = take().unwrap();
    guard.set(&[change("net.ipv4.tcp_mem", "1 2 3"), change("fs.file-max", "2000")]).unwrap();
    guard.keep().unwrap();
    assert_eq!(host.tcp_mem(), "1 2 3");
    // Kept again with another value: what was there at first counts.
    let (mut guard, outcomes) = take().unwrap();
    assert_eq!(outcomes, []);
    guard.set(&[change("net.ipv4.tcp_mem", "4 5 6")]).unwrap();
    guard.keep().unwrap();
    // Another run in between puts back its own change alone.
    let (mut guard, _) = take().unwrap();
    guard.set(&[change("net.ipv4.tcp_mem", "7 8 9")]).unwrap();
    drop(guard);
    assert_eq!(host.tcp_mem(), "4 5 6");
    host.write("fs/file-max", "3000");
    let (mut guard, _) = take().unwrap();
    let results: Vec<RestoreResult> =
        guard.restore_kept().unwrap().into_iter().map(|it| it.result).collect();
    assert_eq!(
        results,
        [RestoreResult::Foreign { present: "3000".into() }, RestoreResult::Restored]
    );
    assert_eq!(host.tcp_mem(), BEFORE);
    assert_eq!(guard.restore_kept().unwrap(), []);
}

/// What `body` returns in a thread with a network namespace of its own. Without the privilege to have one, the test fails: it must not count as
/// passed.
fn in_own_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let in_thread = || {
        c1m_sys::confine::unshare_network().unwrap_or_else(|error| {
            panic!("no network namespace of its own: {error}; run the tests as root, or by `unshare --map-root-user --net cargo test`")
        });
        body()
    };
    thread::spawn(in_thread).join().unwrap()
}

fn somaxconn() -> String {
    Tree::at(Tree::KERNEL).read(&name("net.core.somaxconn")).unwrap()
}

/// A run in one namespace was killed; another one, in another namespace, puts back what it left,
/// where it belongs.
#[test]
fn a_setting_is_put_back_in_its_own_network_namespace() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().to_owned();
    let take = |folder: &Path| Guard::take(Tree::at(Tree::KERNEL), folder, Duration::from_secs(10));
    let ours = somaxconn();
    let (before, namespace) = in_own_namespace(move || {
        let before = somaxconn();
        let (mut guard, _) = take(&folder).unwrap();
        guard.set(&[change("net.core.somaxconn", "1234")]).unwrap();
        // As a kill leaves it.
        guard.state.owner = dead();
        write_state(&folder, &guard.state).unwrap();
        guard.state.settings.clear();
        (before, crate::namespaces::own().unwrap())
    });
    assert_eq!(namespace.within(somaxconn).unwrap(), "1234");
    let (mut guard, stale) = take(run.path()).unwrap();
    assert_eq!(results(&stale), [&RestoreResult::Restored]);
    let told = stale[0].to_string();
    assert!(told.contains(&format!("net:[{}]", namespace.inode)), "{told}");
    assert_eq!(namespace.within(somaxconn).unwrap(), before);
    assert_eq!(somaxconn(), ours);
    // One name in two namespaces is two settings.
    namespace.within(|| guard.set(&[change("net.core.somaxconn", "1235")]).unwrap()).unwrap();
    guard.set(&[change("net.core.somaxconn", &ours)]).unwrap();
    guard.keep().unwrap();
    let (mut guard, _) = take(run.path()).unwrap();
    let outcomes = guard.restore_kept().unwrap();
    assert_eq!(results(&outcomes), [&RestoreResult::Unchanged, &RestoreResult::Restored]);
    assert_eq!((outcomes[0].elsewhere.is_some(), outcomes[1].elsewhere.is_some()), (false, true));
    assert_eq!(namespace.within(somaxconn).unwrap(), before);
}

/// Its namespace is gone: nothing is written here, and nothing is kept.
#[test]
fn a_setting_of_a_namespace_that_is_gone_is_not_written_elsewhere() {
    let host = Host::new();
    let run = host.run.path().to_owned();
    let tree = host.tree.path().to_owned();
    in_own_namespace(move || {
        let (mut guard, _) = Guard::take(Tree::at(&tree), &run, Duration::ZERO).unwrap();
        guard.set(&[change("net.ipv4.tcp_mem", "1 2 3")]).unwrap();
        guard.state.owner = dead();
        write_state(&run, &guard.state).unwrap();
        guard.state.settings.clear();
    });
    let (_guard, stale) = host.take().unwrap();
    assert_eq!(host.tcp_mem(), "1 2 3", "this one belongs to another namespace");
    match results(&stale)[..] {
        [RestoreResult::Gone] => assert!(stale[0].is_back() && !host.state().exists()),
        // Inside a container it may be somewhere else.
        [RestoreResult::Failed { .. }] => assert!(!stale[0].is_back() && host.state().exists()),
        ref other => panic!("{other:?}"),
    }
}
