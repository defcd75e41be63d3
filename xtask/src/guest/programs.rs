//! The programs that a guest has: linked statically, since there is nothing else in it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{exit, place, process};

/// What cargo built, by the name of its target.
pub(crate) type Built = BTreeMap<String, PathBuf>;

/// A cargo command that builds statically, for the machine that it runs on, without debug information.
///
/// Its artifacts stand beside the others, in a folder named after the target. The settings are arguments, not variables: a test
/// that runs cargo would hand those down.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let target = host()?;
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let flags: Vec<String> = flags
        .split_whitespace()
        .chain(["-Ctarget-feature=+crt-static"])
        .map(|flag| serde_json::to_string(flag).context("cannot quote a flag"))
        .collect::<Result<_>>()?;
    let mut command = process::cargo();
    command
        .current_dir(place::root())
        .args(arguments)
        .args(["--target", &target])
        .args(["--config", &format!("target.{target}.rustflags=[{}]", flags.join(","))])
        .args(["--config", "profile.dev.debug=0"])
        // Each would be taken instead of the flags above.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(command)
}

/// Builds with [`cargo`], and says where each executable is.
pub(crate) fn build(arguments: &[&str]) -> Result<Built> {
    let mut command = cargo(arguments)?;
    command.arg("--message-format=json-render-diagnostics");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        return Err(exit::failed(
            "the static build failed: cargo says why above (it needs the C library as an archive, libc.a; Debian has it in libc6-dev)",
        ));
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

/// The target triple of the compiler's own machine: where the programs of a guest can be tested as well.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = process::ask(Command::new(rustc).current_dir(place::root()).arg("-vV"));
    text.iter()
        .flat_map(|text| text.lines())
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not say what it builds for")
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

    #[test]
    fn the_compiler_says_what_it_builds_for() {
        assert!(host().unwrap().contains(env::consts::ARCH));
    }
}
