//! No path of the machine that built an object may be in it: it would differ from machine to machine, and tell about them.

use std::path::PathBuf;

/// Folders under which people and packages keep things, on whatever machine.
const FOLDERS: [&str; 7] = ["/home/", "/root/", "/Users/", "/usr/", "/tmp/", "/opt/", "/var/"];

/// The shortest text that is looked at: shorter runs of printable bytes are accidents of the code.
const SHORTEST: usize = 4;

/// The strings in `bytes` that are an absolute path, or that mention a folder of a machine: `known` ones or usual ones.
///
/// A path is remapped to one that does not begin with a slash, so every absolute one came by accident.
pub(crate) fn find(bytes: &[u8], known: &[PathBuf]) -> Vec<String> {
    let known: Vec<String> = below(known).chain(FOLDERS.map(str::to_owned)).collect();
    texts(bytes, |text| is_absolute_path(text) || known.iter().any(|folder| mentions(text, folder)))
}

/// The strings in `bytes` that mention one of these folders: for a program, which has paths of every machine in it.
pub(crate) fn mentioned(bytes: &[u8], known: &[PathBuf]) -> Vec<String> {
    let known: Vec<String> = below(known).collect();
    texts(bytes, |text| known.iter().any(|folder| mentions(text, folder)))
}

fn below(folders: &[PathBuf]) -> impl Iterator<Item = String> {
    folders
        .iter()
        .filter(|folder| folder.components().count() > 1)
        .map(|folder| format!("{}/", folder.display()))
}

/// The runs of printable bytes that are meant, in order and once each.
fn texts(bytes: &[u8], is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found: Vec<String> = bytes
        .split(|byte| !(0x20..0x7f).contains(byte))
        .filter(|run| run.len() >= SHORTEST)
        .map(|run| String::from_utf8_lossy(run).into_owned())
        .filter(|text| is_meant(text))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// `/name/…`, with no space in it: not a comment, and not a fraction.
fn is_absolute_path(text: &str) -> bool {
    let mut parts = text.split('/');
    let name = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
    };
    parts.next() == Some("") && parts.next().is_some_and(name) && parts.next().is_some_and(name)
}

/// Whether `folder` is in `text` as the beginning of a path, not as the end of a longer one.
fn mentions(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        !text[..at]
            .ends_with(|before: char| before.is_ascii_alphanumeric() || "._-".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Vec<String> {
        find(bytes, &[PathBuf::from("/srv/checkout"), PathBuf::from("/")])
    }

    #[test]
    fn absolute_paths_are_found_wherever_they_stand() {
        assert_eq!(found(b"\0\x01/build/c1m/src/main.rs\0"), ["/build/c1m/src/main.rs"]);
        assert_eq!(found(b"at /usr/src/rustc/lib.rs:1\0"), ["at /usr/src/rustc/lib.rs:1"]);
        assert_eq!(found(b"x=/srv/checkout/c1m\0/opt/a\0"), ["/opt/a", "x=/srv/checkout/c1m"]);
    }

    #[test]
    fn a_program_may_name_paths_but_those_of_its_machine() {
        let known = [PathBuf::from("/srv/checkout"), PathBuf::from("/")];
        let bytes = b"/proc/self/status\0\x01/usr/lib/x\0at /srv/checkout/c1m/main.rs\0";
        assert_eq!(mentioned(bytes, &known), ["at /srv/checkout/c1m/main.rs"]);
    }

    #[test]
    fn remapped_paths_and_source_text_are_not() {
        for innocent in [
            &b"c1m-ebpf/src/main.rs\0rust/library/core/src/ptr/mod.rs\0"[..],
            b"tp_btf/inet_sock_set_state\0",
            b"    // a / b\0",
            b"// see net/ipv4/tcp.c\0",
            b"/x\0/a b/c\0",
            b"sysroot/usr/lib\0",
        ] {
            assert!(found(innocent).is_empty(), "{:?}", found(innocent));
        }
    }
}
