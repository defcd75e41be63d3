//! The programs that a guest has: those of the host, as cargo builds them for tests.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result};

use crate::{exit, place, process};

/// What cargo built, by the name of its target.
pub(crate) type Built = BTreeMap<String, PathBuf>;

/// Builds with cargo, and says where each executable is.
pub(crate) fn build(arguments: &[&str]) -> Result<Built> {
    let mut command = process::cargo();
    command
        .current_dir(place::root())
        .args(arguments)
        .arg("--message-format=json-render-diagnostics");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        return Err(exit::failed("the build failed: cargo says why above"));
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The programs that every guest has.
pub(crate) fn workspace() -> Result<Built> {
    build(&["build", "--workspace", "--bins"])
}

/// The programs that stand in a folder already.
pub(super) fn in_folder(folder: &Path) -> Result<Built> {
    let files =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files = files.filter_map(Result::ok).map(|file| file.path());
    Ok(files.filter_map(|file| Some((file.file_name()?.to_str()?.to_owned(), file))).collect())
}

/// Where cargo put the executables, from its messages. A test and a program of one name are told apart: the test's name here is
/// `test:NAME`.
fn executables(messages: &str) -> Built {
    #[derive(serde::Deserialize)]
    struct Artifact {
        target: Target,
        profile: Profile,
        executable: Option<PathBuf>,
    }
    #[derive(serde::Deserialize)]
    struct Target {
        name: String,
    }
    #[derive(serde::Deserialize)]
    struct Profile {
        test: bool,
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter_map(|it| {
            let prefix = if it.profile.test { "test:" } else { "" };
            Some((format!("{prefix}{}", it.target.name), it.executable?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_tests_are_told_apart() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"libc"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"c1m-server"},"profile":{"test":false},"executable":"/t/c1m-server"}
{"reason":"compiler-artifact","target":{"name":"c1m-server"},"profile":{"test":true},"executable":"/t/deps/c1m_server-1"}
not json
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 2);
        assert_eq!(found["c1m-server"], PathBuf::from("/t/c1m-server"));
        assert_eq!(found["test:c1m-server"], PathBuf::from("/t/deps/c1m_server-1"));
    }
}
