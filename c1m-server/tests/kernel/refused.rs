//! What keeps tracing from starting is said in one line, before the port is touched.

use std::{fs, net::TcpListener, os::unix::process::CommandExt as _, path::Path, process::Command};

use c1m_testkit::{
    Skip,
    child::{Copy, is_root, outcome},
};

use crate::server::{binary, needs_ebpf};

/// `nobody` on most systems, and without privilege on all.
const NOBODY: u32 = 65534;

pub(crate) fn without_privilege() -> Result<(), Skip> {
    let copy = Copy::of(&binary()).unwrap();
    let mut command = Command::new(&copy.path);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let line = refused(&mut command, &[]);
    for part in ["CAP_BPF", "CAP_PERFMON", "sudo"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    Ok(())
}

pub(crate) fn wrong_objects() -> Result<(), Skip> {
    needs_ebpf()?;
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ours = fs::read(root.join("c1m-ebpf/prebuilt/c1m.bpf.o")).unwrap();
    let missing = folder.path().join("missing.o");
    let cases = [
        ("garbage", b"no object at all".to_vec()),
        ("empty", Vec::new()),
        ("ELF of another kind", fs::read(binary()).unwrap()),
        ("torn", ours[..ours.len() / 2].to_vec()),
        ("without our settings", renamed(&ours, "LAYOUT")),
        ("without our counters", renamed(&ours, "COUNTERS")),
        ("without our events", renamed(&ours, "EVENTS")),
    ];
    for (name, contents) in cases {
        let file = folder.path().join("object.o");
        fs::write(&file, contents).unwrap();
        let line = refused(&mut Command::new(binary()), &["--ebpf-object", file.to_str().unwrap()]);
        assert!(line.contains("--ebpf-object"), "{name}: {line}");
        assert!(line.contains("cargo xtask build-ebpf"), "{name}: {line}");
    }
    let line = refused(&mut Command::new(binary()), &["--ebpf-object", missing.to_str().unwrap()]);
    assert!(line.contains("missing.o") && line.contains("--ebpf-object"), "{line}");
    assert!(line.contains("No such file"), "{line}");
    Ok(())
}

/// Starts a server on a port that is taken, which it must not notice. Its one line on standard error.
fn refused(command: &mut Command, arguments: &[&str]) -> String {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    command.args(["--trace", "--json", "--listen", &address.to_string()]).args(arguments);
    let outcome = outcome(command);
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code, Some(3), "{stderr}");
    assert_eq!(outcome.stdout(), "", "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    let [line] = lines[..] else { panic!("not one line: {stderr}") };
    let port = address.port().to_string();
    let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    assert!(!words.contains(&port.as_str()) && !line.contains("in use"), "{line}");
    line.to_owned()
}

/// The object with another name in place of this one: whole, and not ours.
fn renamed(object: &[u8], name: &str) -> Vec<u8> {
    let mut object = object.to_vec();
    let entry = [b"\0", name.as_bytes(), b"\0"].concat();
    let places: Vec<usize> =
        (0..object.len() - entry.len()).filter(|at| object[*at..].starts_with(&entry)).collect();
    assert!(!places.is_empty(), "no {name} in the object");
    for at in places {
        object[at + 1] = b'_';
    }
    object
}
